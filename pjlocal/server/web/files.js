/** Text files to send with the next question.  The server reads them and counts their tokens. */

import { json } from "./api.js";
import { button, by, element } from "./nodes.js";
import { say, visible } from "./token.js";

let reading = 0; // files whose tokens are being counted
let files = []; // each with its name, its size in words, and what it puts before the question

/** mostBytes: the size limit of a file; onTrouble: shows an error message. */
export function begin(mostBytes, onTrouble) {
  const add = async (picked) => {
    onTrouble("");
    reading += 1;
    for (const file of picked) await attach(file, mostBytes).catch((error) => onTrouble(error.message));
    reading -= 1;
    by("question").focus();
  };
  by("attach").addEventListener("click", () => by("pick").click());
  by("pick").addEventListener("change", async () => {
    await add([...by("pick").files]);
    by("pick").value = "";
  });
  const holdsFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  let inside = 0; // the number of elements that the pointer has entered and not left
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

export const isReading = () => reading > 0;
export const listed = () => files;

async function attach(file, mostBytes) {
  const body = file.slice(0, mostBytes + 1); // a larger one is refused by its first bytes
  const attached = await json(`api/files?name=${encodeURIComponent(file.name)}`, { body });
  put([...files, attached]);
  say(attached.size);
}

/** Send these files with the next question, instead of the current ones. */
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

/** A question with files. */
export const withFiles = (words, files) => ({ question: files.map(({ head }) => head).join("") + words, words, files });
