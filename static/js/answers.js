// The pages that compare, rate and label, beyond their plain form: keys, why it cannot be submitted yet, drafts and clocks.
// The controls of the form are the only state.
"use strict";

const answerForm = document.getElementById("answer");
const answerWords = JSON.parse(answerForm.dataset.words);
const personKeys = JSON.parse(answerForm.dataset.keys);
const submitButton = answerForm.querySelector("[data-submit]");
const missing = answerForm.querySelector("[data-missing]");
const live = document.querySelector("[data-live]");
const places = [...answerForm.querySelectorAll("[data-labels]")];
const preferences = [...answerForm.querySelectorAll("[name=preference]")];
const qualities = [...answerForm.querySelectorAll("[data-quality]")];
const areKeysOn = Object.keys(personKeys).length > 0;

// What is left of the letters answers open questions, wherever they stand.
const LABEL_KEYS = [..."qwertyuiopzvbadcghfklmnsxj"].filter((key) => !Object.values(personKeys).includes(key));

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const fieldsOf = (place) => [...place.querySelectorAll("[data-field]")];
const controlOf = (field) => field.querySelector("input, select");
const isSwitch = (control) => control.matches("[type=checkbox], [type=radio]");
const isAnswered = (field) =>
  [...field.querySelectorAll("input, select")].some((control) => control.value !== "" && (control.checked || !isSwitch(control)));
const isOfPrompt = (place) => !place.closest("[data-output], .answer-rate .answer-asked");
const ofPrompt = places.filter(isOfPrompt);
const ofOutputs = places.filter((place) => !isOfPrompt(place));

function check(control, isChecked = true) {
  if (!control || control.checked === isChecked) return;
  control.checked = isChecked;
  control.dispatchEvent(new Event("input", { bubbles: true }));
}

// --- What is drawn from it ---

// A question that depends on a flag is asked while that one is asked and set.
function drawQuestions(place) {
  for (const [at, field] of fieldsOf(place).entries()) {
    const name = field.dataset.shownIf;
    const flags = [...ofPrompt, place].map((within) => within.querySelector(`[data-field="${name}"]`));
    field.hidden = Boolean(name) && !flags.some((flag) => flag && !flag.hidden && controlOf(flag).checked);
    const key = field.querySelector("[data-key]");
    if (!key || !LABEL_KEYS[at] || !areKeysOn) continue;
    key.hidden = false;
    key.textContent = LABEL_KEYS[at];
    controlOf(field).setAttribute("aria-keyshortcuts", LABEL_KEYS[at]);
  }
  const count = fieldsOf(place).filter((field) => !field.hidden && isAnswered(field)).length;
  place.querySelector("[data-count]").textContent = count || "";
}

function draw() {
  places.forEach(drawQuestions);
  const open = [preferences, qualities]
    .filter((group) => group.length > 0 && !group.some((control) => control.checked))
    .map((group) => group[0].closest("fieldset").querySelector("legend").firstChild.textContent.trim());
  const needed = [...answerForm.querySelectorAll("[data-field][data-required]")]
    .filter((field) => !field.hidden && !isAnswered(field))
    .map((field) => field.dataset.label);
  const labels = [...open, ...needed];
  submitButton.disabled = labels.length > 0;
  missing.textContent = labels.length > 0 ? fill(answerWords.missingAnswer, { labels: labels.join(", ") }) : "";
  answerForm.querySelector("[data-act=undo]").setAttribute("aria-disabled", String(!steps.canUndo()));
  answerForm.querySelector("[data-act=redo]").setAttribute("aria-disabled", String(!steps.canRedo()));
}

// --- Back and forth ---

const steps = keepHistory(answerForm, () => {});

function undo() {
  live.textContent = steps.undo() ? answerWords.undone : answerWords.nothingToUndo;
}

function redo() {
  live.textContent = steps.redo() ? answerWords.redone : answerWords.nothingToRedo;
}

// --- Which is better ---

function sayChoice(control) {
  live.textContent = control.closest("label").textContent.trim();
}

// One step to the left or to the right; the first step from no answer is the least on that side.
function lean(side) {
  const at = preferences.findIndex((control) => control.checked);
  const distance = side === "left" ? -1 : 1;
  const from = at < 0 ? preferences.findIndex((control) => control.dataset.side === "tie") : at;
  const next = preferences[from + distance];
  if (!next) return;
  check(next);
  sayChoice(next);
}

