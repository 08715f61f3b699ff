// Elements and words. Text gets into the page by textContent alone, so nothing in it can ever be markup.

/** el("td", {class: "number", data: {name: "Size"}}, "text", child, ...) */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name === "data") Object.assign(element.dataset, value);
    else if (name === "on") for (const [event, call] of Object.entries(value)) element.addEventListener(event, call);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

export const byId = (id) => document.getElementById(id);

/**
 * Put these in place of what is there, without touching a list that is the same as before. Who came to a button by
 * keyboard stays at it: at the one with the same data-at.
 */
export function fill(id, key, make) {
  const place = byId(id);
  const text = JSON.stringify(key);
  if (place.dataset.key === text) return;
  place.dataset.key = text;
  const at = place.contains(document.activeElement) ? document.activeElement.dataset.at : undefined;
  place.replaceChildren(...[make()].flat());
  if (at === undefined) return;
  [...place.querySelectorAll("[data-at]")].find((one) => one.dataset.at === at)?.focus({preventScroll: true});
}

// What cannot be seen, or turns the direction of what follows, is shown as its number.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
const LONGEST = 300;

/** Text from the network as it may be shown: nothing hidden in it, and not too much of it. */
export function visible(text) {
  const all = String(text ?? "");
  const short = all.length > LONGEST ? `${all.slice(0, LONGEST)}…` : all;
  return short.replace(UNSEEN, (char) => `\\u{${char.codePointAt(0).toString(16)}}`);
}

/** An element for text from the network. */
export function alien(text, attributes = {}) {
  const {class: more = "", ...rest} = attributes;
  return el("span", {class: `alien ${more}`.trim(), ...rest}, visible(text));
}

export const none = (text) => el("p", {class: "none"}, text);

// Numbers

const whole = new Intl.NumberFormat("en");
const one = new Intl.NumberFormat("en", {maximumFractionDigits: 1});

export const count = (number) => whole.format(number);

export function rate(number) {
  return number > 0 && number < 0.05 ? "< 0.1" : number < 100 ? one.format(number) : whole.format(Math.round(number));
}

export function bytes(number) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) { number /= 1000; unit += 1; }
  return `${unit ? one.format(number) : number} ${units[unit]}`;
}

const SPANS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** 90 -> "1 min"; the two largest parts from an hour on. */
export function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const index = SPANS.findIndex(([size]) => left >= size);
  if (index < 0) return "0 s";
  const [size, unit] = SPANS[index];
  const first = Math.floor(left / size);
  left -= first * size;
  const [nextSize, nextUnit] = SPANS[index + 1] ?? [Infinity, ""];
  const second = index < 2 ? Math.floor(left / nextSize) : 0;
  return second ? `${first} ${unit} ${second} ${nextUnit}` : `${first} ${unit}`;
}

const two = (number) => String(number).padStart(2, "0");

/** 14:03:22, with the date where it is not today. */
export function clock(at) {
  const date = new Date(at * 1000);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return date.toDateString() === new Date().toDateString() ? time : `${day(at)} ${time}`;
}

export function day(at) {
  const date = new Date(at * 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** An element of <time>, exact on hover. */
export function when(at, text = clock(at)) {
  return el("time", {datetime: new Date(at * 1000).toISOString(), title: `${day(at)} ${clock(at)}`}, text);
}

/** A table. columns: [name, class of its cells]; rows: arrays of cells, each a node or text. */
export function table(columns, rows) {
  const head = el("tr", {}, ...columns.map(([name, kind]) => el("th", {scope: "col", class: kind ?? ""}, name)));
  return el("table", {class: "stack"}, el("thead", {}, head), el("tbody", {}, ...rows.map((cells) => line(columns, cells))));
}

export function line(columns, cells) {
  return el("tr", {}, ...cells.map((cell, index) => {
    const [name, kind] = columns[index];
    return el("td", {class: `${kind ?? ""} ${index ? "" : "lead"}`.trim(), data: index && name ? {name} : {}}, cell);
  }));
}
