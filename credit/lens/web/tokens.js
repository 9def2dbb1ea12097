// Tokens as elements. Their text is untrusted, so it is set as text and never as markup.

const VISIBLE = { "\n": "⏎", "\r": "␍", "\t": "⇥" };

/** Position of a weight on the color scale: 0 at w = 1, 1 at w = reach and -1 at w = 1 / reach. */
function shade(weight, reach) {
  if (!(weight >= 0)) return 0;
  return Math.max(-1, Math.min(1, Math.log2(weight) / Math.log2(reach)));
}

/** The token's text with visible symbols for line breaks, which `whole` keeps as well. */
function shown(piece, whole) {
  if (piece === "") return "◌";
  return piece.replace(/[\n\r\t]/g, (c) => (whole && c === "\n" ? VISIBLE[c] + c : VISIBLE[c]));
}

function tokenElement(samples, t, whole) {
  const element = document.createElement("span");
  const piece = samples.vocabulary[samples.token[t]];
  element.textContent = shown(piece, whole);
  element.className = "token";
  if (piece === "") element.classList.add("empty");
  element.dataset.place = t;
  return element;
}

function color(element, samples, weights, reach) {
  const t = Number(element.dataset.place);
  element.classList.toggle("outside", !samples.mask[t]);
  element.style.backgroundColor = samples.mask[t] ? paint(shade(weights[t], reach)) : "";
}

function paint(x) {
  return `rgb(var(${x > 0 ? "--more" : "--less"}) / ${Math.abs(x).toFixed(4)})`;
}

/** A CSS gradient of the mean weights along a response. */
function gradient(means, reach) {
  const stops = Array.from(means, (mean, i) => {
    return `${paint(shade(mean, reach))} ${(100 * i) / means.length}% ${(100 * (i + 1)) / means.length}%`;
  });
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
  svg.setAttribute("aria-label", `mean weight by position: ${thirds(means)}`);
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

/** Fills a <dl> with pairs of name and text. */
function fillList(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([name, value, title]) => {
      const group = document.createElement("div");
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      if (title) group.title = title;
      group.append(term, text);
      return group;
    }),
  );
}
