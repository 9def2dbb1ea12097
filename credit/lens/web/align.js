// Two sequences of tokens, side by side.

const MOST_EDITS = 1500; // beyond these, what differs is paired in order

/** Pairs [i, j] that go through both sequences in order; null stands for a token that the other one lacks. */
function alignTokens(a, b) {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const middle = commonTokens(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const matches = [
    ...Array.from({ length: head }, (_, i) => [i, i]),
    ...middle.map(([i, j]) => [i + head, j + head]),
    ...Array.from({ length: tail }, (_, k) => [a.length - tail + k, b.length - tail + k]),
  ];
  return fillGaps([...matches, [a.length, b.length]]).slice(0, -1);
}

/** Between two matches the tokens of both sides stand beside each other as far as both have one. */
function fillGaps(matches) {
  const pairs = [];
  let [i, j] = [0, 0];
  for (const match of matches) {
    while (i < match[0] || j < match[1]) pairs.push([i < match[0] ? i++ : null, j < match[1] ? j++ : null]);
    pairs.push(match);
    [i, j] = [match[0] + 1, match[1] + 1];
  }
  return pairs;
}

/** A longest common subsequence as pairs of places, by Myers' algorithm; none beyond MOST_EDITS edits. */
function commonTokens(a, b) {
  const [n, m] = [a.length, b.length];
  const most = Math.min(n + m, MOST_EDITS);
  const furthest = new Int32Array(2 * most + 3);
  const trace = [];
  for (let edits = 0; edits <= most; edits++) {
    trace.push(furthest.slice(most + 1 - edits, most + 2 + edits));
    for (let k = -edits; k <= edits; k += 2) {
      const at = most + 1 + k;
      const down = k === -edits || (k !== edits && furthest[at - 1] < furthest[at + 1]);
      let x = down ? furthest[at + 1] : furthest[at - 1] + 1;
      while (x < n && x - k < m && a[x] === b[x - k]) x++;
      furthest[at] = x;
      if (x >= n && x - k >= m) return walkBack(trace, edits, n, m);
    }
  }
  return [];
}

function walkBack(trace, edits, x, y) {
  const pairs = [];
  for (; edits > 0; edits--) {
    // trace[edits] holds the furthest places after edits - 1 edits, for diagonals -edits .. edits.
    const [before, k] = [trace[edits], x - y];
    const at = (diagonal) => before[diagonal + edits];
    const down = k === -edits || (k !== edits && at(k - 1) < at(k + 1));
    const fromX = at(down ? k + 1 : k - 1);
    const fromY = fromX - (down ? k + 1 : k - 1);
    while (x > fromX + !down && y > fromY + down) pairs.push([--x, --y]);
    [x, y] = [fromX, fromY];
  }
  while (x > 0 && y > 0) pairs.push([--x, --y]);
  return pairs.reverse();
}
