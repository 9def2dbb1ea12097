// The chosen completion in full, alone or beside another.

const SHORT = 240; // a text below so many characters is shown in large letters, and a prompt is open
const BARS_OF_STRIP = 100; // at most
const TALL = 740; // pixels of a page that has room for a prompt

class Reader {
  constructor(model, { onlyGroup, compared }) {
    this.model = model;
    this.text = document.getElementById("text");
    this.strip = document.getElementById("strip");
    this.versus = document.getElementById("versus");
    this.other = document.getElementById("other");
    this.pointer = new Pointer(model, this.text);
    this.promptOpen = null; // as the user last chose
    document.querySelector("#prompt-box summary").addEventListener("click", (event) => {
      this.promptOpen = !event.currentTarget.parentElement.open;
    });
    document.getElementById("only-group").addEventListener("click", () => onlyGroup(model.chosen));
    this.text.addEventListener("copy", copyTokens);
    this.strip.addEventListener("click", (event) => this.go(event));
    this.versus.addEventListener("input", () => {
      model.comparison.versus = this.versus.value;
      this.open();
      compared();
    });
    this.other.addEventListener("input", () => {
      this.compareWith(Number(this.other.value));
      compared();
    });
  }

  /** Shows another completion, beside the one that it is compared with. */
  open() {
    const { chosen, comparison } = this.model;
    document.getElementById("reader").classList.toggle("nothing", chosen === null);
    this.pointer.point(null);
    this.text.replaceChildren();
    if (chosen === null) return;
    comparison.follow(chosen);
    this.fill();
  }

  fill() {
    this.offerOthers();
    this.fillText();
    this.fillPrompt();
    this.renew();
  }

  /** Sets another row beside the chosen one. */
  compareWith(row) {
    this.model.comparison.row = row;
    this.fill();
  }

  /** Shows the same completion under other weights, to which the recorded ones can be compared. */
  weigh() {
    const { chosen, comparison, settings } = this.model;
    if (chosen === null) return;
    if (comparison.versus === RECORDED && settings === null) return this.open();
    this.offerOthers();
    this.renew();
  }

  /** Shows the same completion after a change of the weights or of the color scale. */
  renew() {
    const { samples, chosen, coloring, comparison } = this.model;
    if (chosen === null) return;
    for (const row of this.rows()) this.model.effectOf(row);
    for (const element of this.text.querySelectorAll(".token[data-place]")) {
      const { classList, dataset } = element;
      coloring.color(element, classList.contains("other") ? comparison.row : chosen, Number(dataset.place), classList.contains("recorded"));
    }
    drawBars(this.strip, stripOf(this.model, chosen, BARS_OF_STRIP));
    const heading = document.getElementById("which");
    heading.textContent = heading.title = this.model.nameOf(chosen);
    const alone = this.model.selection.filter.group === this.model.groupOf(chosen);
    document.getElementById("only-group").textContent = alone ? "All groups" : "Only this group";
    document.getElementById("badge").hidden = Boolean(samples.valid[chosen]);
    this.fillLegend();
    this.fillNumbers();
    if (this.pointer.current) this.pointer.point(this.pointer.current);
  }

  rows() {
    const { chosen, comparison } = this.model;
    return comparison.row === null || comparison.versus === RECORDED ? [chosen] : [chosen, comparison.row];
  }

  offerOthers() {
    const { model } = this;
    const { chosen, comparison } = model;
    fillSelect(this.versus, comparison.sourcesFor(chosen));
    this.versus.value = comparison.row === null ? "" : comparison.versus;
    document.getElementById("compare").hidden = this.versus.options.length < 2;
    const others = comparison.othersFor(chosen);
    document.getElementById("other-box").hidden = others.length < 2 || comparison.row === null;
    const text = (row) => `row ${model.samples.row[row]} · r ${number(model.samples.reward[row])}${comparison.isSame(chosen, row) ? " · same text" : ""}`;
    fillSelect(this.other, others.map((row) => [String(row), text(row)]));
    if (comparison.row !== null) this.other.value = String(comparison.row);
  }

