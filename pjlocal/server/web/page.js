/** The chat on the page: its address names it, so that it is there again when the page is loaded anew. */

import { ask, json } from "./api.js";
import * as chats from "./chats.js";
import { compare } from "./compare.js";
import { manage } from "./manage.js";
import { element } from "./markdown.js";
import { hide, say, visible } from "./token.js";
import { Turn } from "./turn.js";
import * as views from "./views.js";

const by = (id) => document.getElementById(id);
const question = by("question");
const others = new BroadcastChannel("pjlocal"); // this page in other tabs: each tells which chat it has changed
let chat = null; // its number, once it is saved
let title = "";
let turns = [];
let writing = null; // the turn under way, with the number of its answer and what stops it
let editing = null; // the turn whose question is asked anew
let stale = false; // whether the chat was changed elsewhere while one was under way here
let opening = null; // what loads the chat of the address
let wanted = 0; // only the chat that was asked for last is shown: replies may come in another order

// What is said.

async function send(text, replaced) {
  await opening;
  if (writing) question.value ||= text;
  if (writing || !text.trim()) return;
  leave();
  const settings = views.chosen();
  const turn = new Turn(text, views.asSaved(settings), by("formatted").checked);
  const before = turns;
  const after = replaced || chat === null ? null : turns[turns.length - 1]?.id ?? 0;
  let failed = null;
  const stopping = new AbortController();
  writing = { turn, stopping };
  trouble("");
  show([...turns.filter((one) => one !== replaced), turn]);
  turn.element.scrollIntoView({ block: "end" });
  try {
    const body = { chat: { id: chat, question: text, after, replacing: replaced?.id ?? null }, settings };
    const response = await ask("api/answers", { body, signal: stopping.signal });
    if (writing?.turn !== turn) return; // another chat is open by now
    writing.number = response.headers.get("X-Pjlocal-Answer");
    await turn.written.read(response, (head) => writing?.turn === turn && named(turn, head));
  } catch (error) {
    if (error.name !== "AbortError") failed = error;
  }
  if (writing?.turn !== turn) return;
  writing = null;
  const { answer } = turn.written;
  if (turn.id === null) {
    show(before); // as if it had not been asked
    question.value ||= text;
    if (!failed && turn.written.finish) trouble("The answer is empty: it is as if nothing had been asked.");
  } else {
    show(turns);
    say(answer.isThinking ? turn.written.facts.textContent : `Answer: ${answer.text}`);
    if (document.activeElement === document.body) answer.element.focus({ preventScroll: true }); // its button is gone
  }
  if (failed) refused(failed);
  else if (stale) refresh();
  changed();
}

/** The chat and the turn are saved from now on. */
function named(turn, head) {
  if (head.turn === null) return;
  turn.id = head.turn;
  if (chat === null) {
    chat = head.chat;
    history.replaceState(null, "", `#${chat}`);
    entitle(short(turn.question));
  }
  changed();
}

const short = (text) => (text.length > 60 ? `${text.slice(0, 59).trimEnd()}…` : text);

function stop() {
  if (!writing) return;
  const { turn, number, stopping } = writing;
  if (turn.id === null) stopping.abort();
  else ask(`api/answers/${number}/stop`, { body: {} }).catch(() => stopping.abort());
}

function edit() {
  editing = turns[turns.length - 1];
  by("editing").hidden = false;
  question.value = editing.question;
  question.focus();
}

function leave() {
  if (editing) question.value = "";
  editing = null;
  by("editing").hidden = true;
}

// What is shown.

function show(all) {
  turns = all;
  by("turns").replaceChildren(...turns.map(({ element }) => element));
  by("begin").hidden = turns.length > 0;
  by("own").hidden = chat === null;
  by("rename").disabled = by("delete").disabled = Boolean(writing);
  by("stop").hidden = !writing;
  by("send").disabled = Boolean(writing);
  for (const { actions } of turns) actions.replaceChildren();
  const last = turns[turns.length - 1];
  if (!last || writing) return;
  last.actions.replaceChildren(
    button("Regenerate", () => send(last.question, last)),
    button("Edit", edit),
    button("Compare modes", () => compare(chat, last)),
  );
}

function button(text, act) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function entitle(text) {
  title = text;
  by("title").textContent = chat === null ? "New chat" : visible(title || "Untitled");
}

const trouble = (text) => (by("trouble").textContent = text);
const list = () => chats.list(chat).catch((error) => trouble(error.message));

/** Follow an answer that is written while its end is in sight. */
function follow() {
  const room = document.scrollingElement;
  let near = true;
  addEventListener("scroll", () => (near = room.scrollHeight - room.scrollTop - innerHeight < 80), { passive: true });
  new ResizeObserver(() => writing && near && room.scrollTo(0, room.scrollHeight)).observe(by("turns"));
}

// Which chat.

const open = () => (opening = opened());

async function opened() {
  const which = /^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : null;
  if (which === chat && which !== null) return;
  writing?.stopping.abort();
  writing = null;
  leave();
  hide();
  trouble("");
  forget();
  if (which !== null) {
    try {
      const saved = await latest(which);
      if (saved) load(saved);
    } catch (error) {
      trouble(error.message);
    }
  }
  list();
}

