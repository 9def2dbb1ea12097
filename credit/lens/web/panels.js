// The parts of the batch view, from what measures.js computed. `plot` makes the place of a chart.

const NAMES = {
  deviation: "d", normalized_entropy: "h", weights: "w", advantages: "A", log_probs: "log p", reference_log_probs: "log q",
};
const TITLES = {
  deviation: "d, deviation from the reference",
  normalized_entropy: "h, normalized entropy",
  weights: "w, weight",
  advantages: "A, advantage of a token",
};
const BANDS = 3; // with more series, bands would cover each other
const SCALES = { linear: "", log: ", logarithmic", signed: ", logarithmic on both sides of 0" };
const COURSES = {
  deviation: "d: median of the tokens",
  normalized_entropy: "h: median of the tokens",
  weights: "std of w within a response: mean",
  advantages: "|A|: median of the tokens",
};

/** What the colors and dashes stand for, where there are several series. */
function legendOf({ series, seriesCount }) {
  if (series.length < 2) return [];
  const items = series.map(({ name }, i) => create("li", "", swatch(i), name));
  const more = seriesCount > series.length ? [create("li", "quiet", `the first ${series.length} of ${seriesCount}; filters choose others`)] : [];
  return [create("ul", "series", ...items, ...more)];
}

function swatch(place) {
  return vector("svg", { class: "swatch", viewBox: "0 0 26 8" }, vector("line", { x1: 0, x2: 26, y1: 4, y2: 4, class: `s${place} curve` }));
}

function figure(title, ...contents) {
  return create("figure", "", create("h3", "", title), ...contents);
}

/** A table of texts; a cell may be an element. */
function tableOf(heads, rows) {
  const cells = (kind, values) => create("tr", "", ...values.map((value) => create(kind, "", value)));
  const body = create("tbody", "", ...rows.map((row) => cells("td", row)));
  return create("div", "scroll", create("table", "numbers", create("thead", "", cells("th", heads)), body));
}

function distributionsOf({ columns, series }, plot) {
  return Object.entries(columns).map(([name, column]) => {
    const drawn = column.series.map((one, i) => ({ number: i, values: one.bars.map((n) => n / one.count) }));
    const most = largestOf(drawn.map(({ values }) => values));
    const { axis, edges } = column;
    const below = axis.kind === "log" && column.series.some(({ leastPositive }) => leastPositive < axis.low);
    const chart = (svg, width) =>
      drawParts(svg, width, {
        x: { axis, name: `${NAMES[name]}${SCALES[axis.kind]}${below ? "; the first bar holds all below" : ""}` },
        y: { axis: axisBetween(0, most || 1), name: "share of tokens", format: percent },
        label: `distribution of ${TITLES[name]}`,
        series: drawn,
        one: { x: { weights: 1, advantages: 0 }[name] },
        describe: (i, value) => `${number(edges[i])} to ${number(edges[i + 1])}: ${percent(value)} of the tokens`,
      });
    const several = series.length > 1;
    const heads = [...(several ? [""] : []), "tokens", "= 0", "mean", "5 %", "median", "95 %"];
    const rows = column.series.map((one, i) => [
      ...(several ? [swatch(i)] : []),
      countText(one.count),
      percent(one.zeros / one.count, 2),
      ...[one.mean, ...one.quantiles.slice(1, 4)].map((value) => number(value)),
    ]);
    return figure(TITLES[name], plot(chart), tableOf(heads, rows));
  });
}

function coursesOf({ columns, series }, plot) {
  const all = series.flatMap(({ steps }) => steps.map(({ step }) => step));
  const known = [...new Set(all)].sort((a, b) => a - b);
  const format = (step) => (Number.isInteger(step) ? tickText(step) : "");
  const x = { axis: axisBetween(known[0], known.at(-1)), name: "training step", format, ticks: known.length <= 6 ? known : undefined };
  const banded = series.length <= BANDS;
  return Object.entries(columns).map(([name, column]) => {
    const values = column.series.flatMap(({ course }) => course.flatMap(({ low, line, high }) => (banded ? [low, line, high] : [line])));
    const positive = values.filter((value) => value > 0);
    const most = Math.max(0, ...positive);
    const isLog = ["deviation", "normalized_entropy"].includes(name) && most > 0;
    const axis = isLog ? axisBetween(Math.max(most / SPAN, Math.min(...positive) / 2), most, "log") : axisBetween(0, most || 1);
    const kind = name === "weights" ? ["responses", "mean"] : ["tokens", "median"];
    const drawn = column.series.map(({ course }, i) => ({
      number: i,
      points: course.map(({ step, count, line, low, high }) => ({
        x: step, y: line, ...(banded ? { low, high } : {}),
        title: `step ${step}: ${kind[1]} ${number(line)}, 5 to 95 % ${number(low)} to ${number(high)}, ${countText(count)} ${kind[0]}`,
      })),
    }));
    const ends = drawn.map(({ points }) => (points.length ? `${number(points[0].y)} to ${number(points.at(-1).y)}` : "nothing"));
    const chart = (svg, width) =>
      drawLines(svg, width, {
        x, y: { axis, name: `${isLog ? "logarithmic; " : ""}${banded ? "band: " : ""}5 to 95 % of the ${kind[0]}${banded ? "" : " at each point"}` },
        label: `${COURSES[name]}, from the first step to the last: ${ends.join("; ")}`,
        series: drawn,
      });
    return figure(COURSES[name], plot(chart));
  });
}

