// The batch view: what the estimator does over many completions, and from step to step.

const DRIFT =
  "drift_alignment: mean over root mean square, over the responses, of A_i Σ (log p − log q). High (at most 1) where the " +
  "policy left its reference for what earns rewards, about 0 where it wandered. Of n responses, chance alone gives ± 1/√n.";

class Batch {
  constructor(model, { search }) {
    this.model = model;
    this.section = document.getElementById("batch");
    this.line = create("p", "coverage");
    this.parts = create("div", "parts");
    this.texts = new TextTable(search);
    this.painters = new Map(); // element -> what draws its chart at a given width
    this.observer = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) if (contentRect.width) this.painters.get(target)?.(contentRect.width);
    });
    this.turn = 0;
    this.section.append(this.line, this.parts);
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
      summaryTable(result),
      part("", "How the numbers are distributed", ...distributionsOf(result, plot)),
      ...(result.steps > 1 ? [part("", "Over the steps", ...coursesOf(result, plot))] : []),
      part("wide", "How concentrated the credit is", ...concentrationFigures(result, plot)),
      this.texts.show(result, this.model.samples.vocabulary),
      part("half", "Where in the response the credit goes", ...placesOf(result, plot)),
    );
  }
}

/** The metrics of each series. */
function summaryTable({ series, summaries }) {
  const columns = [
    ["completions", "", ({ responses }) => countText(responses)],
    ["weight std", "0 is GRPO; below 0.1 hardly anything differs from it", ({ weight_std }) => number(weight_std)],
    ["effective fraction", "mean of (sum w)^2 / (T sum w^2): 1 is GRPO", (one) => number(one.effective_token_fraction)],
    ["weights", "least and largest", ({ weight_min, weight_max }) => rangeText(weight_min, weight_max)],
    ["deviation max", "squared Hellinger distance of policy and reference", ({ deviation }) => deviation && number(deviation.max)],
    ["drift alignment", DRIFT, ({ drift }) => drift && `${number(drift.alignment)} (chance: ± ${number(1 / Math.sqrt(drift.responses), 2)})`],
  ];
  const known = columns.filter(([, , text]) => text(summaries[0]) !== null);
  const several = series.length > 1;
  const heads = known.map(([name, title]) => Object.assign(create("span", "", name), { title }));
  const rows = summaries.map((one, i) => [
    ...(several ? [create("span", "", swatch(i), series[i].name)] : []),
    ...known.map(([, , text]) => text(one)),
  ]);
  return part("summary", several ? "Metrics of each estimator and run" : "Metrics", tableOf([...(several ? [""] : []), ...heads], rows));
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
    `${countText(counted)} of ${plural(shown, "completion")} ${counted === 1 ? "is" : "are"} counted, with ${plural(tokens, "token")} of the policy.`,
    left.length ? ` Left out: ${left.join(", ")}.` : "",
    skipped.length ? ` Missing numbers, which are skipped: ${skipped.join(", ")}.` : "",
  ].join("");
}

/** A box of the view; its kind says how wide its figures are. */
function part(kind, title, ...contents) {
  return create("section", `part ${kind}`, create("h2", "", title), ...contents);
}