/** A chat as it is saved; nothing where one was asked for later. */
async function latest(which) {
  const number = ++wanted;
  try {
    const saved = await json(`api/chats/${which}`);
    if (number === wanted) return saved;
  } catch (error) {
    if (number === wanted) throw error;
  }
  return null;
}

/** From now on another chat is begun. */
function forget() {
  for (const dialog of document.querySelectorAll("dialog[open]:not(#asking)")) dialog.close();
  chat = null;
  stale = false;
  wanted++; // what was asked of the other is no longer wanted
  entitle("");
  show([]);
  if (!document.activeElement?.checkVisibility()) question.focus(); // it was at a button of the chat
}

function load(saved) {
  chat = saved.id;
  views.show(saved.settings);
  take(saved);
  toEnd();
}

const toEnd = () => document.scrollingElement.scrollTo(0, document.scrollingElement.scrollHeight);

/** Show the chat as it is saved; turns that are there already stay, with what points at them. */
function take(saved) {
  entitle(saved.title);
  const all = saved.turns.map((one) => turns.find((turn) => isWhole(turn, one)) ?? asTurn(one));
  if (all.length !== turns.length || all.some((turn, n) => turn !== turns[n])) show(all);
}

const isWhole = (turn, saved) => turn.id === saved.id && turn.written.finish === saved.finish_reason && saved.finish_reason;

function asTurn(saved) {
  const turn = new Turn(saved.question, saved.settings, by("formatted").checked, saved.id);
  turn.written.answer.add(saved.events);
  turn.written.end(saved.finish_reason);
  return turn;
}

// What else changes it: the user, in this tab or in another.

/** The list, here and in other tabs, and there the chat too, are no longer what they were. */
function changed(which = chat) {
  list();
  others.postMessage(which);
}

/** Show the chat as it is now, once nothing is under way here. */
async function refresh() {
  stale = Boolean(writing);
  if (stale) return;
  try {
    const saved = await latest(chat);
    if (saved && writing) stale = true;
    else if (saved) take(saved);
  } catch (error) {
    refused(error);
  }
}

/** What was wanted of the chat is not to be had; where that is because it has changed elsewhere, show what has become. */
async function refused(error) {
  if (error.code === "chat_not_found") {
    leaveBehind();
    list();
    trouble("This chat was deleted elsewhere: what you ask now begins another.");
    return;
  }
  const goneOn = error.code === "chat_gone_on";
  if (!goneOn) trouble(error.message);
  if (goneOn || stale) await refresh();
  if (!goneOn || chat === null || writing) return;
  trouble("This chat has gone on elsewhere: its new turn is above, or comes with its first word. Ask again if you still want to.");
  toEnd();
}

/** The chat is no more. */
function leaveBehind() {
  forget();
  history.replaceState(null, "", location.pathname);
}

/** What is done to the chat, or, where that is gone, shows so. */
const unlessGone = (act) => (...given) =>
  act(...given).catch((error) => {
    if (error.code !== "chat_not_found") throw error;
    refused(error);
    return "";
  });

async function rename(text) {
  const which = chat;
  const response = await ask(`api/chats/${which}`, { method: "PATCH", body: { title: text } });
  const { title } = await response.json();
  if (chat === which) entitle(title);
  changed(which);
  return "Renamed";
}

async function remove() {
  const which = chat;
  await ask(`api/chats/${which}`, { method: "DELETE" });
  if (chat === which) leaveBehind();
  changed(which);
  return "Deleted";
}

async function begin() {
  if (matchMedia("(max-width: 60rem)").matches) for (const part of document.querySelectorAll("aside details")) part.open = false;
  by("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const [text, replaced] = [question.value, editing];
    if (writing || !text.trim()) return;
    editing = null;
    question.value = "";
    send(text, replaced);
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    by("ask").requestSubmit();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (writing) stop();
    else leave();
  });
  by("stop").addEventListener("click", stop);
  by("leave").addEventListener("click", leave);
  by("skip").addEventListener("click", (event) => {
    event.preventDefault();
    question.focus();
  });
  by("formatted").addEventListener("change", () => {
    for (const { written } of turns) written.answer.formatted = by("formatted").checked;
  });
  for (const one of by("export").querySelectorAll("button")) {
    one.addEventListener("click", () => chats.save(chat, one.dataset.form).catch((error) => trouble(error.message)));
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("hashchange", open);
  by("new").addEventListener("click", () => question.focus());
  chats.onSearch(list);
  manage({ title: () => title, shown: () => by("title").textContent, rename: unlessGone(rename), remove: unlessGone(remove) });
  others.addEventListener("message", ({ data }) => {
    list();
    if (data === null) return;
    if (data === chat) refresh();
    else if (location.hash === `#${data}`) open(); // it is being loaded, maybe as it was before
  });
  follow();
  const about = await json("api/about");
  by("model").textContent = visible(about.model);
  views.fill(about);
  await open();
}

begin().catch((error) => trouble(error.message));
