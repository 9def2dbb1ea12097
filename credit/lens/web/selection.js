// Which completions are shown, and in which order.

const ANY = { run: "", step: "", estimator: "", group: "", sign: "", least: -Infinity, most: Infinity, effect: 0, text: "" };
const SIGNS = { up: (a) => a > 0, down: (a) => a < 0, none: (a) => !(a > 0 || a < 0) };

class Selection {
  constructor(model) {
    this.model = model;
    this.texts = []; // of completions, joined when the first search needs them
    this.filter = ANY;
    this.sort = { by: "file", down: false };
    this.columns = this.makeColumns();
    this.arrange();
  }

  /** What rows can be sorted by: a label, whether the list shows it, and its value, where unknown is NaN or null. */
  makeColumns() {
    const { model } = this;
    const { samples, various } = model;
    const mean = (name) => (row) => columnOf(samples, [row], name).mean;
    const extras = new Set(samples.extras.flatMap(Object.keys));
    return {
      file: { label: "order in the file", value: (row) => row },
      ...(various.run && { run: { label: "run", value: (row) => samples.run[row] } }),
      ...(samples.step.some((step) => step !== null) && { step: { label: "step", shown: true, value: (row) => samples.step[row] } }),
      ...(various.estimator && { estimator: { label: "estimator", value: (row) => samples.estimator[row] } }),
      group: { label: "group", shown: true, value: (row) => samples.group[row] },
      row: { label: "row", shown: true, value: (row) => samples.row[row] },
      reward: { label: "reward", shown: true, value: (row) => samples.reward[row] },
      advantage: { label: "A", shown: true, value: (row) => samples.advantage[row] },
      effect: { label: "std w", shown: true, weighed: true, value: (row) => model.effectOf(row).std },
      tokens: { label: "tokens", shown: true, value: (row) => model.lengthOf(row) },
      fraction: { label: "effective fraction", weighed: true, value: (row) => model.effectOf(row).fraction },
      most: { label: "largest weight", weighed: true, value: (row) => (model.effectOf(row).count ? model.effectOf(row).most : NaN) },
      ...(samples.deviation && { deviation: { label: "mean deviation", value: mean("deviation") } }),
      ...(samples.normalized_entropy && { entropy: { label: "mean entropy", value: mean("normalized_entropy") } }),
      ...Object.fromEntries(
        [...extras].map((name) => [`extra ${name}`, { label: name, value: (row) => plain(samples.extras[samples.extra[row]], name) }]),
      ),
    };
  }

  /** Whether a change of the weights can change which rows are shown, and in which order. */
  get dependsOnWeights() {
    return this.filter.effect > 0 || Boolean(this.columns[this.sort.by].weighed);
  }

  /** Selects and sorts the rows that are shown. */
  arrange(change = {}) {
    Object.assign(this, change);
    const { value } = this.columns[this.sort.by];
    const keyed = this.model.every.filter(this.test(this.filter)).map((row) => [value(row) ?? NaN, row]);
    const sign = this.sort.down ? -1 : 1;
    keyed.sort(([a, i], [b, j]) => {
      const last = Number.isNaN(a) - Number.isNaN(b); // unknown values come last in either direction
      return last || sign * compareKeys(a, b) || i - j;
    });
    this.order = keyed.map(([, row]) => row);
  }

  /** The rows that a filter without a group lets through, from which a group can be chosen. */
  groupsWithin(filter) {
    const within = this.test({ ...ANY, run: filter.run, step: filter.step, estimator: filter.estimator });
    return [...this.model.groups].filter(([, rows]) => within(rows[0]));
  }

  test(filter) {
    const { model } = this;
    const { samples } = model;
    const bounded = filter.least !== -Infinity || filter.most !== Infinity;
    const found = filter.text === "" ? () => true : this.matcher(filter.text);
    const same = SOURCES.filter((name) => filter[name] !== "");
    return (row) => {
      const reward = samples.reward[row];
      return (
        same.every((name) => String(samples[name][row]) === filter[name]) &&
        (filter.group === "" || model.groupOf(row) === filter.group) &&
        (filter.sign === "" || SIGNS[filter.sign](samples.advantage[row])) &&
        (!bounded || (reward !== null && reward >= filter.least && reward <= filter.most)) &&
        (filter.effect === 0 || model.effectOf(row).std >= filter.effect) &&
        found(row)
      );
    };
  }

  textOf(row) {
    const { samples } = this.model;
    if (this.texts[row] === undefined) {
      const pieces = Array.from(samples.token.subarray(samples.start[row], samples.start[row + 1]), (id) => samples.vocabulary[id]);
      this.texts[row] = pieces.join("");
    }
    return this.texts[row];
  }

  /** Finds a text, in any case, in the completion or the prompt of a row. */
  matcher(text) {
    const { samples } = this.model;
    const pattern = patternOf(text);
    const inPrompt = samples.prompts.map((prompt) => prompt.search(pattern) >= 0);
    return (row) => inPrompt[samples.prompt[row]] || this.textOf(row).search(pattern) >= 0;
  }

  /** Positions of the row's tokens that lie in a match of the searched text. */
  foundTokens(row) {
    const found = new Set();
    if (this.filter.text === "") return found;
    const { samples } = this.model;
    const spans = [...this.textOf(row).matchAll(patternOf(this.filter.text))].map((m) => [m.index, m.index + m[0].length]);
    let at = 0;
    for (let t = samples.start[row], next = 0; t < samples.start[row + 1] && next < spans.length; t++) {
      const end = at + samples.vocabulary[samples.token[t]].length;
      while (next < spans.length && spans[next][1] <= at) next++;
      if (next < spans.length && spans[next][0] < end && end > at) found.add(t);
      at = end;
    }
    return found;
  }
}

/** Finds the text in any case, whether its accents are all characters of their own or none is. */
function patternOf(text) {
  const forms = new Set(["NFC", "NFD"].map((form) => text.normalize(form).replace(/[.*+?^$\{}()|[\]\\]/g, "\\$&")));
  return new RegExp([...forms].join("|"), "giu");
}

/** Numbers in their order before texts; numbers within texts count as such. */
function compareKeys(a, b) {
  const texts = [a, b].map((key) => typeof key === "string");
  if (texts[0] !== texts[1]) return texts[0] - texts[1];
  return texts[0] ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
}

/** A further value as a key to sort by: a number, also one written as text, or a text; what is missing is null. */
function plain(values, name) {
  const value = Object.hasOwn(values, name) ? values[name] : null; // every object has a "constructor" that is none of its values
  if (value === null || typeof value === "number") return value;
  if (typeof value !== "string") return JSON.stringify(value);
  return value.trim() === "" || !Number.isFinite(Number(value)) ? value : Number(value);
}
