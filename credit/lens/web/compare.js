// What a completion can be compared with: the same one under other settings, estimators, steps or runs, or another of its prompt.

const RECORDED = "recorded"; // the chosen completion itself, with its weights as recorded
const GROUP = "group"; // another completion of its group
const MOST_OTHERS = 200;

class Comparison {
  constructor(model) {
    this.model = model;
    this.versus = ""; // RECORDED, GROUP, a source, or "" for nothing
    this.row = null; // the row of the file on the other side, or null
    const { samples } = model;
    this.keys = model.every.map((row) => samples.token.subarray(samples.start[row], samples.start[row + 1]).join());
    this.alike = Map.groupBy(model.every, (row) => this.keys[row]);
    this.ofPrompt = Map.groupBy(model.every, (row) => samples.prompt[row]);
    this.ofPrompt.delete(null);
  }

  /** Pairs of value and text: the sources that have a completion to compare the row with, in the order of the file. */
  sourcesFor(row) {
    const sources = Map.groupBy(this.relatives(row), (other) => this.model.sourceOf(other));
    const own = this.model.sourceOf(row);
    const others = [...sources].filter(([source]) => source !== own);
    return [
      ["", "nothing"],
      ...(this.model.settings ? [[RECORDED, "its weights as recorded"]] : []),
      ...(this.model.peersOf(row).length > 1 ? [[GROUP, "another of its group"]] : []),
      ...others.map(([source, rows]) => [source, this.model.sourceName(rows[0])]),
    ];
  }

  /** The rows of the chosen source, those with the same tokens first. */
  othersFor(row) {
    if (this.versus === "" || this.versus === RECORDED) return [];
    const peers = this.model.peersOf(row);
    const rows =
      this.versus === GROUP ? peers : this.relatives(row).filter((other) => this.model.sourceOf(other) === this.versus);
    const { samples } = this.model;
    const distance = (other) => (this.isSame(row, other) ? 0 : 2) + (samples.row[other] !== samples.row[row]);
    return rows.filter((other) => other !== row).sort((a, b) => distance(a) - distance(b) || a - b).slice(0, MOST_OTHERS);
  }

  /** Chooses for another row what it is compared with: the same source as before, if that has one. */
  follow(row) {
    const offered = this.sourcesFor(row).map(([value]) => value);
    const there = offered.includes(this.versus);
    this.row = !there ? null : this.versus === RECORDED ? row : (this.othersFor(row)[0] ?? null);
  }

  isSame(row, other) {
    return this.keys[row] === this.keys[other] && this.model.samples.prompt[row] === this.model.samples.prompt[other];
  }

  /** Rows of any source with the same prompt, or the same tokens where no prompt is known. */
  relatives(row) {
    const prompt = this.model.samples.prompt[row];
    return (prompt === null ? this.alike.get(this.keys[row]) : this.ofPrompt.get(prompt)) ?? [];
  }

  /** Pairs of token positions of the row and of what it is compared with, aligned; null where one side has none. */
  align(row) {
    const { samples } = this.model;
    const ids = (each) => samples.token.subarray(samples.start[each], samples.start[each + 1]);
    const place = (each, i) => (i === null ? null : samples.start[each] + i);
    return alignTokens(ids(row), ids(this.row)).map(([i, j]) => [place(row, i), place(this.row, j)]);
  }
}
