/** What the server is asked.  Its key, where it has one, is kept for this tab alone. */

const KEY = "pjlocal-key";
const dialog = document.getElementById("asking");
let asking = null; // one question for the key at a time

/** A response that went well.
 * Throws what the server says of one that did not. */
export async function ask(path, { body, signal } = {}) {
  const key = sessionStorage.getItem(KEY);
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: key ? { Authorization: `Bearer ${key}` } : {},
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  });
  if (response.status === 401) {
    asking ??= askForKey().finally(() => (asking = null));
    await asking;
    return ask(path, { body, signal });
  }
  if (!response.ok) throw new Error(await reason(response));
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
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server says ${response.status}`;
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
