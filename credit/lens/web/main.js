// Connects the parts of the page.

function describe(samples, model) {
  const size = `${plural(samples.count, "completion")} in ${plural(model.groups.size, "group")}`;
  const text = `${samples.title} · ${size} · ${samples.estimators.join(", ")}`;
  document.getElementById("source").textContent = text;
  document.getElementById("source").title = text;
  document.title = `${samples.title} · credit lens`;
  showNote(samples.note);
}

function showNote(text) {
  document.getElementById("note").textContent = text ?? "";
  document.getElementById("note").hidden = !text;
}

function darkMode() {
  const button = document.getElementById("theme");
  const use = (dark) => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", dark);
  };
  use(matchMedia("(prefers-color-scheme: dark)").matches);
  button.addEventListener("click", () => use(document.documentElement.dataset.theme !== "dark"));
}

async function main() {
  darkMode();
  const samples = await readSamples();
  const model = new Model(samples);
  model.comparison = new Comparison(model);
  const address = new Address(model);
  const list = new List(model, (row) => choose(row));
  const reader = new Reader(model, {
    onlyGroup: (row) => controls.chooseGroup(model.groupOf(row)),
    compared: () => address.follow(),
  });
  const batch = new Batch(model, { search: (text) => controls.search(text) });
  const sumUp = () => {
    if (model.busy) return; // it is called when all rows are weighed
    showVerdict(model, model.order, views.shown);
    document.getElementById("count").textContent = `${model.order.length} of ${samples.count}`;
    if (views.shown === "batch") batch.draw(model.order);
  };
  const views = new Views((shown) => {
    if (shown === "read" && model.chosen !== null) list.reveal(model.order.indexOf(model.chosen));
    sumUp();
    address.follow();
  });
  const choose = (row) => {
    model.chosen = row;
    showNote(samples.note);
    list.mark();
    reader.open();
    address.follow();
  };
  const arrange = (change) => {
    const searched = model.selection.filter.text;
    model.selection.arrange(change);
    if (change) list.box.scrollTop = 0;
    list.renew();
    const kept = model.order.includes(model.chosen);
    if (!kept) choose(model.order[0] ?? null);
    else if (model.selection.filter.text !== searched) reader.open();
    else reader.renew();
    sumUp();
  };
  const weigh = (weighed) => {
    const done = model.use(weighed, () => {
      settings.say(weighed, false);
      if (model.selection.dependsOnWeights) arrange();
      else sumUp();
    });
    settings.say(weighed, model.busy);
    list.renew();
    reader.weigh();
    address.follow();
    return done;
  };
  const settings = new Settings(samples, weigh);
  const paint = () => {
    list.renew();
    reader.renew();
    address.follow();
  };
  const controls = new Controls(model, { arrange, paint });
  new Sorting(model, arrange);
  const followLink = () => {
    const link = readLink(model, location.hash);
    if (!link.named) return;
    if (link.row === null) return showNote("The completion that the link names is not in this page.");
    if (!model.order.includes(link.row)) {
      controls.clear();
      arrange({ filter: controls.filter() });
    }
    if (link.settings ?? model.settings) settings.use(link.settings);
    controls.color(link.color);
    views.show(link.view);
    model.comparison.versus = link.versus;
    choose(link.row);
    if (link.beside !== null) reader.compareWith(link.beside);
    list.reveal(model.order.indexOf(link.row));
  };
  addEventListener("hashchange", followLink);
  describe(samples, model);
  const weighed = weigh(null);
  choose(model.chosen);
  followLink();
  await weighed;
  globalThis.lens = { model, choose, weigh, metricsOf, alignTokens, linkTo, batch, view: (name) => views.show(name) }; // what the browser's console and tests/lens reach
  document.documentElement.dataset.ready = "true";
}

main().catch((error) => {
  document.getElementById("source").textContent = `This page could not be shown: ${error.message}`;
  throw error;
});
