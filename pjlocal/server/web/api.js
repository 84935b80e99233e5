/** Requests to the server.  The secret (the token in the page's address, or an API key) is stored for this tab only. */

const SECRET = "pjlocal-secret";
const dialog = document.getElementById("asking");
const otherTabs = new BroadcastChannel(SECRET); // tabs of this page send each other the secret
const refused = new Set(); // secrets that the server refused
let finding = null; // one search for the secret at a time

takeFromAddress();
otherTabs.addEventListener("message", ({ data }) => {
  const secret = sessionStorage.getItem(SECRET);
  if (data === null && secret) otherTabs.postMessage(secret);
});

/** Send a request and return the response, if it succeeds; otherwise throw the server's error, with its `code`.
 * A body that is not a file is sent as JSON; a BigInt in it is refused, because the page would round it when it comes back. */
export async function ask(path, { body, signal, method = body === undefined ? "GET" : "POST" } = {}) {
  const secret = sessionStorage.getItem(SECRET);
  const response = await fetch(path, {
    method,
    headers: secret ? { Authorization: `Bearer ${secret}` } : {},
    body: body === undefined || body instanceof Blob ? body : JSON.stringify(body, exact),
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

function exact(name, value) {
  if (typeof value !== "bigint") return value;
  const most = Number.MAX_SAFE_INTEGER;
  throw saying({ message: `${name} must be a whole number of at most ${most} on this page (not ${value}): browsers round larger ones` });
}

export const json = async (path, options) => (await ask(path, options)).json().catch(lost);

/** Yield the events of an answer, up to its result; throw an error that the stream contains.
 * The first events have `waits`: the part of the prompt that has been read, once reading has begun. */
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
        const [, text] = /^: (Writing .*)/.exec(part) ?? []; // the progress of several answers, of which the best is chosen
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

/** True if the error means that the server does not respond. */
export const isLost = ({ code }) => code === "server_gone";

/** True if the error means that the server does not respond, or is stopping. */
export const isGone = (error) => isLost(error) || error.code === "stopping";

/** Check whether the server responds. */
export const isThere = () => fetch("health").then(({ ok }) => ok, () => false);

function lost(error) {
  if (error.name === "AbortError") throw error;
  throw saying({ message: "The server does not answer. Start it again, then reload this page.", code: "server_gone" });
}

const saying = ({ message, code }) => Object.assign(new Error(inFields(message)), { code });

/** The message, naming settings as the fields of the page do, without an example in JSON. */
function inFields(message) {
  const label = (name) => document.getElementById(name)?.labels?.[0]?.firstChild.textContent.trim() ?? name;
  return message.replace(/, as in: \{.*?\}/, "").replace(/\bmax_tokens\b|^\w+(?= must )/, label);
}

async function refusal(response) {
  try {
    return saying((await response.json()).error);
  } catch {
    return new Error(`the server says ${response.status}`);
  }
}

/** Remove the token from the address, where others could read it on the screen. */
function takeFromAddress() {
  const address = new URL(location.href);
  const token = address.searchParams.get("token");
  if (!token) return;
  sessionStorage.setItem(SECRET, secretIn(token));
  address.searchParams.delete("token");
  history.replaceState(history.state, "", address);
}

/** The secret in pasted text: an address with a token, or a token or key.  Headers allow only printable ASCII. */
function secretIn(text) {
  return (/[?&]token=([^&#\s]+)/.exec(text)?.[1] ?? text).replace(/[^ -~]/g, "").trim();
}

async function find() {
  sessionStorage.setItem(SECRET, (await fromOtherTab()) ?? (await fromUser()));
}

/** The secret of another tab of this page; null if no tab has one that was not refused here. */
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
