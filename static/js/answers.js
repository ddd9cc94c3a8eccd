// The pages that compare, rate and label, beyond their plain form: keys, why it cannot be submitted yet, drafts and clocks.
// The controls of the form are the only state.
"use strict";

function startAnswer(form) {
  const { signal } = new AbortController();
  const words = JSON.parse(form.dataset.words);
  const keys = JSON.parse(form.dataset.keys);
  const submitButton = form.querySelector("[data-submit]");
  const missing = form.querySelector("[data-missing]");
  const live = document.querySelector("[data-live]");
  const preferences = [...form.querySelectorAll("[name=preference]")];
  const qualities = [...form.querySelectorAll("[data-quality]")];
  const places = [...form.querySelectorAll("[data-labels]")];
  const steps = keepHistory(form, () => {});
  const panels = makePanels(form, signal);
  const questions = makeQuestions(form, { keys, words });

  function say(text) {
    live.textContent = text;
  }

  function check(control, isChecked = true) {
    if (!control || control.checked === isChecked) return;
    control.checked = isChecked;
    control.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function draw() {
    const open = [preferences, qualities]
      .filter((group) => group.length > 0 && !group.some((control) => control.checked))
      .map((group) => group[0].closest("fieldset").querySelector("legend").firstChild.textContent.trim());
    const labels = [...open, ...questions.missing()];
    submitButton.disabled = labels.length > 0;
    missing.textContent = labels.length > 0 ? fill(words.missingAnswer, { labels: labels.join(", ") }) : "";
    form.querySelector("[data-act=undo]").setAttribute("aria-disabled", String(!steps.canUndo()));
    form.querySelector("[data-act=redo]").setAttribute("aria-disabled", String(!steps.canRedo()));
  }

  // --- Which is better ---

  function choose(control) {
    check(control);
    say(control.closest("label").textContent.trim());
  }

  const tieOf = () => preferences.find((control) => control.dataset.side === "tie");

  // One step to the left (-1) or to the right (1); the first step from no answer is the least on that side.
  function lean(distance) {
    const from = preferences.find((control) => control.checked) ?? tieOf();
    const next = preferences[preferences.indexOf(from) + distance];
    if (next) choose(next);
  }

  function setStrength(strength) {
    const side = preferences.find((control) => control.checked)?.dataset.side ?? "tie";
    const strengths = preferences.filter((control) => control.dataset.strength === strength);
    const wanted = strengths.find((control) => control.dataset.side === side);
    if (wanted) choose(wanted);
    else if (strengths.length > 0) say(words.chooseSide);
  }

  function clear() {
    check([...preferences, ...qualities].find((control) => control.checked), false);
  }

  // --- Which words differ ---

  const differenceButton = form.querySelector("[data-act=difference]");

  function toggleDifference() {
    const texts = [...form.querySelectorAll(".output-text")];
    const isMarked = differenceButton.getAttribute("aria-pressed") === "true";
    if (isMarked) clearDifference(texts);
    const counts = isMarked ? null : markDifference(...texts);
    differenceButton.setAttribute("aria-pressed", String(counts !== null));
    if (isMarked) say(words.unmarked);
    else say(counts ? fill(words.differ, { ofLeft: counts[0], ofRight: counts[1] }) : words.tooLong);
  }

  // --- Panels and questions ---

  // The first opens, then the next instead of it, and after the last all are closed.
  function cycle(group) {
    const at = group.findIndex((place) => place.open && place.contains(document.activeElement));
    for (const place of group) place.open = false;
    const next = group[at + 1];
    if (next) next.open = true;
    (next ?? group[at])?.querySelector("summary").focus();
  }

  function close() {
    if (questions.leaveField()) return;
    panels.close();
    for (const place of form.querySelectorAll("[data-output] [data-labels]")) place.open = false;
    document.activeElement?.blur();
  }

  // --- Keys ---

  const acts = {
    tie: () => tieOf() && choose(tieOf()),
    difference: () => differenceButton && toggleDifference(),
    flags: () => cycle(places.filter((place) => place !== questions.prompt)),
    prompt: () => questions.prompt && cycle([questions.prompt]),
    undo: () => say(steps.undo() ? words.undone : words.nothingToUndo),
    redo: () => say(steps.redo() ? words.redone : words.nothingToRedo),
    guidelines: () => panels.toggle("guidelines"),
    note: () => panels.toggle("note"),
    ask: () => panels.toggle("ask"),
    history: () => location.assign(form.dataset.history),
    skip: () => panels.toggle("skip"),
    help: () => panels.toggle("keys"),
  };

  function pressDigit(digit, isShifted) {
    if (isShifted) return false;
    if (questions.pressDigit(digit) || panels.pressReason(digit)) return true;
    if (digit === "0") clear();
    else if (preferences.length > 0) setStrength(digit);
    else check(qualities.find((control) => control.dataset.quality === digit));
    return true;
  }

  listenForKeys(
    keys,
    acts,
    {
      isBeingSent: () => form.inert,
      close,
      submit: () => panels.submit(submitButton),
      question: (key) => questions.press(key, places.find((place) => place.open), say),
      digit: pressDigit,
      lean: preferences.length > 0 ? lean : undefined,
    },
    signal,
  );

  for (const button of form.querySelectorAll("[data-act]")) button.addEventListener("click", () => acts[button.dataset.act]());
  form.addEventListener("input", (event) => {
    questions.draw(event.target === form ? null : event.target); // back or forth: anything may be another
    draw();
  });

  for (const element of form.querySelectorAll(".js-only")) element.hidden = false;
  keepClocks(form, { signal });
  sendWhenReached(form, sendWhenOnline(form, signal), words);
  keepDraft(form, words, signal);
  questions.draw();
  draw();
  document.getElementById("problems")?.focus();
}

startAnswer(document.getElementById("answer"));
