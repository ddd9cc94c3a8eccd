// What the ranking form says, and the ways to say it otherwise. Its controls are the only state; everything else is drawn from them.
"use strict";

const UNRANKED = "";
const UNRANKABLE = "x";

function readRanking(form) {
  const cards = [...form.querySelectorAll("[data-output]")];
  const words = JSON.parse(form.dataset.words);
  const scales = new Map(cards.map((card) => [card, { tier: radiosOf(card, "tier"), quality: radiosOf(card, "quality") }]));

  function radiosOf(card, part) {
    return [...card.querySelectorAll(`input[name^="${part}-"]`)];
  }

  const letterOf = (card) => card.dataset.letter;
  const radioOf = (card, part, value) => scales.get(card)[part].find((radio) => radio.value === value);
  const valueOf = (card, part) => scales.get(card)[part].find((radio) => radio.checked)?.value ?? "";
  const tierOf = (card) => Number(valueOf(card, "tier")) || 0; // 0 where it is unranked or not rankable
  const tell = (control) => control.dispatchEvent(new Event("input", { bubbles: true }));
  const isUnranked = (card) => valueOf(card, "tier") === UNRANKED;

  function choose(card, part, value) {
    const radio = radioOf(card, part, value);
    if (!radio || radio.checked || form.inert) return false;
    radio.checked = true;
    tell(radio);
    return true;
  }

  // Several tiers as one step, told as the move of `card`. `also` holds further controls with their new values.
  function arrange(card, tiers, also = new Map()) {
    if (form.inert) return;
    for (const [other, tier] of tiers) radioOf(other, "tier", String(tier)).checked = true;
    for (const [control, value] of also) control.value = value;
    tell(radioOf(card, "tier", valueOf(card, "tier")));
  }

  function placeOf(card) {
    const tier = valueOf(card, "tier");
    const letters = cards.filter((other) => other !== card && valueOf(other, "tier") === tier).map(letterOf).join(", ");
    const ranked = letters ? words.isTied : words.isPlaced;
    const text = { [UNRANKED]: words.isUnranked, [UNRANKABLE]: words.isUnrankable }[tier] ?? ranked;
    const left = fill(words.left, { count: cards.filter(isUnranked).length });
    return `${fill(text, { letter: letterOf(card), tier, letters })} ${left}`;
  }

  // Those that are ranked, best first, in groups of the same tier; without `card` where one is named.
  function rungs(card = null) {
    const ranked = cards.filter((other) => other !== card && tierOf(other));
    const tiers = [...new Set(ranked.map(tierOf))].sort((one, other) => one - other);
    return tiers.map((tier) => ({ tier, cards: ranked.filter((other) => tierOf(other) === tier) }));
  }

  // The tiers that give `card` one of its own below the first `above` rungs of the others: a free one where there is one.
  function insertAt(card, above) {
    const others = rungs(card);
    const better = above > 0 ? others[above - 1].tier : 0;
    const worse = above < others.length ? others[above].tier : cards.length + 1;
    if (worse - better > 1) return new Map([[card, better + 1]]);
    const all = others.map((rung) => rung.cards).toSpliced(above, 0, [card]);
    return new Map(all.flatMap((group, at) => group.map((other) => [other, at + 1])));
  }

  return {
    form,
    words,
    cards,
    size: cards.length,
    letterOf,
    radioOf,
    valueOf,
    tierOf,
    isUnranked,
    choose,
    arrange,
    placeOf,
    rungs,
    insertAt,
    isUnrankable: (card) => valueOf(card, "tier") === UNRANKABLE,
    reasonOf: (card) => card.querySelector('[name^="reason-"]'),
    cardOf: (letter) => cards.find((card) => letterOf(card) === letter.toUpperCase()),
    nextUnranked(card) {
      const from = cards.indexOf(card);
      return [...cards.slice(from + 1), ...cards.slice(0, from)].find(isUnranked);
    },
  };
}
