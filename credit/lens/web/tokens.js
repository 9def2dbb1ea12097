// Tokens as elements. Their text is untrusted, so it is set as text and never as markup.

const VISIBLE = new Map([["\n", "⏎"], ["\r", "␍"], ["\t", "⇥"]]); // no object, which has a "constructor" too

/** The token's text in one line, with visible symbols for breaks and tabs. */
function shownInLine(piece) {
  return piece === "" ? "◌" : piece.replace(/[\n\r\t]/g, (c) => VISIBLE.get(c));
}

/** A token whose text is the model's own, so that it is copied as it is; the symbols for breaks stand in the style. */
function tokenElement(samples, t) {
  const element = emptyToken(t);
  const piece = samples.vocabulary[samples.token[t]];
  if (piece === "") element.append(symbol("◌"));
  for (const part of piece.split(/(?<=[\n\r\t])|(?=[\n\r\t])/)) {
    if (VISIBLE.has(part)) element.append(symbol(VISIBLE.get(part)));
    element.append(part);
  }
  return element;
}

/** A token of a preview, which is not copied. */
function previewElement(samples, t) {
  const element = emptyToken(t);
  element.textContent = shownInLine(samples.vocabulary[samples.token[t]]);
  return element;
}

function emptyToken(t) {
  const element = make("span", "token");
  element.dataset.place = t;
  return element;
}

function symbol(text) {
  const element = make("span", "symbol");
  element.dataset.symbol = text;
  return element;
}

/** An element with a class and a text. */
function make(name, kind = "", text = "") {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  return element;
}

/** A CSS gradient of equal parts in the given colors. */
function gradient(colors) {
  const stops = colors.map((color, i) => `${color} ${(100 * i) / colors.length}% ${(100 * (i + 1)) / colors.length}%`);
  return `linear-gradient(to right, ${stops.join(",")})`;
}

const SVG = "http://www.w3.org/2000/svg";

/** Bars of mean weights with a line at 1; the bars start at 0. */
function drawBars(svg, means) {
  const most = Math.max(2, ...Array.from(means).filter(Number.isFinite));
  svg.setAttribute("viewBox", `0 0 ${means.length} ${most}`);
  const bars = Array.from(means, (mean, i) => {
    if (!Number.isFinite(mean)) return null;
    return box(mean > 1 ? "bar more" : "bar less", i + 0.08, most - mean, 0.84, mean);
  });
  const line = box("one", 0, most - 1, means.length, most / 120);
  svg.replaceChildren(...bars.filter(Boolean), line);
  svg.setAttribute("aria-label", `mean weight along this response, a click goes there: ${thirds(means)}`);
}

function box(kind, x, y, width, height) {
  const rect = document.createElementNS(SVG, "rect");
  rect.setAttribute("class", kind);
  for (const [name, value] of Object.entries({ x, y, width, height })) rect.setAttribute(name, value);
  return rect;
}

function thirds(means) {
  const part = (k) => {
    const some = Array.from(means).slice((k * means.length) / 3, ((k + 1) * means.length) / 3);
    const known = some.filter(Number.isFinite);
    return number(known.reduce((a, b) => a + b, 0) / known.length);
  };
  return `first third ${part(0)}, second ${part(1)}, last ${part(2)}`;
}

/** A number in few digits, or a dash if it is unknown. */
function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(digits - 1).replace("e+", "e");
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size))))));
}

/** A count with its noun: 1 group, 2 groups. */
function plural(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

function signed(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}

/** Fills a <dl> with triples of name, text and explanation. */
function fillList(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([name, value, title]) => {
      const group = make("div");
      if (title) group.title = title;
      group.append(make("dt", "", name), make("dd", "", value));
      return group;
    }),
  );
}

/** Fills a <select> with pairs of value and text; the value stays chosen if it is still there. */
function fillSelect(select, options) {
  const before = select.value;
  select.replaceChildren(
    ...options.map(([value, text, disabled = false]) => {
      const option = make("option", "", text);
      option.value = value;
      option.disabled = disabled;
      return option;
    }),
  );
  if (options.some(([value]) => value === before)) select.value = before;
}
