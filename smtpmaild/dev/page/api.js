// The JSON API. Every answer that is no success is an Error with the words of the server.

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(said.error || `${answer.status} ${answer.statusText}`), { status: answer.status });
  }
  return answer;
}

const json = async (path, options) => (await ask(path, options)).json();
const message = (id) => `api/messages/${encodeURIComponent(id)}`;

export const server = () => json("api/server");
export const get = (id) => json(message(id));
export const raw = (id) => ask(`${message(id)}/raw`);
export const remove = (id) => ask(message(id), { method: "DELETE" });
export const clear = () => ask("api/messages", { method: "DELETE" });
export const failures = () => json("api/failures");
export const addFailure = (text) => json("api/failures", { method: "POST", body: JSON.stringify([text]) });
export const noFailures = () => json("api/failures", { method: "DELETE" });

export function list(query, limit, signal) {
  return json(`api/messages?${new URLSearchParams({ query, limit })}`, { signal });
}

export const downloadOf = (id) => `${message(id)}/raw?download`;
export const partOf = (id, number) => `${message(id)}/parts/${number}`;
export const htmlOf = (id, remote) => `${message(id)}/html${remote ? "?remote=1" : ""}`;
