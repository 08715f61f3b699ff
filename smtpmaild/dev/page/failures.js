// The failures that are in force, and the field to choose more.

import * as api from "./api.js";
import { make } from "./words.js";

const at = (id) => document.getElementById(id);

function show(failures) {
  at("failure-count").textContent = failures.length || "";
  at("failure-list").replaceChildren(...failures.map((one) => make("li", {}, make("code", {}, one.failure), one.hits ? ` · ${one.hits}×` : "")));
  at("no-failures").hidden = !failures.length;
}

async function attempt(work) {
  try {
    show(await work());
    at("failure-error").textContent = "";
    return true;
  } catch (error) {
    at("failure-error").textContent = error.message;
    return false;
  }
}

export const refresh = () => attempt(api.failures);

export function begin() {
  at("show-failures").addEventListener("click", () => {
    const isShown = at("failures").toggleAttribute("hidden") === false;
    at("show-failures").setAttribute("aria-expanded", String(isShown));
    if (isShown) {
      refresh();
      at("failure").focus();
    }
  });
  at("failure-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await attempt(() => api.addFailure(at("failure").value.trim()))) at("failure").value = "";
  });
  at("no-failures").addEventListener("click", () => attempt(api.noFailures));
  refresh();
}
