/** What the server is asked.  Its key, where it has one, is kept for this tab alone. */

const KEY = "pjlocal-key";
const dialog = document.getElementById("asking");
let asking = null; // one question for the key at a time

/** A response that went well.
 * Throws what the server says of one that did not, with its `code`. */
export async function ask(path, { body, signal, method = body === undefined ? "GET" : "POST" } = {}) {
  const key = sessionStorage.getItem(KEY);
  const response = await fetch(path, {
    method,
    headers: key ? { Authorization: `Bearer ${key}` } : {},
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  });
  if (response.status === 401) {
    asking ??= askForKey().finally(() => (asking = null));
    await asking;
    return ask(path, { body, signal, method });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

export const json = async (path) => (await ask(path)).json();

/** The events of a stream, until its end; an error in it is thrown. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server has hung up in the middle of the answer");
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw saying(event.error);
      yield event;
    }
  }
}

const saying = ({ message, code }) => Object.assign(new Error(message), { code });

async function refusal(response) {
  try {
    return saying((await response.json()).error);
  } catch {
    return new Error(`the server says ${response.status}`);
  }
}

function askForKey() {
  return new Promise((resolve) => {
    const field = document.getElementById("key");
    field.value = "";
    dialog.addEventListener(
      "close",
      () => {
        sessionStorage.setItem(KEY, field.value);
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
}
