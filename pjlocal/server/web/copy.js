/** Buttons that copy a text. */

import { say } from "./token.js";

export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    byHand(text, button); // without TLS, only pages at loopback addresses have a clipboard
  }
  button.dataset.label ??= button.textContent;
  button.textContent = "Copied";
  say("Copied");
  setTimeout(() => (button.textContent = button.dataset.label), 1500);
}

function byHand(text, button) {
  const field = document.createElement("textarea");
  field.value = text;
  button.after(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  button.focus();
}
