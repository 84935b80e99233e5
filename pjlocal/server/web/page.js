/** The chat on the page: its address names it, so that it is there again when the page is loaded anew. */

import { ask, events, isGone, isLost, isThere, json } from "./api.js";
import * as chats from "./chats.js";
import { compare } from "./compare.js";
import * as files from "./files.js";
import { lasting } from "./lasting.js";
import { manage } from "./manage.js";
import { button, by, element } from "./nodes.js";
import { pin, say, unpin, visible } from "./token.js";
import { Turn } from "./turn.js";
import * as views from "./views.js";

const question = by("question");
const others = new BroadcastChannel("pjlocal"); // this page in other tabs: each tells which chat it has changed
let chat = null; // its number, once it is saved
let title = "";
let turns = [];
let writing = null; // the answer under way, as `write` has it, with its number
let editing = null; // the turn whose question is asked anew
let stale = false; // whether the chat was changed elsewhere while one was under way here
let opening = null; // what loads the chat of the address
let wanted = 0; // only the chat that was asked for last is shown: replies may come in another order

// What is said.

/** Ask a question, or one anew.
 *
 * how: `continues` or `takes`, as in the server's body, to continue an answer; begun: the tokens that it begins with. */
async function send(asked, replaced, how = {}, begun = []) {
  await opening;
  if (writing) return putBack(asked);
  leave();
  const chosen = views.chosen();
  const turn = new Turn(asked, views.asSaved(chosen.settings), by("formatted").checked);
  turn.written.answer.add(begun);
  const after = replaced || chat === null ? null : turns[turns.length - 1]?.id ?? 0;
  const stopping = new AbortController();
  const body = { id: chat, question: asked.question, after, replacing: replaced?.id ?? null, lasts: true, ...how };
  const one = { turn, replaced: replaced?.id, stopping, isOwn: true, how };
  await write(one, async () => {
    const response = await ask("api/answers", { body: { chat: body, ...chosen }, signal: stopping.signal });
    one.number = response.headers.get("X-Pjlocal-Answer");
    return events(response);
  });
}

/** Show an answer that was asked for elsewhere, or before this page was loaded anew. */
async function follow({ response, stopping }) {
  const which = chat;
  const stream = events(response);
  try {
    const { asked } = (await stream.next()).value;
    if (writing || chat !== which) return stopping.abort();
    const turn = new Turn(asked, asked.settings, by("formatted").checked, asked.turn);
    const number = response.headers.get("X-Pjlocal-Answer");
    await write({ turn, replaced: asked.replacing, stopping, number }, () => stream);
  } catch (error) {
    if (error.name !== "AbortError") refused(error);
  }
}

/** Show an answer while it is written.
 *
 * one: its turn, the number of the turn that it replaces, what stops it, whether it was asked for here, and how.
 * begin: returns the events of its stream. */
async function write(one, begin) {
  const { turn, isOwn } = one;
  const before = turns;
  let failed = null;
  writing = one;
  if (isOwn) trouble("");
  show([...turns.filter(({ id }) => id !== one.replaced && (id === null || id !== turn.id)), turn]);
  turn.element.scrollIntoView({ block: "end" });
  try {
    const stream = await begin();
    if (writing !== one) return; // another chat is open by now
    const whole = lasting(stream, one, () => (writing === one ? chat : null));
    await turn.written.read(whole, (head) => writing === one && named(one, head));
  } catch (error) {
    if (error.name !== "AbortError") failed = error;
  }
  if (writing !== one) return;
  writing = null;
  const { answer, finish } = turn.written;
  const continues = Boolean(one.how?.continues || one.how?.takes);
  if (turn.id === null) {
    show(before); // as if it had not been asked
    if (!continues && (isOwn || one.isStopped)) putBack(turn.asked);
    if (["stop", "length"].includes(finish)) trouble("The answer is empty: it is as if nothing had been asked.");
  } else if (one.how?.continues && !failed && !turn.written.hasGrown) {
    show(before); // the server has not kept it
    trouble("The model adds nothing: the answer is as it was.");
  } else {
    show(turns);
    tellDrafts(turn);
    say(answer.isThinking ? turn.written.facts.textContent : `Answer: ${answer.text}`);
    if (document.activeElement === document.body) answer.element.focus({ preventScroll: true }); // its button is gone
  }
  if (failed && isGone(failed)) {
    const where = isLost(failed) && (await isThere()) ? "The connection was lost." : "The server stopped.";
    const left = continues ? "" : "Your question is in its field again.";
    trouble(`${where} ${turn.id === null ? left : "Your answer so far is saved."}`);
  } else if (failed) refused(failed);
  else if (stale) refresh();
  if (isOwn) changed();
  else list();
}

