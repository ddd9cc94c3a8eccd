// Drag by mouse or pen: a response's handle, or a chip, onto a row of the ladder, or between two rows for a tier of its own.
// Never by touch, which scrolls, nor where the window is a phone's.
"use strict";

const DRAG_STARTS_PX = 5;
const BETWEEN_SHARE = 0.22; // of a row at either edge

function letDrag(ranking, ladder, { signal, say, current }) {
  const { form, words, cards } = ranking;
  const isPhone = matchMedia("(width < 48rem)");
  let held = null; // { card, x, y, ghost, drop }
  let isClick = true; // the click that ends a drag is none

  // The row under the pointer, and whether it is at the edge to the row before (-1) or after (1).
  function dropAt(x, y) {
    const row = document.elementsFromPoint(x, y).find((element) => element.matches?.(".ladder-row"));
    if (!row) return null;
    const tier = Number(row.dataset.tier) || 0;
    const box = row.getBoundingClientRect();
    const isStrip = getComputedStyle(ladder.list).flexDirection === "row" && getComputedStyle(ladder.list).display === "flex";
    const share = isStrip ? (x - box.left) / box.width : (y - box.top) / box.height;
    const forth = isStrip && getComputedStyle(form).direction === "rtl" ? 1 - share : share;
    const edge = !tier ? 0 : forth < BETWEEN_SHARE ? -1 : forth > 1 - BETWEEN_SHARE ? 1 : 0;
    return { row, edge };
  }

  function begin(event, card) {
    if (event.button !== 0 || event.pointerType === "touch" || isPhone.matches || held) return;
    held = { card, x: event.clientX, y: event.clientY, ghost: null, drop: null };
  }

  function move(event) {
    if (!held) return;
    if (!held.ghost) {
      if (Math.hypot(event.clientX - held.x, event.clientY - held.y) < DRAG_STARTS_PX) return;
      lift();
    }
    event.preventDefault();
    held.ghost.style.transform = `translate(${event.clientX + 8}px, ${event.clientY + 8}px)`;
    mark(dropAt(event.clientX, event.clientY));
  }

  function lift() {
    held.ghost = Object.assign(document.createElement("div"), { className: "chip is-current drag-ghost", textContent: ranking.letterOf(held.card) });
    document.body.append(held.ghost);
    form.classList.add("is-dragging");
    getSelection().removeAllRanges();
    current(held.card);
    say(fill(words.dragged, { letter: ranking.letterOf(held.card) }));
  }

  function mark(drop) {
    held.drop?.row.classList.remove("is-drop", "is-drop-before", "is-drop-after");
    held.drop = drop;
    drop?.row.classList.add({ "-1": "is-drop-before", 0: "is-drop", 1: "is-drop-after" }[drop.edge]);
  }

  function end(isDropped) {
    if (!held) return;
    const { card, ghost, drop } = held;
    if (ghost) {
      mark(null);
      ghost.remove();
      form.classList.remove("is-dragging");
      isClick = false;
      setTimeout(() => (isClick = true), 0);
    }
    held = null;
    if (!ghost) return;
    if (isDropped && drop) put(card, drop);
    else say(fill(words.dragStopped, { letter: ranking.letterOf(card) }));
  }

  function put(card, { row, edge }) {
    if (!edge) {
      if (!ranking.choose(card, "tier", row.dataset.tier)) say(ranking.placeOf(card));
      if (row.dataset.tier === UNRANKABLE) ranking.reasonOf(card).focus();
      return;
    }
    const border = Number(row.dataset.tier) + (edge < 0 ? 0 : 1); // its place would be before this tier
    const above = ranking.rungs(card).filter((rung) => rung.tier < border).length;
    ranking.arrange(card, ranking.insertAt(card, above));
  }

  for (const card of cards) {
    card.querySelector("[data-handle]").addEventListener("pointerdown", (event) => begin(event, card), { signal });
    ladder.chipOf(card).addEventListener("pointerdown", (event) => begin(event, card), { signal });
  }
  document.addEventListener("pointermove", move, { signal });
  document.addEventListener("pointerup", () => end(true), { signal });
  document.addEventListener("click", (event) => isClick || event.stopPropagation(), { capture: true, signal });
  document.addEventListener("pointercancel", () => end(false), { signal });
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape" || !held?.ghost) return;
      event.stopPropagation();
      end(false);
    },
    { capture: true, signal },
  );
}
