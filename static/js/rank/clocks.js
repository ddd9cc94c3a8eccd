// How a ranking is made: time active and idle, what was in view for how long and how far, and how often minds changed.
// Active is while the page is seen and something was touched in the last minute. It goes on from what the form says already.
"use strict";

function keepClocks(ranking, signal) {
  const { active_ms: active, idle_ms: idle, effort } = ranking.form.elements;
  const clocks = { active_ms: Number(active.value), idle_ms: Number(idle.value) };
  const { cards = {}, moves = 0, undos = 0 } = JSON.parse(effort.value || "{}");
  const views = new Map(ranking.cards.map((card) => [card, { ms: 0, depth: 0, ...cards[card.dataset.output] }]));
  const changes = { moves, undos };
  const dialog = document.querySelector("[data-compare]");
  let tickedAt = performance.now();
  let touchedAt = tickedAt;

  function tick() {
    const now = performance.now();
    const isActive = document.visibilityState === "visible" && now - touchedAt < 60_000;
    clocks[isActive ? "active_ms" : "idle_ms"] += now - tickedAt;
    for (const [card, view] of views) {
      const shown = dialog.open ? dialog.querySelector(`[data-shows="${card.dataset.output}"]`) : card;
      if (!isActive || !shown) continue;
      const { top, bottom, height } = shown.getBoundingClientRect();
      const end = shown.parentElement.closest("[data-compare] section")?.getBoundingClientRect().bottom ?? innerHeight;
      if (bottom <= 0 || top >= end) continue;
      view.ms += now - tickedAt;
      view.depth = Math.max(view.depth, Math.min(1, (end - top) / height));
    }
    tickedAt = now;
  }

  const round = ({ ms, depth }) => ({ ms: Math.round(ms), depth: Math.round(depth * 100) / 100 });

  function tellEffort() {
    const seen = Object.fromEntries([...views].map(([card, view]) => [card.dataset.output, round(view)]));
    const width = innerWidth < 768 ? "phone" : innerWidth < 1280 ? "tablet" : "wide";
    return JSON.stringify({ cards: seen, ...changes, window: width });
  }

  for (const name of ["keydown", "pointermove", "scroll", "touchstart"]) {
    document.addEventListener(name, () => (touchedAt = performance.now()), { passive: true, capture: true, signal });
  }
  document.addEventListener("visibilitychange", tick, { signal });
  const ticking = setInterval(tick, 1000);
  signal.addEventListener("abort", () => clearInterval(ticking));
  ranking.form.addEventListener("formdata", (event) => {
    tick();
    for (const [name, value] of Object.entries(clocks)) event.formData.set(name, String(Math.round(value)));
    event.formData.set("effort", tellEffort());
  });
  return changes;
}
