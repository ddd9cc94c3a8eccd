// Keeps what is in a form on the server while it is filled in: within a second of a change, and on leaving the page.
"use strict";

const DRAFT_MS = 800;
const DRAFT_AGAIN_MS = 5000;

// `signal` ends it, where another form takes the place of this one.
function keepDraft(form, words, signal) {
  if (!form.dataset.draft) return askBeforeLeaving(form); // a revision: what it revises is stored
  const status = document.querySelector("[data-saved]");
  let timer = 0;
  let isDirty = false;
  let isSent = false;
  let saving = null; // one at a time, so that none is overwritten by an older one

  function saveIn(milliseconds) {
    clearTimeout(timer);
    timer = setTimeout(save, milliseconds);
  }

  async function post(leaving) {
    const answer = await fetch(form.dataset.draft, {
      method: "POST",
      body: new FormData(form),
      headers: { Accept: "application/json" },
      signal: AbortSignal.any([leaving, AbortSignal.timeout(SEND_MS)]),
    });
    if (isAway(answer)) throw new Error(`status ${answer.status}`);
    return { isSaved: answer.ok, isSignedOut: isSignedOut(answer), savedAt: answer.ok && (await answer.json()).saved_at };
  }

  async function save() {
    if (!isDirty || isSent || saving) return;
    isDirty = false;
    const mine = (saving = new AbortController());
    const answer = await post(mine.signal).catch(() => null);
    saving = null;
    if (mine.signal.aborted) return saveIn(DRAFT_MS); // what left with the page is newer
    if (signal?.aborted) return;
    isDirty ||= !answer?.isSaved;
    if (isSent) return;
    tellReached(answer !== null);
    tell(answer);
    if (answer === null) saveIn(DRAFT_AGAIN_MS);
    else if (answer.isSaved) saveIn(DRAFT_MS);
  }

  function tell(answer) {
    if (answer === null) status.textContent = words.unsaved;
    else if (answer.isSignedOut) status.replaceChildren(unsentWords.draftSignedOut, " ", linkToSignIn());
    else if (!answer.isSaved) status.textContent = unsentWords.draftRefused;
    else status.textContent = answer.savedAt ? words.saved.replace("{time}", new Date(answer.savedAt).toLocaleTimeString()) : words.answered;
  }

  function tellReached(isReached) {
    if (isReached && form.dataset.unreachable === undefined) return;
    if (isReached) delete form.dataset.unreachable;
    else form.dataset.unreachable = "";
    form.dispatchEvent(new Event("reached"));
  }

  function saveOnLeaving() {
    if (isSent || !(isDirty || saving)) return;
    saving?.abort();
    const isQueued = navigator.sendBeacon(form.dataset.draft, new FormData(form));
    isDirty = !isQueued || !navigator.onLine || form.dataset.unreachable !== undefined;
  }

  form.addEventListener("input", () => {
    isDirty = true;
    saveIn(DRAFT_MS);
  });
  function stop() {
    isSent = true;
    clearTimeout(timer);
  }

  function goOn() {
    isSent = false;
    saveIn(DRAFT_MS);
  }

  form.addEventListener("submit", (event) => event.defaultPrevented || stop());
  form.addEventListener("sent", stop); // by a script
  form.addEventListener("unsent", goOn); // it could not be sent after all
  signal?.addEventListener("abort", () => {
    saveOnLeaving();
    stop();
  });
  window.addEventListener("pagehide", saveOnLeaving, { signal });
  document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && saveOnLeaving(), { signal });
  window.addEventListener("pageshow", (event) => (isSent &&= !event.persisted), { signal });
}

function askBeforeLeaving(form) {
  let isChanged = false;
  form.addEventListener("input", () => (isChanged = true));
  form.addEventListener("submit", (event) => (isChanged &&= event.defaultPrevented));
  window.addEventListener("beforeunload", (event) => {
    if (isChanged) event.preventDefault();
  });
}
