// The page of a text that is written: a live count of words, the text as readers see it, a model's text to start from, drafts.
"use strict";

const writeForm = document.getElementById("write");
const writeWords = JSON.parse(writeForm.dataset.words);
const writeText = document.getElementById("text");
const writeCount = document.querySelector("[data-count]");
const PREVIEW_MS = 300;

function showCount() {
  const text = writeText.value.trim();
  const words = text ? text.split(/\s+/u).length : 0;
  const longest = Number(writeText.dataset.longest);
  const { low, high } = writeForm.dataset;
  const isOver = text.length > longest;
  const parts = [writeWords.count.replace("{words}", words.toLocaleString()).replace("{characters}", text.length.toLocaleString())];
  if (isOver) parts.push(writeWords.over.replace("{over}", (text.length - longest).toLocaleString()));
  else if (high && words > Number(high)) parts.push(writeWords.long);
  else if (words && words < Number(low)) parts.push(writeWords.short);
  writeCount.textContent = parts.join(" ");
  writeCount.classList.toggle("field-error", isOver);
}

// --- As readers see it: rendered by the server, once typing rests; an answer that is overtaken is dropped ---

let previewTimer = 0;
let previewing = new AbortController();

async function showPreview() {
  previewing.abort();
  previewing = new AbortController();
  const { signal } = previewing;
  try {
    const answer = await fetch(writeForm.dataset.preview, { method: "POST", body: new FormData(writeForm), signal });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!signal.aborted) document.getElementById("preview").replaceWith(page.getElementById("preview"));
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error; // no connection: the next change tries again
  }
}

// --- A model's text to start from. It goes in as if it were typed, so that the browser's own undo takes it out again. ---

const begin = document.querySelector("[data-begin]");
const parent = writeForm.elements.parent;
let before = { text: null, parent: "" };

function startFromModel(event) {
  event.preventDefault();
  before = { text: writeText.value, parent: parent.value };
  writeText.focus();
  writeText.select();
  if (!document.execCommand("insertText", false, begin.textContent)) {
    writeText.value = begin.textContent;
    writeText.dispatchEvent(new Event("input", { bubbles: true }));
  }
  begin.closest("details").open = false;
}

function followParent() {
  if (begin && writeText.value === begin.textContent) parent.value = begin.dataset.begin;
  else if (writeText.value === before.text) parent.value = before.parent;
  else if (writeText.value.trim() === "") parent.value = "";
}

document.querySelector("[data-start]")?.addEventListener("click", startFromModel);
writeText.addEventListener("input", () => {
  followParent();
  showCount();
  clearTimeout(previewTimer);
  previewing.abort();
  previewTimer = setTimeout(showPreview, PREVIEW_MS);
});

// --- Keys: single ones work outside of the field, which Escape leaves ---

const writeSignal = new AbortController().signal;
const writePanels = makePanels(writeForm, writeSignal);
const leave = document.querySelector("[data-leave]");
listenForKeys(
  JSON.parse(writeForm.dataset.keys),
  {
    ask: () => writePanels.toggle("ask"),
    skip: () => (leave ? leave.click() : writePanels.toggle("skip")),
    history: () => location.assign(writeForm.dataset.history),
  },
  {
    isBeingSent: () => writeForm.inert,
    submit: () => writePanels.submit(writeForm.querySelector("[data-submit]")),
    digit: (digit, isShifted) => !isShifted && writePanels.pressReason(digit),
    close() {
      writePanels.close();
      document.activeElement?.blur();
    },
  },
  writeSignal,
);

for (const element of writeForm.querySelectorAll(".js-only")) element.hidden = false;
for (const element of writeForm.querySelectorAll("[data-no-script]")) element.hidden = true;
keepClocks(writeForm, { signal: writeSignal });
sendWhenReached(writeForm, sendWhenOnline(writeForm, writeSignal), writeWords);
keepDraft(writeForm, writeWords, writeSignal);
showCount();
