/** Text files that go with the next question.  The server reads and counts them. */

import { json } from "./api.js";
import { button, by, element } from "./nodes.js";
import { say, visible } from "./token.js";

let files = []; // each with its name, its size in words, and what it puts before the question

/** mostBytes: of a file; onTrouble: shows a line. */
export function begin(mostBytes, onTrouble) {
  const add = async (picked) => {
    onTrouble("");
    for (const file of picked) await attach(file, mostBytes).catch((error) => onTrouble(error.message));
    by("question").focus();
  };
  by("attach").addEventListener("click", () => by("pick").click());
  by("pick").addEventListener("change", async () => {
    await add([...by("pick").files]);
    by("pick").value = "";
  });
  const holdsFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  let inside = 0; // elements that the pointer has entered and not left
  const mark = (n) => document.body.classList.toggle("dropping", (inside = Math.max(0, n)) > 0);
  addEventListener("dragenter", (event) => holdsFiles(event) && mark(inside + 1));
  addEventListener("dragleave", (event) => holdsFiles(event) && mark(inside - 1));
  addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(0);
    if (!document.querySelector("dialog[open]")) add([...event.dataTransfer.files]);
  });
}

async function attach(file, mostBytes) {
  const body = file.slice(0, mostBytes + 1); // a larger one is refused by its first bytes
  const attached = await json(`api/files?name=${encodeURIComponent(file.name)}`, { body, method: "POST" });
  put([...files, attached]);
  say(attached.size);
}

/** Have these files go with the next question, instead of others. */
export function put(all) {
  files = all;
  by("files").replaceChildren(
    ...files.map((file) => {
      const remove = button("×", () => {
        put(files.filter((other) => other !== file));
        by("question").focus();
      });
      remove.setAttribute("aria-label", `Do not send ${file.name}`);
      return element("li", "", element("bdi", "", visible(file.size ?? file.name)), remove);
    }),
  );
}

/** A question with the files, which then go with no other. */
export function asked(words) {
  const question = files.map(({ head }) => head).join("") + words;
  const sent = files;
  put([]);
  return { question, words, files: sent };
}
