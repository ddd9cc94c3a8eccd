// The keyboard: single keys as the person chose them, digits by their place, and the keys that always work.
"use strict";

// As it is printed on the key: Caps Lock makes no capital.
function keyOf(event) {
  if (!/^[a-z]$/i.test(event.key)) return event.key;
  return event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
}

// By the key's place: with Shift, or on a French keyboard, the character is another one.
const digitOf = (event) => /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];

// What is typed into keeps its keys.
const isTyped = (target) => target.closest("textarea, select, input:not([type=radio], [type=checkbox])") !== null;

// What the arrows scroll sideways, too.
const scrollsAside = (target) => target.scrollWidth > target.clientWidth && /auto|scroll/.test(getComputedStyle(target).overflowX);

// `acts` by name; `page` has what needs more than a name: submit, close and whether it is being sent, and where it has them interrupt,
// letter, question, digit and lean, which the arrows to the left (-1) and to the right (1) do.
function listenForKeys(keys, acts, page, signal) {
  const byKey = new Map(Object.entries(keys).map(([act, key]) => [key, acts[act]]));

  function leans(event) {
    if (!page.lean || !/^Arrow(Left|Right)$/.test(event.key)) return false;
    if (event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return false;
    return !event.target.closest(".ask") && !scrollsAside(event.target);
  }

  // The keys that work whether single ones are on or off; true where one did.
  function pressAlways(event) {
    const isControl = event.ctrlKey || event.metaKey;
    if (event.key === "Enter" && isControl) page.submit();
    else if (isTyped(event.target)) return false;
    else if (isControl && acts.undo && event.key.toLowerCase() === "z") (event.shiftKey ? acts.redo : acts.undo)();
    else if (event.altKey && acts.up && /^Arrow(Up|Down)$/.test(event.key)) (event.key === "ArrowUp" ? acts.up : acts.down)();
    else if (leans(event)) page.lean(event.key === "ArrowLeft" ? -1 : 1);
    else return false;
    return true;
  }

  function pressSingle(event) {
    if (isTyped(event.target)) return false;
    if (event.ctrlKey || event.altKey || event.metaKey || byKey.size === 0) return false;
    const key = keyOf(event);
    if (page.letter?.(key) || page.question?.(key)) return true;
    // Shift and a digit rate, whatever that types on a keyboard; Shift and 0 is the only way to "=" on some.
    const act = event.shiftKey && /^Digit[1-7]$/.test(event.code) ? null : byKey.get(key);
    if (act) act();
    else return digitOf(event) !== undefined && Boolean(page.digit?.(digitOf(event), event.shiftKey));
    return true;
  }

  document.addEventListener(
    "keydown",
    (event) => {
      page.interrupt?.();
      // A bare Enter in a field would submit the form.
      if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && event.target.matches("input")) event.preventDefault();
      if (event.isComposing || event.repeat || page.isBeingSent() || event.target.closest("dialog")) return;
      if (event.key === "Escape") page.close();
      else if (pressAlways(event) || pressSingle(event)) event.preventDefault();
    },
    { signal },
  );
}
