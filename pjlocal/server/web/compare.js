/** The answers to a question in several modes, side by side.  They are saved as drafts of the turn. */

import { ask, events, json } from "./api.js";
import { button, by, element } from "./nodes.js";
import { showIn, visible } from "./token.js";
import { Written } from "./turn.js";
import { asSaved, chosen, modes } from "./views.js";

const FIRST = ["judge", "both", "prompt", "plain"];
let asked = null; // the chat, the turn and the question to answer
let first = 0; // the exchanges that the model no longer sees
let onTake = () => {}; // called with the draft that the user takes
let stopping = new AbortController();

for (const mode of modes) {
  const box = Object.assign(element("input"), { type: "checkbox", name: mode, checked: FIRST.includes(mode) });
  by("modes").querySelector("fieldset").append(element("label", "", box, ` ${mode}`));
}
by("close").addEventListener("click", () => by("comparison").close());
by("comparison").addEventListener("close", () => {
  if (by("comparison").open) return; // opened again before the event of closing came
  stopping.abort();
  showIn(document.querySelector("main"));
});
by("modes").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});

/** leftOut: the number of exchanges that the model no longer sees.
 * take: called with the number of the draft that is put in force. */
export function compare(chat, turn, leftOut, take) {
  stopping.abort();
  first = leftOut;
  onTake = take;
  asked = { id: chat, replacing: turn.id, question: turn.asked.question };
  by("compared").textContent = visible(turn.asked.words);
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
  if (mode === "plain") settings.draft_prefer = settings.judge_prefer = [];
  if (["plain", "rewrite"].includes(mode)) delete settings.strength; // it would be reported as without effect
  const written = new Written({ ...asSaved(settings), mode: undefined }, true, false);
  const heading = element("h3", "", mode);
  const trouble = element("p", "trouble");
  let draft = null;
  const act = () => take(mode, draft, written.answer).catch((error) => (trouble.textContent = error.message));
  const place = element("section", "", heading, trouble, ...written.parts);
  place.setAttribute("aria-label", `Mode ${mode}`);
  ask("api/answers", { body: { chat: { ...asked, keep: false }, first, settings, unset }, signal })
    .then((response) => written.read(events(response), (head) => (draft = head.turn)))
    .then(() => place.append(element("div", "actions", button("Take this answer", act))))
    .catch((error) => {
      written.fail(error);
      if (error.name !== "AbortError") trouble.textContent = error.message;
    });
  return place;
}

/** Put an answer in force.  If it was not saved because an earlier draft of its mode is equal, use that draft. */
async function take(mode, id, { events }) {
  const { drafts, ...last } = await json(`api/chats/${asked.id}/turns/${asked.replacing}`);
  const all = drafts.map((draft) => (draft.id === last.id ? last : draft));
  const text = (events) => events.map((event) => event.text).join("");
  const isSame = (draft) => draft.settings.mode === mode && text(draft.events) === text(events);
  const found = all.find((draft) => draft.id === id) ?? all.find(isSame) ?? last;
  if (found.id !== last.id) await onTake(found.id);
  by("comparison").close();
}
