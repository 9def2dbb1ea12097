// The numbers of the chosen response, and of the one beside it, as a table.

const NUMBERS = [
  ["reward", ""],
  ["A", "the response's own advantage"],
  ["std w", "standard deviation of its weights"],
  ["effective", "effective token fraction, (sum w)^2 / (T sum w^2)"],
  ["w", "least and largest weight"],
  ["tokens", ""],
  ["missing", "tokens whose weight is not known"],
];

/** Fills the table with one line for each [name, row, effect]; the names are left out where there is only one. */
function fillNumbers(table, model, lines) {
  const several = lines.length > 1;
  const some = lines.some(([, , effect]) => effect.missing);
  const kept = NUMBERS.filter(([name]) => name !== "missing" || some);
  const head = create("tr");
  if (several) head.append(create("th"));
  head.append(...kept.map(([name, title]) => Object.assign(create("th", "", name), { title, scope: "col" })));
  const rows = lines.map(([name, row, effect]) => {
    const values = numbersOfResponse(model, row, effect).slice(0, kept.length);
    if (several) return tableRow(name, values);
    const line = create("tr");
    line.append(...values.map((value) => create("td", "", value)));
    return line;
  });
  table.replaceChildren(head, ...rows);
}

function numbersOfResponse(model, row, effect) {
  const { samples } = model;
  return [
    rewardText(samples, row),
    signed(samples.advantage[row]),
    number(effect.std),
    number(effect.fraction),
    effect.count ? rangeText(effect.least, effect.most) : "–",
    String(model.lengthOf(row)),
    String(effect.missing),
  ];
}

/** The reward, with its parts where several functions gave one. */
function rewardText(samples, row) {
  const parts = samples.rewards[row];
  const total = number(samples.reward[row]);
  return parts === null ? total : `${total} = ${parts.map((each) => number(each)).join(" + ")}`;
}
