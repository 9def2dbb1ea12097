// The chosen completion in full, and the numbers of one token.

const SHORT = 240; // a text below so many characters is shown in large letters and its prompt is open

class Reader {
  constructor(model, onlyGroup) {
    this.model = model;
    this.text = document.getElementById("text");
    this.tip = document.getElementById("tooltip");
    this.strip = document.getElementById("strip");
    this.current = null;
    document.getElementById("only-group").addEventListener("click", () => onlyGroup(model.chosen));
    this.text.addEventListener("pointerover", (event) => this.point(event.target.closest(".token")));
    this.text.addEventListener("pointerleave", () => this.point(null));
    this.text.addEventListener("blur", () => this.point(null));
    this.text.addEventListener("keydown", (event) => this.key(event));
    this.strip.addEventListener("click", (event) => this.go(event));
    const list = document.getElementById("rows");
    list.addEventListener("pointerover", (event) => this.point(event.target.closest(".token")));
    list.addEventListener("pointerleave", () => this.point(null));
    document.addEventListener("scroll", () => this.point(null), { capture: true, passive: true });
  }

  /** Shows another completion. */
  open() {
    const { samples, chosen } = this.model;
    const none = chosen === null;
    document.getElementById("reader").classList.toggle("nothing", none);
    this.point(null);
    this.text.replaceChildren();
    if (none) return;
    for (let t = samples.start[chosen]; t < samples.start[chosen + 1]; t++)
      this.text.append(tokenElement(samples, t, true));
    this.text.classList.toggle("short", this.text.textContent.length < SHORT);
    this.text.scrollTop = 0;
    const prompt = samples.prompts[samples.prompt[chosen]];
    const box = document.getElementById("prompt-box");
    box.hidden = prompt === undefined;
    box.open = prompt?.length < SHORT;
    document.getElementById("prompt").textContent = prompt ?? "";
    this.renew();
  }

  /** Shows the same completion after a change of the weights or of the color scale. */
  renew() {
    const { samples, chosen, weights, reach } = this.model;
    if (chosen === null) return;
    this.model.effectOf(chosen);
    for (const element of this.text.children) color(element, samples, weights, reach);
    const length = samples.start[chosen + 1] - samples.start[chosen];
    drawBars(this.strip, positionsOf(samples, [chosen], weights, Math.max(1, Math.min(100, length))));
    document.getElementById("which").textContent = this.model.nameOf(chosen);
    document.getElementById("least").textContent = `1/${reach}`;
    document.getElementById("most").textContent = `${reach}`;
    this.heads();
    if (this.current) this.point(this.current);
  }

  heads() {
    const { samples, chosen } = this.model;
    const effect = this.model.effectOf(chosen);
    fillList(document.getElementById("of-response"), [
      ["reward", number(samples.reward[chosen])],
      ["A", signed(samples.advantage[chosen]), "the response's own advantage"],
      ["std w", number(effect.std), "standard deviation of its weights"],
      ["effective", number(effect.fraction), "effective token fraction, (sum w)^2 / (T sum w^2)"],
      ["w", `${number(effect.least)} … ${number(effect.most)}`, "least and largest weight"],
      ["tokens", String(samples.start[chosen + 1] - samples.start[chosen])],
    ]);
    const peers = this.model.peersOf(chosen);
    fillList(document.getElementById("of-group"), [
      ["group of", String(peers.length)],
      ...this.model.summaryOf(peers).filter(([name]) => name !== "completions"),
    ]);
  }

  /** Shows the numbers of a token beside it, or hides them if the token is null. */
  point(token) {
    this.current?.classList.remove("current");
    this.current = token;
    this.tip.hidden = !token;
    if (!token) return;
    token.classList.add("current");
    const t = Number(token.dataset.place);
    const rows = this.model.numbersOf(t);
    this.tip.querySelector("strong").textContent = JSON.stringify(this.model.samples.vocabulary[this.model.samples.token[t]]);
    this.tip.querySelector("table").replaceChildren(
      ...rows.map(([name, value]) => {
        const line = document.createElement("tr");
        line.append(document.createElement("th"), document.createElement("td"));
        line.firstChild.textContent = name;
        line.lastChild.textContent = value;
        return line;
      }),
    );
    this.place(token);
  }

  place(token) {
    const at = token.getClientRects()[0] ?? token.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const below = at.bottom + 6 + height < innerHeight;
    const left = below ? at.left : at.right + 12; // beside the token where there is no room below
    this.tip.style.left = `${Math.max(4, Math.min(innerWidth - width - 4, left))}px`;
    this.tip.style.top = `${below ? at.bottom + 6 : Math.max(4, Math.min(innerHeight - height - 4, at.top - 20))}px`;
  }

  key(event) {
    const steps = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" };
    if (event.key === "Escape") this.point(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    const inside = this.current?.parentNode === this.text ? this.current : null;
    const token = inside ? (inside[steps[event.key]] ?? inside) : this.text.firstElementChild;
    if (!token) return;
    token.scrollIntoView({ block: "nearest" });
    this.point(token);
    const spoken = this.model.numbersOf(Number(token.dataset.place)).map((pair) => pair.join(" "));
    document.getElementById("spoken").textContent = `${token.textContent}: ${spoken.join(", ")}`;
  }

  /** Scrolls to the part of the response that was clicked in the strip. */
  go(event) {
    const edge = this.strip.getBoundingClientRect();
    const share = (event.clientX - edge.left) / edge.width;
    const token = this.text.children[Math.floor(share * this.text.children.length)];
    token?.scrollIntoView({ block: "center" });
    if (token) setTimeout(() => this.point(token), 50); // after scrolling, which hides the numbers
  }
}
