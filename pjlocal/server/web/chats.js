/** The saved chats: listed, searched, exported. */

import { ask, json } from "./api.js";
import { element } from "./markdown.js";
import { visible } from "./token.js";

const by = (id) => document.getElementById(id);
let due = 0;
let listed = 0; // only the last list that was asked for is shown

export async function list(current) {
  const words = by("words").value.trim();
  const number = ++listed;
  const { chats, hits } = await json(`api/chats?q=${encodeURIComponent(words)}`);
  if (number !== listed) return;
  const items = hits
    ? hits.map((hit) => item(hit.session_id, hit.title, hit.snippet, current))
    : chats.map((chat) => item(chat.id, chat.title, `${day(chat.updated)} · ${turns(chat.n_turns)}`, current));
  const focused = document.activeElement?.closest("#list a")?.hash;
  by("list").replaceChildren(...(items.length ? items : [element("li", "hint", words ? "nothing is found" : "none yet")]));
  if (focused) by("list").querySelector(`a[href="${focused}"]`)?.focus();
}

const turns = (n) => `${n} turn${n === 1 ? "" : "s"}`;
const day = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function item(id, title, more, current) {
  const link = element("a", "", element("bdi", "", visible(title || "untitled")), element("small", "", visible(more)));
  link.href = `#${id}`;
  if (id === current) link.setAttribute("aria-current", "page");
  return element("li", "", link);
}

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
