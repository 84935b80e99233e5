/** The list of saved chats, their search and their export. */

import { ask, json } from "./api.js";
import { by, element } from "./nodes.js";
import { visible } from "./token.js";

let due = 0;
let listed = 0; // only the latest request for a list is shown

export async function list(current) {
  const words = by("words").value.trim();
  const number = ++listed;
  const { chats, hits } = await json(`api/chats?q=${encodeURIComponent(words)}`);
  if (number !== listed) return;
  const items = hits
    ? hits.map((hit) => item(`${hit.session_id}-${hit.turn_id}`, hit.title, hit.snippet, hit.session_id === current))
    : chats.map((chat) => item(chat.id, chat.title, `${day(chat.updated)} · ${turns(chat.n_turns)}`, chat.id === current));
  const focused = document.activeElement?.closest("#list a")?.hash;
  by("list").replaceChildren(...(items.length ? items : [element("li", "hint", words ? "nothing is found" : "none yet")]));
  if (focused) by("list").querySelector(`a[href="${focused}"]`)?.focus();
}

const turns = (n) => `${n} turn${n === 1 ? "" : "s"}`;
const day = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function item(address, title, more, isOpen) {
  const link = element("a", "", element("bdi", "", visible(title || "untitled")), element("small", "", visible(more)));
  link.href = `#${address}`;
  if (isOpen) link.setAttribute("aria-current", "page");
  return element("li", "", link);
}

/** A text in lower case without diacritics, as the search compares it, and the place in the text of each of its units. */
function folded(text) {
  let [plain, places, from] = ["", [], 0];
  for (const char of text) {
    const parts = char.normalize("NFD");
    const one = (/\p{M}/u.test(parts) ? parts.replace(/\p{M}/gu, "") : char).toLowerCase();
    for (let n = 0; n < one.length; n++) places.push({ from, to: from + char.length });
    plain += one;
    from += char.length;
  }
  return { plain, places };
}

const LETTER = "[\\p{L}\\p{N}\\p{Co}]"; // as FTS5 splits texts into words
// Characters that are words of their own:
const SCRIPTS = ["Han", "Hira", "Kana", "Bopo", "Yiii", "Thai", "Laoo", "Mymr", "Khmr"];
const UNSPACED = `[${SCRIPTS.map((name) => `\\p{scx=${name}}`).join("")}]`;
const START = `(?:(?=${UNSPACED})|(?<!(?!${UNSPACED})${LETTER}))`; // of a word
const INLINE = "a, bdi, code, em, s, span, strong, sub, sup"; // elements that do not end a word

/** The matches of a word of the search in a text, both folded.  If the text does not contain the word literally, its parts
 * match with any punctuation between them, as in the search. */
function matches(word, text) {
  const parts = word.match(new RegExp(`${LETTER}+`, "gu"));
  if (!parts) return [];
  const find = (pattern) => [...text.matchAll(new RegExp(START + pattern, "gu"))];
  const literal = find(word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  return literal.length ? literal : find(parts.join(`(?:(?!${LETTER}).)+`));
}

/** Mark the words of the search in a part of the page, and scroll to the first one. */
export function mark(part) {
  const walker = document.createTreeWalker(part, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  const nodes = [];
  let text = "";
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.nodeType === Node.TEXT_NODE) {
      nodes.push({ node, from: text.length });
      text += node.data;
    } else if (!node.matches(INLINE)) text += "\n";
  }
  const { plain, places } = folded(text);
  const place = (at) => {
    const { node, from } = nodes.findLast(({ from }) => from <= at);
    return [node, Math.min(at - from, node.length)];
  };
  const ranges = [];
  for (const word of by("words").value.split(/\s+/)) {
    for (const { index, 0: found } of matches(folded(word).plain, plain)) {
      const range = new Range();
      range.setStart(...place(places[index].from));
      const [node, last] = place(places[index + found.length - 1].to - 1);
      range.setEnd(node, Math.min(last + 1, node.length));
      ranges.push(range);
    }
  }
  CSS.highlights?.set("hit", new Highlight(...ranges));
  (ranges[0]?.startContainer.parentElement ?? part).scrollIntoView({ block: "center" });
}

export const unmark = () => CSS.highlights?.delete("hit");

export function onSearch(search) {
  by("words").addEventListener("input", () => {
    clearTimeout(due);
    due = setTimeout(search, 200);
  });
}

export async function save(id, form) {
  const file = await (await ask(`api/chats/${id}/export.${form}`)).blob();
  const link = element("a");
  link.href = URL.createObjectURL(file);
  link.download = `chat-${id}.${form}`;
  link.click();
  URL.revokeObjectURL(link.href);
}
