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
const promptLabels = rankForm.querySelector(".rank-prompt [data-labels]");
const live = document.querySelector("[data-live]");

// The person's own keys by act; none where they have switched them off. What is left of the letters answers open questions.
const personKeys = JSON.parse(rankForm.dataset.keys);
const LABEL_KEYS = [..."qwertyuiopzvbadcghfklmnsxj"].filter((key) => !Object.values(personKeys).includes(key));
const UNRANKED = "";
const UNRANKABLE = "x";
const ADVANCE_MS = 250;
const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
let current = cards[0];
let advance = 0;

// --- What the form says ---

const letterOf = (card) => card.dataset.letter;
const radiosOf = (card, part) => [...card.querySelectorAll(`input[name^="${part}-"]`)];
const valueOf = (card, part) => radiosOf(card, part).find((radio) => radio.checked)?.value ?? "";
const reasonOf = (card) => card.querySelector('[name^="reason-"]');
const questionPlaces = [...rankForm.querySelectorAll("[data-labels], [data-menu=note]")];
const labelsOf = (card) => card.querySelector("[data-labels]");
const fieldsOf = (place) => [...place.querySelectorAll("[data-field]")];
const askedIn = (place) => fieldsOf(place).filter((field) => !field.hidden);
const controlOf = (field) => field.querySelector("input, select");
const isSet = (control) => control.value !== "" && (control.checked || !control.matches("[type=checkbox], [type=radio]"));
const isAnswered = (field) => [...field.querySelectorAll("input, select")].some(isSet);
const lettersOf = (chosen) => chosen.map(letterOf).join(", ");
const firstWords = new Map(cards.map((card) => [card, card.querySelector(".output-text").textContent.trim().slice(0, 60)]));
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

function check(radio) {
  if (!radio || radio.checked) return false;
  radio.checked = true;
  radio.dispatchEvent(new Event("input", { bubbles: true }));
  return true;
}

const choose = (card, part, value) => check(radiosOf(card, part).find((radio) => radio.value === value));

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
  const flags = labelsOf(card) ? askedIn(labelsOf(card)).filter(isAnswered).length : 0;
  if (flags) {
    const count = document.createElement("span");
    count.className = "chip-flags";
    count.textContent = `⚑${flags}`;
    chip.append(count);
  }
  chip.title = fill(rankWords.goTo, { letter: letterOf(card) });
  chip.addEventListener("click", () => moveTo(card));
  return chip;
}

function drawSubmit() {
  const unplaced = cards.filter((card) => valueOf(card, "tier") === UNRANKED);
  const unexplained = cards.filter((card) => valueOf(card, "tier") === UNRANKABLE && !reasonOf(card).value);
  const unanswered = questionPlaces
    .flatMap(askedIn)
    .filter((field) => field.matches("[data-required]") && !isAnswered(field))
    .map((field) => [field.closest("[data-output]")?.dataset.letter, field.dataset.label].filter(Boolean).join(": "));
  const why = [
    unplaced.length && fill(rankWords.missingPlace, { letters: lettersOf(unplaced) }),
    unexplained.length && fill(rankWords.missingReason, { letters: lettersOf(unexplained) }),
    unanswered.length && fill(rankWords.missingAnswer, { labels: unanswered.join(", ") }),
  ].filter(Boolean);
  submitButton.disabled = why.length > 0;
  missing.textContent = why.join(" ");
}

// A question that depends on a flag is asked while that one is asked and set. A question keeps its letter, asked or not.
function drawQuestions(place) {
  for (const [at, field] of fieldsOf(place).entries()) {
    const name = field.dataset.shownIf;
    const flags = [promptLabels, place].map((within) => within?.querySelector(`[data-field="${name}"]`));
    field.hidden = Boolean(name) && !flags.some((flag) => flag && !flag.hidden && controlOf(flag).checked);
    const key = field.querySelector("[data-key]");
    if (!key || !LABEL_KEYS[at] || keyed.size === 0 || !place.matches("[data-labels]")) continue;
    key.textContent = LABEL_KEYS[at];
    controlOf(field).setAttribute("aria-keyshortcuts", LABEL_KEYS[at]);
  }
  const count = place.querySelector("[data-count]");
  if (count) count.textContent = askedIn(place).filter(isAnswered).length || "";
}

function drawActs() {
  rankForm.querySelector("[data-act=undo]").setAttribute("aria-disabled", String(!steps.canUndo()));
  rankForm.querySelector("[data-act=redo]").setAttribute("aria-disabled", String(!steps.canRedo()));
}

