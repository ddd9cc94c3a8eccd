// A form sent without a connection waits on this device, one at a time, and goes out once there is one. Its idempotency key makes
// it safe to send again.
"use strict";

function sendWhenOnline(form, words) {
  const SHELF = `preferable-unsent-${form.dataset.person}`;
  const banner = form.querySelector("[data-offline]");

  function show() {
    const waits = localStorage.getItem(SHELF) !== null;
    banner.hidden = navigator.onLine && !waits;
    banner.textContent = waits ? (navigator.onLine ? words.sending : words.waits) : words.offline;
  }

  async function send() {
    show();
    const kept = localStorage.getItem(SHELF);
    if (kept === null || !navigator.onLine) return;
    const { action, body } = JSON.parse(kept);
    try {
      const answer = await fetch(action, { method: "POST", body: new URLSearchParams(body) });
      if (new URL(answer.url).pathname === "/login") return location.assign(answer.url); // kept for after the sign-in
      localStorage.removeItem(SHELF);
      if (answer.ok) location.assign(answer.url);
      else if (form.action === action) form.submit(); // refused: the page that comes says why, and keeps what was chosen
      else location.assign(action.replace(/\/[^/]+$/, "")); // another task's: its own page says what became of it
    } catch {
      setTimeout(send, 5000);
    }
  }

  form.addEventListener("submit", (event) => {
    if (navigator.onLine) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, event.submitter)).toString();
    localStorage.setItem(SHELF, JSON.stringify({ action: form.action, body }));
    show();
  });
  window.addEventListener("online", send);
  window.addEventListener("offline", show);
  send();
}
