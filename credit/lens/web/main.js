// Connects the parts of the page.

const SMALL = 0.1; // with a weight std below this, the estimator does what GRPO does
const FEW = 0.1; // with an effective fraction below this, most tokens get no credit

function describe(samples, model) {
  const names = [...new Set(samples.estimators)];
  const groups = model.groups.size;
  const text = `${samples.title} · ${samples.count} completions in ${groups} ${groups === 1 ? "group" : "groups"} · ${names.join(", ")}`;
  document.getElementById("source").textContent = text;
  document.title = `${samples.title} · credit lens`;
}

function summarise(model) {
  const rows = model.order;
  const samples = model.samples;
  const summary = model.summaryOf(rows);
  fillList(document.getElementById("metrics"), summary);
  const weights = metricsOf(rows.map((row) => model.effectOf(row)));
  const verdict = document.getElementById("verdict");
  verdict.textContent = verdictOn(weights.weight_std, weights.effective_token_fraction);
  verdict.className = weights.weight_std < SMALL || weights.effective_token_fraction < FEW ? "odd" : "fine";
  const longest = rows.reduce((most, row) => Math.max(most, samples.start[row + 1] - samples.start[row]), 1);
  drawBars(document.getElementById("positions"), positionsOf(samples, rows, model.weights, Math.min(60, longest)));
  document.getElementById("count").textContent = `${rows.length} of ${samples.count}`;
}

function verdictOn(std, fraction) {
  if (!Number.isFinite(std)) return "No weights to sum up.";
  if (std < SMALL) return "The weights hardly move: GRPO in all but name. A smaller τ or a target makes the estimator act.";
  const share = `The credit of a response rests, in effect, on ${number(100 * fraction)} % of its tokens`;
  return fraction < FEW ? `${share}: very few. A larger τ or a target spreads it.` : `${share}.`;
}

function stateOf(model) {
  return (model.settings === null ? "as recorded" : "what if") + (model.busy ? " …" : "");
}

/** Shows one of two views: the completions one by one, or the batch. */
function chooseView(name) {
  document.querySelector("main").hidden = name !== "read";
  document.getElementById("batch").hidden = name !== "batch";
  for (const tab of document.querySelectorAll("#views button")) tab.setAttribute("aria-selected", tab.id === `view-${name}`);
}

function darkMode() {
  const button = document.getElementById("theme");
  const set = (dark) => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", dark);
  };
  set(matchMedia("(prefers-color-scheme: dark)").matches);
  button.addEventListener("click", () => set(document.documentElement.dataset.theme !== "dark"));
}

async function main() {
  darkMode();
  const samples = await readSamples();
  const model = new Model(samples);
  const list = new List(model, (row) => choose(row));
  const reader = new Reader(model, (row) => controls.chooseGroup(model.groupOf(row)));
  const batch = new Batch(model, { search: () => {} });
  const view = (name) => {
    chooseView(name);
    if (name === "batch") batch.draw(model.order);
  };
  for (const name of ["read", "batch"]) document.getElementById(`view-${name}`).addEventListener("click", () => view(name));
  const choose = (row) => {
    model.chosen = row;
    list.mark();
    reader.open();
  };
  const arrange = () => {
    model.arrange();
    list.renew();
    if (!model.order.includes(model.chosen)) choose(model.order[0] ?? null);
    summarise(model);
  };
  const state = document.getElementById("state");
  const weigh = (settings) => {
    const done = model.use(settings, () => {
      if (!state.closest("fieldset").disabled) state.textContent = stateOf(model);
      if (model.sort.endsWith("effect") || model.filter.effect > 0) arrange();
      else summarise(model);
    });
    if (!state.closest("fieldset").disabled) state.textContent = stateOf(model);
    list.renew();
    reader.renew();
    return done;
  };
  const controls = new Controls(samples, {
    weigh,
    arrange: (choice) => {
      Object.assign(model, choice);
      list.box.scrollTop = 0;
      arrange();
    },
    paint: (reach) => {
      model.reach = reach;
      list.renew();
      reader.renew();
    },
  });
  controls.listGroups(model);
  describe(samples, model);
  choose(model.chosen);
  await weigh(null);
  globalThis.lens = { model, choose, weigh, metricsOf, batch, view }; // for the browser's console
  document.documentElement.dataset.ready = "true";
}

main().catch((error) => {
  document.getElementById("source").textContent = `This page could not be shown: ${error.message}`;
  throw error;
});
