// The last messages, a search among them, and the life of one.

import {ask} from "./asking.js";
import {hasHistory} from "./steering.js";
import {alien, bytes, byId, clock, count, el, fill, none, span, table, visible, when} from "./dom.js";

const COLUMNS = [["Message", "wide"], ["Result"], ["Client"], ["Size", "number"], ["Time", "when"]];
const TONES = {accepted: "good", refused: "bad", deferred: "warn"};
const MOST = 200;

let rows = [];
let wanted = "";
let waiting = 0;
let asked = 0;  // how often; only the last answer counts
let late = [];  // what happened while it is on its way, which it may not know

export function begin() {
  const field = byId("search-text");
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(read, 200);
  });
  byId("search").addEventListener("submit", (event) => { event.preventDefault(); read(); });
  addEventListener("keydown", (event) => {
    const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && !isTyping && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "Escape" && document.activeElement === field && field.value) {
      field.value = "";
      read();
    }
  });
}

/** What the search asks for, the latest where it is empty. */
export async function read() {
  const text = wanted = byId("search-text").value.trim();
  const mine = asked += 1;
  let found = [];
  late = [];
  if (hasHistory()) {
    try {
      found = await ask(`/api/messages?q=${encodeURIComponent(text)}`);
    } catch { return; }
  }
  if (mine === asked) { rows = joined(text ? [] : late, found); draw(); }
}

/** Some more happened. While somebody searches, what he found stays. */
export function take(news) {
  if (wanted) return;
  late = [...news, ...late].slice(0, MOST);
  rows = joined(news, rows);
  draw();
}

function joined(news, old) {
  const known = new Set(old.map(key));
  return [...news.filter((row) => !known.has(key(row))), ...old].slice(0, MOST);
}

function key(row) {
  return JSON.stringify([row.id, row.at, row.outcome]);
}

function draw() {
  fill("messages-list", [hasHistory(), wanted, rows.map(key)], () => {
    if (!hasHistory()) return none("No history is kept: the section “history” of the configuration switches it on.");
    if (!rows.length) return none(wanted ? "Nothing was found." : "No message yet.");
    return table(COLUMNS, rows.map(cells));
  });
}

function cells(row) {
  const title = row.subject || (row.to ? "" : "no message");
  const from = row.from || "<>";
  const to = row.to ? ` → ${visible(row.to)}${row.more ? ` and ${count(row.more)} more` : ""}` : "";
  const open = el("button", {type: "button", class: "plain alien", data: {at: `${row.id} ${row.at}`}, on: {click: () => show(row)}}, `${visible(from)}${to}`);
  return [
    el("span", {}, open, title ? alien(title, {class: "under clip"}) : null),
    el("span", {}, el("span", {class: "pill", data: {tone: TONES[row.outcome]}}, row.outcome),
      row.outcome === "accepted" ? null : alien(row.reply, {class: "under clip", title: visible(row.rule)})),
    el("span", {}, alien(row.client, {class: "mono"}), el("span", {class: "under alien"}, visible(row.listener))),
    row.size ? el("span", {}, bytes(row.size)) : null,
    when(row.at),
  ];
}

// The life of one

const TELLING = {
  message_accepted: ["Accepted", "good"],
  message_refused: ["Refused", "bad"],
  message_deferred: ["Deferred", "warn"],
  delivered: ["Delivered", "good"],
  deferred: ["Delivery deferred", "warn"],
  bounced: ["Delivery refused", "bad"],
  expired: ["Given up", "bad"],
  session_closed: ["Session ended", "quiet"],
  authenticated: ["Signed in", "good"],
  authentication_failed: ["Sign-in failed", "bad"],
  queue_changed: ["Changed by hand", "quiet"],
  report_made: ["Sender was told", "quiet"],
};
const LABELS = {
  peer: "client",
  helo: "HELO",
  reverse_path: "from",
  recipients: "to",
  recipient: "to",
  message_id: "Message-ID",
  decided_by: "rule",
  seconds: "took",
  tls: "TLS",
  remote: "server",
};
const SHOWN = {size: bytes, seconds: (value) => `${value} s`, age: span, next_attempt: clock};
// Said once, at the head, or of no use to a reader.
const LEFT_OUT = new Set(["queue_id", "session_id", "about", "refused_at"]);

async function show(row) {
  byId("life-title").textContent = row.subject ? visible(row.subject) : visible(row.id);
  byId("life-events").replaceChildren(el("li", {}, "Reading …"));
  byId("life").showModal();
  let events = [];
  try {
    events = await ask(`/api/messages/${encodeURIComponent(row.id)}`);
  } catch (error) { byId("life-events").replaceChildren(el("li", {}, visible(error.message))); return; }
  const head = el("li", {}, el("strong", {}, "Queue id "), el("span", {class: "mono"}, visible(row.id)));
  const parts = events.map(event);
  byId("life-events").replaceChildren(head, ...(parts.length ? parts : [el("li", {}, "Nothing more is known of it.")]));
}

function event({at, name, facts}) {
  const [word, tone] = TELLING[name] ?? [name.replaceAll("_", " "), "quiet"];
  const list = el("dl");
  const {accepted, recipients, ...rest} = facts;
  for (const [key, value] of Object.entries({...rest, recipients: accepted?.map(destination) ?? recipients})) {
    if (LEFT_OUT.has(key) || value === undefined || value === null || value === "" || value?.length === 0) continue;
    const shown = typeof value === "number" && SHOWN[key] ? SHOWN[key](value) : value;
    list.append(el("dt", {}, LABELS[key] ?? key.replaceAll("_", " ")), el("dd", {}, ...said(shown)));
  }
  return el("li", {data: {tone}}, el("strong", {}, word), " ", el("span", {class: "hint"}, when(at, clock(at))), list);
}

/** Of a recipient that was accepted: by which rule, and where it went. */
function destination({address, rule, where, to}) {
  const places = (to ?? []).map((one) => one.route || `${one.store} ${one.mailbox}@${one.domain}`);
  return `${address}, by ${rule}${where ? ` (${where})` : ""}${places.length ? `, to ${places.join(" and ")}` : ""}`;
}

/** A fact in words: one line for each part of a list. */
function said(value) {
  const parts = Array.isArray(value) ? value.slice(0, 50) : [value];
  const more = Array.isArray(value) && value.length > 50 ? [el("div", {class: "hint"}, `and ${count(value.length - 50)} more`)] : [];
  return [...parts.map((part) => el("div", {class: "alien"}, visible(words(part)))), ...more];
}

function words(part) {
  if (part === null || typeof part !== "object") return part;
  if (Array.isArray(part)) return part.map(words).join(", ");
  return Object.entries(part).filter(([, value]) => value !== "" && value !== null)
    .map(([key, value]) => `${key.replaceAll("_", " ")} ${words(value)}`).join(" · ");
}
