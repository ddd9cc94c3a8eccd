// Undo and redo of what is chosen in a form. A state is what every control holds; what is typed into one field is one step.
"use strict";

function keepHistory(form, onRestored) {
  const isSwitch = (control) => control.matches("[type=radio], [type=checkbox]");
  const controls = [...form.elements].filter((control) => control.name && !control.matches("[type=hidden], button, [data-menu=ask] *"));
  const read = () => controls.map((control) => (isSwitch(control) ? control.checked : control.value));
  const past = [];
  const future = [];
  let present = read();
  let typedIn = null;

  const isSame = (state) => state.every((value, at) => value === present[at]);

  form.addEventListener("input", (event) => {
    const now = read();
    if (isSame(now)) return;
    const isTyping = event.target.matches("textarea, input") && !isSwitch(event.target);
    if (!isTyping || typedIn !== event.target) past.push(present);
    typedIn = isTyping ? event.target : null;
    future.length = 0;
    present = now;
  });

  function go(from, to) {
    while (from.length > 0 && isSame(from.at(-1))) from.pop(); // typed, and taken back by the field's own undo
    if (from.length === 0) return false;
    const wanted = from.pop();
    const changed = controls.filter((control, at) => wanted[at] !== present[at]);
    to.push(present);
    present = wanted;
    typedIn = null;
    for (const [at, control] of controls.entries()) {
      if (isSwitch(control)) control.checked = wanted[at];
      else control.value = wanted[at];
    }
    form.dispatchEvent(new Event("input", { bubbles: true }));
    onRestored(changed);
    return true;
  }

  return {
    undo: () => go(past, future),
    redo: () => go(future, past),
    canUndo: () => past.length > 0,
    canRedo: () => future.length > 0,
  };
}
