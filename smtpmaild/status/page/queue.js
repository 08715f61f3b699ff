// Mail that waits, by destination; the messages for one, and what may be done with them.

import {ask} from "./asking.js";
import {confirmed, mayChange} from "./steering.js";
import {alien, bytes, byId, count, el, fill, line, none, span, table, visible, when} from "./dom.js";

const COLUMNS = [["Destination", "wide"], ["Waiting", "number"], ["Oldest", "number"], ["In flight", "number"], ["Next try", "number"], ["Last reply"]];
const INSIDE = [["Message", "third"], ["To", "third"], ["State"], ["Last reply"], [""]];

let last = null;
let opened = "";
let listed = [];

export function show(now) {
  last = now;
  byId("queue-count").textContent = now.queue ? summary(now.queue) : "";
  const rows = [...now.destinations].filter((one) => one.messages || one.in_flight || one.dead_until)
    .sort((one, other) => other.messages - one.messages).slice(0, 50);
  const key = [rows.map((one) => [one.destination, one.messages, one.in_flight, one.last, one.dead_until > 0, one.states]),
    opened, listed, mayChange(), Math.floor(now.now / 10)];
  fill("queue", key, () => {
    if (!now.queue) return none("No mail travels on from here.");
    return rows.length ? whole(rows, now.now) : none("Nothing waits.");
  });
}

function summary(queue) {
  return queue.messages ? `${count(queue.messages)} waiting, ${bytes(queue.size)}, ${count(queue.in_flight)} in flight` : "";
}

function whole(rows, at) {
  const made = table(COLUMNS, []);
  const body = made.tBodies[0];
  for (const row of rows) {
    body.append(line(COLUMNS, cells(row, at)));
    if (row.destination === opened) body.append(inside());
  }
  return made;
}

function cells(row, at) {
  const held = row.states.held ? el("span", {class: "pill"}, `${count(row.states.held)} held`) : null;
  const dead = row.dead_until > 0 ? el("span", {class: "pill", data: {tone: "bad"}}, "unreachable") : null;
  const button = el("button", {
    type: "button", class: "plain alien", data: {at: row.destination}, "aria-expanded": String(row.destination === opened),
    on: {click: () => open(row.destination)},
  }, visible(row.destination));
  return [
    el("span", {}, button, " ", dead, " ", held),
    el("span", {}, count(row.messages)),
    el("span", {}, row.oldest ? span(at - row.oldest) : "–"),
    el("span", {}, count(row.in_flight)),
    el("span", {}, !row.next_attempt ? "–" : row.next_attempt <= at ? "now" : `in ${span(row.next_attempt - at)}`),
    alien(row.last || "–", {class: "clip", title: visible(row.last)}),
  ];
}

async function open(destination) {
  opened = opened === destination ? "" : destination;
  listed = [];
  await read();
}

/** The messages of the destination that is open. */
export async function read() {
  if (opened) {
    try {
      listed = await ask(`/api/queue?destination=${encodeURIComponent(opened)}`);
    } catch { listed = []; }
  }
  if (last) show(last);
}

function inside() {
  const rows = listed.slice(0, 50).map((message) => {
    const one = message.recipients[0];
    const states = [...new Set(message.recipients.map((each) => each.state))];
    return [
      el("span", {}, el("span", {class: "mono"}, visible(message.queue_id)), el("span", {class: "under alien"},
        `from ${visible(message.reverse_path || "<>")}, `, when(Date.parse(message.received_at) / 1000), `, ${bytes(message.size)}`)),
      alien(one.address + (message.recipients.length > 1 ? ` and ${message.recipients.length - 1} more` : "")),
      el("span", {}, states.join(", ")),
      alien(one.reply || "–", {class: "clip", title: visible(one.reply)}),
      actions([message], states),
    ];
  });
  const content = rows.length ? table(INSIDE, rows) : none("Reading …");
  const all = listed.length > 1 && mayChange()
    ? el("div", {class: "row-actions"}, ...VERBS.map((verb) => button(verb, listed, `${verb} all ${listed.length}`))) : "";
  return el("tr", {class: "inside"}, el("td", {colspan: String(COLUMNS.length)}, content, all));
}

const VERBS = ["retry", "hold", "release", "drop"];
const IN_STATE = {held: ["release", "drop"]};

function actions(messages, states) {
  if (!mayChange()) return "";
  const verbs = states.flatMap((state) => IN_STATE[state] ?? ["retry", "hold", "drop"]);
  return el("div", {class: "row-actions"}, ...[...new Set(verbs)].map((verb) => button(verb, messages, verb)));
}

function button(verb, messages, text) {
  const ids = messages.map((one) => one.queue_id);
  return el("button", {type: "button", data: {at: `${verb} ${ids[0]} ${ids.length}`}, on: {click: async () => { if (await confirmed(verb, ids)) await read(); }}}, text);
}
