// Charts as SVG, drawn at the width that they have. A series has the color and dashes of its number in batch.css.

const DENSE = 20; // points of a line above which they are drawn small
const MARGIN = { top: 22, right: 18, bottom: 36, left: 46 };

/** Round values on an axis, about `most` of them. */
function ticksOn(axis, most) {
  const { low, high, kind } = axis;
  if (kind === "signed") {
    const sides = [-low, high].map((end) => (end > axis.unit ? powersBetween(axis.unit, end, most / 3) : []));
    return [...sides[0].map((tick) => -tick), 0, ...sides[1]];
  }
  return kind === "log" && high / low > 5 ? powersBetween(low, high, most) : evenTicks(low, high, most);
}

function evenTicks(low, high, most) {
  const rough = (high - low) / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((n) => n * unit >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Powers of ten, with values between them where there is room, or only every second or third and so on. */
function powersBetween(low, high, most) {
  const decades = Math.log10(high / low);
  const marks = decades * 3 <= most ? [1, 2, 5] : decades * 2 <= most ? [1, 3] : [1];
  const every = Math.max(1, Math.ceil(decades / most));
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const mark of marks) {
      const tick = Number(`${mark}e${power}`);
      if (power % every === 0 && tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  return ticks;
}

/** A tick's value, shorter than `number` writes it. */
function tickText(value) {
  const size = Math.abs(value);
  return value === 0 || (size >= 1e-3 && size < 1e5) ? String(value) : value.toExponential().replace("e+", "e");
}

/** Axes with ticks and names; returns functions from values to pixels, and the edges of the plot. */
function drawAxes(svg, width, { x, y, label }) {
  const height = svg.clientHeight || 200;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const plot = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const atX = (value) => plot.left + (plot.right - plot.left) * placeOn(x.axis, value);
  const atY = (value) => plot.bottom - (plot.bottom - plot.top) * Math.max(0, placeOn(y.axis, value));
  const line = (x1, y1, x2, y2, kind) => vector("line", { x1, y1, x2, y2, class: kind });
  const text = (words, x, y, kind) => vector("text", { x, y, class: kind }, words);
  const rows = (y.ticks ?? ticksOn(y.axis, 4)).map((tick) => [atY(tick), (y.format ?? tickText)(tick)]);
  const most = Math.max(2, Math.floor((plot.right - plot.left) / 52));
  const columns = (x.ticks ?? ticksOn(x.axis, most)).map((tick) => [atX(tick), (x.format ?? tickText)(tick)]);
  svg.replaceChildren(
    ...rows.flatMap(([at, words]) => [line(plot.left, at, plot.right, at, "grid"), text(words, plot.left - 6, at + 3.5, "tick end")]),
    line(plot.left, plot.bottom, plot.right, plot.bottom, "axis"),
    ...columns.map(([at]) => line(at, plot.bottom, at, plot.bottom + 4, "axis")),
    ...withRoom(columns).map(([at, words]) => text(words, at, plot.bottom + 15, "tick middle")),
    text(y.name, 2, 11, "tick"),
    text(x.name, (plot.left + plot.right) / 2, height - 4, "tick middle"),
  );
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return { ...plot, atX, atY };
}

/** Those of the ticks [pixel, text] whose texts do not run into the one before. */
function withRoom(ticks) {
  const kept = [];
  let end = -Infinity;
  for (const [at, words] of ticks) {
    const half = 3.2 * words.length; // pixels, of digits in the size of a tick
    if (at - half < end + 6) continue;
    kept.push([at, words]);
    end = at + half;
  }
  return kept;
}

/** Values of equal parts of the x axis: bars for one series, outlines for several. `one` is a line across. */
function drawParts(svg, width, { x, y, label, series, one, describe }) {
  const { left, right, bottom, atY, atX } = drawAxes(svg, width, { x, y, label });
  for (const { number: place, values } of series) {
    const step = (right - left) / values.length;
    if (series.length === 1)
      values.forEach((value, i) => {
        if (!(value > 0)) return;
        const top = Math.min(atY(value), bottom - 1); // a bar of anything is seen
        const gap = step > 8 ? 1 : 0.25;
        const size = { x: left + i * step + gap, y: top, width: step - 2 * gap, height: bottom - top };
        svg.append(vector("rect", { ...size, class: `s${place} bars` }, vector("title", {}, describe(i, value))));
      });
    else svg.append(vector("path", { d: outline(Array.from(values, atY), left, step, bottom), class: `s${place} curve` }));
  }
  if (one?.y !== undefined) svg.append(vector("line", { x1: left, x2: right, y1: atY(one.y), y2: atY(one.y), class: "one-line" }));
  if (one?.x !== undefined && placeOn(x.axis, one.x) >= 0 && placeOn(x.axis, one.x) <= 1)
    svg.append(vector("line", { x1: atX(one.x), x2: atX(one.x), y1: MARGIN.top, y2: bottom, class: "one-line" }));
}

/** The path around bars; it leaves out those whose height is NaN. */
function outline(heights, left, step, bottom) {
  const known = (i) => Number.isFinite(heights[i]);
  const bar = (y, i) => {
    if (!known(i)) return "";
    const x = left + i * step;
    const start = known(i - 1) ? "" : `M${x.toFixed(1)} ${bottom}`;
    return `${start}V${y.toFixed(1)}H${(x + step).toFixed(1)}${known(i + 1) ? "" : `V${bottom}`}`;
  };
  return heights.map(bar).join("");
}

/** Lines through points {x, y, title}, with a band from `low` to `high` where the points have one. */
function drawLines(svg, width, { x, y, label, series, diagonal }) {
  const { left, right, top, bottom, atX, atY } = drawAxes(svg, width, { x, y, label });
  const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  if (diagonal) svg.append(vector("line", { x1: left, y1: bottom, x2: right, y2: top, class: "one-line" }));
  for (const { number: place, points } of series) {
    if (!points.length) continue;
    if (points[0].low !== undefined) {
      const upper = points.map((p) => [atX(p.x), atY(p.high)]);
      const lower = points.map((p) => [atX(p.x), atY(p.low)]).reverse();
      svg.append(vector("path", { d: `${path([...upper, ...lower])}Z`, class: `s${place} band` }));
      for (const edge of [upper, lower]) svg.append(vector("path", { d: path(edge), class: `s${place} curve edge` }));
    }
  }
  for (const { number: place, points } of series) {
    svg.append(vector("path", { d: path(points.map((p) => [atX(p.x), atY(p.y)])), class: `s${place} curve` }));
    const r = points.length > DENSE ? 1.2 : 2.5;
    for (const { x: a, y: b, title } of points)
      if (title) svg.append(vector("circle", { cx: atX(a), cy: atY(b), r, class: `s${place} point` }, vector("title", {}, title)));
  }
}