/** The chat and the turn are saved from now on. */
function named({ turn, isOwn }, head) {
  if (head.turn === null) return;
  turn.id = head.turn;
  if (chat === null) {
    chat = head.chat;
    history.replaceState(null, "", `#${chat}`);
    entitle(short([...turn.asked.files.map(({ name }) => `[${name}]`), turn.asked.words].join(" ")));
  }
  if (isOwn) changed();
}

const short = (text) => (text.length > 60 ? `${text.slice(0, 59).trimEnd()}…` : text);

function stop() {
  if (!writing) return;
  const { number, stopping } = writing;
  writing.isStopped = true;
  if (number === undefined) stopping.abort();
  else ask(`api/answers/${number}/stop`, { body: {} }).catch(() => stopping.abort());
}

/** Have a question in its field again, with its files; not over another. */
function putBack({ words, files: sent }) {
  if (question.value.trim()) return;
  question.value = words;
  files.put(sent);
}

function edit() {
  editing = turns[turns.length - 1];
  by("editing").hidden = false;
  question.value = "";
  putBack(editing.asked);
  question.focus();
}

function leave() {
  if (editing) {
    question.value = "";
    files.put([]);
  }
  editing = null;
  by("editing").hidden = true;
}

// What is done with an answer.

/** Continue the last answer from another token in the place of one. */
function takeToken(turn, position, { id, text }) {
  const { events } = turn.written.answer;
  const none = { draft: null, judge: null, writer: null, q: null, accept_probability: null, rejected: null, pushes: {} };
  const given = { ...events[position], ...none, id, text, kind: "given", p: 1 };
  const takes = { position, text, token: id };
  send(turn.asked, turn, { takes }, [...events.slice(0, position), given]);
}

/** A token was chosen: show what may come in its place. */
function tellOthers({ target, detail }) {
  const turn = turns.find(({ element }) => element.contains(target));
  if (!turn || turn.id === null || writing) return;
  const position = turn.written.answer.events.indexOf(detail.event);
  const find = async () => (await json(`api/chats/${chat}/turns/${turn.id}/tokens/${position}`)).alternatives;
  const isLast = turn === turns[turns.length - 1];
  const take = isLast ? (other) => takeToken(turn, position, other) : null;
  pin(detail, find, take, "Other words in this place, which a new chat from here can take:");
}

/** Put another draft of the last turn in force. */
async function switchTo(draft) {
  const which = chat;
  const last = turns[turns.length - 1];
  replaceLast(which, await json(`api/chats/${which}/draft`, { body: { turn: last.id, draft } }));
}

async function saveAnswer(turn, answer) {
  const which = chat;
  replaceLast(which, await json(`api/chats/${which}/edit`, { body: { turn: turn.id, answer } }));
  turns[turns.length - 1]?.written.answer.element.focus({ preventScroll: true });
}

function replaceLast(which, saved) {
  if (chat === which && !writing) show([...turns.slice(0, -1), asTurn(saved)]);
  changed(which);
}

async function fork(turn) {
  const { id } = await json(`api/chats/${chat}/fork`, { body: { turn: turn.id } });
  others.postMessage(id);
  location.hash = id;
  say("A new chat from here");
}

/** Show how many answers the question of the turn has now. */
async function tellDrafts(turn) {
  try {
    const saved = await json(`api/chats/${chat}/turns/${turn.id}`);
    if (!saved.drafts.length) return;
    turn.drafts = idsOf(saved);
    if (!writing) offer();
  } catch {
    // The next thing that is done with the chat says so.
  }
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
  offer();
}

