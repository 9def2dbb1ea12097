// What the tokens of many completions have in common: functions of the samples, in float64. They skip tokens
// that the policy did not choose (mask 0) and numbers that are missing, which are NaN.

/** The rows that count, and how many do not: invalid, with a missing weight, or with no token of the policy. */
function sortOut(model, rows) {
  const found = { counted: [], invalid: 0, missing: 0, empty: 0, tokens: 0 };
  for (const row of rows) {
    const effect = model.effectOf(row);
    const part = partOf(model.samples, row, effect);
    if (part !== "counted") found[part]++;
    else if (effect.count === 0) found.empty++;
    else {
      found.counted.push(row);
      found.tokens += effect.count;
    }
  }
  return found;
}

/** Calls `visit(t, row)` for each token that the policy chose. */
function eachToken(samples, rows, visit) {
  const { start, mask } = samples;
  for (const row of rows) for (let t = start[row]; t < start[row + 1]; t++) if (mask[t]) visit(t, row);
}

/** The rows by run and estimator, each named by what tells it from the others, and in the order of its steps. */
function seriesOf(samples, rows) {
  const { run, runs, estimator, estimators, step } = samples;
  const several = [run, estimator].map((column) => new Set(rows.map((row) => column[row])).size > 1);
  const nameOf = (row) => [runs[run[row]], estimators[estimator[row]]].filter((_, i) => several[i]).join(" · ");
  return Array.from(Map.groupBy(rows, nameOf), ([name, own]) => {
    const sorted = own.sort((a, b) => (step[a] ?? -Infinity) - (step[b] ?? -Infinity));
    return { name, rows: sorted, steps: stepsOf(samples, sorted) };
  });
}

/** The known steps of rows that are sorted by step, with the part of the rows that each has. */
function stepsOf(samples, rows) {
  const found = [];
  rows.forEach((row, i) => {
    const step = samples.step[row];
    if (step === null) return;
    if (found.at(-1)?.step !== step) found.push({ step, first: i });
    found.at(-1).last = i + 1;
  });
  return found;
}

/** The known values of the rows' tokens, and where each row's end. */
function collectValues(samples, rows, read) {
  const values = new Float64Array(rows.reduce((sum, row) => sum + samples.start[row + 1] - samples.start[row], 0));
  const ends = [0];
  let count = 0;
  for (const row of rows) {
    eachToken(samples, [row], (t) => {
      const value = read(t, row);
      if (Number.isFinite(value)) values[count++] = value;
    });
    ends.push(count);
  }
  return { values: values.subarray(0, count), ends };
}

/** Number of the tokens of the policy whose number is missing. */
function countMissing(samples, rows, read) {
  let missing = 0;
  eachToken(samples, rows, (t, row) => (missing += !Number.isFinite(read(t, row))));
  return missing;
}

/** Mean over rows of the share of a response's credit that its top tokens hold; yields between rows. */
function* concentrationOf(samples, weights, rows, { counts, shares, points }) {
  const curve = new Float64Array(points + 1);
  const tops = [...counts.map((tokens) => ({ tokens })), ...shares.map((share) => ({ share }))];
  for (const top of tops) Object.assign(top, { credit: 0, even: 0 });
  let responses = 0;
  for (const row of rows) {
    yield;
    const sums = cumulateDescending(samples, weights, row);
    const length = sums.length - 1;
    if (!(sums[length] > 0)) continue;
    responses++;
    curve.forEach((_, i) => (curve[i] += shareOfTop(sums, (i / points) * length)));
    for (const top of tops) {
      const size = top.tokens === undefined ? top.share * length : Math.min(top.tokens, length);
      top.credit += shareOfTop(sums, size);
      top.even += size / length;
    }
  }
  for (const top of tops) for (const name of ["credit", "even"]) top[name] /= responses;
  return { responses, tops, curve: curve.map((sum) => sum / responses) };
}

