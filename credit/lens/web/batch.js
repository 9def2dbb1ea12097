// The batch view: what the estimator does over many completions.

class Batch {
  constructor(model, { search }) {
    this.model = model;
    this.search = search;
    this.section = document.getElementById("batch");
    this.top = document.createElement("div");
    this.section.append(this.top);
  }

  /** Shows what the given completions have in common. */
  draw(rows) {
    this.rows = rows;
  }
}
