// How a ranking is made: time active and idle, what was in view for how long and how far, and how often minds changed.
// Active is while the page is seen and something was touched in the last minute.
"use strict";

function keepClocks(ranking, signal) {
  const clocks = { active_ms: 0, idle_ms: 0 };
  const views = new Map(ranking.cards.map((card) => [card, { ms: 0, depth: 0 }]));
  const changes = { moves: 0, undos: 0 };
  let tickedAt = performance.now();
  let touchedAt = tickedAt;

  function tick() {
    const now = performance.now();
    const isActive = document.visibilityState === "visible" && now - touchedAt < 60_000;
    clocks[isActive ? "active_ms" : "idle_ms"] += now - tickedAt;
    for (const [card, view] of views) {
      const { top, bottom, height } = card.getBoundingClientRect();
      if (!isActive || bottom <= 0 || top >= innerHeight) continue;
      view.ms += now - tickedAt;
      view.depth = Math.max(view.depth, Math.min(1, (innerHeight - top) / height));
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
