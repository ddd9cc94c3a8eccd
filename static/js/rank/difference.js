// Which words of two rendered texts are only in one of them: the longest common run of words, as `diff` finds it for lines.
"use strict";

const MOST_CELLS = 64_000_000; // two texts of some 50,000 characters

// The words of a text as it is seen, each with the node it stands in; a formula is one word.
function wordsOf(text) {
  const found = [];
  const walker = document.createTreeWalker(text, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) => {
    if (node.parentElement.closest("math")) return NodeFilter.FILTER_REJECT;
    return node.nodeType === Node.TEXT_NODE || node.localName === "math" ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_SKIP;
  });
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.nodeType !== Node.TEXT_NODE) found.push({ word: node.textContent, node });
    else for (const match of node.data.matchAll(/\S+/g)) found.push({ word: match[0], node, start: match.index, end: match.index + match[0].length });
  }
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
  const isOnly = [new Uint8Array(a.length), new Uint8Array(b.length)];
  isOnly[0].fill(1, begin, begin + rows);
  isOnly[1].fill(1, begin, begin + columns);
  // Longest common subsequence, from the end; `moves` says how each cell came to its length.
  const [BOTH, DOWN, RIGHT] = [0, 1, 2];
  const moves = new Uint8Array(rows * columns);
  let below = new Int32Array(columns + 1);
  let here = new Int32Array(columns + 1);
  for (let row = rows - 1; row >= 0; row -= 1) {
    const word = a[begin + row];
    for (let column = columns - 1; column >= 0; column -= 1) {
      const at = row * columns + column;
      if (word === b[begin + column]) {
        here[column] = below[column + 1] + 1;
        moves[at] = BOTH;
      } else if (below[column] >= here[column + 1]) {
        here[column] = below[column];
        moves[at] = DOWN;
      } else {
        here[column] = here[column + 1];
        moves[at] = RIGHT;
      }
    }
    [below, here] = [here, below];
  }
  for (let row = 0, column = 0; row < rows && column < columns; ) {
    const move = moves[row * columns + column];
    if (move === BOTH) isOnly[0][begin + row] = isOnly[1][begin + column] = 0;
    if (move !== RIGHT) row += 1;
    if (move !== DOWN) column += 1;
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
