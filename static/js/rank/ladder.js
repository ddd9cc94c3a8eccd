// The ladder: a row for every tier, for what is unranked and for what is not rankable; a chip for every response, in its row.
"use strict";

function makeLadder(ranking, place, { flagsOf, onChip }) {
  const { words, cards } = ranking;
  const tiers = cards.map((_, at) => String(at + 1));
  const marks = [
    ...tiers.map((tier) => [tier, tier, fill(words.tierRow, { tier })]),
    [UNRANKED, "?", words.unrankedRow],
    [UNRANKABLE, "✕", words.unrankableRow],
  ];
  const list = element("ol", "ladder");
  const rows = new Map(marks.map(([tier, mark, title]) => [tier, makeRow(tier, mark, title)]));
  const chips = new Map(cards.map((card) => [card, makeChip(card)]));
  const isStrip = matchMedia("(width < 80rem)"); // narrower than its chips, perhaps
  place.querySelector(".rank-view").before(list);

  function element(name, className, text = "") {
    return Object.assign(document.createElement(name), { className, textContent: text });
  }

  function makeRow(tier, mark, title) {
    const row = element("li", "ladder-row");
    const name = element("span", "ladder-mark", mark);
    const held = element("div", "ladder-chips");
    row.dataset.tier = tier;
    name.title = title;
    row.append(name, held);
    list.append(row);
    return { row, held };
  }

  function makeChip(card) {
    const chip = element("button", "chip");
    const flags = element("span", "chip-flags");
    const begins = card.querySelector(".output-text").textContent.trim().slice(0, 60);
    chip.type = "button";
    chip.title = fill(words.goTo, { letter: ranking.letterOf(card) });
    chip.dataset.chip = ranking.letterOf(card);
    chip.append(ranking.letterOf(card), Object.assign(element("span", "chip-words", begins), { dir: "auto" }), flags);
    chip.addEventListener("click", () => onChip(card));
    return { chip, flags };
  }

  function draw(current) {
    for (const [tier, { row, held }] of rows) {
      const wanted = cards.filter((card) => ranking.valueOf(card, "tier") === tier).map((card) => chips.get(card).chip);
      const isDrawn = wanted.length === held.children.length && wanted.every((chip, at) => chip === held.children[at]);
      if (isDrawn) continue;
      held.replaceChildren(...wanted);
      row.classList.toggle("is-empty", wanted.length === 0);
    }
    if (isStrip.matches) chips.get(current).chip.scrollIntoView({ block: "nearest", inline: "nearest" });
    for (const [card, { chip, flags }] of chips) {
      const count = flagsOf(card);
      chip.classList.toggle("is-current", card === current);
      chip.setAttribute("aria-current", String(card === current));
      flags.textContent = count ? `⚑${count}` : "";
    }
  }

  for (const { row } of rows.values()) row.classList.add("is-empty");
  return { list, draw, chipOf: (card) => chips.get(card).chip };
}