  fillText() {
    const { samples, chosen, comparison } = this.model;
    const found = this.model.selection.foundTokens(chosen);
    const element = (t) => {
      const token = tokenElement(samples, t);
      if (found.has(t)) token.classList.add("found");
      return token;
    };
    const alone = comparison.row === null;
    const places = Array.from({ length: this.model.lengthOf(chosen) }, (_, i) => samples.start[chosen] + i);
    const recorded = comparison.versus === RECORDED;
    const pairs = alone ? [] : recorded ? places.map((t) => [t, t]) : comparison.align(chosen);
    this.text.replaceChildren(
      ...(alone ? places.map(element) : pairs.flatMap(([a, b]) => pairElements(samples, a === null ? null : element(a), b, recorded))),
    );
    this.text.classList.toggle("short", this.text.textContent.length < SHORT);
    this.text.scrollTop = 0;
    if (found.size) this.text.querySelector(".found").scrollIntoView({ block: "nearest" });
  }

  fillPrompt() {
    const { samples, chosen } = this.model;
    const prompt = samples.prompts[samples.prompt[chosen]];
    const extras = Object.entries(samples.extras[samples.extra[chosen]]);
    const box = document.getElementById("prompt-box");
    box.hidden = prompt === undefined && !extras.length;
    box.open = this.promptOpen ?? (innerHeight >= TALL && (prompt?.length ?? 0) + JSON.stringify(extras).length < SHORT);
    const names = [...(prompt === undefined ? [] : ["Prompt"]), ...extras.map(([name]) => name)];
    box.querySelector("summary").textContent = names.join(" · ");
    const area = document.getElementById("prompt");
    area.hidden = prompt === undefined;
    area.textContent = prompt ?? "";
    const text = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));
    fillList(document.getElementById("extras"), extras.map(([name, value]) => [name, text(value)]));
  }

  fillLegend() {
    const { coloring } = this.model;
    const [least, middle, most] = coloring.ticks();
    const ramp = (sign) => {
      const bar = create("i");
      const [from, to] = sign < 0 ? [-1, 0] : [0, 1];
      bar.style.backgroundImage = `linear-gradient(to right, ${coloring.paint(from)}, ${coloring.paint(to)})`;
      return bar;
    };
    document.getElementById("scale").replaceChildren(
      ...(least === null ? [] : [create("span", "", least), ramp(-1)]),
      create("span", "", middle), ramp(1), create("span", "", most),
      create("span", "token outside", "not the policy's"), create("span", "token missing", "missing"),
    );
  }

  fillNumbers() {
    const { model } = this;
    const { samples, chosen, comparison } = model;
    const lines = [["upper", chosen, model.effectOf(chosen)]];
    if (comparison.row !== null && comparison.versus === RECORDED)
      lines.push(["lower: as recorded", chosen, effectOf(samples, chosen, samples.weights)]);
    else if (comparison.row !== null) lines.push([`lower: ${model.nameOf(comparison.row)}`, comparison.row, model.effectOf(comparison.row)]);
    fillNumbers(document.getElementById("of-response"), model, lines);
  }

  /** Scrolls to the part of the response that was clicked in the strip. */
  go(event) {
    const edge = this.strip.getBoundingClientRect();
    const share = (event.clientX - edge.left) / edge.width;
    const tokens = this.text.querySelectorAll(".token[data-place]:not(.other)");
    const token = tokens[Math.floor(share * tokens.length)];
    token?.scrollIntoView({ block: "center" });
    if (token) setTimeout(() => this.pointer.point(token), 50); // after scrolling, which hides the numbers
  }
}

/** Two aligned tokens, one above the other; a line break of the upper one, or of the lower one alone, ends the line. */
function pairElements(samples, upper, lower, recorded) {
  const pair = create("span", "pair");
  const below = lower === null ? create("span", "token gap") : tokenElement(samples, lower);
  below.classList.add("other");
  if (recorded) below.classList.add("recorded");
  const above = upper ?? create("span", "token gap");
  if (upper === null || lower === null || above.textContent !== below.textContent) pair.classList.add("differs");
  pair.append(above, below);
  return (upper ?? below).textContent.includes("\n") ? [pair, create("br")] : [pair];
}

/** Copies the model's text and nothing that the page adds to it. */
function copyTokens(event) {
  const chosen = document.getSelection();
  if (!chosen.rangeCount || chosen.isCollapsed) return;
  const part = chosen.getRangeAt(0).cloneContents();
  for (const other of part.querySelectorAll(".other")) other.remove();
  event.clipboardData.setData("text/plain", part.textContent);
  event.preventDefault();
}
