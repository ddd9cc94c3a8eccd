// The ranking page beyond its plain form: keys, the ladder, the reason why it cannot be submitted yet, drafts and clocks.
// The radio buttons of the form are the only state; everything else is drawn from them.
"use strict";

const rankForm = document.getElementById("rank");
const rankWords = JSON.parse(rankForm.dataset.words);
const cards = [...rankForm.querySelectorAll("[data-output]")];
const size = Number(rankForm.dataset.size);
const ladder = rankForm.querySelector("[data-ladder]");
const submitButton = rankForm.querySelector("[data-submit]");
const missing = rankForm.querySelector("[data-missing]");
const live = document.querySelector("[data-live]");

const UNRANKED = "";
const UNRANKABLE = "x";
let current = cards[0];

// --- What the form says ---

const letterOf = (card) => card.dataset.letter;
const radiosOf = (card, part) => [...card.querySelectorAll(`input[name^="${part}-"]`)];
const valueOf = (card, part) => radiosOf(card, part).find((radio) => radio.checked)?.value ?? "";
const reasonOf = (card) => card.querySelector("select");
const lettersOf = (chosen) => chosen.map(letterOf).join(", ");
const firstWords = new Map(cards.map((card) => [card, card.querySelector(".output-text").textContent.trim().slice(0, 60)]));
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

function choose(card, part, value) {
  const radio = radiosOf(card, part).find((candidate) => candidate.value === value);
  if (!radio || radio.checked) return;
  radio.checked = true;
  radio.dispatchEvent(new Event("input", { bubbles: true }));
}

// --- What is drawn from it ---

function drawLadder() {
  const rows = [...Array(size).keys()].map((index) => String(index + 1));
  const marks = [...rows.map((row) => [row, row]), [UNRANKED, "?"], [UNRANKABLE, "✕"]];
  const list = document.createElement("ol");
  list.className = "ladder";
  for (const [value, mark] of marks) {
    const item = document.createElement("li");
    const name = document.createElement("span");
    const chips = cards.filter((card) => valueOf(card, "tier") === value);
    item.className = "ladder-row";
    item.classList.toggle("is-empty", chips.length === 0);
    item.dataset.tier = value;
    name.className = "ladder-mark";
    name.textContent = mark;
    name.title = value === UNRANKED ? rankWords.unrankedRow : value === UNRANKABLE ? rankWords.unrankableRow : fill(rankWords.tierRow, { tier: mark });
    const place = document.createElement("div");
    place.className = "ladder-chips";
    place.append(...chips.map(drawChip));
    item.append(name, place);
    list.append(item);
  }
  ladder.querySelector(".ladder")?.remove();
  ladder.append(list);
}

function drawChip(card) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.className = "chip";
  chip.classList.toggle("is-current", card === current);
  const words = document.createElement("span");
  words.className = "chip-words";
  words.textContent = firstWords.get(card);
  chip.append(letterOf(card), words);
  chip.title = fill(rankWords.goTo, { letter: letterOf(card) });
  chip.addEventListener("click", () => moveTo(card));
  return chip;
}

function drawSubmit() {
  const unplaced = cards.filter((card) => valueOf(card, "tier") === UNRANKED);
  const unexplained = cards.filter((card) => valueOf(card, "tier") === UNRANKABLE && !reasonOf(card).value);
  const why = [
    unplaced.length && fill(rankWords.missingPlace, { letters: lettersOf(unplaced) }),
    unexplained.length && fill(rankWords.missingReason, { letters: lettersOf(unexplained) }),
  ].filter(Boolean);
  submitButton.disabled = why.length > 0;
  missing.textContent = why.join(" ");
}

function draw() {
  for (const card of cards) card.classList.toggle("is-current", card === current);
  drawLadder();
  drawSubmit();
}

