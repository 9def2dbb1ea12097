// What the weights of the completions that are shown come to, in a sentence.

const SMALL = 0.1; // with a weight std below this, the estimator does what GRPO does
const TOLERANCE = 0.1; // relative, above rounding and below what an estimator means
const MOST_VERDICTS = 3;
const FEW = 0.1; // with an effective fraction below this, most tokens get no credit

/** Says it for some rows, each estimator and run by itself; the view of the batch says itself what is left out. */
function showVerdict(model, rows, view) {
  const { samples } = model;
  const series = seriesOf(samples, [...rows]);
  const found = series.slice(0, MOST_VERDICTS).map((one) => judge(model, one.rows));
  const named = series.length > 1 ? found.map(({ brief }, i) => `${series[i].name}: ${brief}.`) : found.map(({ text }) => text);
  const more = series.length > found.length ? [`And ${series.length - found.length} more; filters choose others.`] : [];
  const left = view === "read" ? leftText(rows.map((row) => partOf(samples, row, model.effectOf(row)))) : [];
  const verdict = document.getElementById("verdict");
  verdict.textContent = [...(rows.length ? named : ["No completion passes the filters."]), ...more, ...left].join(" ");
  verdict.className = found.some(({ fine }) => fine) ? "fine" : "odd";
}

/** What the weights of one estimator come to, and whether it redistributes without leaving most tokens out. */
function judge(model, rows) {
  const { samples } = model;
  const effects = rows.map((row) => model.effectOf(row));
  const { weight_std: std, effective_token_fraction: fraction } = metricsOf(effects);
  const direct = rows.some((row, i) => !model.settings && effects[i].std < SMALL && setsTokens(samples, row));
  const acts = model.settings || rows.some((row) => samples.rules[samples.rule[row]].redistributes);
  const still = acts && samples.deviation && columnOf(samples, rows, "deviation").max === 0;
  const facts = { direct, acts, still };
  return { text: verdictOn(std, fraction, facts), brief: briefOn(std, fraction, facts), fine: std >= SMALL && fraction >= FEW };
}

function leftText(parts) {
  const words = { invalid: "invalid", missing: "with missing weights" };
  const counts = Object.entries(words).map(([part, text]) => [parts.filter((each) => each === part).length, text]);
  const listed = counts.filter(([count]) => count).map((each) => each.join(" "));
  return listed.length ? [`Left out: ${listed.join(", ")}.`] : [];
}

/** Whether the recorded advantages of a row's tokens are others than A_i w, as those of GTPO. */
function setsTokens(samples, row) {
  const { advantage, advantages, weights } = samples;
  const differs = (t) => Math.abs(advantages[t] - advantage[row] * weights[t]) > TOLERANCE * Math.abs(advantages[t]);
  return chosenTokens(samples, row).some(differs);
}

function verdictOn(std, fraction, { direct, acts, still }) {
  if (!Number.isFinite(std)) return "None of these completions has known weights.";
  if (std < SMALL && direct) return "The weights hardly move, but the tokens of a response have different advantages: color by these.";
  if (std < SMALL && still) return "The weights do not move, since the policy is still its reference: every deviation is 0.";
  if (std < SMALL) return `The weights hardly move: GRPO in all but name.${acts ? " A smaller τ or an effective fraction makes the estimator act." : ""}`;
  const share = `The credit of a response rests, in effect, on ${number(100 * fraction)} % of its tokens`;
  return fraction < FEW ? `${share}: very few. A larger τ or an effective fraction spreads it.` : `${share}.`;
}

/** The same in few words, for one of several estimators. */
function briefOn(std, fraction, { direct, still }) {
  if (!Number.isFinite(std)) return "no known weights";
  if (std < SMALL && direct) return "weights near 1, but advantages of tokens differ";
  if (std < SMALL && still) return "weights of 1, since every deviation is 0";
  if (std < SMALL) return std === 0 ? "all weights are 1" : "GRPO in all but name";
  return `the credit rests, in effect, on ${number(100 * fraction)} % of the tokens`;
}
