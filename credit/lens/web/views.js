// Two views: the completions one by one, and the batch.

const VIEWS = ["read", "batch"];

class Views {
  constructor(changed) {
    this.shown = "read";
    this.changed = changed;
    this.tabs = VIEWS.map((name) => document.getElementById(`view-${name}`));
    this.tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => this.show(VIEWS[i]));
      tab.addEventListener("keydown", (event) => {
        if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
        this.show(VIEWS[1 - i]);
        this.tabs[1 - i].focus();
      });
    });
  }

  show(name) {
    if (name === this.shown) return;
    this.shown = name;
    VIEWS.forEach((each, i) => {
      document.getElementById(each).hidden = each !== name;
      this.tabs[i].setAttribute("aria-selected", each === name);
      this.tabs[i].tabIndex = each === name ? 0 : -1;
    });
    this.changed(name);
  }
}
