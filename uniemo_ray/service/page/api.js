// Every request to the server. There are no requests to other servers.

import { $ } from "./dom.js";

let token = sessionStorage.getItem("token") ?? "";

export class Problem extends Error {
  constructor(message, isPassing = false, status = 0) {
    super(message);
    this.isPassing = isPassing;  // another attempt may succeed
    this.status = status;
  }
}

let asking = null;

// One dialog at a time, whichever requests need a token.
function askForToken(problem) {
  asking ??= openDialog(problem).finally(() => { asking = null; });
  return asking;
}

async function openDialog(problem) {
  const dialog = $("token-dialog");
  for (;;) {
    $("token").value = "";
    $("token-problem").textContent = problem;
    $("token-problem").hidden = !problem;
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    if (dialog.returnValue !== "given") throw new Problem("This server requires a token. Reload the page to enter one.");
    const given = $("token").value.trim();
    const strange = [...given].find((letter) => letter < "!" || letter > "~");
    if (given && !strange) return given;
    problem = strange === " " || !given ? "A token is one word, without spaces. Copy it again."
      : `No token contains the character “${strange}”. Copy it again.`;
  }
}

// A token is kept only after the server has accepted it.
function keep(given) {
  token = given;
  if (given) sessionStorage.setItem("token", given);
  else sessionStorage.removeItem("token");
}

async function send(path, options, given) {
  const headers = { ...options.headers, ...(given && { authorization: `Bearer ${given}` }) };
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached.", true);
  }
}

export async function call(path, options = {}) {
  let given = token;
  let response = await send(path, options, given);
  while (response.status === 401) {
    if (given === token) {
      if (token) keep("");
      given = await askForToken(given ? "The server does not accept this token." : "");
    } else if (token) {
      given = token;  // another request was given one meanwhile
    } else {
      given = await askForToken("The server does not accept this token.");
    }
    response = await send(path, options, given);
  }
  if (given !== token) keep(given);
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    const again = response.headers.get("retry-after");
    const hint = again ? ` Try again in ${again} s.` : "";
    const isPassing = response.status === 429 || response.status === 503;
    throw new Problem(`${problem.detail ?? `The server answered with status ${response.status}.`}${hint}`, isPassing, response.status);
  }
  return response;
}

export const getModel = async (name) =>
  (await call(`v1/model?model=${encodeURIComponent(name)}`)).json();

export async function understand(file, model) {
  const query = new URLSearchParams({ attention: "true", model });
  const headers = { "content-type": "application/octet-stream" };
  return (await call(`v1/understand?${query}`, { method: "POST", headers, body: file })).json();
}

export async function startGeneration(request) {
  const headers = { "content-type": "application/json" };
  return (await call("v1/generations", { method: "POST", headers, body: JSON.stringify(request) })).json();
}

export const getGeneration = async (id) => (await call(`v1/generations/${id}`)).json();

export const cancelGeneration = (id) => call(`v1/generations/${id}`, { method: "DELETE" });

export const getFile = async (url) => (await call(url)).blob();

// Reads the event stream itself, because EventSource cannot send a token. Calls `onEvent(name, data)` until the last event,
// and `onEvent("lost")` before it tries again.
export async function watch(id, onEvent, signal) {
  for (let tries = 0; tries < 5; tries += 1) {
    if (tries) {
      onEvent("lost");
      await new Promise((done) => setTimeout(done, 1000 * tries));
    }
    let text = "";
    try {
      const response = await call(`v1/generations/${id}/events`, { signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (text + value).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const name = /^event: (.*)$/m.exec(block)?.[1];
          const data = /^data: (.*)$/m.exec(block)?.[1];
          if (!name) continue;
          const content = JSON.parse(data);
          if (["done", "failed", "cancelled"].includes(name)) return { name, content };
          onEvent(name, content);
        }
      }
    } catch (error) {
      if (signal.aborted || error instanceof SyntaxError || (error instanceof Problem && !error.isPassing)) throw error;
    }
  }
  throw new Problem("The connection to the server was lost.");
}
