// Keeps what is in a form on the server while it is filled in: within a second of a change, and on leaving the page.
"use strict";

// `signal` ends it, where another form takes the place of this one.
function keepDraft(form, words, signal) {
  if (!form.dataset.draft) return askBeforeLeaving(form); // a revision: what it revises is stored
  const status = document.querySelector("[data-saved]");
  let timer = 0;
  let isDirty = false;
  let isSent = false;

  async function save() {
    if (!isDirty || isSent) return;
    isDirty = false;
    try {
      const answer = await fetch(form.dataset.draft, {
        method: "POST",
        body: new FormData(form),
        headers: { Accept: "application/json" },
      });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const { saved_at: savedAt } = await answer.json();
      if (isSent) return;
      status.textContent = savedAt ? words.saved.replace("{time}", new Date(savedAt).toLocaleTimeString()) : words.answered;
      if (form.dataset.unreachable !== undefined) {
        delete form.dataset.unreachable;
        form.dispatchEvent(new Event("reached"));
      }
    } catch {
      if (signal?.aborted) return;
      form.dataset.unreachable = "";
      form.dispatchEvent(new Event("reached"));
      isDirty = true;
      status.textContent = words.unsaved;
      timer = setTimeout(save, 5000);
    }
  }

  function saveOnLeaving() {
    if (!isDirty || isSent) return;
    isDirty = !navigator.sendBeacon(form.dataset.draft, new FormData(form));
  }

  form.addEventListener("input", () => {
    isDirty = true;
    clearTimeout(timer);
    timer = setTimeout(save, 800);
  });
  function stop() {
    isSent = true;
    clearTimeout(timer);
  }

  form.addEventListener("submit", (event) => event.defaultPrevented || stop());
  form.addEventListener("sent", stop); // by a script
  form.addEventListener("unsent", () => (isSent = false)); // it could not be sent after all
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
  form.addEventListener("submit", () => (isChanged = false));
  window.addEventListener("beforeunload", (event) => {
    if (isChanged) event.preventDefault();
  });
}
