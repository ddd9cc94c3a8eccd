// The panels of a task's page, one open at a time: guidelines, keys, note, questions to the admins, skip.
"use strict";

function makePanels(form, signal) {
  const panels = [...form.querySelectorAll("[data-menu]")];
  const find = (name) => panels.find((panel) => panel.dataset.menu === name);

  // The bar is as high as what it says; what stands above it has to know.
  const bar = form.querySelector(".rank-bar");
  const measure = new ResizeObserver(() => form.style.setProperty("--bar", `${bar.offsetHeight}px`));
  if (bar) measure.observe(bar);
  signal.addEventListener("abort", () => measure.disconnect());

  function close() {
    for (const panel of panels) panel.open = false;
  }

  return {
    close,
    // Whether it is open now.
    toggle(name) {
      const panel = find(name);
      if (!panel) return false;
      const opens = !panel.open;
      close();
      panel.open = opens;
      const summary = panel.querySelector("summary");
      (opens ? (panel.querySelector("textarea, .rank-panel-text") ?? summary) : summary).focus();
      return opens;
    },
    // A digit is a reason while the focus is where they are listed.
    pressReason(digit) {
      const skip = find("skip");
      if (!skip?.open || !skip.contains(document.activeElement)) return false;
      skip.querySelectorAll("[name=reason]")[Number(digit) - 1]?.click();
      return true;
    },
    // What the focus is in goes: a question that is being asked, else the task.
    submit(button) {
      const sent = document.activeElement?.closest("[data-menu]")?.querySelector("[formaction]") ?? button;
      if (!sent.disabled) form.requestSubmit(sent);
    },
  };
}
