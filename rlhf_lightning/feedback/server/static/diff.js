// What changed between two texts: by word, and by character where words aren't divided by spaces.

const PIECES =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]\p{M}*|[\p{L}\p{M}\p{N}_'’]+|\s+|[^]/gu;
const DEEPEST = 1000; // changed pieces beyond which what lies between the equal ends is shown whole

/** A text in pieces: words, single characters of Chinese or Japanese, blanks, marks. */
export function pieces(text) {
  return text.match(PIECES) ?? [];
}

/**
 * The difference of two texts, shortest where it isn't huge (E. W. Myers, An O(ND) difference algorithm, 1986).
 * Returns {parts: [["same" | "removed" | "added", text]], whole: whether it was too long for that}.
 */
export function difference(before, after) {
  const a = pieces(before);
  const b = pieces(after);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const x = a.slice(start, a.length - end);
  const y = b.slice(start, b.length - end);
  const middle = myers(x, y);
  const steps = [
    ...a.slice(0, start).map((piece) => ["same", piece]),
    ...(middle ?? [["removed", x.join("")], ["added", y.join("")]]),
    ...a.slice(a.length - end).map((piece) => ["same", piece]),
  ];
  return { parts: joined(steps), whole: middle === null };
}

// Steps from a to b, or null where there are more than DEEPEST changes. `far` holds, for each diagonal k = x - y from
// -d to d, the furthest x reached with d changes; the trace of them leads back.
function myers(a, b) {
  const trace = [];
  let far = Int32Array.of(0);
  for (let d = 0; d <= Math.min(a.length + b.length, DEEPEST); d += 1) {
    const reached = new Int32Array(2 * d + 1);
    for (let k = -d; k <= d; k += 2) {
      let x = d === 0 ? 0 : fromAbove(far, k, d) ? far[k + d] : far[k + d - 2] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      reached[k + d] = x;
      if (x >= a.length && x - k >= b.length) return backwards(a, b, trace, d);
    }
    trace.push(reached);
    far = reached;
  }
  return null;
}

// Whether diagonal k is reached with d changes by adding (from k + 1) and not by removing (from k - 1). In the array
// of d - 1 changes, diagonal k + 1 stands at k + d and diagonal k - 1 at k + d - 2.
function fromAbove(far, k, d) {
  return k === -d || (k !== d && far[k + d - 2] < far[k + d]);
}

function backwards(a, b, trace, depth) {
  const steps = [];
  let x = a.length;
  let y = b.length;
  for (let d = depth; d > 0; d -= 1) {
    const far = trace[d - 1];
    const k = x - y;
    const added = fromAbove(far, k, d);
    const fromX = added ? far[k + d] : far[k + d - 2];
    const fromY = fromX - (added ? k + 1 : k - 1);
    while (x > fromX && y > fromY) {
      x -= 1;
      y -= 1;
      steps.push(["same", a[x]]);
    }
    if (added) steps.push(["added", b[(y -= 1)]]);
    else steps.push(["removed", a[(x -= 1)]]);
  }
  while (x > 0) steps.push(["same", a[(x -= 1)]]);
  return steps.reverse();
}

// Neighbours of one kind become one; between two equal parts what was removed comes before what was added.
function joined(steps) {
  const parts = [];
  let removed = "";
  let added = "";
  const flush = () => {
    if (removed) parts.push(["removed", removed]);
    if (added) parts.push(["added", added]);
    removed = added = "";
  };
  for (const [kind, text] of steps) {
    if (kind === "removed") removed += text;
    else if (kind === "added") added += text;
    else {
      flush();
      if (parts.at(-1)?.[0] === "same") parts.at(-1)[1] += text;
      else parts.push(["same", text]);
    }
  }
  flush();
  return parts;
}
