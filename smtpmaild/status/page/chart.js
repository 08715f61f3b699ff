// Mail over the last hour or day, by uPlot. A minute is [minute since the epoch, a value for each column ...].

import {byId, count, el} from "./dom.js";

const SERIES = ["accepted", "refused", "deferred"];
const WORDS = {accepted: "Accepted", refused: "Refused", deferred: "Deferred"};
// Of a day, ten minutes are one point.
const STEP = {60: 1, 1440: 10};

let columns = ["accepted", "refused", "deferred"];
let rows = [];
let plot = null;
let shown = 60;

export function takeAll(answer) {
  columns = answer.columns;
  rows = answer.rows;
  draw();
}

export function takeMinute(row) {
  const last = rows.at(-1);
  if (last && last[0] === row[0]) rows[rows.length - 1] = row;
  else rows.push(row);
  if (rows.length > 1441) rows.shift();
  draw();
}

export function begin() {
  for (const radio of document.querySelectorAll('input[name="span"]')) {
    radio.addEventListener("change", () => { shown = Number(radio.value); draw(); });
  }
  new ResizeObserver(() => plot?.setSize(size())).observe(byId("chart"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { plot?.destroy(); plot = null; draw(); });
}

function size() {
  const box = byId("chart").getBoundingClientRect();
  return {width: Math.max(200, Math.floor(box.width)), height: Math.floor(box.height) || 220};
}

/**
 * Values for each step of the time shown; a minute without a row had no mail, before the first one nobody looked. The
 * step that is not over would look like a fall, so it is drawn only while there is little else.
 */
function points() {
  const step = STEP[shown];
  const now = Math.floor(Date.now() / 60000);
  const end = Math.floor(Math.max(now, rows.at(-1)?.[0] ?? now) / step) - (rows.length > 2 * step ? 1 : 0);
  const begin = end - shown / step + 1;
  const first = rows.length ? Math.floor(rows[0][0] / step) : Infinity;
  const times = [];
  const values = SERIES.map(() => []);
  for (let slot = begin; slot <= end; slot += 1) {
    times.push(slot * step * 60);
    for (const each of values) each.push(slot < first ? null : 0);
  }
  const places = SERIES.map((name) => columns.indexOf(name) + 1);
  for (const row of rows) {
    const index = Math.floor(row[0] / step) - begin;
    if (index < 0 || index >= times.length) continue;
    places.forEach((place, series) => { values[series][index] += row[place]; });
  }
  return [times, ...values];
}

function draw() {
  const data = points();
  legend();
  if (plot) plot.setData(data);
  else plot = new window.uPlot(options(), data, byId("chart"));
}

function legend() {
  const since = Math.floor(Date.now() / 60000) - shown;
  const parts = SERIES.map((name) => {
    const place = columns.indexOf(name) + 1;
    const sum = rows.reduce((before, row) => before + (row[0] > since ? row[place] : 0), 0);
    return el("span", {data: {series: name}}, `${WORDS[name]} `, el("b", {}, count(sum)));
  });
  byId("legend").replaceChildren(...parts);
  const told = parts.map((part) => part.textContent).join(", ");
  byId("chart").setAttribute("aria-label", `Mail in the last ${shown === 60 ? "hour" : "day"}: ${told}`);
}

function options() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const font = "12px system-ui, sans-serif";
  const axis = {stroke: colour("soft"), font, ticks: {show: false}, grid: {stroke: colour("line"), width: 1}};
  return {
    ...size(),
    padding: [8, 6, 0, 0],
    legend: {show: false},
    cursor: {y: false, points: {size: 7}, drag: {x: false, y: false}},
    scales: {y: {range: (_, low, high) => [0, Math.max(4, (high ?? 0) * 1.1)]}},
    axes: [
      {...axis, size: 26, gap: 6, grid: {show: false}, values: (_, times) => times.map(hour), space: 60},
      {...axis, size: 44, values: (_, values) => values.map((value) => (Number.isInteger(value) ? count(value) : ""))},
    ],
    series: [{}, ...SERIES.map((name) => ({
      label: WORDS[name],
      stroke: colour(name),
      width: 2,
      fill: name === "accepted" ? `${colour(name)}1f` : undefined,
      // A line wants two moments; in the first minute there is one.
      points: {show: (chart, series) => chart.data[series].filter((value) => value !== null).length === 1, size: 6},
    }))],
    hooks: {setCursor: [tell]},
  };
}

function hour(time) {
  const date = new Date(time * 1000);
  return `${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
}

/** Under the pointer: the numbers of that moment in place of the sums. */
function tell(chart) {
  const index = chart.cursor.idx;
  if (index === null || index === undefined) { legend(); return; }
  const at = el("span", {data: {series: "time"}, class: "plain"}, hour(chart.data[0][index]));
  const parts = SERIES.map((name, series) =>
    el("span", {data: {series: name}}, `${WORDS[name]} `, el("b", {}, count(chart.data[series + 1][index] ?? 0))));
  byId("legend").replaceChildren(at, ...parts);
}
