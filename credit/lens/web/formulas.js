// The formulas of credit/redistribution.py, in float64. `chosen` lists the positions of the tokens that
// share credit.

/** w_t = T exp(s_t / tau) / sum_j exp(s_j / tau), written into `weights` at the chosen positions. */
function redistribute(score, chosen, tau, weights) {
  const top = extreme(score, chosen, Math.max);
  weigh(score, chosen, (s) => (s - top) / tau, weights);
}

/** As redistribute, with the tau at which (sum w)^2 / (T sum w^2) equals the fraction. */
function redistributeTo(score, chosen, fraction, tauMin, floor, weights) {
  const top = extreme(score, chosen, Math.max);
  const spread = top - extreme(score, chosen, Math.min);
  const smallest = Math.max(4 * Number.EPSILON * Math.abs(top), floor);
  if (chosen.length < 2 || spread <= smallest) {
    for (const t of chosen) weights[t] = 1;
    return;
  }
  const z = Float64Array.from(chosen, (t) => (score[t] - top) / spread);
  let high = Math.log(Math.min(spread / tauMin, 1e9));
  let low = Math.min(Math.log(2 * Math.acosh(1 / Math.sqrt(fraction))), high);
  for (let step = 0; step < 24; step++) {
    const middle = 0.5 * (low + high);
    if (effectiveFraction(z, Math.exp(middle)) > fraction) low = middle;
    else high = middle;
  }
  const scale = Math.exp(0.5 * (low + high)) / spread;
  weigh(score, chosen, (s) => scale * (s - top), weights);
}

function effectiveFraction(z, scale) {
  let sum = 0;
  let squares = 0;
  for (const value of z) {
    const e = Math.exp(scale * value);
    sum += e;
    squares += e * e;
  }
  return (sum * sum) / (z.length * squares);
}

function weigh(score, chosen, exponent, weights) {
  let sum = 0;
  for (const t of chosen) sum += weights[t] = Math.exp(exponent(score[t]));
  const scale = chosen.length / sum;
  for (const t of chosen) weights[t] *= scale;
}

function extreme(values, chosen, pick) {
  let result = values[chosen[0]];
  for (const t of chosen) result = pick(result, values[t]);
  return result;
}
