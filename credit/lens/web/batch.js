// The batch view: what the estimator does over many completions, and from step to step.

const DRIFT =
  "drift_alignment: mean over root mean square, over the responses, of A_i Σ (log p − log q). High (at most 1) where the " +
  "policy left its reference for what earns rewards, about 0 where it wandered. Of n responses, chance alone gives ± 1/√n.";

class Batch {
  constructor(model, { search }) {
    this.model = model;
    this.section = document.getElementById("batch");
    this.top = create("dl"); // for the page's metrics
    this.line = create("p", "coverage");
    this.drift = create("dl");
    this.parts = create("div", "parts");
    this.texts = new TextTable(search);
    this.painters = new Map(); // element -> what draws its chart at a given width
    this.observer = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) if (contentRect.width) this.painters.get(target)?.(contentRect.width);
    });
    this.turn = 0;
    this.section.append(this.line, create("div", "metrics", this.top, this.drift), this.parts);
    this.line.setAttribute("role", "status");
  }

  /** Shows what the given completions have in common; a later call takes the place of one that still computes. */
  async draw(rows) {
    const { model } = this;
    const turn = ++this.turn;
    const run = model.run;
    this.section.setAttribute("aria-busy", "true");
    const result = await runInSlices(measureBatch(model, rows), () => turn !== this.turn || run !== model.run);
    if (!result) return;
    this.result = result;
    this.show(result);
    this.section.setAttribute("aria-busy", "false");
  }

  get busy() {
    return this.section.getAttribute("aria-busy") === "true";
  }

  show(result) {
    this.line.textContent = coverageText(result);
    const { alignment, responses } = result.drift ?? {};
    const chance = `chance: ± ${number(1 / Math.sqrt(responses), 2)}`;
    fillList(this.drift, Number.isFinite(alignment) ? [["drift alignment", `${number(alignment)} (${chance})`, DRIFT]] : []);
    this.observer.disconnect();
    this.painters.clear();
    const plot = (paint) => {
      const box = create("div", "plot", vector("svg"));
      this.painters.set(box, (width) => paint(box.firstChild, width));
      this.observer.observe(box);
      return box;
    };
    this.parts.replaceChildren();
    if (!result.counted) return;
    this.parts.append(
      ...legendOf(result),
      part("", "How the numbers are distributed", ...distributionsOf(result, plot)),
      ...(result.steps > 1 ? [part("", "Over the steps", ...coursesOf(result, plot))] : []),
      part("wide", "How concentrated the credit is", ...concentrationFigures(result, plot)),
      this.texts.show(result.texts, this.model.samples.vocabulary),
      part("half", "Where in the response the credit goes", ...placesOf(result, plot)),
    );
  }
}

/** How many completions and tokens the view counts, and what it leaves out. */
function coverageText({ shown, counted, invalid, missing, empty, tokens, gaps }) {
  const count = (n, what) => (n ? [`${countText(n)} ${what}`] : []);
  const left = [
    ...count(invalid, "invalid"),
    ...count(missing, "with missing weights"),
    ...count(empty, "without tokens of the policy"),
  ];
  const skipped = Object.entries(gaps).flatMap(([name, n]) => count(n, `of ${NAMES[name]}`));
  return [
    `${countText(counted)} of ${countText(shown)} completions are counted, with ${countText(tokens)} tokens of the policy.`,
    left.length ? ` Left out: ${left.join(", ")}.` : "",
    skipped.length ? ` Missing numbers, which are skipped: ${skipped.join(", ")}.` : "",
  ].join("");
}

/** An element with a class and contents; a text among these stays text. */
function create(kind, className, ...contents) {
  const element = make(kind, className);
  element.append(...contents);
  return element;
}

/** A box of the view; its kind says how wide its figures are. */
function part(kind, title, ...contents) {
  return create("section", `part ${kind}`, create("h2", "", title), ...contents);
}
