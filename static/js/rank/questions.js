// The label schema's questions: which are asked, which are answered, and the letter that answers each while they are open.
"use strict";

const QUESTION_KEYS = [..."qwertyuiopzvbadcghfklmnsxjQWERTYUIOPZVBADCGHFKLMNSXJ"];

// `keys` are the person's own by act, which are no letters for answers; `words` what the page says.
function makeQuestions(form, { keys, words }) {
  const prompt = form.querySelector('[data-labels="prompt"]');
  const places = [...form.querySelectorAll("[data-labels], [data-menu=note]")];
  const fields = new Map(places.map((place) => [place, [...place.querySelectorAll("[data-field]")]]));
  const free = QUESTION_KEYS.filter((key) => !Object.values(keys).includes(key));

  const controlOf = (field) => field.querySelector("input, select");
  const isSet = (control) => control.value !== "" && (control.checked || !control.matches("[type=checkbox], [type=radio]"));
  const isAnswered = (field) => [...field.querySelectorAll("input, select")].some(isSet);
  const asked = (place) => fields.get(place).filter((field) => !field.hidden);
  const placeOf = (element) => element?.closest("[data-labels], [data-menu=note]");

  // One that depends on a flag is asked while that flag is asked and set. It keeps its letter, asked or not.
  function drawPlace(place) {
    for (const field of fields.get(place)) {
      const name = field.dataset.shownIf;
      if (!name) continue;
      const flags = [prompt, place].map((within) => within?.querySelector(`[data-field="${name}"]`));
      field.hidden = !flags.some((flag) => flag && !flag.hidden && controlOf(flag).checked);
    }
    const count = place.querySelector("[data-count]");
    if (count) count.textContent = asked(place).filter(isAnswered).length || "";
  }

  function printKeys() {
    for (const place of places.filter((place) => place.matches("[data-labels]"))) {
      for (const [at, field] of fields.get(place).entries()) {
        const key = field.querySelector("[data-key]");
        if (!key || !free[at]) continue;
        key.hidden = false;
        key.textContent = free[at];
        controlOf(field).setAttribute("aria-keyshortcuts", free[at] < "a" ? `Shift+${free[at]}` : free[at]);
      }
    }
  }

  if (Object.keys(keys).length > 0) printKeys();

  return {
    prompt,
    of: (card) => card.querySelector("[data-labels]"),
    // After a change of `element`; what is said of the prompt may ask more of every response, as anything may where none is named.
    draw(element = null) {
      const changed = placeOf(element);
      if (element && !changed) return;
      for (const place of !changed || changed === prompt ? places : [changed]) drawPlace(place);
    },
    countAnswered: (place) => (place ? asked(place).filter(isAnswered).length : 0),
    // The needed ones without an answer, in words.
    missing: () =>
      places
        .flatMap(asked)
        .filter((field) => field.matches("[data-required]") && !isAnswered(field))
        .map((field) => [field.closest("[data-output]")?.dataset.letter, field.dataset.label].filter(Boolean).join(": ")),
    toggle(place) {
      if (!place) return;
      place.open = !place.open;
      place.querySelector("summary").focus({ preventScroll: !place.open });
    },
    // Answer by letter while questions are open: those that the focus is in, else those of `place`.
    press(key, place, say) {
      const open = document.activeElement?.closest("[data-labels]") ?? place;
      const at = free.indexOf(key);
      const field = open?.open && at >= 0 ? fields.get(open)[at] : null;
      if (!field) return false;
      const control = controlOf(field);
      if (field.hidden) return true;
      if (!control.matches("[type=checkbox]")) control.focus();
      else {
        control.click();
        say(fill(control.checked ? words.isSet : words.isNotSet, { label: field.dataset.label }));
      }
      return true;
    },
    // A digit answers the scale that the focus is in.
    pressDigit(digit) {
      const scale = document.activeElement?.closest(".ask-scale");
      if (!scale) return false;
      [...scale.querySelectorAll("input")].find((radio) => radio.value === (digit === "0" ? "" : digit))?.click();
      return true;
    },
    // Leave the field of a question that has the focus; false where none has.
    leaveField() {
      const field = document.activeElement?.closest("[data-field]");
      if (!field || document.activeElement.matches("[type=checkbox]")) return false;
      field.closest("details").querySelector("summary").focus();
      return true;
    },
    close() {
      for (const place of form.querySelectorAll("[data-labels]")) place.open = false;
    },
  };
}