function draw() {
  for (const place of questionPlaces) drawQuestions(place);
  for (const card of cards) card.classList.toggle("is-current", card === current);
  drawLadder();
  drawSubmit();
  drawActs();
}

function placeOf(card) {
  const tier = valueOf(card, "tier");
  const tied = cards.filter((other) => other !== card && valueOf(other, "tier") === tier);
  const left = cards.filter((other) => valueOf(other, "tier") === UNRANKED).length;
  const text = tier === UNRANKED ? rankWords.isUnranked : tier === UNRANKABLE ? rankWords.isUnrankable : tied.length ? rankWords.isTied : rankWords.isPlaced;
  return `${fill(text, { letter: letterOf(card), tier, letters: lettersOf(tied) })} ${fill(rankWords.left, { count: left })}`;
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
  if (!menu) return;
  const opens = !menu.open;
  for (const other of rankForm.querySelectorAll("[data-menu]")) other.open = opens && other === menu;
  if (opens) (menu.querySelector("textarea, .rank-panel-text") ?? menu.querySelector("summary")).focus();
  else current.focus({ preventScroll: true });
}

// --- Places by key ---

const tierOf = (card) => Number(valueOf(card, "tier")) || 0; // 0 where it is unranked or not rankable

function shift(distance) {
  const tier = tierOf(current);
  if (tier) choose(current, "tier", String(Math.min(size, Math.max(1, tier + distance))));
}

function tie() {
  const below = tierOf(current) || size + 1;
  const better = Math.max(0, ...cards.filter((card) => card !== current).map(tierOf).filter((tier) => tier < below));
  if (better) choose(current, "tier", String(better));
}

// Once a response has its place, focus goes to the next without one; any key or click in between stops it.
function goOnSoon() {
  if (isStill) return;
  const from = cards.indexOf(current);
  const next = [...cards.slice(from + 1), ...cards.slice(0, from)].find((card) => valueOf(card, "tier") === UNRANKED);
  if (next) advance = setTimeout(() => moveTo(next), ADVANCE_MS);
}

// --- Back and forth, raw and rendered, prompt and responses ---

let restored = null; // the response that the last step back or forth was about

const steps = keepHistory(rankForm, (changed) => {
  restored = changed.map((control) => control.closest("[data-output]")).find(Boolean) ?? null;
  if (restored) moveTo(restored);
});

function undo() {
  goBack(steps.undo, rankWords.undone, rankWords.nothingToUndo);
}

function redo() {
  goBack(steps.redo, rankWords.redone, rankWords.nothingToRedo);
}

function goBack(go, did, didNothing) {
  if (!go()) return (live.textContent = didNothing);
  changes.undos += 1;
  if (restored) live.textContent = `${did} ${placeOf(current)}`;
  else live.textContent = did;
}

function showRaw() {
  const isRaw = rankForm.classList.toggle("shows-raw");
  rankForm.querySelector("[data-act=raw]").setAttribute("aria-pressed", String(isRaw));
  live.textContent = isRaw ? rankWords.isRaw : rankWords.isRendered;
}

function peek() {
  const prompt = rankForm.querySelector(".rank-prompt-text");
  if (document.activeElement === prompt) return moveTo(current);
  prompt.focus({ preventScroll: true });
  prompt.scrollIntoView({ block: "nearest" });
}

function openLabels(labels) {
  if (!labels) return;
  labels.open = !labels.open;
  labels.querySelector("summary").focus({ preventScroll: !labels.open });
}

// While questions are open, the letter beside each answers it. The prompt's come first where focus is in them.
function pressLabel(key) {
  const place = document.activeElement?.closest("[data-labels]") ?? labelsOf(current);
  const at = LABEL_KEYS.indexOf(key);
  const field = place?.open && at >= 0 ? fieldsOf(place)[at] : null;
  if (!field) return false;
  const control = controlOf(field);
  if (field.hidden) return true;
  if (!control.matches("[type=checkbox]")) control.focus();
  else {
    control.click();
    live.textContent = fill(control.checked ? rankWords.isSet : rankWords.isNotSet, { label: field.dataset.label });
  }
  return true;
}

function close() {
  const asked = document.activeElement?.closest("[data-field]");
  if (asked && !document.activeElement.matches("[type=checkbox]")) return asked.closest("details").querySelector("summary").focus();
  for (const labels of rankForm.querySelectorAll("[data-labels]")) labels.open = false;
  for (const menu of rankForm.querySelectorAll("[data-menu]")) menu.open = false;
  current.focus({ preventScroll: true });
}

// --- Keys ---

