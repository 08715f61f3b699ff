// The list of messages: one link for each, newest first.

import { clock, count, make, size, visible } from "./words.js";

const ol = document.getElementById("messages");
const line = (name, text) => make("span", { class: `${name} one-line`, dir: "auto" }, ...visible(text, 300));

// Rows that stay as they are stay the same elements: a click or the focus on one is not lost when others come.
let rows = new Map();

function row(message, current, isUnread) {
  const words = JSON.stringify([message, isUnread, clock(message.received_at)]);
  const before = rows.get(message.id);
  return before?.words === words ? before : { words, li: made(message, current, isUnread) };
}

function made(message, current, isUnread) {
  const more = message.recipients.length > 2 ? ` +${message.recipients.length - 2}` : "";
  const clip = message.attachments ? `${count(message.attachments, "file", "files")} · ` : "";
  return make(
    "li",
    { class: isUnread ? "unread" : "" },
    make(
      "a",
      { href: `#${message.id}`, "data-id": message.id, "aria-current": message.id === current ? "true" : null },
      line("subject", message.subject || "(no subject)"),
      line("from", message.from || message.sender || "<>"),
      make("time", { class: "when", datetime: message.received_at }, clock(message.received_at)),
      line("to", `to ${message.recipients.slice(0, 2).join(", ")}${more}`),
      make("span", { class: "size" }, `${clip}${size(message.size)}`),
    ),
  );
}

export function show(answer, current, unread) {
  const focused = document.activeElement?.dataset?.id;
  rows = new Map(answer.messages.map((message) => [message.id, row(message, current, unread.has(message.id))]));
  const wanted = [...rows.values()].map((one) => one.li);
  if (wanted.length !== ol.children.length || wanted.some((li, place) => li !== ol.children[place])) {
    ol.replaceChildren(...wanted);
    if (focused) link(focused)?.focus();
  }
  mark(current);
  document.getElementById("count").textContent = answer.matching === answer.total
    ? count(answer.total, "message", "messages")
    : `${answer.matching.toLocaleString()} of ${count(answer.total, "message", "messages")}`;
  document.getElementById("more").hidden = answer.messages.length >= answer.matching;
}

const link = (id) => ol.querySelector(`a[data-id="${CSS.escape(id)}"]`);

export function mark(current) {
  for (const one of ol.querySelectorAll("a[aria-current]")) one.removeAttribute("aria-current");
  const found = link(current);
  if (found) {
    found.setAttribute("aria-current", "true");
    found.parentElement.classList.remove("unread");
  }
  return found;
}

export const ids = () => [...ol.querySelectorAll("a")].map((one) => one.dataset.id);