function setStrength(strength) {
  const side = preferences.find((control) => control.checked)?.dataset.side;
  const wanted = preferences.find((control) => control.dataset.side === side && control.dataset.strength === strength);
  if (!wanted) return (live.textContent = answerWords.chooseSide);
  check(wanted);
  sayChoice(wanted);
}

function clear(group) {
  check(group.find((control) => control.checked), false);
}

// --- Panels and questions ---

function openMenu(name) {
  const menu = answerForm.querySelector(`[data-menu="${name}"]`);
  if (!menu) return;
  const opens = !menu.open;
  for (const other of answerForm.querySelectorAll("[data-menu]")) other.open = opens && other === menu;
  (menu.querySelector("textarea, .rank-panel-text") && opens ? menu.querySelector("textarea, .rank-panel-text") : menu.querySelector("summary")).focus();
}

// The first opens, then the next instead of it, and after the last all are closed.
function cycle(group) {
  if (group.length === 0) return;
  const at = group.findIndex((place) => place.open && place.contains(document.activeElement));
  for (const place of group) place.open = false;
  const next = group[at + 1];
  if (!next) return group[at]?.querySelector("summary").focus();
  next.open = true;
  next.querySelector("summary").focus();
}

function pressLabel(key) {
  const held = places.find((place) => place.open && place.contains(document.activeElement));
  const place = held ?? places.find((each) => each.open);
  const at = LABEL_KEYS.indexOf(key);
  const field = place && at >= 0 ? fieldsOf(place)[at] : null;
  if (!field) return false;
  const control = controlOf(field);
  if (field.hidden) return true;
  if (!control.matches("[type=checkbox]")) control.focus();
  else {
    control.click();
    live.textContent = fill(control.checked ? answerWords.isSet : answerWords.isNotSet, { label: field.dataset.label });
  }
  return true;
}

function close() {
  for (const panel of answerForm.querySelectorAll("[data-menu], [data-output] [data-labels]")) panel.open = false;
  document.activeElement?.blur();
}

// --- Keys ---

const acts = {
  tie: () => {
    const tie = preferences.find((control) => control.dataset.side === "tie");
    if (!tie) return;
    check(tie);
    sayChoice(tie);
  },
  flags: () => cycle(ofOutputs),
  prompt: () => cycle(ofPrompt),
  undo,
  redo,
  guidelines: () => openMenu("guidelines"),
  note: () => openMenu("note"),
  history: () => location.assign(answerForm.dataset.history),
  skip: () => openMenu("skip"),
  help: () => openMenu("keys"),
};

const keyed = new Map(Object.entries(personKeys).map(([act, key]) => [key, acts[act]]));

function pressDigit(event) {
  const digit = event.shiftKey ? undefined : digitOf(event);
  if (digit === undefined) return false;
  const skipMenu = answerForm.querySelector('[data-menu="skip"]');
  if (skipMenu?.open) skipMenu.querySelectorAll("[name=reason]")[Number(digit) - 1]?.click();
  else if (digit === "0") clear([...preferences, ...qualities]);
  else if (preferences.length > 0) setStrength(digit);
  else check(qualities.find((control) => control.dataset.quality === digit));
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && event.target.matches("input")) event.preventDefault();
  if (event.isComposing || event.repeat) return;
  if (event.key === "Escape") return close();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!submitButton.disabled) answerForm.requestSubmit(submitButton);
    return;
  }
  if (event.target.closest("textarea, select, input:not([type=radio], [type=checkbox])")) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    event.preventDefault();
    return event.shiftKey ? redo() : undo();
  }
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const isArrow = preferences.length > 0 && /^Arrow(Left|Right)$/.test(event.key) && !event.target.closest(".ask");
  if (isArrow) lean(event.key === "ArrowLeft" ? "left" : "right");
  else if (!areKeysOn) return;
  else if (pressLabel(keyOf(event))) return event.preventDefault();
  else if (keyed.get(keyOf(event))) keyed.get(keyOf(event))();
  else if (!pressDigit(event)) return;
  event.preventDefault();
});

for (const button of answerForm.querySelectorAll("[data-act]")) {
  button.addEventListener("click", () => acts[button.dataset.act]());
}
answerForm.addEventListener("input", draw);

// --- Begin ---

for (const element of answerForm.querySelectorAll(".js-only")) element.hidden = false;
keepClocks(answerForm);
keepDraft(answerForm, answerWords);
draw();
document.getElementById("problems")?.focus();