const acts = {
  next: () => step(1),
  previous: () => step(-1),
  up: () => shift(-1),
  down: () => shift(1),
  tie,
  unrankable: () => {
    choose(current, "tier", UNRANKABLE);
    reasonOf(current).focus();
  },
  flags: () => openLabels(labelsOf(current)),
  prompt: () => openLabels(promptLabels),
  undo,
  redo,
  raw: showRaw,
  peek,
  guidelines: () => openMenu("guidelines"),
  note: () => openMenu("note"),
  history: () => location.assign(rankForm.dataset.history),
  skip: () => openMenu("skip"),
  help: () => openMenu("keys"),
};

const keyed = new Map(Object.entries(personKeys).map(([act, key]) => [key, acts[act]]));

// As it is printed on the key: Caps Lock makes no capital.
function keyOf(event) {
  if (!/^[a-z]$/i.test(event.key)) return event.key;
  return event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
}

// Digits go by the key's place: with Shift, or on a French keyboard, the character is another one.
function pressDigit(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  if (digit === undefined) return false;
  const asked = document.activeElement?.closest(".ask-scale");
  if (asked && !event.shiftKey) {
    check([...asked.querySelectorAll("input")].find((radio) => radio.value === (digit === "0" ? "" : digit)));
    return true;
  }
  const skipMenu = rankForm.querySelector('[data-menu="skip"]');
  if (skipMenu?.open && !event.shiftKey && !isHeld()) {
    skipMenu.querySelectorAll("[name=reason]")[Number(digit) - 1]?.click();
    return true;
  }
  if (event.shiftKey) choose(current, "quality", digit === "0" ? "" : digit);
  else if (choose(current, "tier", digit === "0" ? UNRANKED : digit) && tierOf(current)) goOnSoon();
  if (!isHeld()) current.focus({ preventScroll: true }); // so that j goes on from it, and not to it again
  return true;
}

document.addEventListener("keydown", (event) => {
  clearTimeout(advance);
  // A bare Enter in a field would submit the form.
  if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && event.target.matches("input")) event.preventDefault();
  if (event.isComposing || event.repeat) return;
  if (event.key === "Escape") return close();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!submitButton.disabled) rankForm.requestSubmit(submitButton);
    return;
  }
  const isTyping = event.target.closest("textarea, select, input:not([type=radio], [type=checkbox])");
  if (isTyping) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    event.preventDefault();
    return event.shiftKey ? redo() : undo();
  }
  if (event.altKey && /^Arrow(Up|Down)$/.test(event.key)) {
    event.preventDefault();
    return shift(event.key === "ArrowUp" ? -1 : 1);
  }
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (keyed.size === 0) return;
  if (pressLabel(keyOf(event))) return event.preventDefault();
  // Shift and a digit rate, whatever that types on a keyboard; Shift and 0 is the only way to "=" on some.
  const act = event.shiftKey && /^Digit[1-7]$/.test(event.code) ? null : keyed.get(keyOf(event));
  if (act) act();
  else if (!pressDigit(event)) return;
  event.preventDefault();
});

for (const button of rankForm.querySelectorAll("[data-act]")) {
  button.addEventListener("click", () => acts[button.dataset.act]());
}

document.addEventListener("pointerdown", () => clearTimeout(advance));

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
  if (!card || !event.target.name.startsWith("tier-")) return;
  changes.moves += 1;
  live.textContent = placeOf(card);
});

// --- Clocks: active while the page is seen and something was touched in the last minute ---

const clocks = { active_ms: 0, idle_ms: 0 };
const views = new Map(cards.map((card) => [card, { ms: 0, depth: 0 }]));
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
  return JSON.stringify({ cards: seen, ...changes, window: innerWidth < 768 ? "phone" : innerWidth < 1280 ? "tablet" : "wide" });
}

for (const name of ["keydown", "pointermove", "scroll", "touchstart"]) {
  document.addEventListener(name, () => (touchedAt = performance.now()), { passive: true, capture: true });
}
document.addEventListener("visibilitychange", tick);
setInterval(tick, 1000);

rankForm.addEventListener("formdata", (event) => {
  tick();
  for (const [name, value] of Object.entries(clocks)) event.formData.set(name, String(Math.round(value)));
  event.formData.set("effort", tellEffort());
});

// --- Begin ---

for (const element of rankForm.querySelectorAll(".js-only, [data-menu=keys], [data-ladder]")) element.hidden = false;
sendWhenOnline(rankForm, rankWords);
keepDraft(rankForm, rankWords);
draw();
document.getElementById("problems")?.focus();
