// Keeps what is in a form on the server while it is filled in: within a second of a change, and on leaving the page.
"use strict";

function keepDraft(form, words) {
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
      status.textContent = savedAt ? words.saved.replace("{time}", new Date(savedAt).toLocaleTimeString()) : words.answered;
      if (form.dataset.unreachable !== undefined) {
        delete form.dataset.unreachable;
        form.dispatchEvent(new Event("reached"));
      }
    } catch {
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
  form.addEventListener("submit", (event) => {
    if (event.defaultPrevented) return; // it waits for a connection
    isSent = true;
    clearTimeout(timer);
  });
  window.addEventListener("pagehide", saveOnLeaving);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") saveOnLeaving();
  });
  window.addEventListener("pageshow", () => {
    isSent = false;
  });
}

function askBeforeLeaving(form) {
  let isChanged = false;
  form.addEventListener("input", () => (isChanged = true));
  form.addEventListener("submit", () => (isChanged = false));
  window.addEventListener("beforeunload", (event) => {
    if (isChanged) event.preventDefault();
  });
}
