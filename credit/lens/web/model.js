// The state of the page: the weights, as recorded or under other settings, and the completions in order.

const SLICE = 12; // milliseconds of work between two frames

class Model {
  constructor(samples) {
    this.samples = samples;
    this.score = new Float64Array(samples.total);
    this.weights = new Float64Array(samples.total);
    this.effects = new Array(samples.count);
    this.fresh = new Int32Array(samples.count); // number of the settings under which a row was weighed last
    this.settings = null; // null: weights as recorded
    this.reach = 4;
    this.chosen = samples.count ? 0 : null;
    this.filter = { group: "", least: -Infinity, most: Infinity, effect: 0 };
    this.sort = "file";
    this.run = 1; // increases with each change of the settings
    this.groups = Map.groupBy(Array.from({ length: samples.count }, (_, row) => row), (row) => this.groupOf(row));
    this.arrange();
  }

  groupOf(row) {
    return `${this.samples.batch[row]}/${this.samples.group[row]}`;
  }

  nameOf(row) {
    return `${this.groupName(row)} · row ${this.samples.row[row]}`;
  }

  groupName(row) {
    const { step, batch, group } = this.samples;
    const where = step[row] === null ? (batch.at(-1) ? `batch ${batch[row]} · ` : "") : `step ${step[row]} · `;
    return `${where}group ${group[row]}`;
  }

  peersOf(row) {
    return this.groups.get(this.groupOf(row));
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
    let until = performance.now() + SLICE;
    for (let row = 0; row < this.samples.count; row++) {
      this.effectOf(row);
      if (performance.now() < until) continue;
      await new Promise((resume) => setTimeout(resume));
      if (run !== this.run) return;
      until = performance.now() + SLICE;
    }
    this.busy = false;
    done();
  }

  /** Selects and sorts the rows that are shown. */
  arrange() {
    const { samples, filter, effects } = this;
    const by = {
      file: (row) => row,
      group: (row) => samples.batch[row] * 1e9 + samples.group[row],
      reward: (row) => -(samples.reward[row] ?? NaN),
      "-reward": (row) => samples.reward[row] ?? NaN,
      effect: (row) => -effects[row]?.std,
      "-effect": (row) => effects[row]?.std,
      length: (row) => samples.start[row] - samples.start[row + 1],
    }[this.sort];
    const bounded = filter.least !== -Infinity || filter.most !== Infinity;
    const rows = [...Array(samples.count).keys()].filter((row) => {
      const reward = samples.reward[row];
      return (
        (filter.group === "" || this.groupOf(row) === filter.group) &&
        (!bounded || (reward !== null && reward >= filter.least && reward <= filter.most)) &&
        !(effects[row]?.std < filter.effect)
      );
    });
    const last = (key) => (Number.isNaN(key) ? Infinity : key); // unknown values come last
    this.order = rows.map((row) => [last(by(row)), row]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((pair) => pair[1]);
  }

  /** Triples of name, text and explanation: the metrics of the given rows. */
  summaryOf(rows) {
    const { samples } = this;
    const weights = metricsOf(rows.map((row) => this.effectOf(row)));
    const deviation = samples.deviation && columnOf(samples, rows, (t) => samples.deviation[t]);
    const entropy = samples.normalized_entropy && columnOf(samples, rows, (t) => samples.normalized_entropy[t]);
    return [
      ["completions", String(rows.length)],
      ["weight std", number(weights.weight_std), "0 is GRPO; below 0.1 hardly anything differs from it"],
      ["effective fraction", number(weights.effective_token_fraction), "mean of (sum w)^2 / (T sum w^2): 1 is GRPO"],
      ["weights", `${number(weights.weight_min)} … ${number(weights.weight_max)}`, "least and largest"],
      ...(deviation ? [["deviation mean", number(deviation.mean), "squared Hellinger distance of policy and reference"],
        ["deviation max", number(deviation.max)]] : []),
      ...(entropy ? [["entropy mean", number(entropy.mean), "normalized: H / log V"]] : []),
    ];
  }

  /** Pairs of name and text: the numbers of one token. */
  numbersOf(t) {
    const { samples } = this;
    const row = this.rowOf(t);
    const rule = samples.rules[samples.rule[row]];
    const at = (name) => number(samples[name]?.[t], 6);
    const kappa = this.settings?.kappa ?? rule.kappa;
    const scored = rule.score === "recorded" || samples.deviation;
    return [
      ["token", `${t - samples.start[row] + 1} of ${samples.start[row + 1] - samples.start[row]}`],
      ...(samples.mask[t] ? [] : [["mask", "0: not the policy's own"]]),
      ["log p", at("log_probs")],
      ["log q, reference", at("reference_log_probs")],
      ["deviation d", at("deviation")],
      ["entropy h", at("normalized_entropy")],
      ["score s", scored ? number(scoreAt(samples, rule, kappa, t), 6) : "–"],
      ["weight w", number(this.weights[t], 6)],
      ...(this.settings ? [["weight as recorded", at("weights")]] : []),
      ["advantage", number(this.advantageAt(row, t), 6)],
    ];
  }

  /** The advantage as recorded, or A_i w under other settings. */
  advantageAt(row, t) {
    return this.settings ? this.samples.advantage[row] * this.weights[t] : this.samples.advantages[t];
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
