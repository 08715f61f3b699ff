// The token, and orders that want a second look before they are carried out.

import {ask, order, token} from "./asking.js";
import {byId, count} from "./dom.js";

let session = {may_read: true, may_steer: false, has_token: false, has_history: false};

export const mayChange = () => session.may_steer;
export const hasHistory = () => session.has_history;

/** Ask what we may do; changed() afterwards. */
export async function learn() {
  session = await ask("/api/session");
  const button = byId("token-button");
  button.hidden = !session.has_token;
  button.textContent = session.may_steer ? "Forget token" : "Enter token";
  if (!session.may_read && !byId("token-dialog").open) byId("token-dialog").showModal();
  return session;
}

export function begin(changed) {
  for (const dialog of document.querySelectorAll("dialog")) {
    for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  byId("token-button").addEventListener("click", async () => {
    if (!session.may_steer) { byId("token-dialog").showModal(); return; }
    token.forget();
    await renew(changed);
  });
  byId("token-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    token.set(byId("token-text").value.trim());
    await renew(changed);
    byId("token-error").textContent = session.may_steer ? "" : "This is not the token.";
    if (session.may_steer) {
      byId("token-text").value = "";
      byId("token-dialog").close();
    } else token.forget();
  });
}

async function renew(changed) {
  await learn();
  dispatchEvent(new Event("smtpmaild-token"));
  changed();
}

const WORDS = {
  retry: ["Retry", "is tried again at once."],
  hold: ["Hold", "stays in the queue and is not tried until it is released."],
  release: ["Release", "is tried again."],
  drop: ["Drop", "is deleted. Nobody is told, and it cannot be brought back."],
};

/** Ends the question that is asked now. */
let unasked = () => {};

/** Ask whether it is meant, and do it; true where it was done. */
export function confirmed(verb, ids) {
  unasked();
  const [title, effect] = WORDS[verb];
  const many = ids.length === 1 ? `Message ${ids[0]}` : `${count(ids.length)} messages`;
  byId("confirm-title").textContent = `${title} ${ids.length === 1 ? "this message" : many}?`;
  byId("confirm-text").textContent = `${many} ${ids.length === 1 ? effect : effect.replace(/^is /, "are ").replace(/^stays/, "stay").replace("is not", "are not").replace("it is", "they are").replace("it cannot", "they cannot")}`;
  byId("confirm-error").textContent = "";
  byId("confirm-why").value = "";
  const yes = byId("confirm-yes");
  yes.textContent = title;
  yes.classList.toggle("danger", verb === "drop");
  const dialog = byId("confirm");
  dialog.showModal();
  return new Promise((settle) => {
    const submit = async (event) => {
      event.preventDefault();
      try {
        await order(`/api/queue/${verb}`, {ids, why: byId("confirm-why").value});
        finish(true);
      } catch (error) { byId("confirm-error").textContent = error.message; }
    };
    const finish = (done) => {
      unasked = () => {};
      byId("confirm-form").removeEventListener("submit", submit);
      dialog.removeEventListener("close", cancel);
      dialog.close();
      settle(done);
    };
    // The browser tells of a closed dialog a moment later: by then the next question may be asked in it.
    const cancel = () => { if (!dialog.open) finish(false); };
    unasked = () => finish(false);
    byId("confirm-form").addEventListener("submit", submit);
    dialog.addEventListener("close", cancel);
  });
}
