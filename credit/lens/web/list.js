// The list of completions: rows of equal height, of which only the visible ones exist as elements.

const PREVIEW = 160; // characters in a row, more than fit
const SPARE = 2; // rows kept above and below the visible ones
const PARTS = 64; // of the strip that shows where along a response its credit is

class List {
  constructor(model, choose) {
    this.model = model;
    this.box = document.getElementById("list");
    this.rows = document.getElementById("rows");
    this.present = new Map(); // position in the order -> element
    this.choose = choose;
    this.sourced = model.various.run || model.various.estimator; // rows say where they come from
    this.height = this.sourced ? 84 : 66;
    this.shown = Object.entries(model.selection.columns).filter(([, column]) => column.shown).map(([name]) => name);
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        this.draw();
      });
    };
    this.box.addEventListener("scroll", later, { passive: true });
    new ResizeObserver(later).observe(this.box);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) this.choose(Number(row.dataset.row));
    });
  }

  /** Draws all rows again, after a change of the order or the weights. */
  renew() {
    this.rows.style.height = `${this.model.order.length * this.height}px`;
    this.rows.replaceChildren();
    this.present.clear();
    this.draw();
  }

  draw() {
    const { order } = this.model;
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - SPARE);
    const last = Math.min(order.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + SPARE);
    for (const [place, element] of this.present)
      if (place < first || place >= last) {
        element.remove();
        this.present.delete(place);
      }
    for (let place = first; place < last; place++)
      if (!this.present.has(place)) {
        const element = this.row(place);
        this.present.set(place, element);
        this.rows.append(element);
      }
    this.mark();
  }

  /** Marks the chosen row. */
  mark() {
    let active = "";
    for (const element of this.present.values()) {
      const chosen = Number(element.dataset.row) === this.model.chosen;
      element.setAttribute("aria-selected", chosen);
      if (chosen) active = element.id;
    }
    if (active) this.box.setAttribute("aria-activedescendant", active);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const row = this.model.order[place];
    const element = create("div");
    element.id = `row-${row}`;
    element.role = "option";
    element.dataset.row = row;
    element.setAttribute("aria-setsize", this.model.order.length);
    element.setAttribute("aria-posinset", place + 1);
    element.style.height = `${this.height}px`;
    element.style.transform = `translateY(${place * this.height}px)`;
    element.append(this.head(row));
    if (this.sourced) element.append(this.source(row));
    element.append(this.preview(row), this.strip(row));
    return element;
  }

  head(row) {
    const { columns } = this.model.selection;
    const head = create("div", "cells");
    for (const name of this.shown) {
      const value = columns[name].value(row);
      const text = name === "advantage" ? signed(value) : Number.isInteger(value) ? String(value) : number(value);
      head.append(create("span", name, text));
    }
    const advantage = this.model.samples.advantage[row];
    if (advantage > 0) head.querySelector(".advantage").classList.add("up");
    if (advantage < 0) head.querySelector(".advantage").classList.add("down");
    if (!this.model.samples.valid[row]) {
      const badge = create("span", "badge", "invalid");
      badge.title = "This row took no part in its group.";
      head.append(badge);
    }
    return head;
  }

  source(row) {
    const { samples, various } = this.model;
    const parts = [
      ...(various.run ? [samples.runs[samples.run[row]]] : []),
      ...(various.estimator ? [samples.estimators[samples.estimator[row]]] : []),
    ];
    return create("div", "source", parts.join(" · "));
  }

  preview(row) {
    const { samples, coloring } = this.model;
    this.model.effectOf(row);
    const preview = create("div", "preview");
    let left = PREVIEW;
    for (let t = samples.start[row]; t < samples.start[row + 1] && left > 0; t++) {
      const token = previewElement(samples, t);
      left -= token.textContent.length;
      coloring.color(token, row, t);
      preview.append(token);
    }
    return preview;
  }

  /** Mean weight along the response. */
  strip(row) {
    const { reach } = this.model.coloring;
    const strip = create("div", "strip");
    const colors = Array.from(stripOf(this.model, row, PARTS), (mean) => (mean >= 0 ? DIVERGING(shade(mean, reach)) : "transparent"));
    strip.style.backgroundImage = gradient(colors);
    return strip;
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1);
    const order = this.model.order;
    const now = order.indexOf(this.model.chosen);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -order.length, End: order.length };
    if (!(event.key in steps) || !order.length) return;
    event.preventDefault();
    const place = Math.max(0, Math.min(order.length - 1, now + steps[event.key]));
    this.reveal(place);
    this.choose(order[place]);
  }

  /** Scrolls as far as it takes to see a place of the order. */
  reveal(place) {
    const top = place * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight)
      this.box.scrollTop = top + this.height - this.box.clientHeight;
    this.draw();
  }
}
