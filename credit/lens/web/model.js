// The state of the page: the completions, and their weights as recorded or under other settings.

class Model {
  constructor(samples) {
    this.samples = samples;
    this.score = new Float64Array(samples.total);
    this.weights = new Float64Array(samples.total);
    this.effects = new Array(samples.count);
    this.fresh = new Int32Array(samples.count); // number of the settings under which a row was weighed last
    this.settings = null; // null: weights as recorded
    this.busy = false; // whether some rows are still weighed
    this.coloring = new Coloring(this);
    this.chosen = samples.count ? 0 : null;
    this.run = 1; // increases with each change of the settings
    this.every = Array.from({ length: samples.count }, (_, row) => row);
    this.groups = Map.groupBy(this.every, (row) => this.groupOf(row));
    this.various = Object.fromEntries(
      SOURCES.map((name) => [name, new Set(samples[name]).size > 1]),
    );
    this.recordings = this.countRecordings();
    this.selection = new Selection(this);
  }

  /** For each batch, how many there are up to it of its run, step and estimator: two trainings that append to one file repeat them. */
  countRecordings() {
    const { run, step, estimator, batch } = this.samples;
    const counts = new Map();
    const firsts = this.every.filter((row) => batch[row] !== batch[row - 1]);
    return firsts.map((row) => {
      const kind = `${run[row]}/${step[row]}/${estimator[row]}`;
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
      return counts.get(kind);
    });
  }

  /** The rows that are shown, in order. */
  get order() {
    return this.selection.order;
  }

  groupOf(row) {
    return `${this.samples.batch[row]}/${this.samples.group[row]}`;
  }

  /** Where a row comes from: its run, step and estimator, and which recording of these. */
  sourceOf(row) {
    const { run, step, estimator, batch } = this.samples;
    return `${run[row]}/${step[row]}/${estimator[row]}/${this.recordings[batch[row]]}`;
  }

  /** The run, step and estimator of a row, as far as the file has several; else its batch. */
  sourceName(row) {
    const { samples, various } = this;
    const { step, batch } = samples;
    if (step[row] === null && !various.run && !various.estimator) return batch.at(-1) ? `batch ${batch[row]}` : "";
    const recording = this.recordings[batch[row]];
    return [
      ...(various.run ? [samples.runs[samples.run[row]]] : []),
      ...(samples.step[row] === null ? [] : [`step ${samples.step[row]}`]),
      ...(various.estimator ? [samples.estimators[samples.estimator[row]]] : []),
      ...(recording > 1 ? [`recording ${recording}`] : []),
    ].join(" · ");
  }

  nameOf(row) {
    return `${this.groupName(row)} · row ${this.samples.row[row]}`;
  }

  groupName(row) {
    const where = this.sourceName(row);
    return `${where ? `${where} · ` : ""}group ${this.samples.group[row]}`;
  }

  peersOf(row) {
    return this.groups.get(this.groupOf(row));
  }

  lengthOf(row) {
    return this.samples.start[row + 1] - this.samples.start[row];
  }

  /** The row's effect under the current settings, for which it is weighed if it was not yet. */
  effectOf(row) {
    const { samples, weights } = this;
    if (this.fresh[row] !== this.run) {
      const [start, end] = [samples.start[row], samples.start[row + 1]];
      if (this.settings === null) weights.set(samples.weights.subarray(start, end), start);
      else weighRow(samples, row, this.settings, this.score, weights);
      this.effects[row] = effectOf(samples, row, weights);
      this.fresh[row] = this.run;
    }
    return this.effects[row];
  }

  /** Changes the settings, {tau, fraction or null, kappa} or null; weighs all rows in slices, then calls `done`. */
  async use(settings, done) {
    this.settings = settings;
    const run = ++this.run;
    this.busy = true;
    if (!(await runInSlices(this.weighAll(), () => run !== this.run))) return;
    this.busy = false;
    done();
  }

  *weighAll() {
    for (const row of this.every) {
      this.effectOf(row);
      yield;
    }
    return true;
  }

  /** Pairs of name and text: the numbers of one token. */
  numbersOf(t) {
    const { samples } = this;
    const row = this.rowOf(t);
    this.effectOf(row);
    const rule = samples.rules[samples.rule[row]];
    const at = (name) => (samples[name] && Number.isNaN(samples[name][t]) ? "missing" : number(samples[name]?.[t], 6));
    const kappa = this.settings?.kappa ?? rule.kappa;
    const scored = rule.score === "recorded" || (samples.deviation && (kappa === 0 || samples.normalized_entropy));
    const known = (value) => (!samples.valid[row] ? "– (invalid)" : Number.isNaN(value) ? "missing" : number(value, 6));
    return [
      ["token", `${t - samples.start[row] + 1} of ${this.lengthOf(row)}`],
      ...(samples.mask[t] ? [] : [["mask", "0: not the policy's own"]]),
      ...(samples.turns && samples.turns[t] !== NO_TURN ? [["turn", String(samples.turns[t])]] : []),
      ["log p", at("log_probs")],
      ["log q, reference", at("reference_log_probs")],
      ["deviation d", at("deviation")],
      ["entropy h", at("normalized_entropy")],
      ["score s", scored ? known(scoreAt(samples, rule, kappa, t)) : "–"],
      ["weight w", known(this.weights[t])],
      ...(this.settings ? [["weight as recorded", known(samples.weights[t])]] : []),
      ["advantage", known(this.advantageAt(row, t))],
    ];
  }

  /** The advantage as recorded, or A_i w under other settings. */
  advantageAt(row, t) {
    return this.settings ? (this.samples.advantage[row] ?? NaN) * this.weights[t] : this.samples.advantages[t];
  }

  rowOf(t) {
    let low = 0;
    let high = this.samples.count;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.samples.start[middle] <= t) low = middle;
      else high = middle;
    }
    return low;
  }
}
