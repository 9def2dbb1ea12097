// The numbers of one token, beside it: for the pointer and for the arrow keys.

class Pointer {
  constructor(model, text) {
    this.model = model;
    this.text = text;
    this.tip = document.getElementById("tooltip");
    this.current = null;
    for (const area of [text, document.getElementById("rows")]) {
      area.addEventListener("pointerover", (event) => this.point(event.target.closest(".token[data-place]")));
      area.addEventListener("pointerleave", () => this.point(null));
    }
    text.addEventListener("blur", () => this.point(null));
    text.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("scroll", () => this.point(null), { capture: true, passive: true });
  }

  /** Shows the numbers of a token, or hides them if the token is null. */
  point(token) {
    this.current?.classList.remove("current");
    this.current = token;
    this.tip.hidden = !token;
    if (!token) return;
    token.classList.add("current");
    const { samples } = this.model;
    const sides = this.sides(token);
    const columns = sides.map((t) => this.model.numbersOf(t));
    this.tip.querySelector("strong").textContent = sides.map((t) => JSON.stringify(samples.vocabulary[samples.token[t]])).join(" | ");
    this.tip.querySelector("table").replaceChildren(...mergeColumns(columns).map(([name, ...values]) => tableRow(name, values)));
    this.place(token.closest(".pair") ?? token);
  }

  /** Positions of the token and of the one aligned with it. */
  sides(token) {
    const pair = token.closest(".pair");
    const tokens = pair ? [...pair.querySelectorAll(".token[data-place]")] : [token];
    return tokens.map((each) => Number(each.dataset.place));
  }

  place(element) {
    const at = element.getClientRects()[0] ?? element.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const below = at.bottom + 6 + height < innerHeight;
    const left = below ? at.left : at.right + 12; // beside the token where there is no room below
    this.tip.style.left = `${Math.max(4, Math.min(innerWidth - width - 4, left))}px`;
    this.tip.style.top = `${below ? at.bottom + 6 : Math.max(4, Math.min(innerHeight - height - 4, at.top - 20))}px`;
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") this.point(null);
    if (step === undefined) return;
    event.preventDefault();
    const tokens = [...this.text.querySelectorAll(".token[data-place]:not(.other)")];
    const now = tokens.indexOf(this.current);
    const token = now < 0 ? tokens[0] : (tokens[now + step] ?? tokens[now]);
    if (!token) return;
    token.scrollIntoView({ block: "nearest" });
    this.point(token);
    const spoken = this.model.numbersOf(Number(token.dataset.place)).map((pair) => pair.join(" "));
    document.getElementById("spoken").textContent = `${token.textContent}: ${spoken.join(", ")}`;
  }
}

/** Rows of a name and its value in each column, which are lists of pairs of name and value. */
function mergeColumns(columns) {
  const names = [...new Set(columns.flatMap((column) => column.map(([name]) => name)))];
  const maps = columns.map((column) => new Map(column));
  return names.map((name) => [name, ...maps.map((map) => map.get(name) ?? "")]);
}