/** The buttons of each turn. */
function offer() {
  const last = turns[turns.length - 1];
  for (const turn of turns) turn.actions.replaceChildren(...(writing ? [] : actionsOf(turn, turn === last)));
}

const act = (text, does) => button(text, () => Promise.resolve(does()).catch(refused));

function actionsOf(turn, isLast) {
  const from = act("New chat from here", () => fork(turn));
  if (!isLast) return [...amongDrafts(turn, false), from];
  const { events, text } = turn.written.answer;
  return [
    ...amongDrafts(turn, true),
    ...(text ? [act("Continue", () => send(turn.asked, turn, { continues: true }, events))] : []),
    act("Regenerate", () => send(turn.asked, turn)),
    act("Edit question", edit),
    ...(text ? [act("Edit answer", () => turn.edit((changed) => saveAnswer(turn, changed)))] : []),
    act("Compare modes", () => compare(chat, turn, switchTo)),
    from,
  ];
}

/** Which of several answers to its question a turn shows; in the last turn with arrows to the others. */
function amongDrafts({ id, drafts }, isLast) {
  if (drafts.length < 2) return [];
  const at = drafts.indexOf(id);
  const count = element("span", "count", `${at + 1} of ${drafts.length}`);
  if (!isLast) return [element("span", "drafts", "Answer ", count)];
  const arrow = (sign, name, to) => {
    const made = act(sign, async () => {
      await switchTo(drafts[to]);
      const arrows = turns[turns.length - 1].actions.querySelectorAll(".drafts button:enabled");
      ([...arrows].find(({ textContent }) => textContent === sign) ?? arrows[0])?.focus();
      say(`Answer ${to + 1} of ${drafts.length}`);
    });
    made.setAttribute("aria-label", name);
    made.disabled = !(to in drafts);
    return made;
  };
  const shown = element("span", "drafts", arrow("‹", "The answer before", at - 1), count, arrow("›", "The next answer", at + 1));
  shown.setAttribute("role", "group");
  shown.setAttribute("aria-label", "Answers to this question");
  return [shown];
}

function entitle(text) {
  title = text;
  by("title").textContent = chat === null ? "New chat" : visible(title || "Untitled");
}

const trouble = (text) => (by("trouble").textContent = text);
const list = () => chats.list(chat).catch((error) => {
  if (!writing) by("trouble").textContent ||= error.message; // an answer under way reports a lost server itself
});

/** Keep the end of an answer that is written in sight, where it is. */
function scrollAlong() {
  const room = document.scrollingElement;
  let near = true;
  addEventListener("scroll", () => (near = room.scrollHeight - room.scrollTop - innerHeight < 80), { passive: true });
  new ResizeObserver(() => writing && near && room.scrollTo(0, room.scrollHeight)).observe(by("turns"));
}

// Which chat.

const open = () => (opening = opened());

/** The chat that the address names, and the turn in it that a search has found. */
function address() {
  const [, which, turn] = /^#(\d+)(?:-(\d+))?$/.exec(location.hash) ?? [];
  return { chat: which === undefined ? null : Number(which), turn: Number(turn) };
}

/** Go to the turn that was found, or else to the end.  The address then names the chat alone, so that the same hit can be
 * opened again. */
function showHit() {
  const found = turns.find(({ id }) => id === address().turn);
  for (const turn of turns) turn.element.classList.toggle("hit", turn === found);
  if (found) chats.mark(found.element);
  else toEnd();
  history.replaceState(null, "", `#${chat}`);
}

async function opened() {
  const which = address().chat;
  if (which === chat && which !== null) return showHit();
  writing?.stopping.abort();
  writing = null;
  leave();
  unpin();
  trouble("");
  forget();
  if (which !== null) {
    try {
      const found = await latest(which);
      if (found) load(found);
    } catch (error) {
      trouble(error.message);
    }
  }
  list();
}

/** A chat as it is saved, and the stream of the answer that is being written in it, where one is; nothing where a chat
 * was asked for later.  The stream is asked for first: where there is none, the chat is whole. */
