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
writeForm.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
  event.preventDefault();
  writeForm.requestSubmit();
});

// Where a text may be left as it is, one key does so, outside of the field; Escape leaves the field.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.activeElement === writeText) return writeText.blur();
  const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.isComposing && !event.repeat;
  if (!isPlain || event.target.closest("textarea, input") || event.key !== writeForm.dataset.skipKey) return;
  event.preventDefault();
  document.querySelector("[data-skip]").click();
});

for (const element of writeForm.querySelectorAll(".js-only")) element.hidden = false;
for (const element of writeForm.querySelectorAll("[data-no-script]")) element.hidden = true;
keepClocks(writeForm);
keepDraft(writeForm, writeWords);
showCount();
