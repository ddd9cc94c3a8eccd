// The ranking page beyond its plain form: starts every part of it on a form, and stops them all when another takes its place.
"use strict";

const ADVANCE_MS = 250;

function startRanking(form) {
  const ending = new AbortController();
  const { signal } = ending;
  const keys = JSON.parse(form.dataset.keys); // the person's own by act; none where they have switched them off
  const ranking = readRanking(form);
  const { cards, words } = ranking;
  const live = document.querySelector("[data-live]");
  const hint = form.querySelector("[data-hint]");
  const submitButton = form.querySelector("[data-submit]");
  const missing = form.querySelector("[data-missing]");
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const questions = makeQuestions(form, { keys, words });
  const panels = makePanels(form, signal);
  const changes = keepEffort(ranking, signal);
  let current = cards[0];
  let advance = 0;
  let restored = null; // the response that the last step back or forth was about
  let awaited = null; // what a letter typed, or a response clicked, is for

  const ladder = makeLadder(ranking, form.querySelector("[data-ladder]"), { flagsOf: (card) => questions.countAnswered(questions.of(card)), onChip: pick });
  const sort = makeSort(ranking, { signal, say, goOnSoon, current: () => current });
  const steps = keepHistory(form, (changed) => {
    restored = changed.map((control) => control.closest("[data-output]")).find(Boolean);
    if (restored) moveTo(restored);
  });
  const layout = makeLayout(ranking, say);
  const compare = makeCompare(ranking, keys, { signal, undo, moveTo, say });

  function say(text) {
    live.textContent = text;
  }

  function drawSubmit() {
    const lettersOf = (chosen) => chosen.map(ranking.letterOf).join(", ");
    const unplaced = cards.filter(ranking.isUnranked);
    const unexplained = cards.filter((card) => ranking.isUnrankable(card) && !ranking.reasonOf(card).value);
    const unanswered = questions.missing();
    const why = [
      unplaced.length && fill(words.missingPlace, { letters: lettersOf(unplaced) }),
      unexplained.length && fill(words.missingReason, { letters: lettersOf(unexplained) }),
      unanswered.length && fill(words.missingAnswer, { labels: unanswered.join(", ") }),
    ].filter(Boolean);
    submitButton.disabled = why.length > 0;
    missing.textContent = why.join(" ");
  }

  function draw() {
    mark(current, true);
    ladder.draw(current);
    drawSubmit();
    sort.draw();
    form.querySelector("[data-act=undo]").setAttribute("aria-disabled", String(!steps.canUndo()));
    form.querySelector("[data-act=redo]").setAttribute("aria-disabled", String(!steps.canRedo()));
  }

  // --- Moving about ---

  function mark(card, isCurrent) {
    card.classList.toggle("is-current", isCurrent);
    card.setAttribute("aria-current", String(isCurrent));
  }

  function setCurrent(card) {
    if (card === current) return;
    mark(current, false);
    mark(card, true);
    current = card;
    ladder.draw(card);
    sort.draw();
  }

  function moveTo(card) {
    setCurrent(card);
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  }

  const isHeld = () => document.activeElement?.closest("[data-output]") === current;

  function step(distance) {
    const next = cards[cards.indexOf(current) + distance];
    if (next) moveTo(next);
  }

  // Once a response has its place, focus goes to the next without one; any key or click in between stops it.
  function goOnSoon(next = ranking.nextUnranked(current)) {
    if (!isStill && next) advance = setTimeout(() => moveTo(next), ADVANCE_MS);
  }

  function openMenu(name) {
    if (!panels.toggle(name)) current.focus({ preventScroll: true });
  }

  function keepInView(change) {
    change();
    current.scrollIntoView({ block: "start" });
  }

  function peek() {
    const prompt = form.querySelector(".rank-prompt-text");
    if (document.activeElement === prompt) return moveTo(current);
    layout.peek(true);
    prompt.focus({ preventScroll: true });
    prompt.scrollIntoView({ block: "nearest" });
  }

  // --- One response out of all: by its letter, by a click on it or on its chip ---

  function waitFor(text, take) {
    awaited = take;
    hint.textContent = text;
    hint.hidden = false;
    say(text);
    form.classList.add("is-choosing");
  }

  function stopAwaiting() {
    awaited = null;
    hint.hidden = true;
    hint.textContent = "";
    form.classList.remove("is-choosing");
  }

  function pick(card) {
    const take = awaited ?? moveTo;
    stopAwaiting();
    take(card);
  }

  function pickLetter(key) {
    if (!awaited) return false;
    const card = ranking.cardOf(key);
    if (card) pick(card);
    else stopAwaiting();
    return true;
  }

  // --- Places by key ---

  function shift(distance) {
    const tier = ranking.tierOf(current);
    if (tier) ranking.choose(current, "tier", String(Math.min(ranking.size, Math.max(1, tier + distance))));
  }

  function tie() {
    const below = ranking.tierOf(current) || ranking.size + 1;
    const better = ranking.rungs(current).filter((rung) => rung.tier < below).at(-1);
    if (better) ranking.choose(current, "tier", String(better.tier));
  }

  function pressDigit(digit, isShifted) {
    const value = digit === "0" ? "" : digit;
    if (!isShifted && (questions.pressDigit(digit) || panels.pressReason(digit))) return true;
    if (isShifted) ranking.choose(current, "quality", value);
    else if (sort.isOn()) sort.press(Number(digit));
    else if (ranking.choose(current, "tier", value) && ranking.tierOf(current)) goOnSoon();
    if (!isHeld()) current.focus({ preventScroll: true }); // so that j goes on from it, and not to it again
    return true;
  }

  // --- Back and forth, raw and rendered ---

  function undo() {
    goBack(steps.undo, words.undone, words.nothingToUndo);
  }

  function redo() {
    goBack(steps.redo, words.redone, words.nothingToRedo);
  }

  function goBack(go, did, didNothing) {
    if (!go()) return say(didNothing);
    changes.undos += 1;
    say(restored ? `${did} ${ranking.placeOf(restored)}` : did);
  }

  function showRaw() {
    const isRaw = form.classList.toggle("shows-raw");
    form.querySelector("[data-act=raw]").setAttribute("aria-pressed", String(isRaw));
    say(isRaw ? words.isRaw : words.isRendered);
  }

  function close() {
    if (awaited) return stopAwaiting();
    if (questions.leaveField()) return;
    questions.close();
    panels.close();
    current.focus({ preventScroll: true });
  }

  const acts = {
    next: () => (isHeld() ? step(1) : moveTo(current)),
    previous: () => (isHeld() ? step(-1) : moveTo(current)),
    up: () => shift(-1),
    down: () => shift(1),
    tie,
    unrankable() {
      ranking.choose(current, "tier", UNRANKABLE);
      ranking.reasonOf(current).focus();
    },
    go: () => waitFor(words.goWhere, moveTo),
    compare() {
      const card = current;
      if (ranking.isUnrankable(card)) say(ranking.placeOf(card));
      else if (!compare.place(card)) waitFor(fill(words.compareWith, { letter: ranking.letterOf(card) }), (other) => compare.open(card, other));
    },
    sort: sort.toggle,
    flags: () => questions.toggle(questions.of(current)),
    prompt() {
      if (questions.prompt) layout.peek(true);
      questions.toggle(questions.prompt);
    },
    undo,
    redo,
    raw: showRaw,
    peek,
    fold: () => keepInView(layout.fold),
    columns: () => keepInView(layout.columns),
    guidelines: () => openMenu("guidelines"),
    note: () => openMenu("note"),
    ask: () => openMenu("ask"),
    history: () => location.assign(form.dataset.history),
    skip: () => openMenu("skip"),
    help: () => openMenu("keys"),
  };

  listenForKeys(
    keys,
    acts,
    {
      isBeingSent: () => form.inert,
      interrupt: () => clearTimeout(advance),
      close,
      submit: () => panels.submit(submitButton),
      letter: pickLetter,
      question: (key) => questions.press(key, questions.of(current), say),
      digit: pressDigit,
    },
    signal,
  );

  for (const button of form.querySelectorAll("[data-act]")) button.addEventListener("click", () => acts[button.dataset.act]());
  for (const button of form.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
  document.addEventListener("pointerdown", () => clearTimeout(advance), { signal });
  signal.addEventListener("abort", () => clearTimeout(advance));

  for (const card of cards) {
    card.addEventListener("focusin", () => awaited || setCurrent(card));
    card.addEventListener("pointerdown", () => awaited || setCurrent(card));
    card.addEventListener("click", () => awaited && pick(card));
  }

  form.addEventListener("input", (event) => {
    const card = event.target.closest("[data-output]");
    questions.draw(event.target === form ? null : event.target); // back or forth: anything may be another
    draw();
    if (!card || !event.target.name.startsWith("tier-")) return;
    changes.moves += 1;
    say(ranking.placeOf(card));
  });

  for (const part of form.querySelectorAll(".js-only, [data-menu=keys], [data-ladder]")) part.hidden = false;
  form.classList.add("is-scripted");
  letDrag(ranking, ladder, { signal, say, current: (card) => setCurrent(card) });
  goOnInPlace(form, sendWhenOnline(form, signal), { signal, words });
  keepDraft(form, words, signal);
  questions.draw();
  draw();
  document.getElementById("problems")?.focus();
  return { focus: () => moveTo(current), stop: () => ending.abort() };
}
