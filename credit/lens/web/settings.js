// The settings of the weights, by which all of them are computed anew.

const INFINITE = 1e300; // stands for an infinite tau, as in credit/lens/payload.py

class Settings {
  constructor(samples, weigh) {
    this.form = document.getElementById("controls");
    this.reset = document.getElementById("reset");
    this.state = document.getElementById("state");
    this.sliders = Object.fromEntries(
      ["tau", "fraction", "kappa"].map((name) => [name, [...document.querySelectorAll(`#${name} input`)]]),
    );
    this.values = {}; // the numbers in use, which an input does not hold while it is empty or out of range
    this.recorded = samples.rules[samples.rule[0] ?? 0];
    this.weigh = weigh;
    this.disable(samples);
    this.toRecorded();
    for (const [name, [range, exact]] of Object.entries(this.sliders)) {
      range.addEventListener("input", () => {
        exact.value = this.values[name] = name === "tau" ? Number((10 ** range.value).toPrecision(3)) : Number(range.value);
        this.changed(name);
      });
      exact.addEventListener("input", () => {
        if (exact.value === "" || !exact.checkValidity()) return;
        this.values[name] = Number(exact.value);
        range.value = name === "tau" ? Math.log10(exact.value) : exact.value;
        this.changed(name);
      });
      exact.addEventListener("change", () => this.put(name, this.values[name]));
    }
    for (const radio of this.form.elements.mode) radio.addEventListener("change", () => this.changed(radio.value));
    this.reset.addEventListener("click", () => {
      this.use(null);
    });
  }

  /** Disables the settings whose effect the recorded numbers do not suffice to compute. */
  disable(samples) {
    const own = samples.rules.every((rule) => rule.score === "recorded");
    const uncertain = Boolean(samples.normalized_entropy);
    this.enough = own ? Boolean(samples.scores) : Boolean(samples.deviation);
    document.getElementById("what-if").disabled = !this.enough;
    this.noKappa = own || !uncertain;
    for (const input of this.sliders.kappa) input.disabled = this.noKappa;
  }

  /** Says by which settings the weights are computed. */
  say(settings, busy) {
    const sharp = settings && (settings.fraction === null ? `τ = ${tauText(settings.tau)}` : `fraction = ${number(settings.fraction)}`);
    const text = settings === null ? "as recorded" : `what if ${sharp}, κ = ${number(settings.kappa)}`;
    this.state.textContent = this.enough ? text + (busy ? " …" : "") : "as recorded; no deviation in this file, nothing to recompute";
  }

  toRecorded() {
    const rule = this.recorded;
    const fraction = rule.effective_fraction ?? null;
    this.fill({ tau: rule.tau, fraction, kappa: this.noKappa ? 0 : rule.kappa });
    this.reset.disabled = true;
  }

  /** Computes the weights by settings, or takes them as recorded for null. */
  use(settings) {
    if (!this.enough) return;
    if (settings === null) {
      this.toRecorded();
      this.weigh(null);
      return;
    }
    this.fill({ ...settings, kappa: this.noKappa ? 0 : settings.kappa }); // as the form has it for this file
    this.reset.disabled = false;
    this.weigh(this.settings());
  }

  fill({ tau, fraction, kappa }) {
    this.put("tau", tau);
    this.put("fraction", fraction ?? 0.5);
    this.put("kappa", kappa);
    this.form.elements.mode.value = fraction === null ? "tau" : "fraction";
    this.show();
  }

  put(name, value) {
    const [range, exact] = this.sliders[name];
    this.values[name] = value;
    exact.value = value < INFINITE ? value : "";
    range.value = name === "tau" ? Math.log10(value) : value;
  }

  changed(name) {
    if (name !== "kappa") this.form.elements.mode.value = name;
    this.show();
    this.reset.disabled = false;
    this.weigh(this.settings());
  }

  show() {
    const mode = this.form.elements.mode.value;
    for (const name of ["tau", "fraction"]) document.getElementById(name).classList.toggle("unused", mode !== name);
  }

  settings() {
    const { tau, fraction, kappa } = this.values;
    return { tau, fraction: this.form.elements.mode.value === "fraction" ? fraction : null, kappa };
  }
}

function tauText(tau) {
  return tau < INFINITE ? number(tau) : "∞";
}
