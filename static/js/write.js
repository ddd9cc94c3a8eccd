// The page of a demonstration: a live count of words, and drafts.
"use strict";

const writeForm = document.getElementById("write");
const writeWords = JSON.parse(writeForm.dataset.words);
const writeText = document.getElementById("text");
const writeCount = document.querySelector("[data-count]");

function showCount() {
  const text = writeText.value.trim();
  const words = text ? text.split(/\s+/u).length : 0;
  const longest = Number(writeText.dataset.longest);
  const count = writeWords.count.replace("{words}", words.toLocaleString()).replace("{characters}", text.length.toLocaleString());
  writeCount.textContent = text.length > longest ? `${count} ${writeWords.over.replace("{over}", (text.length - longest).toLocaleString())}` : count;
  writeCount.classList.toggle("field-error", text.length > longest);
}

writeText.addEventListener("input", showCount);
writeForm.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
  event.preventDefault();
  writeForm.requestSubmit();
});
keepDraft(writeForm, writeWords);
showCount();
