// An answer that cannot be sent waits on this device, one at a time, and goes out once there is a connection, from whichever page of
// the same person is open then. Its idempotency key makes it safe to send again.
"use strict";

const SEND_MS = 30_000;
const unsent = document.getElementById("unsent");
const unsentWords = JSON.parse(unsent.dataset.words);

const isAway = (answer) => answer.status === 429 || answer.status >= 500;
const isSignedOut = (answer) => [401, 403].includes(answer.status) || new URL(answer.url).pathname === "/login";

// The same page again: by the sign-in where there is none, with the token of another one.
const linkToSignIn = () => Object.assign(document.createElement("a"), { href: location.pathname + location.search, textContent: unsentWords.signIn });

// Nothing changes in a form while it is sent; gives what lets go of it.
function holdStill(form) {
  const focused = document.activeElement;
  form.inert = true;
  return () => {
    form.inert = false;
    if (document.activeElement === document.body) focused.focus({ preventScroll: true });
  };
}

// `place` has the person, the token and the banner: the form of a task, or what every other page has for it.
function sendWhenOnline(place, signal) {
  const SHELF = `preferable-unsent-${place.dataset.person}`;
  const banner = place.querySelector("[data-offline]");
  const isForm = place.matches("form");
  const kept = () => JSON.parse(localStorage.getItem(SHELF));
  const isCutOff = () => !navigator.onLine || place.dataset.unreachable !== undefined;
  let retry = 0;
  let isUnderWay = false;

  function say(...parts) {
    banner.replaceChildren(...parts);
  }

  function show() {
    if (kept() !== null) say(isCutOff() ? unsentWords.waits : unsentWords.sending);
    else say(isForm && isCutOff() ? unsentWords.offline : "");
  }

  // As a person would send it: the page that comes back says why it was refused, and keeps what was chosen.
  function resend(action, fields) {
    localStorage.removeItem(SHELF);
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
    if (item === null || !navigator.onLine || signal?.aborted || isUnderWay) return;
    const fields = new URLSearchParams(item.body);
    fields.set("csrf_token", place.querySelector("[name=csrf_token]").value);
    const letGo = item.action === place.action ? holdStill(place) : () => {};
    isUnderWay = true;
    try {
      const answer = await fetch(item.action, { method: "POST", body: fields, signal: AbortSignal.timeout(SEND_MS) });
      if (isAway(answer)) throw new Error(`status ${answer.status}`);
      if (!finish(answer, item.action, fields)) letGo();
    } catch {
      letGo();
      clearTimeout(retry);
      retry = setTimeout(send, 5000);
    } finally {
      isUnderWay = false;
    }
  }

  // True where another page follows.
  function finish(answer, action, fields) {
    if (isSignedOut(answer)) {
      say(unsentWords.signedOut, " ", linkToSignIn());
      return false;
    }
    if (answer.ok) localStorage.removeItem(SHELF);
    if (isForm && answer.ok) location.assign(answer.url);
    else if (isForm) resend(action, fields);
    else if (answer.ok) say(unsentWords.sent);
    else {
      const why = Object.assign(document.createElement("button"), { type: "button", className: "button button-small", textContent: unsentWords.seeWhy });
      why.addEventListener("click", () => resend(action, fields));
      say(unsentWords.refused, " ", why);
    }
    return isForm;
  }

  // False where another answer waits already.
  function shelve(fields) {
    const other = kept();
    if (other !== null && other.action !== place.action) return false;
    fields.delete("csrf_token");
    localStorage.setItem(SHELF, JSON.stringify({ action: place.action, body: fields.toString() }));
    return true;
  }

  function keep(fields) {
    if (shelve(fields)) send();
    else say(unsentWords.shelfTaken);
  }

  // What is changed after it was sent off has to be sent off again.
  place.addEventListener("input", () => {
    if (kept()?.action !== place.action) return;
    localStorage.removeItem(SHELF);
    show();
  });

  window.addEventListener("online", send, { signal });
  window.addEventListener("offline", show, { signal });
  signal?.addEventListener("abort", () => clearTimeout(retry));
  place.addEventListener("reached", send); // a draft was saved, or could not be
  send();
  return { isCutOff, keep, shelve, say };
}

if (!document.querySelector("form[data-person]")) sendWhenOnline(unsent);