function announce(card) {
  const tier = valueOf(card, "tier");
  const tied = cards.filter((other) => other !== card && valueOf(other, "tier") === tier);
  const left = cards.filter((other) => valueOf(other, "tier") === UNRANKED).length;
  const text = tier === UNRANKED ? rankWords.isUnranked : tier === UNRANKABLE ? rankWords.isUnrankable : tied.length ? rankWords.isTied : rankWords.isPlaced;
  live.textContent = `${fill(text, { letter: letterOf(card), tier, letters: lettersOf(tied) })} ${fill(rankWords.left, { count: left })}`;
}

// --- Moving about ---

function moveTo(card) {
  current = card;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
  draw();
}

const isHeld = () => document.activeElement?.closest("[data-output]") === current;

function step(distance) {
  const next = cards[cards.indexOf(current) + (isHeld() ? distance : 0)];
  if (next) moveTo(next);
}

function openMenu(name) {
  const menu = rankForm.querySelector(`[data-menu="${name}"]`);
  menu.open = !menu.open;
  if (menu.open) (menu.querySelector("textarea") ?? menu.querySelector("summary")).focus();
}

function close() {
  for (const menu of rankForm.querySelectorAll("[data-menu]")) menu.open = false;
  current.focus({ preventScroll: true });
}

// --- Keys ---

const acts = {
  j: () => step(1),
  k: () => step(-1),
  x: () => {
    choose(current, "tier", UNRANKABLE);
    reasonOf(current).focus();
  },
  n: () => openMenu("note"),
  s: () => openMenu("skip"),
  "?": () => openMenu("keys"),
};

// Digits go by the key's place: with Shift, or on a French keyboard, the character is another one.
function pressDigit(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  if (digit === undefined) return false;
  const skipMenu = rankForm.querySelector('[data-menu="skip"]');
  if (skipMenu.open && !event.shiftKey) {
    skipMenu.querySelectorAll("[name=reason]")[Number(digit) - 1]?.click();
    return true;
  }
  if (event.shiftKey) choose(current, "quality", digit === "0" ? "" : digit);
  else choose(current, "tier", digit === "0" ? UNRANKED : digit);
  if (!isHeld()) current.focus({ preventScroll: true }); // so that j goes on from it, and not to it again
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.repeat) return;
  if (event.key === "Escape") return close();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!submitButton.disabled) rankForm.requestSubmit(submitButton);
    return;
  }
  // A bare Enter on a radio button would submit the form.
  if (event.key === "Enter" && event.target.matches("input[type=radio]")) event.preventDefault();
  const isTyping = event.target.closest("textarea, select, input:not([type=radio])");
  if (isTyping || event.ctrlKey || event.altKey || event.metaKey) return;
  const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) act();
  else if (!pressDigit(event)) return;
  event.preventDefault();
});

for (const card of cards) {
  card.addEventListener("focusin", () => {
    if (card === current) return;
    current = card;
    draw();
  });
  card.addEventListener("pointerdown", () => {
    current = card;
    draw();
  });
}

rankForm.addEventListener("input", (event) => {
  const card = event.target.closest("[data-output]");
  draw();
  if (card && event.target.name.startsWith("tier-")) announce(card);
});

// --- Clocks: active while the page is seen and something was touched in the last minute ---

const clocks = { active_ms: 0, idle_ms: 0 };
let tickedAt = performance.now();
let touchedAt = tickedAt;

function tick() {
  const now = performance.now();
  const isActive = document.visibilityState === "visible" && now - touchedAt < 60_000;
  clocks[isActive ? "active_ms" : "idle_ms"] += now - tickedAt;
  tickedAt = now;
}

for (const name of ["keydown", "pointermove", "scroll", "touchstart"]) {
  document.addEventListener(name, () => (touchedAt = performance.now()), { passive: true, capture: true });
}
document.addEventListener("visibilitychange", tick);
setInterval(tick, 1000);

rankForm.addEventListener("formdata", (event) => {
  tick();
  for (const [name, value] of Object.entries(clocks)) event.formData.set(name, String(Math.round(value)));
});

// --- Begin ---

for (const element of rankForm.querySelectorAll(".js-only, [data-menu=keys], [data-ladder]")) element.hidden = false;
keepDraft(rankForm, rankWords);
draw();
document.getElementById("problems")?.focus();
