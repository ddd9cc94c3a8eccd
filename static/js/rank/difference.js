// Which words of two rendered texts are only in one of them: the longest common run of words, as `diff` finds it for lines.
"use strict";

const MOST_CELLS = 400_000_000; // two texts of some 120,000 characters, 50 MB

// The words of a text as it is seen, each with the node it stands in; a formula is one word.
function wordsOf(text) {
  const found = [];
  function read(node) {
    if (node.localName === "math") found.push({ word: node.textContent, node });
    else if (node.nodeType !== Node.TEXT_NODE) node.childNodes.forEach(read);
    else for (const { 0: word, index } of node.data.matchAll(/\S+/g)) found.push({ word, node, start: index, end: index + word.length });
  }
  read(text);
  return found;
}

// For every word of `one` and `other` whether it is in no common run; null where the texts are too long to tell.
function findDifference(one, other) {
  const numbers = new Map();
  const number = (word) => numbers.get(word) ?? (numbers.set(word, numbers.size), numbers.size - 1);
  const a = Int32Array.from(one, number);
  const b = Int32Array.from(other, number);
  let begin = 0;
  let end = 0;
  while (begin < Math.min(a.length, b.length) && a[begin] === b[begin]) begin += 1;
  while (end < Math.min(a.length, b.length) - begin && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const rows = a.length - begin - end;
  const columns = b.length - begin - end;
  if (rows * columns > MOST_CELLS) return null;
  const isOnly = [new Uint8Array(a.length).fill(1, begin, begin + rows), new Uint8Array(b.length).fill(1, begin, begin + columns)];

  // Longest common subsequence, 32 columns at a time: bit c of row r is 0 where the first r words of `one` have one more in common
  // with the first c + 1 words of `other` than with the first c (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
  const width = Math.ceil(columns / 32);
  const bits = new Uint32Array((rows + 1) * width).fill(0xffffffff, 0, width);
  const columnsOf = new Map();
  for (let column = 0; column < columns; column += 1) {
    const word = b[begin + column];
    if (columnsOf.has(word)) columnsOf.get(word).push(column);
    else columnsOf.set(word, [column]);
  }
  const matches = new Uint32Array(width);
  for (let row = 0; row < rows; row += 1) {
    const same = columnsOf.get(a[begin + row]) ?? [];
    for (const column of same) matches[column >>> 5] |= 1 << (column & 31);
    let carry = 0;
    for (let at = 0; at < width; at += 1) {
      const before = bits[row * width + at];
      const met = (before & matches[at]) >>> 0;
      const sum = before + met + carry;
      carry = sum > 0xffffffff ? 1 : 0;
      bits[(row + 1) * width + at] = sum | (before - met);
    }
    for (const column of same) matches[column >>> 5] = 0;
  }
  const isSet = (row, column) => (bits[row * width + (column >>> 5)] >>> (column & 31)) & 1;
  for (let row = rows, column = columns; row > 0 && column > 0; ) {
    if (isSet(row, column - 1)) column -= 1;
    else {
      row -= 1;
      if (!isSet(row, column - 1)) continue;
      column -= 1;
      isOnly[0][begin + row] = isOnly[1][begin + column] = 0;
    }
  }
  return isOnly;
}

// Mark the words that are only in this text, neighbours in one mark.
function markWords(found, isOnly) {
  for (let at = found.length - 1; at >= 0; at -= 1) {
    if (!isOnly[at]) continue;
    const { node, end } = found[at];
    if (node.nodeType !== Node.TEXT_NODE) {
      node.classList.add("is-only");
      continue;
    }
    while (at > 0 && isOnly[at - 1] && found[at - 1].node === node) at -= 1;
    const range = document.createRange();
    range.setStart(node, found[at].start);
    range.setEnd(node, end);
    range.surroundContents(Object.assign(document.createElement("mark"), { className: "is-only" }));
  }
}

// Marks both texts; how many words each has alone, or null where they are too long.
function markDifference(left, right) {
  const found = [wordsOf(left), wordsOf(right)];
  const isOnly = findDifference(...found.map((words) => words.map(({ word }) => word)));
  if (!isOnly) return null;
  for (const at of [0, 1]) markWords(found[at], isOnly[at]);
  return isOnly.map((flags) => flags.reduce((sum, flag) => sum + flag, 0));
}

// Takes the marks of texts away again.
function clearDifference(texts) {
  for (const text of texts) {
    for (const mark of text.querySelectorAll("mark.is-only")) mark.replaceWith(...mark.childNodes);
    for (const formula of text.querySelectorAll(".is-only")) formula.classList.remove("is-only");
    text.normalize();
  }
}
