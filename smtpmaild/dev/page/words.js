// Elements and words. Whatever a stranger wrote becomes text, never markup, and what is invisible in it is shown.

export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// Control characters, those that turn the direction of writing, and those of no width.
const ODD = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

// The text as nodes: odd characters stand as their code points.
export function visible(text, most = 4000) {
  const nodes = [];
  const shown = text.length > most ? `${text.slice(0, most)}…` : text;
  let last = 0;
  for (const found of shown.matchAll(ODD)) {
    if (nodes.length > 400) break;
    nodes.push(shown.slice(last, found.index));
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(make("span", { class: "odd" }, `U+${code}`));
    last = found.index + found[0].length;
  }
  nodes.push(shown.slice(last));
  return nodes.filter((node) => node !== "");
}

export function stranger(name, text, properties = {}) {
  return make(name, { dir: "auto", ...properties, class: `stranger ${properties.class || ""}`.trim() }, ...visible(text));
}

const UNITS = ["B", "kB", "MB", "GB"];

export function size(octets) {
  let unit = 0;
  let number = octets;
  while (number >= 1000 && unit < UNITS.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number < 10 && unit ? number.toFixed(1) : Math.round(number)} ${UNITS[unit]}`;
}

export function count(number, one, many) {
  return `${number.toLocaleString()} ${number === 1 ? one : many}`;
}

export function clock(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(undefined, today
    ? { hour: "2-digit", minute: "2-digit", second: "2-digit" }
    : { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
}
