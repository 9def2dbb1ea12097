// All numbers of the batch view, computed in slices so that the page stays alive.

const MOST_SERIES = 6;
const BARS = 48; // of a histogram
const POSITIONS = 20; // of a response
const TURNS = 24; // further ones are taken together
const SPAN = 1e5; // the most that a logarithmic axis spans, as a ratio
const FAR = 4; // the axis is stretched about 0 if it is longer than so many times 90 % of the values
const QUANTILES = [0.005, 0.05, 0.5, 0.95, 0.995];
const TOP = { counts: [1, 5, 10], shares: [0.01, 0.1, 0.2], points: 100 };

/** How to read a token's number, by the name of its column; a column that no row has is absent. */
function readersOf(model) {
  const { samples, weights } = model;
  const recorded = ["deviation", "normalized_entropy", "log_probs", "reference_log_probs"].filter((name) => samples[name]);
  const readers = recorded.map((name) => [name, readerOf(samples[name])]);
  return { ...Object.fromEntries(readers), weights: readerOf(weights), advantages: (t, row) => model.advantageAt(row, t) };
}

function readerOf(column) {
  return (t) => column[t];
}

/** What the view shows of the rows, as a generator that yields wherever it may be interrupted. */
function* measureBatch(model, rows) {
  const { samples, weights } = model;
  const { counted, ...left } = sortOut(model, rows);
  yield;
  const all = seriesOf(samples, counted);
  const series = all.slice(0, MOST_SERIES);
  const { log_probs, reference_log_probs, ...readers } = readersOf(model);
  const columns = {};
  for (const name in readers) columns[name] = yield* measureColumn(model, series, name, readers[name]);
  const { weights: _, ...others } = readers;
  const gaps = {};
  for (const [name, read] of Object.entries({ ...others, log_probs, reference_log_probs })) {
    if (read) gaps[name] = countMissing(samples, counted, read);
    yield;
  }
  const concentration = [];
  for (const { rows: own } of series) concentration.push(yield* concentrationOf(samples, weights, own, TOP));
  const texts = [];
  const summaries = [];
  for (const { rows: own } of series) {
    texts.push(sumByText(model, own, others));
    yield;
    summaries.push(summarize(model, own));
    yield;
  }
  const positions = series.map((one) => profileOf(samples, weights, one.rows, POSITIONS, positionIn(samples, POSITIONS)));
  const steps = new Set(series.flatMap((one) => one.steps.map(({ step }) => step))).size;
  const found = { series, seriesCount: all.length, steps, columns, gaps, concentration, texts, summaries, positions };
  return { ...left, ...found, shown: rows.length, counted: counted.length, turns: measureTurns(samples, weights, counted, series) };
}

/** The metrics of the library over some rows; what needs a column that the file lacks is null. */
function summarize(model, rows) {
  const { samples } = model;
  return {
    responses: rows.length,
    ...metricsOf(rows.map((row) => model.effectOf(row))),
    deviation: samples.deviation ? columnOf(samples, rows, "deviation") : null,
    drift: samples.log_probs && samples.reference_log_probs ? driftOf(samples, rows) : null,
  };
}

/** Distribution and course of one column, for each series on a common axis. */
function* measureColumn(model, series, name, read) {
  const { samples } = model;
  const found = [];
  for (const one of series) {
    const collected = collectValues(samples, one.rows, read);
    yield;
    const course = name === "weights" ? courseOfStd(model, one) : courseOf(collected, one, name === "advantages");
    yield;
    found.push({ ...describeValues(collected.values, QUANTILES), course, values: collected.values });
    yield;
  }
  const axis = axisOf(found.filter(({ count }) => count), name !== "advantages");
  const edges = Float64Array.from({ length: BARS + 1 }, (_, i) => valueOn(axis, i / BARS));
  for (const one of found) {
    one.bars = histogramOf(one.values, edges, axis.kind === "log");
    delete one.values; // which take much memory
    yield;
  }
  return { axis, edges, series: found };
}

/** An axis for all series: logarithmic if values are positive; else up to where but 1 % lie beyond. */
function axisOf(found, positive) {
  if (positive && found.some(({ most }) => most > 0)) {
    const most = Math.max(...found.map((one) => one.most));
    return axisBetween(Math.max(most / SPAN, Math.min(...found.map((one) => one.leastPositive))), most, "log");
  }
  const ends = [Math.min(...found.map((one) => one.quantiles[0])), Math.max(...found.map((one) => one.quantiles[4]))];
  if (!found.length) return axisBetween(0, 1);
  const bulk = Math.min(...found.map(({ quantiles }) => quantiles[3] - quantiles[1]));
  return axisBetween(...ends, ends[1] - ends[0] > FAR * bulk ? "signed" : "linear");
}

/** Median and 5 to 95 % of the tokens' values, or of their sizes, at each step. */
function courseOf({ values, ends }, { steps }, sizes) {
  return steps.flatMap(({ step, first, last }) => {
    const own = values.subarray(ends[first], ends[last]);
    const [low, line, high] = quantilesOf(sizes ? own.map(Math.abs) : own, [0.05, 0.5, 0.95]);
    return own.length ? [{ step, count: own.length, line, low, high }] : [];
  });
}

/** Mean and 5 to 95 % of the responses' standard deviation of w, at each step. */
function courseOfStd(model, { rows, steps }) {
  return steps.map(({ step, first, last }) => {
    const own = Float64Array.from(rows.slice(first, last), (row) => model.effectOf(row).std);
    const [low, high] = quantilesOf(own, [0.05, 0.95]);
    return { step, count: own.length, line: own.reduce((a, b) => a + b, 0) / own.length, low, high };
  });
}

function measureTurns(samples, weights, counted, series) {
  const turns = turnsOf(samples, counted);
  if (!turns) return null;
  const place = new Map(turns.map((turn, i) => [turn, Math.min(i, TURNS - 1)]));
  const names = turns.slice(0, TURNS).map((turn, i) => (i === TURNS - 1 && turns.length > TURNS ? `≥ ${turn}` : String(turn)));
  const indexOf = (t) => place.get(samples.turns[t]);
  return { names, profiles: series.map(({ rows }) => profileOf(samples, weights, rows, names.length, indexOf)) };
}
