// The order of the list: by any column, in either direction.

class Sorting {
  constructor(model, arrange) {
    this.model = model;
    this.arrange = arrange;
    this.select = document.getElementById("sort");
    this.direction = document.getElementById("direction");
    this.heads = document.getElementById("columns");
    const columns = Object.entries(model.selection.columns);
    fillSelect(this.select, columns.map(([name, { label }]) => [name, label]));
    for (const [name, { label }] of columns.filter(([, { shown }]) => shown)) {
      const button = create("button", name, label);
      button.type = "button";
      button.dataset.column = name;
      button.addEventListener("click", () => this.toggle(name));
      this.heads.append(button);
    }
    this.select.addEventListener("input", () => this.use({ by: this.select.value, down: false }));
    this.direction.addEventListener("click", () => this.use({ ...model.selection.sort, down: !model.selection.sort.down }));
    this.mark();
  }

  /** The largest values first, then the smallest, then the order of the file. */
  toggle(name) {
    const { by, down } = this.model.selection.sort;
    if (by !== name) this.use({ by: name, down: true });
    else this.use(down ? { by: name, down: false } : { by: "file", down: false });
  }

  use(sort) {
    this.arrange({ sort });
    this.mark();
  }

  mark() {
    const { by, down } = this.model.selection.sort;
    this.select.value = by;
    this.direction.textContent = down ? "↓" : "↑";
    this.direction.title = down ? "largest first" : "smallest first";
    for (const button of this.heads.children) {
      const mine = button.dataset.column === by;
      button.dataset.sort = mine ? (down ? "↓" : "↑") : "";
      button.setAttribute("aria-pressed", mine);
      button.title = `Sort by ${this.model.selection.columns[button.dataset.column].label}`;
    }
  }
}
