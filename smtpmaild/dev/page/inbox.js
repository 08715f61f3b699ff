// The inbox: what is shown follows the address (#ID), the search and the events of the server.

import * as api from "./api.js";
import * as failures from "./failures.js";
import * as list from "./list.js";
import * as reader from "./reader.js";
import { make } from "./words.js";

const at = (id) => document.getElementById(id);
const search = at("search");
const PAGE = 100;
let limit = PAGE;
let asking = null; // the search that is under way
let current = "";
let shown = ""; // the message in the reader
const unread = new Set();

function tellUnread() {
  document.title = unread.size ? `(${unread.size}) Inbox - smtpmaild` : "Inbox - smtpmaild";
}

// The list

async function refresh() {
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const answer = await api.list(search.value, limit, mine.signal);
    list.show(answer, current, unread);
    showEmpty(answer);
  } catch (error) {
    if (error.name !== "AbortError") at("count").textContent = `The list cannot be read: ${error.message}`;
  }
}

let timer = 0;
function refreshSoon() {
  // Many messages in a burst are one refresh.
  if (!timer) timer = setTimeout(() => { timer = 0; refresh(); failures.refresh(); }, 60);
}

let where = "127.0.0.1:1025";
function showEmpty(answer) {
  at("empty").hidden = answer.messages.length > 0;
  if (answer.messages.length) return;
  const example = `curl smtp://${where} \\\n  --mail-from you@example.org \\\n  --mail-rcpt alice@example.com \\\n  --upload-file letter.txt`;
  at("empty").replaceChildren(...(answer.total
    ? [make("h2", {}, "Nothing found"), "No message has all these words."]
    : [make("h2", {}, "No mail yet"), `Let your program send it to ${where}. Whatever it is, whoever it is for: it is shown here and goes no further.`, make("pre", {}, example)]));
}

// The message

async function open(id) {
  if (id && id === current) return; // a step in the history is told twice
  current = id;
  document.body.classList.toggle("reading", Boolean(id));
  list.mark(id)?.scrollIntoView({ block: "nearest" });
  if (!id) {
    shown = "";
    reader.showNothing();
    return;
  }
  unread.delete(id);
  tellUnread();
  if (shown === id) return;
  try {
    const message = await api.get(id);
    if (current !== id) return;
    shown = id;
    reader.show(message, { onback: () => go(""), ondelete: () => remove(id) });
  } catch (error) {
    if (current === id) go("");
  }
}

function go(id) {
  if (location.hash.slice(1) === id) open(id);
  else if (id) location.hash = id;
  else { history.pushState(null, "", location.pathname); open(""); }
}

function walk(step) {
  const ids = list.ids();
  if (!ids.length) return;
  const place = ids.indexOf(current);
  go(place < 0 ? ids[step > 0 ? 0 : ids.length - 1] : ids[Math.min(ids.length - 1, Math.max(0, place + step))]);
}

async function remove(id) {
  const ids = list.ids();
  const place = ids.indexOf(id);
  const next = ids[place + 1] ?? ids[place - 1] ?? "";
  // One that is gone already is as good as deleted.
  await api.remove(id).catch((error) => { if (error.status !== 404) throw error; });
  if (current === id) go(document.body.classList.contains("reading") && matchMedia("(max-width: 760px)").matches ? "" : next);
}

// Keyboard

const KEYS = {
  j: () => walk(1),
  k: () => walk(-1),
  "/": () => { search.focus(); search.select(); },
  Delete: () => current && remove(current),
  Enter: () => (current ? at("reader").focus() : walk(1)),
  Escape: () => go(""),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("ask").open) return;
  if (event.target.closest("input")) {
    if (event.key === "Escape") event.target.blur();
    else if (event.key === "Enter" && event.target === search) { search.blur(); if (!list.ids().includes(current)) walk(1); }
    return;
  }
  if (event.key === "Enter" && event.target.closest("a, button")) return;
  const action = KEYS[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
});

// Beginning

search.addEventListener("input", () => { limit = PAGE; refresh(); });
at("more").addEventListener("click", () => { limit = Math.min(1000, limit * 3); refresh(); });
at("clear").addEventListener("click", () => {
  at("question").textContent = "Delete all messages?";
  at("ask").returnValue = "no";
  at("ask").showModal();
});
at("ask").addEventListener("close", () => { if (at("ask").returnValue === "yes") api.clear(); });
window.addEventListener("hashchange", () => open(location.hash.slice(1)));
window.addEventListener("popstate", () => open(location.hash.slice(1)));

function listen() {
  const events = new EventSource("api/events");
  const live = (isOn) => {
    at("live").classList.toggle("on", isOn);
    at("live").textContent = isOn ? "live" : "connection lost, trying again";
  };
  events.addEventListener("open", () => { live(true); refresh(); });
  events.addEventListener("error", () => live(false));
  events.addEventListener("caught", (event) => { unread.add(JSON.parse(event.data).id); tellUnread(); refreshSoon(); });
  events.addEventListener("deleted", (event) => {
    const { id } = JSON.parse(event.data);
    if (id === null) unread.clear(); else unread.delete(id);
    tellUnread();
    if (id === null || id === current) go("");
    refreshSoon();
  });
}

failures.begin();
api.server().then((server) => { where = server.smtp[0] ?? where; }).finally(refresh);
open(location.hash.slice(1));
listen();
