/** The form of the next question.  The question of the last turn can be edited in it; what it contained before comes back
 * afterwards. */

import * as files from "./files.js";
import { by } from "./nodes.js";

const question = by("question");
const NOTHING = { words: "", files: [] };
let editing = null; // the turn whose question is being edited: the last one
let savedForm = NOTHING; // what the form contained before

const contents = () => ({ words: question.value, files: files.listed() });

function fill({ words, files: all }) {
  question.value = words;
  files.put(all);
}

/** Note the turn whose question is being edited; null if there is none. */
function mark(turn) {
  editing = turn;
  by("editing").hidden = !turn;
}

function restore() {
  fill(savedForm);
  savedForm = NOTHING;
}

/** Put a question and its files before what the form contains, or will contain after an edit.
 *
 * Returns a function that takes them out again, if what they were put into is unchanged. */
export function putBack(asked) {
  const current = () => (editing ? savedForm : contents());
  const put = (all) => (editing ? (savedForm = all) : fill(all));
  const before = current();
  const words = [asked.words, before.words.trim()].filter(Boolean).join("\n\n");
  put({ words, files: [...asked.files, ...before.files] });
  const after = current();
  return () => {
    const now = current();
    if (now.words === after.words && now.files === after.files) put(before);
  };
}

/** The contents of the form: the question, and if that of the last turn is being edited, the contents before the edit. */
export const unsent = () => ({ now: contents(), before: editing && savedForm });

/** Put back the contents from before a reload of the page; last: the last turn, if it is still the same. */
export function putUnsent({ now, before }, last) {
  if (before) putBack(before);
  if (before && last) putInPlace(now, last);
  else putBack(now);
}

/** Put a question into the form that will be asked in the place of the last turn. */
export function putInPlace(asked, last) {
  if (!editing) savedForm = contents();
  fill(asked);
  mark(last);
}

/** Edit the question of the last turn. */
export function edit(last) {
  if (!editing) putInPlace(last.asked, last);
  question.focus();
}

/** End editing, and put back what the form contained before. */
export function leave() {
  if (editing) restore();
  mark(null);
}

/** Note that the last turn was replaced by another of the same question. */
export function follow(last) {
  if (editing) editing = last;
}

/** End editing if its turn is not the last one any more.  A question that was changed is a new one then. */
export function check(last) {
  if (!editing || editing === last) return;
  const { asked } = editing;
  const edited = files.asked(question.value.trim());
  leave();
  if (edited.question !== asked.question.trim()) putBack(edited);
}

/** Take the question out of the form: the question, and the turn that it replaces, if any. */
export function take() {
  const taken = { asked: files.asked(question.value), replaced: editing };
  restore();
  mark(null);
  return taken;
}
