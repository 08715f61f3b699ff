// Requests to the daemon, with the token where there is one, and the stream of what is new.

const KEY = "smtpmaild-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

function headers() {
  return token.get() ? {Authorization: `Bearer ${token.get()}`} : {};
}

/** JSON from an address; an Error whose message can be shown. */
export async function ask(path) {
  const answer = await fetch(path, {headers: headers(), cache: "no-store"});
  if (!answer.ok) throw new Error(await said(answer));
  return answer.json();
}

export async function order(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: {...headers(), "Content-Type": "application/json"},
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(await said(answer));
  return answer.json();
}

async function said(answer) {
  const text = (await answer.text()).trim();
  return text.slice(0, 200) || `the daemon answered ${answer.status}`;
}

const SILENCE = 40000;
const AGAIN = [1000, 2000, 5000];

/**
 * Listen for ever: told(event, data) for each event, changed("good" | "bad") when the line comes and goes.
 * fetch() instead of EventSource, which cannot show a token.
 */
export async function listen(told, changed) {
  for (let failures = 0; ; failures += 1) {
    const giveUp = new AbortController();
    let isAnother = false;
    const again = () => { isAnother = true; giveUp.abort(); };
    addEventListener("smtpmaild-token", again, {once: true});
    try {
      const answer = await fetch("/api/events", {headers: headers(), cache: "no-store", signal: giveUp.signal});
      if (answer.ok) {
        changed("good");
        failures = 0;
        await read(answer.body.getReader(), told, giveUp);
      }
    } catch { /* it will come back */ }
    removeEventListener("smtpmaild-token", again);
    if (isAnother) continue;
    changed("bad");
    await new Promise((ready) => setTimeout(ready, AGAIN[Math.min(failures, AGAIN.length - 1)]));
  }
}

async function read(reader, told, giveUp) {
  const decoder = new TextDecoder();
  let waiting = "";
  for (;;) {
    const silent = setTimeout(() => giveUp.abort(), SILENCE);
    const {done, value} = await reader.read().finally(() => clearTimeout(silent));
    if (done) return;
    const events = (waiting + decoder.decode(value, {stream: true})).split("\n\n");
    waiting = events.pop();
    for (const event of events) {
      const name = /^event: (.*)$/m.exec(event);
      const data = /^data: (.*)$/m.exec(event);
      if (name && data) told(name[1], JSON.parse(data[1]));
    }
  }
}
