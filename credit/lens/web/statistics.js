// Statistics of numbers in float64, as numpy computes them.

/** Mean, largest and smallest positive value, number of zeros and quantiles at ascending shares of finite numbers, which it reorders. */
function describeValues(values, shares) {
  let sum = 0, zeros = 0, most = -Infinity, leastPositive = Infinity;
  for (const x of values) {
    sum += x;
    if (x === 0) zeros++;
    if (x > most) most = x;
    if (x > 0 && x < leastPositive) leastPositive = x;
  }
  const quantiles = quantilesOf(values, shares);
  return { count: values.length, mean: sum / values.length, zeros, most, leastPositive, quantiles };
}

/** Quantiles at ascending shares, between two values by linear interpolation; reorders the values. */
function quantilesOf(values, shares) {
  const last = values.length - 1;
  if (last < 0) return shares.map(() => NaN);
  let from = 0; // what stands before it is no larger than what follows
  return shares.map((share) => {
    const at = share * last;
    const k = Math.floor(at);
    const low = selectValue(values, k, from);
    from = k;
    if (k === at) return low;
    return low + (at - k) * (leastAfter(values, k) - low);
  });
}

function leastAfter(values, k) {
  let least = Infinity;
  for (let i = k + 1; i < values.length; i++) if (values[i] < least) least = values[i];
  return least;
}

/** The k-th smallest value, moved to place k with no larger ones before it; a sort would take three times as long. */
function selectValue(values, k, from) {
  let left = from;
  let right = values.length - 1;
  while (left < right) {
    const pivot = middleOf(values[left], values[(left + right) >> 1], values[right]);
    let i = left;
    let j = right;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const held = values[i];
      values[i++] = values[j];
      values[j--] = held;
    }
    if (k <= j) right = j;
    else if (k >= i) left = i;
    else break;
  }
  return values[k];
}

function middleOf(a, b, c) {
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
}

// How an axis stretches its values, and back: "signed" is logarithmic on both sides of 0 and linear near it.
const STRETCHES = {
  linear: [(x) => x, (x) => x],
  log: [Math.log, Math.exp],
  signed: [(x, unit) => Math.asinh(x / unit), (x, unit) => unit * Math.sinh(x)],
};

/** An axis from `low` to `high`, both above 0 on a logarithmic one; a signed one is linear below its `unit`. */
function axisBetween(low, high, kind = "linear") {
  if (!(low < high)) {
    const margin = Math.abs(low) / 2 || 1;
    [low, high] = kind === "log" ? [low / 2, high * 2] : [low - margin, high + margin];
  }
  return { low, high, kind, unit: Math.max(Math.abs(low), Math.abs(high)) / 100 };
}

/** Where on the axis a value stands: 0 at its low end, 1 at its high end. */
function placeOn({ low, high, kind, unit }, value) {
  const stretch = STRETCHES[kind][0];
  const first = stretch(low, unit);
  return (stretch(value, unit) - first) / (stretch(high, unit) - first);
}

/** The value at a share of the axis. */
function valueOn({ low, high, kind, unit }, share) {
  const [stretch, back] = STRETCHES[kind];
  return back((1 - share) * stretch(low, unit) + share * stretch(high, unit), unit);
}

/** How many of the values stand between each two of ascending edges; the outer parts take what lies beyond. */
function histogramOf(values, edges, positive) {
  const bins = edges.length - 1;
  const counts = new Float64Array(bins);
  for (const x of values) {
    if (positive && x <= 0) continue;
    let low = 0;
    let high = bins;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (edges[middle] <= x) low = middle;
      else high = middle;
    }
    counts[low]++;
  }
  return counts;
}