/** Sums of the k largest weights of a response, for k = 0 .. T. */
function cumulateDescending(samples, weights, row) {
  const { values } = collectValues(samples, [row], (t) => weights[t]);
  values.sort();
  const sums = new Float64Array(values.length + 1);
  for (let k = 0; k < values.length; k++) sums[k + 1] = sums[k] + values[values.length - 1 - k];
  return sums;
}

/** The share of the whole that `size` top tokens hold; of a token in part, the same part of its credit. */
function shareOfTop(sums, size) {
  const whole = Math.floor(size);
  const part = size > whole ? (size - whole) * (sums[whole + 1] - sums[whole]) : 0;
  return (sums[whole] + part) / sums[sums.length - 1];
}

/** Number of tokens, their credit, and sums and counts of known numbers, for each text of the vocabulary. */
function sumByText(model, rows, readers) {
  const { samples, weights } = model;
  const column = () => new Float64Array(samples.vocabulary.length);
  const count = column();
  const credit = column();
  const sums = Object.entries(readers).map(([name, read]) => ({ name, read, sum: column(), known: column() }));
  eachToken(samples, rows, (t, row) => {
    const text = samples.token[t];
    count[text]++;
    credit[text] += weights[t];
    for (const { read, sum, known } of sums) {
      const value = read(t, row);
      if (!Number.isFinite(value)) continue;
      sum[text] += value;
      known[text]++;
    }
  });
  return { count, credit, total: credit.reduce((a, b) => a + b, 0), sums };
}

/** Mean weight and number of tokens in each of some parts, as far as weights are known; `indexOf(t, row)` is a token's part. */
function profileOf(samples, weights, rows, parts, indexOf) {
  const sums = new Float64Array(parts);
  const counts = new Float64Array(parts);
  eachToken(samples, rows, (t, row) => {
    const part = indexOf(t, row);
    if (part === undefined || !samples.valid[row] || Number.isNaN(weights[t])) return;
    sums[part] += weights[t];
    counts[part]++;
  });
  return { counts, means: sums.map((sum, part) => sum / counts[part]) };
}

/** Mean weights in equal parts along one response, at most so many. */
function stripOf(model, row, most) {
  const parts = Math.max(1, Math.min(most, model.lengthOf(row)));
  return profileOf(model.samples, model.weights, [row], parts, positionIn(model.samples, parts)).means;
}

function positionIn({ start }, parts) {
  return (t, row) => Math.floor(((t - start[row]) * parts) / (start[row + 1] - start[row]));
}

/** The turns of the rows' tokens in order; null where there is but one. */
function turnsOf(samples, rows) {
  if (!samples.turns) return null;
  const found = new Set();
  eachToken(samples, rows, (t) => samples.turns[t] !== NO_TURN && found.add(samples.turns[t]));
  return found.size > 1 ? [...found].sort((a, b) => a - b) : null;
}

const LARGEST_LOG_RATIO = 20; // as in credit/log_ratios.py
const LARGEST_LOG_PROB = 1e12;

/** The metric drift_alignment of credit/estimators/drift.py, over the responses whose numbers are all known. */
function driftOf(samples, rows) {
  const bound = (x, most) => Math.max(-most, Math.min(most, x)); // NaN stays NaN
  const products = rows.map((row) => {
    let drift = 0;
    eachToken(samples, [row], (t) => {
      const moved = bound(samples.log_probs[t], LARGEST_LOG_PROB) - bound(samples.reference_log_probs[t], LARGEST_LOG_PROB);
      drift += bound(moved, LARGEST_LOG_RATIO);
    });
    return (samples.advantage[row] ?? NaN) * drift;
  });
  const known = products.filter(Number.isFinite);
  const largest = known.reduce((most, x) => Math.max(most, Math.abs(x)), 0) || 1; // or squares of small ones vanish
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const scaled = known.map((x) => x / largest);
  const squares = mean(scaled.map((x) => x * x));
  return { alignment: mean(scaled) / Math.sqrt(squares || 1), responses: known.length };
}
