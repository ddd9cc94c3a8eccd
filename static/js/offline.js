// An answer that cannot be sent waits on this device, one at a time, and goes out once there is a connection. Its idempotency key
// makes it safe to send again.
"use strict";

function sendWhenOnline(form, words, signal) {
  const SHELF = `preferable-unsent-${form.dataset.person}`;
  const banner = form.querySelector("[data-offline]");
  const kept = () => JSON.parse(localStorage.getItem(SHELF));
  const isCutOff = () => !navigator.onLine || form.dataset.unreachable !== undefined;
  let retry = 0;

  function show() {
    const waits = kept() !== null;
    banner.hidden = !waits && !isCutOff();
    banner.textContent = waits ? (isCutOff() ? words.waits : words.sending) : words.offline;
  }

  // As a person would send it: the page that comes back says why it was refused, and keeps what was chosen.
  function resend(action, fields) {
    const copy = Object.assign(document.createElement("form"), { method: "post", action, hidden: true });
    for (const [name, value] of fields) {
      copy.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
    }
    document.body.append(copy);
    copy.submit();
  }

  async function send() {
    show();
    const item = kept();
    if (item === null || !navigator.onLine || signal.aborted) return;
    const fields = new URLSearchParams(item.body);
    fields.set("csrf_token", form.elements.csrf_token.value);
    try {
      const answer = await fetch(item.action, { method: "POST", body: fields });
      if (new URL(answer.url).pathname === "/login") return location.assign(answer.url); // kept for after the sign-in
      if (answer.status === 403) return; // signed out meanwhile: kept, a reload asks to sign in
      if (answer.status === 429 || answer.status >= 500) throw new Error(`status ${answer.status}`);
      localStorage.removeItem(SHELF);
      if (answer.ok) location.assign(answer.url);
      else resend(item.action, fields);
    } catch {
      clearTimeout(retry);
      retry = setTimeout(send, 5000);
    }
  }

  // False where another answer waits already.
  function shelve(fields) {
    const other = kept();
    if (other !== null && other.action !== form.action) return false;
    fields.delete("csrf_token");
    localStorage.setItem(SHELF, JSON.stringify({ action: form.action, body: fields.toString() }));
    return true;
  }

  function keep(fields) {
    if (shelve(fields)) return send();
    banner.hidden = false;
    banner.textContent = words.shelfTaken;
  }

  // What is changed after it was sent off has to be sent off again.
  form.addEventListener("input", () => {
    if (kept()?.action !== form.action) return;
    localStorage.removeItem(SHELF);
    show();
  });

  window.addEventListener("online", send, { signal });
  window.addEventListener("offline", show, { signal });
  signal.addEventListener("abort", () => clearTimeout(retry));
  form.addEventListener("reached", send); // a draft was saved, or could not be
  send();
  return { isCutOff, keep, shelve };
}