function concentrationFigures({ concentration, series }, plot) {
  const points = TOP.points;
  const drawn = concentration.map(({ curve }, i) => ({ number: i, points: Array.from(curve, (y, k) => ({ x: k / points, y })) }));
  const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1];
  const whole = axisBetween(0, 1);
  const chart = (svg, width) =>
    drawLines(svg, width, {
      x: { axis: whole, ticks, format: percent, name: "share of the tokens, largest weights first" },
      y: { axis: whole, ticks, format: percent, name: "share of the credit; straight line: GRPO" },
      label: "share of credit over the share of tokens, mean over the responses",
      series: drawn,
      diagonal: true,
    });
  const rows = concentration[0].tops.map(({ tokens, share }, k) => [
    tokens === undefined ? `top ${percent(share)} of the tokens` : tokens === 1 ? "top token" : `top ${tokens} tokens`,
    ...concentration.flatMap(({ tops }) => [percent(tops[k].credit), create("small", "", percent(tops[k].even))]),
  ]);
  const heads = ["", ...series.flatMap((_, i) => [series.length > 1 ? swatch(i) : "share of the credit", "GRPO"])];
  return [
    figure("Share of a response's credit that its top tokens hold", plot(chart)),
    figure("Mean over the responses", tableOf(heads, rows)),
  ];
}

function placesOf({ positions, turns }, plot) {
  const chart = (x, profiles, nameOf) => (svg, width) => {
    const drawn = profiles.map(({ means }, i) => ({ number: i, values: means }));
    const most = Math.max(1.2, largestOf(profiles.map(({ means }) => means)));
    const y = { axis: axisBetween(0, most * 1.05), name: "mean weight; the line at 1 is GRPO" };
    const describe = (i, w) => `${nameOf(i)}: mean w ${number(w)}, ${countText(profiles[0].counts[i])} tokens`;
    drawParts(svg, width, { x: { axis: axisBetween(0, 1), ...x }, y, series: drawn, one: { y: 1 }, label: `mean weight by ${x.name}`, describe });
  };
  const tokens = (profiles) => profiles[0].counts.map((_, i) => profiles.reduce((sum, { counts }) => sum + counts[i], 0));
  const quiet = (text) => create("p", "quiet", text);
  const parts = tokens(positions).filter(Boolean);
  const [least, most] = [Math.min(...parts), Math.max(...parts)];
  const place = (i) => `${(100 * i) / POSITIONS} to ${(100 * (i + 1)) / POSITIONS} % of the response`;
  const byPosition = figure(
    "By position",
    plot(chart({ ticks: [0, 0.25, 0.5, 0.75, 1], format: percent, name: "place in the response" }, positions, place)),
    quiet(`${least < most ? `${countText(least)} to ` : ""}${plural(most, "token")} in each part${parts.length < POSITIONS ? " that has any" : ""}`),
  );
  if (!turns) return [byPosition];
  const { names, profiles } = turns;
  const centers = names.map((_, i) => (i + 0.5) / names.length);
  const format = (center) => names[Math.floor(center * names.length)];
  const byTurn = figure(
    "By turn",
    plot(chart({ ticks: centers, format, name: "turn" }, profiles, (i) => `turn ${names[i]}`)),
    quiet(`tokens in the turns: ${Array.from(tokens(profiles), countText).join(" · ")}`),
  );
  return [byPosition, byTurn];
}

function largestOf(lists) {
  return lists.reduce((most, list) => list.reduce((a, b) => (b > a ? b : a), most), 0); // NaN is not larger
}
