// Two responses side by side. An answer orders the two; a response without a place finds it among the ranked ones by halving.
"use strict";

function makeCompare(ranking, keys, { signal, undo, moveTo, say }) {
  const { words } = ranking;
  const dialog = document.querySelector("[data-compare]");
  const part = (name) => dialog.querySelector(`[data-compare-${name}]`);
  const sides = { left: part("left"), right: part("right") };
  const strengths = [...dialog.querySelectorAll("[name=strength]")];
  const pairs = ranking.form.elements.pairs; // "better>worse:strength", by the samples' names, as far as they were graded
  let shown = null; // { left, right }
  let search = null; // where a response may yet stand: below the first `low` rungs of the others, above the rest from `high` on
  let earlier = []; // the searches before each answer of this one
  let graded = []; // strengths said in this search, stored once it is over

  const letter = (card) => ranking.letterOf(card);

  // --- Which two ---

  // Two without a place say nothing of where they stand among those that have one.
  function whyNot(card, other) {
    const unrankable = [card, other].find(ranking.isUnrankable);
    if (unrankable) return fill(words.isUnrankable, { letter: letter(unrankable) });
    if (ranking.tierOf(card) || ranking.tierOf(other) || ranking.rungs().length === 0) return "";
    return fill(words.compareNoPlace, { letter: letter(card), other: letter(other) });
  }

  function open(card, other) {
    if (card === other) return;
    const why = whyNot(card, other);
    if (why) return dialog.open ? (part("status").textContent = why) : say(why);
    const [subject, ...more] = [card, other].filter((one) => !ranking.tierOf(one));
    earlier = [];
    graded = [];
    search = subject && more.length === 0 ? { subject, low: 0, high: ranking.rungs().length } : null;
    show(card, other);
  }

  // Find the place of a response that has none; false where there is nothing to compare it with.
  function place(card) {
    const count = ranking.rungs(card).length;
    if (!ranking.isUnranked(card) || count === 0) return false;
    search = { subject: card, low: 0, high: count };
    earlier = [];
    graded = [];
    ask();
    return true;
  }

  function ask() {
    const { subject, low, high } = search;
    show(subject, ranking.rungs(subject)[Math.floor((low + high) / 2)].cards[0]);
  }

  // --- What is seen ---

  function show(left, right) {
    shown = { left, right };
    for (const [name, card] of Object.entries(shown)) {
      const text = card.querySelector(".output-text").cloneNode(true);
      sides[name].querySelector("h3").textContent = letter(card);
      sides[name].querySelector(".compare-text").replaceChildren(text);
      sides[name].querySelector(".compare-text").dataset.shows = card.dataset.output;
      sides[name].scrollTop = 0;
      part(`${name}-wins`).textContent = fill(words.isBetter, { letter: letter(card) });
    }
    part("title").textContent = fill(words.compared, { left: letter(left), right: letter(right) });
    part("status").textContent = search ? describeSearch() : "";
    for (const radio of strengths) radio.checked = radio.value === "";
    part("difference").setAttribute("aria-pressed", "false");
    drawOthers();
    if (!dialog.open) dialog.showModal();
    sides.left.focus();
  }

  function describeSearch() {
    const most = Math.ceil(Math.log2(search.high - search.low + 1));
    return fill(words.searching, { letter: letter(search.subject), done: earlier.length + 1, all: earlier.length + most });
  }

  function drawOthers() {
    const others = ranking.cards.filter((card) => !Object.values(shown).includes(card) && !ranking.isUnrankable(card));
    part("others").replaceChildren(
      ...others.map((card) => {
        const button = Object.assign(document.createElement("button"), { type: "button", className: "chip", textContent: letter(card) });
        const why = whyNot(shown.left, card);
        button.title = why || fill(words.compareInstead, { letter: letter(card) });
        button.setAttribute("aria-disabled", String(why !== ""));
        button.addEventListener("click", () => open(shown.left, card));
        return button;
      }),
    );
    part("others").parentElement.hidden = others.length === 0;
  }

  function toggleDifference() {
    const button = part("difference");
    if (button.getAttribute("aria-pressed") === "true") {
      for (const name of ["left", "right"]) {
        sides[name].querySelector(".compare-text").replaceChildren(shown[name].querySelector(".output-text").cloneNode(true));
      }
      button.setAttribute("aria-pressed", "false");
      part("status").textContent = search ? describeSearch() : "";
      return;
    }
    const counts = markDifference(sides.left.querySelector(".compare-text"), sides.right.querySelector(".compare-text"));
    button.setAttribute("aria-pressed", String(counts !== null));
    const told = { left: letter(shown.left), right: letter(shown.right), ofLeft: counts?.[0], ofRight: counts?.[1] };
    part("status").textContent = counts ? fill(words.differ, told) : words.tooLong;
  }

  // --- Answers: 1 where the left one is better, -1 where the right one is, 0 for a tie ---

  function answer(sign) {
    if (ranking.form.inert) return close(); // it is being sent
    const { left, right } = shown;
    const grades = graded.length;
    grade(sign);
    if (search) return narrow(left === search.subject ? sign : -sign, left === search.subject ? right : left, grades);
    orderBoth(left, right, sign);
    close();
    say(ranking.placeOf(left));
  }

  function grade(sign) {
    const strength = strengths.find((radio) => radio.checked)?.value;
    if (!strength || sign === 0) return;
    const [better, worse] = sign > 0 ? [shown.left, shown.right] : [shown.right, shown.left];
    graded.push(`${better.dataset.output}>${worse.dataset.output}:${strength}`);
  }

  function withGrades() {
    const isSame = (one, other) => one.split(":")[0].split(">").sort().join() === other.split(":")[0].split(">").sort().join();
    const kept = pairs.value.split(" ").filter((one) => one && !graded.some((other) => isSame(one, other)));
    return new Map([[pairs, [...kept, ...graded].join(" ")]]);
  }

  // The left one moves just beside the right one, where the answer does not hold already.
  function orderBoth(left, right, sign) {
    const [one, other] = [ranking.tierOf(left), ranking.tierOf(right)];
    if (!one && !other) {
      const tiers = sign === 0 ? [1, 1] : sign > 0 ? [1, 2] : [2, 1];
      return ranking.arrange(left, new Map([[left, tiers[0]], [right, tiers[1]]]), withGrades());
    }
    if (Math.sign(other - one) === sign) return ranking.arrange(left, new Map(), withGrades());
    if (sign === 0) return ranking.arrange(left, new Map([[left, other]]), withGrades());
    const at = ranking.rungs(left).findIndex((rung) => rung.cards.includes(right));
    ranking.arrange(left, ranking.insertAt(left, sign > 0 ? at : at + 1), withGrades());
  }

  function narrow(sign, other, grades) {
    const { subject, low, high } = search;
    const at = ranking.rungs(subject).findIndex((rung) => rung.cards.includes(other));
    earlier.push({ ...search, other, grades });
    if (sign === 0) return settle(new Map([[subject, ranking.tierOf(other)]]));
    search = sign > 0 ? { subject, low, high: Math.min(high, at) } : { subject, low: Math.max(low, at + 1), high };
    if (search.low < search.high) ask();
    else settle(ranking.insertAt(subject, search.low));
  }

  // It has its place; the next without one is looked for a place at once.
  function settle(tiers) {
    const { subject } = search;
    ranking.arrange(subject, tiers, withGrades());
    const next = ranking.nextUnranked(subject);
    if (next) {
      moveTo(next);
      place(next);
      part("status").textContent = `${ranking.placeOf(subject)} ${describeSearch()}`;
      return;
    }
    close();
    say(ranking.placeOf(subject));
  }

  // An answer of this search is taken back by itself, a place that was found through the page's own undo.
  function takeBack() {
    if (earlier.length > 0) {
      const { other, grades, ...before } = earlier.pop();
      search = before;
      graded.length = grades;
      return show(search.subject, other);
    }
    const placed = ranking.cards.filter(ranking.tierOf);
    undo();
    const back = placed.find((card) => !ranking.tierOf(card));
    if (!back || !place(back)) close();
  }

  function close() {
    dialog.close();
  }

  // --- Keys and buttons ---

  const acts = {
    left: () => answer(1),
    right: () => answer(-1),
    tie: () => answer(0),
    difference: toggleDifference,
    undo: takeBack,
    leave: close,
  };

  function press(event) {
    if (event.isComposing || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return false;
    const onControl = event.target.closest("button, a");
    if (event.key === "Enter" && !onControl) acts[event.shiftKey ? "right" : "left"]();
    else if (Object.keys(keys).length === 0) return false;
    else if (keyOf(event) === keys.tie) acts.tie();
    else if (keyOf(event) === keys.difference) acts.difference();
    else if (keyOf(event) === keys.undo) acts.undo();
    else if (!event.shiftKey && /^[0-4]$/.test(digitOf(event) ?? "")) strengths[Number(digitOf(event))].checked = true;
    else return false;
    return true;
  }

  dialog.addEventListener("keydown", (event) => press(event) && event.preventDefault(), { signal });
  dialog.addEventListener("close", () => moveTo(search ? search.subject : shown.left), { signal });
  for (const button of dialog.querySelectorAll("[data-compare-act]")) {
    button.addEventListener("click", () => acts[button.dataset.compareAct](), { signal });
  }

  return { open, place };
}
