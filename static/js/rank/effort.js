// How a ranking is made: time, what was in view for how long and how far, and how often minds changed. It goes on from what the form
// says already.
"use strict";

function keepEffort(ranking, signal) {
  const { cards = {}, moves = 0, undos = 0 } = JSON.parse(ranking.form.elements.effort.value || "{}");
  const views = new Map(ranking.cards.map((card) => [card, { ms: 0, depth: 0, ...cards[card.dataset.output] }]));
  const changes = { moves, undos };
  const dialog = document.querySelector("[data-compare]");

  function look(elapsed) {
    for (const [card, view] of views) {
      const shown = dialog.open ? dialog.querySelector(`[data-shows="${card.dataset.output}"]`) : card;
      if (!shown) continue;
      const { top, bottom, height } = shown.getBoundingClientRect();
      const end = shown.parentElement.closest("[data-compare] section")?.getBoundingClientRect().bottom ?? innerHeight;
      if (bottom <= 0 || top >= end) continue;
      view.ms += elapsed;
      view.depth = Math.max(view.depth, Math.min(1, (end - top) / height));
    }
  }

  const round = ({ ms, depth }) => ({ ms: Math.round(ms), depth: Math.round(depth * 100) / 100 });

  function tellEffort() {
    const seen = Object.fromEntries([...views].map(([card, view]) => [card.dataset.output, round(view)]));
    const width = innerWidth < 768 ? "phone" : innerWidth < 1280 ? "tablet" : "wide";
    return JSON.stringify({ cards: seen, ...changes, window: width });
  }

  keepClocks(ranking.form, { signal, onTick: look });
  ranking.form.addEventListener("formdata", (event) => event.formData.set("effort", tellEffort()));
  return changes;
}
