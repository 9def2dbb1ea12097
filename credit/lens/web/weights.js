// Weights under other settings, computed as credit/estimators/redistributing.py does, and their metrics.

/** The score of a token: d_t h_t^kappa, or the estimator's own score as recorded. */
function scoreAt(samples, rule, kappa, t) {
  return rule.score === "recorded" ? samples.scores[t] : samples.deviation[t] * gateAt(samples, rule, kappa, t);
}

function gateAt(samples, rule, kappa, t) {
  return rule.score === "recorded" || kappa === 0 ? 1 : Math.pow(samples.normalized_entropy[t], kappa);
}

/** Writes the row's weights into `weights`; the settings are {tau, fraction or null, kappa}. */
function weighRow(samples, row, settings, score, weights) {
  const rule = samples.rules[samples.rule[row]];
  weights.fill(0, samples.start[row], samples.start[row + 1]);
  const chosen = chosenTokens(samples, row);
  const sign = samples.advantage[row] < 0 ? { same: 1, uniform: 0, inverse: -1 }[rule.negative] : 1;
  let gate = 0;
  for (const t of chosen) {
    score[t] = sign * scoreAt(samples, rule, settings.kappa, t);
    gate = Math.max(gate, gateAt(samples, rule, settings.kappa, t));
  }
  for (const part of rule.within === "turn" ? byTurn(samples, chosen) : [chosen]) {
    if (settings.fraction === null) redistribute(score, part, settings.tau, weights);
    else redistributeTo(score, part, settings.fraction, rule.tau_min, rule.floor * gate, weights);
  }
}

function byTurn(samples, chosen) {
  return Map.groupBy(chosen, (t) => samples.turns[t]).values();
}

/** Whether a row takes part in the metrics of a batch; "missing" is one with a token whose weight is unknown. */
function partOf(samples, row, effect) {
  if (!samples.valid[row]) return "invalid";
  return effect.missing ? "missing" : "counted";
}

/** Standard deviation and effective fraction of one response's weights; NaN without tokens or with unknown weights. */
function effectOf(samples, row, weights) {
  const chosen = chosenTokens(samples, row);
  const missing = chosen.reduce((n, t) => n + Number.isNaN(weights[t]), 0);
  const known = missing ? [] : chosen;
  let sum = 0, squares = 0, least = Infinity, most = -Infinity;
  for (const t of known) {
    const w = weights[t];
    sum += w;
    squares += w * w;
    least = Math.min(least, w);
    most = Math.max(most, w);
  }
  const count = known.length;
  const mean = sum / count;
  let spread = 0; // a second pass, since weights near 1 cancel in squares / count - mean^2
  for (const t of known) spread += (weights[t] - mean) ** 2;
  return { count, missing, sum, spread, least, most, std: Math.sqrt(spread / count), fraction: (sum * sum) / (count * squares) };
}

/** The metrics of credit/estimators/metrics.py over some responses, from the effect of each. */
function metricsOf(effects) {
  let count = 0, sum = 0, spread = 0, least = Infinity, most = -Infinity, fractions = 0, responses = 0;
  for (const e of effects) {
    if (!e.count) continue;
    count += e.count;
    sum += e.sum;
    least = Math.min(least, e.least);
    most = Math.max(most, e.most);
    if (e.sum === 0) continue;
    fractions += e.fraction;
    responses++;
  }
  const mean = sum / count;
  for (const e of effects) if (e.count) spread += e.spread + e.count * (e.sum / e.count - mean) ** 2;
  return {
    weight_std: Math.sqrt(spread / count),
    effective_token_fraction: fractions / responses,
    weight_min: least,
    weight_max: most,
  };
}

/** Mean and maximum of a column over the tokens of some rows, as far as it is known. */
function columnOf(samples, rows, name) {
  const column = samples[name];
  let count = 0, sum = 0, most = -Infinity;
  for (const row of rows)
    for (const t of chosenTokens(samples, row)) {
      const x = column[t];
      if (Number.isNaN(x)) continue;
      count++;
      sum += x;
      most = Math.max(most, x);
    }
  return { mean: sum / count, max: most };
}
