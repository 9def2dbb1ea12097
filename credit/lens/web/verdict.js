// What the weights of the completions that are shown come to, in a sentence.

const SMALL = 0.1; // with a weight std below this, the estimator does what GRPO does
const FEW = 0.1; // with an effective fraction below this, most tokens get no credit

/** Says it for some rows; the view of the batch says itself what is left out. */
function showVerdict(model, rows, view) {
  const { samples } = model;
  const effects = rows.map((row) => model.effectOf(row));
  const { weight_std: std, effective_token_fraction: fraction } = metricsOf(effects);
  const still = samples.deviation && columnOf(samples, rows, "deviation").max === 0;
  const left = view === "read" ? leftText(rows.map((row, i) => partOf(samples, row, effects[i]))) : "";
  const verdict = document.getElementById("verdict");
  verdict.textContent = verdictOn(std, fraction, still) + left;
  verdict.className = Number.isFinite(std) && std >= SMALL && fraction >= FEW ? "fine" : "odd";
}

function leftText(parts) {
  const words = { invalid: "invalid", missing: "with missing weights" };
  const counts = Object.entries(words).map(([part, text]) => [parts.filter((each) => each === part).length, text]);
  const listed = counts.filter(([count]) => count).map((each) => each.join(" "));
  return listed.length ? ` Left out: ${listed.join(", ")}.` : "";
}

function verdictOn(std, fraction, still) {
  if (!Number.isFinite(std)) return "None of these completions has known weights.";
  if (std < SMALL && still) return "The weights do not move, since the policy is still its reference: every deviation is 0.";
  if (std < SMALL) return "The weights hardly move: GRPO in all but name. A smaller τ or an effective fraction makes the estimator act.";
  const share = `The credit of a response rests, in effect, on ${number(100 * fraction)} % of its tokens`;
  return fraction < FEW ? `${share}: very few. A larger τ or an effective fraction spreads it.` : `${share}.`;
}
