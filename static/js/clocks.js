// How long a form was worked on: active while the page is seen and something was touched in the last minute, idle otherwise. It goes
// on from what the form says already.
"use strict";

// `onTick` is told how long it was active, whenever it was.
function keepClocks(form, { signal, onTick = () => {} }) {
  const { active_ms: active, idle_ms: idle } = form.elements;
  const clocks = { active_ms: Number(active.value), idle_ms: Number(idle.value) };
  let tickedAt = performance.now();
  let touchedAt = tickedAt;

  function tick() {
    const now = performance.now();
    const elapsed = now - tickedAt;
    const isActive = document.visibilityState === "visible" && now - touchedAt < 60_000;
    clocks[isActive ? "active_ms" : "idle_ms"] += elapsed;
    if (isActive) onTick(elapsed);
    tickedAt = now;
  }

  for (const name of ["keydown", "pointermove", "scroll", "touchstart"]) {
    document.addEventListener(name, () => (touchedAt = performance.now()), { passive: true, capture: true, signal });
  }
  document.addEventListener("visibilitychange", tick, { signal });
  const ticking = setInterval(tick, 1000);
  signal.addEventListener("abort", () => clearInterval(ticking));
  form.addEventListener("formdata", (event) => {
    tick();
    for (const [name, value] of Object.entries(clocks)) event.formData.set(name, String(Math.round(value)));
  });
}
