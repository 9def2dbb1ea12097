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
  const element = create("span", "token");
  element.dataset.place = t;
  return element;
}

function symbol(text) {
  const element = create("span", "symbol");
  element.dataset.symbol = text;
  return element;
}

/** A CSS gradient of equal parts in the given colors. */
function gradient(colors) {
  const stops = colors.map((color, i) => `${color} ${(100 * i) / colors.length}% ${(100 * (i + 1)) / colors.length}%`);
  return `linear-gradient(to right, ${stops.join(",")})`;
}

/** Bars of mean weights with a line at 1; the bars start at 0. */
function drawBars(svg, means) {
  const most = Math.max(2, ...Array.from(means).filter(Number.isFinite));
  svg.setAttribute("viewBox", `0 0 ${means.length} ${most}`);
  const bars = Array.from(means, (mean, i) => {
    if (!Number.isFinite(mean)) return null;
    return vector("rect", { class: mean > 1 ? "bar more" : "bar less", x: i + 0.08, y: most - mean, width: 0.84, height: mean });
  });
  const line = vector("rect", { class: "one", x: 0, y: most - 1, width: means.length, height: most / 120 });
  svg.replaceChildren(...bars.filter(Boolean), line);
  svg.setAttribute("aria-label", `mean weight along this response, a click goes there: ${thirds(means)}`);
}

function thirds(means) {
  const part = (k) => {
    const some = Array.from(means).slice((k * means.length) / 3, ((k + 1) * means.length) / 3);
    const known = some.filter(Number.isFinite);
    return number(known.reduce((a, b) => a + b, 0) / known.length);
  };
  return `first third ${part(0)}, second ${part(1)}, last ${part(2)}`;
}
