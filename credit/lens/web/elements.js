// Elements of HTML and SVG, whose texts are only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with a class and contents; a text among these stays text. */
function create(kind, className = "", ...contents) {
  const element = document.createElement(kind);
  if (className) element.className = className;
  element.append(...contents);
  return element;
}

/** An element of SVG with attributes and children; a text among these stays text. */
function vector(kind, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A row of a table: its name, and cells. */
function tableRow(name, values) {
  const head = create("th", "", name);
  head.scope = "row";
  return create("tr", "", head, ...values.map((value) => create("td", "", value)));
}

/** Fills a <dl> with pairs of name and text. */
function fillList(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value]) => create("div", "", create("dt", "", name), create("dd", "", value))));
}

/** Fills a <select> with pairs of value and text; the value stays chosen if it is still there. */
function fillSelect(select, options) {
  const before = select.value;
  select.replaceChildren(
    ...options.map(([value, text]) => {
      const option = create("option", "", text);
      option.value = value;
      return option;
    }),
  );
  if (options.some(([value]) => value === before)) select.value = before;
}
