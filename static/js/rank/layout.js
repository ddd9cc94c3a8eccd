// How a wide window is laid out: the prompt beside the responses or folded away, these below each other or in as many columns as
// fit. Kept on the device.
"use strict";

function makeLayout({ form, words }, say) {
  const MEMORY = `preferable-layout-${form.dataset.person}`;
  const CLASSES = { columns: "is-in-columns", fold: "is-folded" };
  const prompt = form.querySelector(".rank-prompt");
  const chosen = new Set((localStorage.getItem(MEMORY) ?? "").split(" "));
  const countColumns = () => getComputedStyle(form.querySelector(".rank-outputs")).gridTemplateColumns.split(" ").length;

  function draw() {
    for (const [name, ofForm] of Object.entries(CLASSES)) {
      form.classList.toggle(ofForm, chosen.has(name));
      form.querySelector(`[data-act=${name}]`).setAttribute("aria-pressed", String(chosen.has(name)));
    }
  }

  function turn(name, isOn) {
    chosen[isOn ? "add" : "delete"](name);
    localStorage.setItem(MEMORY, [...chosen].filter((one) => one in CLASSES).join(" "));
    draw();
  }

  function fold() {
    turn("fold", !chosen.has("fold"));
    say(chosen.has("fold") ? words.folded : words.unfolded);
  }

  // The prompt makes room where there is none for two.
  function columns() {
    turn("columns", !chosen.has("columns"));
    if (!chosen.has("columns")) return say(words.oneColumn);
    if (countColumns() < 2) turn("fold", true);
    say(countColumns() < 2 ? words.noColumns : fill(words.columns, { count: countColumns() }));
  }

  // A folded prompt is seen as long as it has the focus.
  const peek = (isSeen) => form.classList.toggle("is-peeking", isSeen);
  prompt.addEventListener("focusin", () => peek(true));
  prompt.addEventListener("focusout", (event) => prompt.contains(event.relatedTarget) || peek(false));

  draw();
  return { fold, columns, peek };
}
