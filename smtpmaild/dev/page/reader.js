// One message: its envelope, its files, and its views. HTML is shown in a frame in which nothing runs.

import * as api from "./api.js";
import { count, make, size, stranger, visible } from "./words.js";

const reader = document.getElementById("reader");
let preferred = "html";

export function showNothing() {
  reader.replaceChildren(
    make("p", { class: "nothing" }, make("kbd", {}, "j"), " ", make("kbd", {}, "k"), " to walk, ",
      make("kbd", {}, "/"), " to search, ", make("kbd", {}, "Delete"), " to delete"),
  );
}

function addresses(message) {
  return message.envelope.recipients.map((one) => make(
    "span", { class: "address" }, stranger("span", one.address), " ",
    one.is_bcc ? make("span", { class: "chip", title: "Neither To nor Cc names this recipient" }, "Bcc") : null,
  ));
}

function fact(name, ...values) {
  return [make("dt", {}, name), make("dd", {}, ...values)];
}

function facts(message) {
  const header = (name) => message.headers.find((one) => one.name.toLowerCase() === name)?.value;
  const rows = [];
  if (message.from) rows.push(...fact("From", stranger("span", message.from)));
  for (const name of ["To", "Cc", "Reply-To"]) {
    const value = header(name.toLowerCase());
    if (value) rows.push(...fact(name, stranger("span", value)));
  }
  rows.push(...fact("Recipients", ...addresses(message)));
  rows.push(...fact("Sender", stranger("span", message.sender || "<>")));
  return make("dl", { class: "facts" }, ...rows);
}

function files(message) {
  const found = message.parts.filter((part) => !part.is_body);
  if (!found.length) return null;
  return make("ul", { class: "files" }, ...found.map((part) => make(
    "li", {}, make(
      "a", { href: api.partOf(message.id, part.number), download: true, title: part.type },
      stranger("span", part.name || part.type), make("span", { class: "size" }, size(part.size)),
    ),
  )));
}

function frame(message, remote) {
  // No allow-scripts and no allow-same-origin: what is in it can neither run nor reach us.
  return make("iframe", {
    sandbox: "allow-popups allow-popups-to-escape-sandbox", referrerpolicy: "no-referrer", title: "HTML of the message",
    src: api.htmlOf(message.id, remote),
  });
}

function html(message) {
  if (!message.has_remote) return [frame(message, false)];
  const notice = make("div", { class: "notice" }, make("span", {}, "Remote pictures are not loaded."));
  const view = [notice, frame(message, false)];
  notice.append(make("button", {
    type: "button", onclick: () => {
      notice.nextSibling.replaceWith(frame(message, true));
      notice.replaceChildren(make("span", {}, "Remote pictures are loaded: their servers know of it."));
    },
  }, "Load them"));
  return view;
}

// A word of a megabyte keeps a browser busy for seconds, unless it may break it anywhere at once.
function pre(words, kind) {
  const isDense = /\S{1000}/.test(words);
  return make("pre", { class: `${kind} ${isDense ? "dense" : ""}`.trim(), dir: "auto" }, ...visible(words, SHOWN));
}

const SHOWN = 200000;
const text = (message) => [pre(message.text, "prose")];

function table(rows) {
  return [make("table", {}, make("tbody", {}, ...rows.map(([name, value]) => make(
    "tr", {}, make("th", { scope: "row" }, ...visible(name, 200)), make("td", {}, stranger("span", value)),
  ))))];
}

const headers = (message) => table(message.headers.map((one) => [one.name, one.value]));

function words(parameters) {
  return Object.entries(parameters).map(([key, value]) => (value ? `${key}=${value}` : key)).join(" ");
}

function envelope(message) {
  const said = (address, parameters) => `<${address}> ${words(parameters)}`.trim();
  const rows = [["MAIL FROM", said(message.sender, message.envelope.parameters)]];
  for (const one of message.envelope.recipients) {
    rows.push([one.is_bcc ? "RCPT TO (Bcc)" : "RCPT TO", said(one.address, one.parameters)]);
  }
  rows.push(["Client", message.client], ["HELO", message.hello], ["Protocol", message.protocol]);
  rows.push(["TLS", message.tls || "none"], ["Signed in as", message.user || "nobody"]);
  rows.push(["Received", message.received_at], ["Size", `${message.size.toLocaleString()} octets`], ["Id", message.id]);
  return table(rows);
}

async function raw(message) {
  const answer = await api.raw(message.id);
  const octets = Number(answer.headers.get("x-octets"));
  const shown = await answer.text();
  const note = shown.length > SHOWN || octets > 1048576
    ? make("div", { class: "notice" }, "This is the beginning; the download has all of it.") : null;
  return [note, pre(shown, "octets")].filter(Boolean);
}

const VIEWS = { html: ["HTML", html], text: ["Text", text], headers: ["Headers", headers], envelope: ["Envelope", envelope], raw: ["Raw", raw] };

export function show(message, { onback, ondelete }) {
  const names = Object.keys(VIEWS).filter((name) => (name !== "html" || message.html) && (name !== "text" || message.text || !message.html));
  const view = make("div", { class: "view", role: "tabpanel", id: "view" });
  const tabs = make("div", { class: "tabs", role: "tablist" });
  let turn = 0;

  async function choose(name) {
    turn += 1;
    const mine = turn;
    for (const tab of tabs.children) {
      tab.setAttribute("aria-selected", String(tab.dataset.name === name));
      tab.tabIndex = tab.dataset.name === name ? 0 : -1;
    }
    let content;
    try {
      content = await VIEWS[name][1](message);
    } catch (error) {
      content = [make("p", { class: "nothing" }, error.message)];
    }
    if (mine === turn) view.replaceChildren(...content);
  }

  for (const name of names) {
    tabs.append(make("button", {
      type: "button", role: "tab", "data-name": name, "aria-controls": "view",
      onclick: () => { preferred = name; choose(name); },
    }, VIEWS[name][0]));
  }
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = [...tabs.children].at((names.indexOf(event.target.dataset.name) + step) % names.length);
    next.focus();
    next.click();
  });

  reader.replaceChildren(
    make("div", { class: "head" },
      make("div", { class: "top" },
        make("button", { type: "button", class: "back", onclick: onback }, "← All messages"),
        make("h2", { class: "stranger", dir: "auto" }, ...visible(message.subject || "(no subject)", 2000)),
        make("a", { href: api.downloadOf(message.id), download: `${message.id}.eml`, class: "save", title: `${count(message.size, "octet", "octets")}, as they were sent` }, "Save"),
        make("button", { type: "button", class: "delete danger", onclick: ondelete }, "Delete")),
      facts(message),
      message.remarks.length ? make("ul", { class: "remarks" }, ...message.remarks.map((words) => make("li", {}, words))) : null,
      files(message)),
    tabs,
    view,
  );
  reader.scrollTop = 0;
  choose(names.includes(preferred) ? preferred : names[0]);
}
