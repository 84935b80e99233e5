/** The form of the next question. */

import * as files from "./files.js";
import { by } from "./nodes.js";

const question = by("question");

/** The contents of the form. */
export const unsent = () => ({ words: question.value, files: files.listed() });

function fill({ words, files: all }) {
  question.value = words;
  files.put(all);
}

/** Put a question and its files before what the form contains.
 *
 * Returns a function that takes them out again, if the form is unchanged. */
export function putBack(asked) {
  const before = unsent();
  const words = [asked.words, before.words.trim()].filter(Boolean).join("\n\n");
  fill({ words, files: [...asked.files, ...before.files] });
  const after = unsent();
  return () => {
    const now = unsent();
    if (now.words === after.words && now.files === after.files) fill(before);
  };
}

/** Take the question out of the form. */
export function take() {
  const { words, files: all } = unsent();
  fill({ words: "", files: [] });
  return files.withFiles(words, all);
}
