// The form: sliders for the settings of the weights, filters, and the order of the completions.

class Controls {
  constructor(samples, { weigh, arrange, paint }) {
    this.form = document.getElementById("controls");
    this.reset = document.getElementById("reset");
    this.sliders = Object.fromEntries(
      ["tau", "fraction", "kappa"].map((name) => [name, [...document.querySelectorAll(`#${name} input`)]]),
    );
    this.recorded = samples.rules[samples.rule[0] ?? 0];
    this.weigh = weigh;
    this.disable(samples);
    this.toRecorded();
    this.form.addEventListener("submit", (event) => event.preventDefault());
    for (const [name, [range, exact]] of Object.entries(this.sliders)) {
      range.addEventListener("input", () => {
        exact.value = name === "tau" ? Number((10 ** range.value).toPrecision(3)) : range.value;
        this.changed(name);
      });
      exact.addEventListener("input", () => {
        range.value = name === "tau" ? Math.log10(exact.value) : exact.value;
        if (exact.value !== "" && exact.checkValidity()) this.changed(name);
      });
    }
    for (const radio of this.form.elements.mode) radio.addEventListener("change", () => this.changed(radio.value));
    this.reset.addEventListener("click", () => {
      this.toRecorded();
      weigh(null);
    });
    for (const name of ["sort", "group", "reward-min", "reward-max", "effect-min"])
      document.getElementById(name).addEventListener("input", () => arrange(this.choice()));
    document.getElementById("reach").addEventListener("input", (event) => paint(Number(event.target.value)));
  }

  /** Disables the settings whose effect the recorded numbers do not suffice to compute. */
  disable(samples) {
    const own = samples.rules.every((rule) => rule.score === "recorded");
    const uncertain = Boolean(samples.normalized_entropy);
    const enough = own ? Boolean(samples.scores) : Boolean(samples.deviation);
    document.getElementById("what-if").disabled = !enough;
    if (!enough) document.getElementById("state").textContent = "no deviation in this file: nothing to recompute";
    this.noKappa = own || !uncertain;
    for (const input of this.sliders.kappa) input.disabled = this.noKappa;
  }

  toRecorded() {
    const rule = this.recorded;
    this.put("tau", rule.tau);
    this.put("fraction", rule.effective_fraction ?? 0.5);
    this.put("kappa", this.noKappa ? 0 : rule.kappa);
    this.form.elements.mode.value = rule.effective_fraction === null ? "tau" : "fraction";
    this.show();
    this.reset.disabled = true;
  }

  put(name, value) {
    const [range, exact] = this.sliders[name];
    exact.value = value;
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
    const [tau, fraction, kappa] = ["tau", "fraction", "kappa"].map((name) => Number(this.sliders[name][1].value));
    return { tau, fraction: this.form.elements.mode.value === "fraction" ? fraction : null, kappa };
  }

  choice() {
    const value = (id) => document.getElementById(id).value;
    const bound = (id, none) => (value(id) === "" ? none : Number(value(id)));
    return {
      sort: value("sort"),
      filter: {
        group: value("group"),
        least: bound("reward-min", -Infinity),
        most: bound("reward-max", Infinity),
        effect: bound("effect-min", 0),
      },
    };
  }

  /** Fills the list of groups, of which one can be chosen. */
  listGroups(model) {
    const select = document.getElementById("group");
    for (const [key, rows] of model.groups) {
      const option = document.createElement("option");
      option.value = key;
      option.textContent = `${model.groupName(rows[0])} (${rows.length})`;
      select.append(option);
    }
  }

  chooseGroup(key) {
    const select = document.getElementById("group");
    select.value = select.value === key ? "" : key;
    select.dispatchEvent(new Event("input"));
  }
}
