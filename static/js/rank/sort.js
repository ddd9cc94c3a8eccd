// Tiers first: all responses into good, middling and bad, then in order inside each. Every step is a ranking with ties, so that
// whoever stops has one. Which group a response is in, and where inside, stands in the field `sort`, for undo; empty where it is off.
"use strict";

const FEWEST_TO_SORT = 4;
const SORTED_BY_DEFAULT = 6;
const GROUPS = [1, 2, 3];

function makeSort(ranking, { signal, say, goOnSoon, current }) {
  const { form, words, cards, size } = ranking;
  const field = form.elements.sort;
  const panel = form.querySelector("[data-sort]");
  const part = (name) => panel.querySelector(`[data-sort-${name}]`);
  const MEMORY = `preferable-sort-${form.dataset.person}`;
  let isOurs = false; // whether the tiers that change now are changed from here

  const isOn = () => field.value !== "";
  const read = () => new Map(Object.entries(JSON.parse(field.value)).map(([letter, place]) => [ranking.cardOf(letter), place]));
  const write = (places) => JSON.stringify(Object.fromEntries([...places].map(([card, place]) => [ranking.letterOf(card), place])));
  const membersOf = (places, group) => cards.filter((card) => places.get(card)?.[0] === group);
  // What has no place inside its group yet, in groups of more than one.
  const loose = (places) =>
    GROUPS.map((group) => membersOf(places, group))
      .filter((members) => members.length > 1)
      .flatMap((members) => members.filter((card) => !places.get(card)[1]));
  const isOrdering = (places) => cards.every((card) => places.has(card) || ranking.isUnrankable(card));
  const isDone = (places) => isOrdering(places) && loose(places).length === 0;
  const areGroups = (places) => [...places.values()].every(([, inside]) => !inside);

  // Tiers of groups alone are 1, 2, 3; with places inside, they are without gaps, the loose ones last in their group.
  function tiersOf(places) {
    if (areGroups(places)) return new Map([...places].map(([card, [group]]) => [card, group]));
    const rank = ([group, inside]) => group * 100 + (inside || 99);
    const ranks = [...new Set([...places.values()].map(rank))].sort((one, other) => one - other);
    return new Map([...places].map(([card, place]) => [card, ranks.indexOf(rank(place)) + 1]));
  }

  // As far as tiers are groups already; null where one is no group. A draft may have been sorted further.
  function begin() {
    const ranked = cards.filter(ranking.tierOf);
    if (isOn() && ranked.length === read().size && [...tiersOf(read())].every(([card, tier]) => ranking.tierOf(card) === tier)) return field.value;
    if (ranked.some((card) => ranking.tierOf(card) > GROUPS.length)) return null;
    return write(new Map(ranked.map((card) => [card, [ranking.tierOf(card), 0]])));
  }

  function toggle() {
    const begun = begin();
    if (size < FEWEST_TO_SORT) return say(words.sortTooFew);
    if (!isOn() && begun === null) return say(words.sortTooLate);
    localStorage.setItem(MEMORY, isOn() ? "off" : "on");
    field.value = isOn() ? "" : begun;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    say(isOn() ? stepOf(read()) : words.sortOff);
  }

  function press(digit) {
    const card = current();
    const places = read();
    if (digit === 0) {
      places.delete(card);
      return put(card, places, true);
    }
    if (!isOrdering(places) || ranking.isUnrankable(card)) {
      if (digit <= GROUPS.length) put(card, places.set(card, [digit, 0]));
      return;
    }
    const [group] = places.get(card);
    const count = membersOf(places, group).length;
    if (count > 1 && digit <= count) put(card, places.set(card, [group, digit]));
  }

  function put(card, places, takesBack = false) {
    const ends = isDone(places);
    if (takesBack) ranking.radioOf(card, "tier", UNRANKED).checked = true;
    isOurs = true;
    ranking.arrange(card, tiersOf(places), new Map([[field, ends ? "" : write(places)]]));
    isOurs = false;
    if (ends) say(words.sortDone);
    else if (!takesBack) goOnSoon(ranking.nextUnranked(card) ?? loose(places)[0]);
  }

  // --- What is seen ---

  function stepOf(places) {
    const letter = ranking.letterOf(current());
    if (!isOrdering(places)) return fill(words.sortGroups, { letter, done: cards.filter((card) => !ranking.isUnranked(card)).length, all: size });
    const left = loose(places).length;
    const group = places.get(current())?.[0];
    const count = membersOf(places, group).length;
    if (!group || count < 2) return fill(words.sortAlone, { letter, left });
    return fill(words.sortInside, { letter, group: words.groups[group - 1], count, left });
  }

  function draw() {
    panel.hidden = !isOn();
    form.querySelector("[data-act=sort]").setAttribute("aria-pressed", String(isOn()));
    if (!isOn()) return;
    const places = read();
    part("step").textContent = stepOf(places);
    const inside = isOrdering(places);
    const count = inside ? membersOf(places, places.get(current())?.[0]).length : GROUPS.length;
    for (const [at, button] of [...part("digits").children].entries()) {
      button.hidden = at >= count || (inside && count < 2);
      button.querySelector("span").textContent = inside ? { 0: words.best, [count - 1]: words.worst }[at] ?? "" : words.groups[at];
    }
  }

  for (const [at, button] of [...part("digits").children].entries()) button.addEventListener("click", () => press(at + 1));

  // A tier that is chosen in another way counts: as a group where tiers are groups so far; any other ends this.
  form.addEventListener(
    "input",
    (event) => {
      if (isOurs || !isOn() || !event.target.name?.startsWith("tier-")) return;
      const places = read();
      const card = event.target.closest("[data-output]");
      const tier = ranking.tierOf(card);
      const isGroup = tier <= GROUPS.length && areGroups(places);
      if (!tier) places.delete(card);
      else if (isGroup) places.set(card, [tier, 0]);
      const ends = tier && !isGroup ? words.sortOff : isDone(places) ? words.sortDone : "";
      field.value = ends ? "" : write(places);
      if (ends) setTimeout(() => say(`${ranking.placeOf(card)} ${ends}`)); // once its move was told
    },
    { capture: true, signal },
  );

  const wants = localStorage.getItem(MEMORY) ?? (size >= SORTED_BY_DEFAULT ? "on" : "off");
  const goesOn = wants === "on" && (isOn() || (size >= SORTED_BY_DEFAULT && cards.some(ranking.isUnranked)));
  field.value = form.dataset.draft && goesOn ? begin() ?? "" : "";

  return { isOn, press, toggle, draw };
}
