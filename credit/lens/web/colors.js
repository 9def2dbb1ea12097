// What colors the tokens: a number of each token, and its place on a scale.

const DIVERGING = (x) => `rgb(var(${x > 0 ? "--more" : "--less"}) / ${Math.abs(x).toFixed(4)})`;
const RISING = (x) => `rgb(var(--level) / ${x.toFixed(4)})`;
const FEW_TOKENS = 200_000; // so many, evenly spread over the file, give the end of a scale

/** The numbers to color by: their name, the columns they need, their value at token t, now or as recorded, and the paint of a share in [-1, 1]. */
const COLORINGS = {
  w: {
    label: "weight w",
    needs: ["weights"],
    value: ({ samples, weights }, row, t, recorded) => (recorded ? samples.weights[t] : weights[t]),
    paint: DIVERGING,
  },
  A: {
    label: "advantage A",
    needs: ["advantages"],
    value: (model, row, t, recorded) => (recorded ? model.samples.advantages[t] : model.advantageAt(row, t)),
    paint: DIVERGING,
  },
  d: { label: "deviation d", needs: ["deviation"], value: ({ samples }, row, t) => samples.deviation[t], paint: RISING },
  h: { label: "entropy h", needs: ["normalized_entropy"], value: ({ samples }, row, t) => samples.normalized_entropy[t], paint: RISING },
  "log-ratio": {
    label: "log-ratio log p − log q",
    needs: ["log_probs", "reference_log_probs"],
    value: ({ samples }, row, t) => samples.log_probs[t] - samples.reference_log_probs[t],
    paint: DIVERGING,
  },
};

/** Position of a weight on the color scale: 0 at w = 1, 1 at w = reach and -1 at w = 1 / reach. */
function shade(weight, reach) {
  return Math.max(-1, Math.min(1, Math.log2(weight) / Math.log2(reach)));
}

class Coloring {
  constructor(model) {
    this.model = model;
    this.reach = 4; // of weights; `end` finds that of the other scales
    this.ends = {};
    this.choose("w");
  }

  /** The numbers that the file has. */
  static offered(samples) {
    return Object.entries(COLORINGS).filter(([, { needs }]) => needs.every((name) => samples[name]));
  }

  choose(name) {
    this.name = name;
    this.rule = COLORINGS[name];
  }

  /** Share of the full color in [-1, 1]; NaN where the token's number is missing. */
  shareAt(row, t, recorded) {
    const value = this.model.samples.valid[row] ? this.rule.value(this.model, row, t, recorded) : NaN;
    if (this.name === "w") return value >= 0 ? shade(value, this.reach) : NaN;
    return Math.max(-1, Math.min(1, value / this.end()));
  }

  paint(share) {
    return this.rule.paint(share);
  }

  /** The value that has the full color: the 99th percentile of recorded sizes, or the largest where that is 0. */
  end() {
    return (this.ends[this.name] ??= this.findEnd());
  }

  findEnd() {
    const { samples } = this.model;
    const sizes = [];
    const every = Math.ceil(samples.total / FEW_TOKENS);
    for (let row = 0; row < samples.count; row++) {
      if (!samples.valid[row]) continue;
      for (let t = Math.ceil(samples.start[row] / every) * every; t < samples.start[row + 1]; t += every) {
        const value = this.rule.value(this.model, row, t, true);
        if (samples.mask[t] && Number.isFinite(value)) sizes.push(Math.abs(value));
      }
    }
    const [most, largest] = quantilesOf(Float64Array.from(sizes), [0.99, 1]);
    return most || largest || 1;
  }

  /** Texts of the scale's left end, middle and right end; the left one is missing where no value is below the middle. */
  ticks() {
    if (this.name === "w") return [`1/${this.reach}`, "w = 1", `${this.reach}`];
    const end = number(this.end());
    return this.rule.paint === RISING ? [null, "0", end] : [`-${end}`, "0", `+${end}`];
  }

  /** Gives an element the color of its token, with the numbers as they are now or as they were recorded. */
  color(element, row, t, recorded = false) {
    const { samples } = this.model;
    const share = samples.mask[t] ? this.shareAt(row, t, recorded) : 0;
    element.classList.toggle("outside", !samples.mask[t]);
    element.classList.toggle("missing", Number.isNaN(share));
    element.style.backgroundColor = samples.mask[t] && share ? this.paint(share) : "";
  }
}
