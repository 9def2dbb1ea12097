// The table of token texts: which of them get the credit. The texts are untrusted and only ever set as text.

const SHOWN = 100; // rows of the table at first, and per click on "more"
const SCARCE = 3; // a text that occurs more rarely is left out at first

class TextTable {
  constructor(search) {
    this.search = search;
    this.sort = { name: "share", down: true };
    this.shown = SHOWN;
    this.least = create("input");
    Object.assign(this.least, { type: "number", min: "1", step: "1", value: String(SCARCE) });
    this.least.addEventListener("input", () => this.renew());
    this.count = create("span", "quiet");
    this.head = create("tr");
    this.body = create("tbody");
    this.more = create("button", "", `${SHOWN} more`);
    this.more.type = "button";
    this.more.addEventListener("click", () => this.renew(this.shown + SHOWN));
    const least = create("label", "least", "occurs at least ", this.least, " times");
    const scroll = create("div", "scroll tall", create("table", "numbers texts", create("thead", "", this.head), this.body));
    this.which = create("select");
    this.which.setAttribute("aria-label", "Estimator and run whose tokens are listed");
    this.which.addEventListener("input", () => this.fill());
    this.section = part("half", "Which token texts get the credit", create("p", "above", this.which, least, this.count), scroll, this.more);
  }

  /** Takes the sums of sumByText for each series; returns the table's element. */
  show({ series, texts }, vocabulary) {
    Object.assign(this, { texts, vocabulary });
    fillSelect(this.which, series.map(({ name }, i) => [String(i), name]));
    this.which.hidden = series.length < 2;
    this.fill();
    return this.section;
  }

  fill() {
    const { vocabulary } = this;
    const { count, credit, total, sums } = this.texts[Number(this.which.value)];
    const means = Object.fromEntries(sums.map(({ name, sum, known }) => [name, (id) => sum[id] / known[id]]));
    const named = (name) => (means[name] ? [{ name, title: `mean ${NAMES[name]}`, value: means[name], text: number }] : []);
    this.columns = [
      { name: "text", title: "text", value: (id) => vocabulary[id] },
      { name: "count", title: "count", value: (id) => count[id], text: countText },
      { name: "weight", title: "mean w", value: (id) => credit[id] / count[id], text: number },
      { name: "share", title: "share of credit", value: (id) => credit[id] / total, text: percent },
      ...["advantages", "deviation", "normalized_entropy"].flatMap(named),
    ];
    this.present = [...count.keys()].filter((id) => count[id] > 0);
    this.countOf = (id) => count[id];
    this.head.replaceChildren(...this.columns.map((column) => this.header(column)));
    this.renew(this.shown);
  }

  header({ name, title }) {
    const button = create("button", "", title);
    button.type = "button";
    button.addEventListener("click", () => {
      this.sort = { name, down: this.sort.name === name ? !this.sort.down : name !== "text" };
      this.renew();
    });
    const head = create("th", "", button);
    head.scope = "col";
    head.dataset.name = name;
    return head;
  }

  /** Fills the table, after a change of the order, the least count or the numbers. */
  renew(shown = SHOWN) {
    this.shown = shown;
    const least = Math.max(1, Number(this.least.value) || 1);
    const ids = this.arrange(this.present.filter((id) => this.countOf(id) >= least));
    for (const head of this.head.children)
      if (head.dataset.name === this.sort.name) head.ariaSort = this.sort.down ? "descending" : "ascending";
      else head.ariaSort = "none";
    this.body.replaceChildren(...ids.slice(0, shown).map((id) => this.row(id)));
    this.more.hidden = ids.length <= shown;
    this.count.textContent = `${countText(Math.min(shown, ids.length))} of ${countText(ids.length)} such texts`;
  }

  arrange(ids) {
    const { name, down } = this.sort;
    const { value } = this.columns.find((column) => column.name === name) ?? this.columns[3];
    const sign = down ? -1 : 1;
    const compare = (a, b) => (Number.isNaN(a) - Number.isNaN(b)) || (a < b ? -sign : a > b ? sign : 0); // unknown ones last
    return ids.map((id) => [value(id), id]).sort((a, b) => compare(a[0], b[0]) || a[1] - b[1]).map((pair) => pair[1]);
  }

  row(id) {
    const [{ value: textOf }, ...others] = this.columns;
    const text = textOf(id);
    const found = !/^$|[\n\r]/.test(text); // a search field holds neither nothing nor a line break
    const cell = create(found ? "button" : "span", "text", shownInLine(text));
    cell.title = JSON.stringify(text) + (found ? ": search for it" : "");
    if (found) cell.type = "button";
    if (found) cell.addEventListener("click", () => this.search(text));
    const head = create("th", "", cell);
    head.scope = "row";
    return create("tr", "", head, ...others.map(({ value, text: write }) => create("td", "", write(value(id)))));
  }
}
