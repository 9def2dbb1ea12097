// The form: filters, what colors the tokens, and the settings of the weights.

const FILTERS = [...SOURCES, "group", "sign", "reward-min", "reward-max", "effect-min", "search"];
const SEARCH_PAUSE = 150; // milliseconds without a key before a text is searched for

class Controls {
  constructor(model, { arrange, paint }) {
    this.model = model;
    this.listSources();
    this.listGroups();
    let timer = 0;
    for (const name of FILTERS)
      document.getElementById(name).addEventListener("input", () => {
        if (SOURCES.includes(name)) this.listGroups();
        clearTimeout(timer);
        if (name === "search") timer = setTimeout(() => arrange({ filter: this.filter() }), SEARCH_PAUSE);
        else arrange({ filter: this.filter() });
      });
    const colorBy = document.getElementById("color-by");
    fillSelect(colorBy, Coloring.offered(model.samples).map(([name, { label }]) => [name, label]));
    colorBy.addEventListener("input", () => {
      model.coloring.choose(colorBy.value);
      document.getElementById("reach").hidden = colorBy.value !== "w";
      paint();
    });
    document.getElementById("reach").addEventListener("input", (event) => {
      model.coloring.reach = Number(event.target.value);
      paint();
    });
    document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
    closeMenusOutside();
  }

  filter() {
    const value = (id) => document.getElementById(id).value;
    const bound = (id, none) => (value(id) === "" ? none : Number(value(id)));
    return {
      ...Object.fromEntries([...SOURCES, "group", "sign"].map((name) => [name, value(name)])),
      least: bound("reward-min", -Infinity),
      most: bound("reward-max", Infinity),
      effect: bound("effect-min", 0),
      text: value("search"),
    };
  }

  /** Fills the lists of runs, steps and estimators; one that is the same everywhere is not offered. */
  listSources() {
    const { samples, various } = this.model;
    const text = { run: (i) => samples.runs[i], step: (step) => step ?? "not known", estimator: (i) => samples.estimators[i] };
    for (const name of SOURCES) {
      const select = document.getElementById(name);
      select.parentElement.hidden = !various[name];
      const values = [...new Set(samples[name])].sort((a, b) => a - b);
      fillSelect(select, [["", "all"], ...values.map((value) => [String(value), String(text[name](value))])]);
    }
  }

  /** Fills the list of groups, of which one can be chosen. */
  listGroups() {
    const { model } = this;
    const groups = model.selection.groupsWithin(this.filter());
    const name = (row) => model.groupName(row);
    fillSelect(document.getElementById("group"), [["", "all"], ...groups.map(([key, rows]) => [key, `${name(rows[0])} (${rows.length})`])]);
  }

  chooseGroup(key) {
    const select = document.getElementById("group");
    set(select, select.value === key ? "" : key);
  }

  search(text) {
    set(document.getElementById("search"), text);
  }

  color(name) {
    const select = document.getElementById("color-by");
    if ([...select.options].some((option) => option.value === name)) set(select, name);
  }

  /** Lets all completions through. */
  clear() {
    for (const name of FILTERS) document.getElementById(name).value = "";
    this.listGroups();
  }
}

function set(input, value) {
  input.value = value;
  input.dispatchEvent(new Event("input"));
}

/** A click outside of a menu, or Escape, closes it; the focus that was inside goes to its summary. */
function closeMenusOutside() {
  const close = (keep) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (menu.contains(keep)) continue;
      if (keep === null && menu.contains(document.activeElement)) menu.firstElementChild.focus();
      menu.open = false;
    }
  };
  document.addEventListener("pointerdown", (event) => close(event.target));
  document.addEventListener("keydown", (event) => event.key === "Escape" && close(null));
}
