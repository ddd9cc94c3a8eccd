// What every page does beyond plain HTML: show that a form is on its way, and never send it twice.
"use strict";

// Where the tabs are wider than the screen, the one that is open is seen. The row alone moves, never the page.
const tabs = document.querySelector(".masthead-nav");
const openTab = tabs?.querySelector("[aria-current]");
if (openTab) tabs.scrollLeft = openTab.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - openTab.offsetWidth) / 2;

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.matches("[hx-post], [hx-get]")) return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  event.submitter?.classList.add("is-busy");
});

// A page that comes back from the browser's cache is as it was before its form was sent.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of document.querySelectorAll(".is-busy")) button.classList.remove("is-busy");
});

// Copy buttons, shown only where the browser can copy.
for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = button.dataset.done ?? "✓";
  });
}

// One button opens all that is folded in a place, and folds it again; a place may be swapped in later.
document.documentElement.classList.add("has-scripts");
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-unfold]");
  if (!button) return;
  const folds = [...document.getElementById(button.dataset.unfold).querySelectorAll("details")];
  const opens = folds.some((fold) => !fold.open);
  for (const fold of folds) fold.open = opens;
  button.setAttribute("aria-expanded", String(opens));
});
