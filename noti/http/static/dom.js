// Small things that all parts of the page use.

export const $ = (id) => document.getElementById(id);

export function element(name, className = "", text = "", children = []) {
  const one = document.createElement(name);
  if (className) one.className = className;
  if (text) one.textContent = text;
  one.append(...children);
  return one;
}

export function number(value) {
  return Number.isFinite(value) ? value.toLocaleString("en") : "–";
}
