// How a wide window is laid out: the prompt beside the responses or folded away, these below each other or in as many columns as
// fit. Kept on the device.
"use strict";

function makeLayout({ form, words }, say) {
  const MEMORY = `preferable-layout-${form.dataset.person}`;
  const NAMES = ["columns", "fold", "room"]; // the prompt is folded by choice, or to make room for columns
  const isWide = matchMedia("(width >= 80rem)");
  const prompt = form.querySelector(".rank-prompt");
  let chosen = new Set((localStorage.getItem(MEMORY) ?? "").split(" ").filter((name) => NAMES.includes(name)));
  const isFolded = () => chosen.has("fold") || chosen.has("room");
  const tracks = () => getComputedStyle(form.querySelector(".rank-outputs")).gridTemplateColumns.split(" ");
  const countColumns = () => tracks().filter((track) => track !== "0px").length; // without those that are empty

  function draw() {
    for (const [name, className, isOn] of [
      ["columns", "is-in-columns", chosen.has("columns")],
      ["fold", "is-folded", isFolded()],
    ]) {
      form.classList.toggle(className, isOn);
      form.querySelector(`[data-act=${name}]`).setAttribute("aria-pressed", String(isOn));
    }
  }

  function choose(...names) {
    chosen = new Set(names);
    localStorage.setItem(MEMORY, names.join(" "));
    draw();
  }

  function fold() {
    if (!isWide.matches) return say(words.onlyWide);
    const others = [...chosen].filter((name) => name === "columns");
    choose(...others, ...(isFolded() ? [] : ["fold"]));
    say(isFolded() ? words.folded : words.unfolded);
  }

  function columns() {
    if (!isWide.matches) return say(words.onlyWide);
    const others = [...chosen].filter((name) => name === "fold");
    choose(...others, ...(chosen.has("columns") ? [] : ["columns"]));
    if (!chosen.has("columns")) return say(words.oneColumn);
    const wasFolded = isFolded();
    if (countColumns() < 2) choose(...chosen, "room");
    say([fill(words.columns, { count: countColumns() }), isFolded() && !wasFolded && words.folded].filter(Boolean).join(" "));
  }

  // A folded prompt is seen as long as it has the focus.
  const peek = (isSeen) => form.classList.toggle("is-peeking", isSeen);
  prompt.addEventListener("focusin", () => peek(true));
  prompt.addEventListener("focusout", (event) => prompt.contains(event.relatedTarget) || peek(false));

  draw();
  return { fold, columns, peek };
}
