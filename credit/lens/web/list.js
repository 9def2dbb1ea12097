// The list of completions: rows of equal height, of which only the visible ones exist as elements.

const ROW = 78;
const PREVIEW = 160; // characters in a row, more than fit
const SPARE = 2; // rows kept above and below the visible ones

class List {
  constructor(model, choose) {
    this.model = model;
    this.box = document.getElementById("list");
    this.rows = document.getElementById("rows");
    this.present = new Map(); // position in the order -> element
    this.choose = choose;
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
    this.rows.style.height = `${this.model.order.length * ROW}px`;
    this.rows.replaceChildren();
    this.present.clear();
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - SPARE);
    const last = Math.min(this.model.order.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + SPARE);
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
    const { samples, weights, reach } = this.model;
    const row = this.model.order[place];
    const effect = this.model.effectOf(row);
    const element = document.createElement("div");
    element.id = `row-${row}`;
    element.role = "option";
    element.dataset.row = row;
    element.setAttribute("aria-setsize", this.model.order.length);
    element.setAttribute("aria-posinset", place + 1);
    element.style.transform = `translateY(${place * ROW}px)`;
    const head = document.createElement("div");
    head.className = "head";
    head.append(...this.head(row, effect));
    const preview = document.createElement("div");
    preview.className = "preview";
    let left = PREVIEW;
    for (let t = samples.start[row]; t < samples.start[row + 1] && left > 0; t++) {
      const token = tokenElement(samples, t, false);
      left -= token.textContent.length;
      color(token, samples, weights, reach);
      preview.append(token);
    }
    const strip = document.createElement("div");
    strip.className = "strip";
    const bins = Math.max(1, Math.min(64, samples.start[row + 1] - samples.start[row]));
    strip.style.backgroundImage = gradient(positionsOf(samples, [row], weights, bins), reach);
    element.append(head, preview, strip);
    return element;
  }

  head(row, effect) {
    const { samples } = this.model;
    const advantage = samples.advantage[row];
    return [
      ["name", this.model.nameOf(row)],
      ["reward", `r ${number(samples.reward[row])}`],
      [advantage > 0 ? "advantage up" : advantage < 0 ? "advantage down" : "advantage", `A ${signed(advantage)}`],
      ["effect", `std w ${number(effect.std)}`],
      ["length", `${samples.start[row + 1] - samples.start[row]} tokens`],
    ].map(([kind, text]) => {
      const part = document.createElement("span");
      part.className = kind;
      part.textContent = text;
      return part;
    });
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const order = this.model.order;
    const now = order.indexOf(this.model.chosen);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -order.length, End: order.length };
    if (!(event.key in steps) || !order.length) return;
    event.preventDefault();
    const place = Math.max(0, Math.min(order.length - 1, now + steps[event.key]));
    const top = place * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
    this.draw();
    this.choose(order[place]);
  }
}

function signed(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}
