/** A question's answers in several modes, side by side.  They are saved as drafts of the answer. */

import { ask, events } from "./api.js";
import { element } from "./nodes.js";
import { showIn, visible } from "./token.js";
import { Written } from "./turn.js";
import { asSaved, chosen, modes } from "./views.js";

const by = (id) => document.getElementById(id);
const FIRST = ["judge", "both", "prompt", "plain"];
let asked = null; // the chat, the turn and its question
let stopping = new AbortController();

for (const mode of modes) {
  const box = Object.assign(element("input"), { type: "checkbox", name: mode, checked: FIRST.includes(mode) });
  by("modes").querySelector("fieldset").append(element("label", "", box, ` ${mode}`));
}
by("close").addEventListener("click", () => by("comparison").close());
by("comparison").addEventListener("close", () => {
  stopping.abort();
  showIn(document.querySelector("main"));
});
by("modes").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});

export function compare(chat, turn) {
  asked = { id: chat, replacing: turn.id, question: turn.question };
  by("compared").textContent = visible(turn.question);
  by("columns").replaceChildren();
  by("comparison").showModal();
  showIn(by("comparison"));
}

function run() {
  stopping.abort();
  stopping = new AbortController();
  const boxes = [...by("modes").querySelectorAll(":checked")];
  by("columns").replaceChildren(...boxes.map(({ name }) => column(name, stopping.signal)));
}

function column(mode, signal) {
  const { settings, unset } = chosen();
  settings.mode = mode;
  settings.best = 1; // one answer of each mode
  const written = new Written({ ...asSaved(settings), mode: undefined }, true);
  const heading = element("h3", "", mode);
  const trouble = element("p", "trouble");
  const place = element("section", "", heading, trouble, ...written.parts);
  place.setAttribute("aria-label", `Mode ${mode}`);
  ask("api/answers", { body: { chat: { ...asked, keep: false }, settings, unset }, signal })
    .then((response) => written.read(events(response)))
    .catch((error) => {
      if (written.finish === undefined) written.end("failed"); // it was refused
      if (error.name !== "AbortError") trouble.textContent = error.message;
    });
  return place;
}
