/** What the server is asked.  Its secret, the token of the page's address or an API key, is kept for this tab alone. */

const SECRET = "pjlocal-secret";
const dialog = document.getElementById("asking");
const otherTabs = new BroadcastChannel(SECRET); // those of this page tell each other the secret
const refused = new Set(); // secrets that did not open the server
let finding = null; // one search for the secret at a time

takeFromAddress();
otherTabs.addEventListener("message", ({ data }) => {
  const secret = sessionStorage.getItem(SECRET);
  if (data === null && secret) otherTabs.postMessage(secret);
});

/** A response that went well; a body that is no file is sent as JSON.
 * Throws what the server says of one that did not, with its `code`. */
export async function ask(path, { body, signal, method = body === undefined ? "GET" : "POST" } = {}) {
  const secret = sessionStorage.getItem(SECRET);
  const response = await fetch(path, {
    method,
    headers: secret ? { Authorization: `Bearer ${secret}` } : {},
    body: body === undefined || body instanceof Blob ? body : JSON.stringify(body),
    signal,
  }).catch(lost);
  if (response.status === 401) {
    refused.add(secret);
    if (sessionStorage.getItem(SECRET) === secret) await (finding ??= find().finally(() => (finding = null)));
    return ask(path, { body, signal, method });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

export const json = async (path, options) => (await ask(path, options)).json();

/** The events of an answer, until its result; an error in the stream is thrown.
 * Before the first one come some with `waits`: how much of the prompt is read, where that has begun. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(lost);
    if (done) lost({});
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) {
        const [, n, all] = /^: read (\d+) of (\d+)/.exec(part) ?? [];
        const [, text] = /^: (Writing .*)/.exec(part) ?? []; // several answers, of which one is chosen
        yield { waits: n === undefined ? { text } : { n: Number(n), all: Number(all) } };
        continue;
      }
      const event = JSON.parse(part.slice("data: ".length));
      if (event.error) throw saying({ message: event.error, code: event.code });
      yield event;
      if (event.result) return;
    }
  }
}

/** Whether an error is that nothing comes from the server any more. */
export const isLost = ({ code }) => code === "server_gone";

/** Whether an error is that the server has gone, or is about to. */
export const isGone = (error) => isLost(error) || error.code === "stopping";

/** Whether the server answers at all. */
export const isThere = () => fetch("health").then(({ ok }) => ok, () => false);

function lost(error) {
  if (error.name === "AbortError") throw error;
  throw saying({ message: "The server does not answer. Start it again, then reload this page.", code: "server_gone" });
}

const saying = ({ message, code }) => Object.assign(new Error(message), { code });

async function refusal(response) {
  try {
    return saying((await response.json()).error);
  } catch {
    return new Error(`the server says ${response.status}`);
  }
}

/** Take the token out of the address, where others could read it on the screen. */
function takeFromAddress() {
  const address = new URL(location.href);
  const token = address.searchParams.get("token");
  if (!token) return;
  sessionStorage.setItem(SECRET, secretIn(token));
  address.searchParams.delete("token");
  history.replaceState(history.state, "", address);
}

/** The secret in what was pasted: a whole address, or a token or key.  A header holds nothing but printable ASCII. */
function secretIn(text) {
  return (/[?&]token=([^&#\s]+)/.exec(text)?.[1] ?? text).replace(/[^ -~]/g, "").trim();
}

async function find() {
  sessionStorage.setItem(SECRET, (await fromOtherTab()) ?? (await fromUser()));
}

/** The secret that another tab of this page has; null where none has one that was not refused here. */
function fromOtherTab() {
  return new Promise((resolve) => {
    const take = ({ data }) => data !== null && !refused.has(data) && end(data);
    const end = (secret) => {
      otherTabs.removeEventListener("message", take);
      resolve(secret);
    };
    otherTabs.addEventListener("message", take);
    otherTabs.postMessage(null);
    setTimeout(end, 200, null);
  });
}

function fromUser() {
  return new Promise((resolve) => {
    const field = document.getElementById("key");
    document.getElementById("refused").hidden = !sessionStorage.getItem(SECRET);
    field.value = "";
    dialog.addEventListener("close", () => resolve(secretIn(field.value)), { once: true });
    dialog.showModal();
  });
}