async function latest(which) {
  const number = ++wanted;
  const stopping = new AbortController();
  try {
    const response = await ask(`api/chats/${which}/answer`, { signal: stopping.signal });
    const saved = await json(`api/chats/${which}`);
    if (number === wanted) return { saved, running: response.status === 200 && { response, stopping } };
  } catch (error) {
    if (number === wanted) throw error;
  }
  stopping.abort();
  return null;
}

/** From now on another chat is begun. */
function forget() {
  for (const dialog of document.querySelectorAll("dialog[open]:not(#asking)")) dialog.close();
  chats.unmark();
  chat = null;
  stale = false;
  wanted++; // what was asked of the other is no longer wanted
  entitle("");
  show([]);
  if (!document.activeElement?.checkVisibility()) question.focus(); // it was at a button of the chat
}

function load(found) {
  chat = found.saved.id;
  views.show(found.saved.settings);
  take(found);
  showHit();
}

const toEnd = () => document.scrollingElement.scrollTo(0, document.scrollingElement.scrollHeight);

/** Show the chat as it is saved; turns that are there already stay, with what points at them. */
function take({ saved, running }) {
  entitle(saved.title);
  const all = saved.turns.map((one) => turns.find((turn) => isWhole(turn, one)) ?? asTurn(one));
  const before = String(turns.map(({ drafts }) => drafts));
  all.forEach((turn, n) => (turn.drafts = idsOf(saved.turns[n])));
  if (all.length !== turns.length || all.some((turn, n) => turn !== turns[n])) show(all);
  else if (!writing && before !== String(turns.map(({ drafts }) => drafts))) offer();
  if (running) follow(running);
}

const idsOf = ({ drafts }) => drafts.map(({ id }) => id);
const isWhole = (turn, saved) => turn.id === saved.id && turn.written.finish === saved.finish_reason && saved.finish_reason;

function asTurn(saved) {
  const turn = new Turn(saved, saved.settings, by("formatted").checked, saved.id);
  turn.drafts = idsOf(saved);
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
    const found = await latest(chat);
    if (found && writing) {
      stale = true;
      if (found.running) found.running.stopping.abort();
    } else if (found) take(found);
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
  if (!goneOn || chat === null || writing?.isOwn) return;
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
  const { title } = await json(`api/chats/${which}`, { method: "PATCH", body: { title: text } });
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

/** A key that confirms or leaves an input method's choice does nothing else, in no field. */
function ofInputMethod(event) {
  if (!event.isComposing && event.keyCode !== 229) return;
  event.stopImmediatePropagation();
  if (event.key === "Enter") event.preventDefault();
}

async function begin() {
  if (matchMedia("(max-width: 60rem)").matches) for (const part of document.querySelectorAll("aside details")) part.open = false;
  by("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const [text, replaced] = [question.value, editing];
    if (writing || !text.trim()) return;
    editing = null;
    question.value = "";
    send(files.asked(text), replaced);
  });
  addEventListener("keydown", ofInputMethod, true);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
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
  addEventListener("scroll", unpin, { passive: true });
  by("turns").addEventListener("token", tellOthers);
  addEventListener("hashchange", open);
  by("new").addEventListener("click", () => question.focus());
  chats.onSearch(list);
  manage({ title: () => title, shown: () => by("title").textContent, rename: unlessGone(rename), remove: unlessGone(remove) });
  others.addEventListener("message", ({ data }) => {
    list();
    if (data === null) return;
    if (data === chat) refresh();
    else if (address().chat === data) open(); // it is being loaded, maybe as it was before
  });
  scrollAlong();
  const about = await json("api/about");
  by("model").textContent = visible(about.model);
  views.fill(about);
  files.begin(about.most_file, trouble);
  by("comparison").addEventListener("close", () => turns.length && tellDrafts(turns[turns.length - 1]));
  await open();
  const isFree = document.activeElement === document.body && !document.querySelector("dialog[open]");
  if (isFree && !matchMedia("(pointer: coarse)").matches) question.focus({ preventScroll: true });
}

begin().catch((error) => trouble(error.message));
