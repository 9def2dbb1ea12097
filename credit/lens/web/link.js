// The address of a completion: what follows the # names it, so that it is found again in the same page on another machine.

const LINK_PAUSE = 250; // milliseconds without a change before the address follows; browsers limit how often it may

/** What names a row in any page that holds it: its step, estimator, group and row, its run where there are several, and which of such it is. */
function linkParts(model, row) {
  const { run, ...others } = nameParts(model, row);
  const parts = model.various.run ? { run, ...others } : others; // so that it is found on a page of more runs too
  const same = model.every.filter((other) => sameParts(nameParts(model, other), parts));
  return same.length > 1 ? { ...parts, copy: String(same.indexOf(row)) } : parts;
}

function nameParts(model, row) {
  const { samples } = model;
  return {
    run: samples.runs[samples.run[row]],
    step: samples.step[row] === null ? "" : String(samples.step[row]),
    estimator: samples.estimators[samples.estimator[row]],
    group: String(samples.group[row]),
    row: String(samples.row[row]),
  };
}

function linkTo(model, row) {
  const more = {};
  const { versus, row: other } = model.comparison;
  if (versus === RECORDED || versus === GROUP) more.versus = versus;
  const beside = other === null || versus === RECORDED ? {} : prefixed(linkParts(model, other), "with-");
  const color = model.coloring.name === "w" ? {} : { color: model.coloring.name };
  const view = document.getElementById("batch").hidden ? {} : { view: "batch" };
  return `#${new URLSearchParams({ ...linkParts(model, row), ...more, ...beside, ...color, ...view, ...settingsParts(model.settings) })}`;
}

/** The row, the row beside it, the coloring, the view and the settings that an address names; a row is null where the page does not hold it. */
function readLink(model, fragment) {
  const given = Object.fromEntries(new URLSearchParams(fragment.replace(/^#/, "")));
  const find = (prefix) => {
    const names = [...SOURCES, "group", "row"].filter((name) => `${prefix}${name}` in given);
    const wanted = Object.fromEntries(names.map((name) => [name, given[`${prefix}${name}`]]));
    if (!("row" in wanted)) return null;
    const rows = model.every.filter((row) => sameParts(nameParts(model, row), wanted));
    return rows[Number(given[`${prefix}copy`] ?? 0)] ?? rows[0] ?? null;
  };
  const beside = find("with-");
  return {
    named: "row" in given,
    row: find(""),
    versus: beside === null ? (given.versus ?? "") : given.versus === GROUP ? GROUP : model.sourceOf(beside),
    beside,
    color: given.color ?? "w",
    view: given.view === "batch" ? "batch" : "read",
    settings: readSettings(given),
  };
}

function settingsParts(settings) {
  if (settings === null) return {};
  const sharp = settings.fraction === null ? { tau: settings.tau } : { fraction: settings.fraction };
  return { ...sharp, kappa: settings.kappa };
}

function readSettings({ tau, fraction, kappa }) {
  const numbers = [tau ?? "1", fraction ?? "0.5", kappa ?? "1"].map(Number);
  if ((tau ?? fraction) === undefined || !numbers.every((value) => value >= 0 && value < Infinity) || numbers[1] >= 1) return null;
  return { tau: numbers[0] || 1e-6, fraction: fraction === undefined ? null : numbers[1], kappa: numbers[2] };
}

function sameParts(found, wanted) {
  return Object.entries(wanted).every(([name, value]) => found[name] === value);
}

function prefixed(parts, prefix) {
  return Object.fromEntries(Object.entries(parts).map(([name, value]) => [`${prefix}${name}`, value]));
}

/** Keeps the page's own address and the link in the reader at the chosen completion. */
class Address {
  constructor(model) {
    this.model = model;
    this.link = document.getElementById("link");
    this.link.addEventListener("click", (event) => this.copy(event));
    this.timer = 0;
    this.link.hidden = window.top !== window; // a frame, as of a notebook, has no address that could be sent
  }

  follow() {
    if (this.link.hidden) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), LINK_PAUSE);
  }

  write() {
    clearTimeout(this.timer);
    if (this.model.chosen === null) return;
    this.link.href = linkTo(this.model, this.model.chosen);
    history.replaceState(null, "", this.link.getAttribute("href"));
  }

  async copy(event) {
    event.preventDefault();
    this.write();
    try {
      await navigator.clipboard.writeText(this.link.href);
      this.say("Copied");
    } catch {
      this.say("In the address bar");
    }
  }

  say(text) {
    this.link.textContent = text;
    setTimeout(() => (this.link.textContent = "Link"), 1500);
  }
}
