// Puts the parts together: first what is, then what is new.

import {ask, listen} from "./asking.js";
import * as chart from "./chart.js";
import {byId} from "./dom.js";
import * as messages from "./messages.js";
import * as overview from "./overview.js";
import * as queue from "./queue.js";
import * as steering from "./steering.js";

const HEAR = {
  overview: (now) => { overview.show(now); queue.show(now); },
  minute: chart.takeMinute,
  messages: messages.take,
};

async function readAll() {
  const session = await steering.learn();
  if (!session.may_read) return;
  chart.takeAll(await ask("/api/minutes"));
  HEAR.overview(await ask("/api/overview"));
  await Promise.all([messages.read(), queue.read()]);
}

function line(tone) {
  const live = byId("live");
  live.dataset.tone = tone;
  live.textContent = tone === "good" ? "live" : "no connection";
  // What happened while nobody listened.
  if (tone === "good") readAll().catch(() => {});
}

chart.begin();
messages.begin();
steering.begin(() => readAll().catch(() => {}));
readAll().catch(() => {});
listen((name, data) => HEAR[name]?.(data), line);
