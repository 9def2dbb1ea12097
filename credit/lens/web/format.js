// Numbers as text.

/** A number in few digits, or a dash if it is unknown. */
function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(digits - 1).replace("e+", "e");
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size))))));
}

function signed(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}

function rangeText(least, most) {
  return Number.isFinite(least) ? `${number(least)} … ${number(most)}` : "–";
}

function percent(share, digits = 3) {
  return Number.isFinite(share) ? `${number(100 * share, digits)} %` : "–";
}

function countText(n) {
  return n.toLocaleString("en");
}

/** A count with its noun: 1 group, 2 groups. */
function plural(n, noun) {
  return `${countText(n)} ${noun}${n === 1 ? "" : "s"}`;
}
