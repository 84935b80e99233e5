/** The dialogs that rename and delete the open chat. */

import { by } from "./nodes.js";
import { say, showIn } from "./token.js";

const main = document.querySelector("main");

/** title: returns the chat's title; shown: returns the title as the page shows it.
 * rename, remove: do the work and return a message; an error is shown in the dialog, which stays open. */
export function manage({ title, shown, rename, remove }) {
  onButton("rename", () => {
    by("new-title").value = title();
    by("new-title").select();
  }, () => rename(by("new-title").value));
  onButton("delete", () => (by("doomed").textContent = shown()), remove);
}

function onButton(id, begin, act) {
  const dialog = by(`${id}-dialog`);
  const trouble = dialog.querySelector(".trouble");
  by(id).addEventListener("click", () => {
    trouble.textContent = "";
    dialog.showModal();
    showIn(dialog);
    begin();
  });
  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    event.submitter.disabled = true;
    try {
      const done = await act();
      dialog.close();
      showIn(main);
      say(done);
    } catch (error) {
      trouble.textContent = error.message;
      say(error.message);
    } finally {
      event.submitter.disabled = false;
    }
  });
  dialog.querySelector("button[type=button]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.open || showIn(main)); // open: again, before this event came
}
