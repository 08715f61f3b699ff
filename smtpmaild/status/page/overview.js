// What the daemon is doing now: tiles, refusals, sessions, health. Told every two seconds.

import {alien, bytes, byId, clock, count, day, el, fill, none, rate, span, visible, when} from "./dom.js";

const SOON = 21 * 86400;
const VERY_SOON = 7 * 86400;

export function show(now) {
  header(now);
  tiles(now);
  refusals(now.refusals);
  sessions(now);
  stores(now.stores);
  workers(now);
  certificates(now);
}

function header(now) {
  byId("hostname").textContent = visible(now.hostname);
  document.title = `${visible(now.hostname)} · smtpmaild`;
  const state = byId("state");
  const [word, tone] = now.is_stopping ? ["draining", "warn"] : now.not_ready ? [now.not_ready, "bad"] : ["serving", "good"];
  state.textContent = word;
  state.dataset.tone = tone;
  byId("since").textContent = `for ${span(now.now - now.started_at)}`;
  byId("version").textContent = `smtpmaild ${now.version}`;
  const refused = now.reload && !now.reload.is_good;
  byId("notice").hidden = !refused;
  if (refused) {
    byId("notice").textContent =
      `The reload at ${clock(now.reload.at)} was refused, the configuration before it serves on: ${visible(now.reload.cause)}`;
  }
}

function tiles(now) {
  const each = (name) => (now.rates[name] ?? 0) * 60;
  const refused = each("messages_refused") + each("recipients_refused");
  const deferred = each("messages_deferred") + each("recipients_deferred");
  const sessions = now.listeners.reduce((sum, one) => sum + one.sessions, 0);
  const queue = now.queue;
  const oldest = queue?.oldest ? now.now - queue.oldest : 0;
  const parts = [
    ["Accepted", rate(each("messages_accepted")), "/min"],
    ["Refused", rate(refused), "/min"],
    ["Deferred", rate(deferred), "/min"],
    ["Sessions", count(sessions), "open"],
    ["In the queue", queue ? count(queue.messages) : "–", queue?.dead ? `${queue.dead} unreachable` : ""],
    ["Oldest", oldest ? span(oldest) : "–", "", oldest > 14400 ? "warn" : ""],
  ];
  fill("tiles", parts, () => parts.map(([name, value, unit, tone]) =>
    el("div", {}, el("dt", {}, name), el("dd", {data: {tone: tone ?? ""}}, value, " ", el("small", {}, unit)))));
}

function bar(share, tone = "") {
  const inner = el("i");
  inner.style.width = `${Math.max(0, Math.min(100, share * 100))}%`;
  return el("span", {class: "bar", data: {tone}, "aria-hidden": "true"}, inner);
}

function refusals(rows) {
  fill("refusals", rows, () => {
    if (!rows.length) return none("Nothing was refused.");
    const top = rows.slice(0, 8);
    const most = top[0][3];
    return el("ul", {class: "bars"}, ...top.map(([verb, reply, rule, number]) => el("li", {},
      el("span", {class: "alien"}, visible(rule || (verb === "other" ? "no command of SMTP" : "the protocol")),
        el("span", {class: "under"}, verb === "other" ? visible(reply) : `${visible(reply)} at ${visible(verb)}`)),
      el("span", {class: "number"}, count(number)),
      bar(number / most))));
  });
}

function sessions(now) {
  const listeners = now.listeners.map((one) => [one.name, one.sessions, one.tls, one.addresses]);
  const open = listeners.reduce((sum, [, number]) => sum + number, 0);
  byId("sessions-count").textContent = `${count(open)} open`;
  fill("listeners", listeners, () => el("ul", {class: "facts"}, ...listeners.map(([name, number, , addresses]) => el("li", {},
    el("span", {class: "alien"}, visible(name)), el("span", {class: "number"}, count(number)),
    el("span", {class: "under alien"}, visible(addresses.join(", ") || "closed by a reload"))))));
  const networks = Object.entries(now.networks).slice(0, 8);
  fill("networks", networks, () => networks.length
    ? el("ul", {class: "facts"}, ...networks.map(([name, number]) => el("li", {},
      alien(name, {class: "mono"}), el("span", {class: "number"}, count(number)))))
    : none("Nobody is here."));
}

function stores(rows) {
  fill("stores", rows.map((one) => [one.name, one.problem, one.free && Math.round(one.free / 1e7), one.total, one.path]), () => {
    if (!rows.length) return none("No store.");
    return el("ul", {class: "bars"}, ...rows.map((one) => {
      const used = one.total ? 1 - one.free / one.total : 0;
      const tone = used > 0.95 ? "bad" : used > 0.85 ? "warn" : "";
      const state = one.problem
        ? el("span", {class: "pill", data: {tone: "bad"}}, "not writable")
        : el("span", {class: "number"}, one.total ? `${bytes(one.free)} free` : "");
      return el("li", {},
        el("span", {}, el("span", {class: "alien"}, visible(one.name)),
          el("span", {class: "under alien"}, visible(one.problem || one.path || one.type))),
        state, one.total ? bar(used, tone) : null);
    }));
  });
}

const TONES = {serving: "good", silent: "bad", starting: "warn", retiring: "quiet", draining: "warn"};

function workers(now) {
  const rows = now.workers.map((one) => [one.number, one.pid, one.state, one.sessions, one.lag.toFixed(2), Math.round(one.memory / 1e5)]);
  const key = [rows, now.deaths, Math.floor(now.now / 60)];
  fill("workers", key, () => [
    el("ul", {class: "facts"}, ...now.workers.map((one) => el("li", {},
      el("span", {}, `Worker ${one.number} `, el("span", {class: "pill", data: {tone: TONES[one.state] ?? "quiet"}}, one.state)),
      el("span", {class: "number"}, `${count(one.sessions)} open`),
      el("span", {class: "under"}, `process ${one.pid} for ${span(now.now - one.started_at)}, lag ${Math.round(one.lag * 1000)} ms, ${bytes(one.memory)} in flight`)))),
    now.deaths ? el("p", {class: "under"}, `${count(now.deaths)} died and were replaced`) : "",
  ]);
}

function certificates(now) {
  fill("certificates", [now.certificates, Math.floor(now.now / 3600)], () => {
    if (!now.certificates.length) return none("No certificate.");
    return el("ul", {class: "facts"}, ...now.certificates.map((one) => {
      const left = one.not_after - now.now;
      const tone = left < VERY_SOON ? "bad" : left < SOON ? "warn" : "good";
      return el("li", {},
        el("span", {class: "alien"}, visible(one.names.join(", ") || one.path)),
        el("span", {class: "pill", data: {tone}}, left < 0 ? "ended" : `${Math.floor(left / 86400)} days`),
        el("span", {class: "under alien"}, "until ", when(one.not_after, day(one.not_after)), ` · ${visible(one.path)}`));
    }));
  });
}

