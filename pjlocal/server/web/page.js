/** The chat on the page.  The page's address names the chat, so that a reload opens it again. */

import { ask, events, isGone, isLost, isThere, json } from "./api.js";
import * as chats from "./chats.js";
import { compare } from "./compare.js";
import * as files from "./files.js";
import * as form from "./form.js";
import { manage } from "./manage.js";
import { button, by, element } from "./nodes.js";
import { pin, say, stayBeside, unpin, visible } from "./token.js";
import { Turn } from "./turn.js";
import * as views from "./views.js";

const question = by("question");
const TRIES = 12; // tries to reconnect, two a second
const UNSENT = "pjlocal-unsent"; // the key in the storage of this tab
const others = new BroadcastChannel("pjlocal"); // other tabs of this page; each sends the number of a chat that it has changed
let chat = null; // its number, once it is saved
let title = "";
let turns = [];
let writing = null; // the answer being written: the argument of `write`, with the answer's number
let detached = []; // turns that are not in the open chat any more, and are being edited here
let stale = false; // whether the chat was changed elsewhere while an answer was being written here
let opening = null; // the promise that loads the chat in the address
let requestNumber = 0; // counts requests for a chat: only the reply to the latest one is shown

// Questions and answers.

/** Ask a question, or ask one again in the place of a turn.
 *
 * how: `continues` or `takes` of the request's body, to continue an answer; begun: the tokens that the answer begins with. */
async function send(asked, replaced, how = {}, begun = []) {
  const wanted = address().chat;
  await opening;
  if (writing || address().chat !== wanted) return form.putBack(asked); // or the chat could not be opened
  const chosen = views.chosen();
  const turn = new Turn(asked, views.asSaved(chosen.settings), by("formatted").checked);
  turn.written.answer.add(begun);
  const after = replaced || chat === null ? null : turns.at(-1)?.id ?? 0;
  const first = leftOut(replaced);
  const stopping = new AbortController();
  const body = { id: chat, question: asked.question, after, replacing: replaced?.id ?? null, lasts: true, ...how };
  const isAgain = replaced?.asked.question === asked.question;
  const one = { turn, replaced: replaced?.id, stopping, isOwn: true, how, isAgain, fields: views.contents() };
  await write(one, async () => {
    const response = await ask("api/answers", { body: { chat: body, first, ...chosen }, signal: stopping.signal });
    one.number = response.headers.get("X-Pjlocal-Answer");
    return events(response);
  });
}

/** Show an answer that another tab or the page before a reload has requested. */
async function follow({ response, stopping }) {
  const which = chat;
  const stream = events(response);
  try {
    const { asked } = (await stream.next()).value;
    if (writing || chat !== which) return stopping.abort();
    const turn = new Turn(asked, asked.settings, by("formatted").checked, asked.turn);
    const number = response.headers.get("X-Pjlocal-Answer");
    const isAgain = turns.find(({ id }) => id === asked.replacing)?.asked.question === asked.question;
    await write({ turn, replaced: asked.replacing, stopping, number, isAgain }, () => stream);
  } catch (error) {
    if (error.name !== "AbortError") refused(error);
  }
}

/** Show an answer while it is written.
 *
 * one: the turn, the number of the turn that it replaces, the controller that stops it, whether this tab requested it
 *     (`isOwn`), `how`, as for `send`, whether the replaced turn has the same question (`isAgain`), and the `fields`.
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
    await read(one, await begin());
  } catch (error) {
    turn.written.fail(error);
    if (error.name !== "AbortError") failed = error;
  }
  if (writing !== one) return list(); // another chat has been opened
  writing = null;
  const { answer, finish } = turn.written;
  if (turn.id === null) {
    show(before); // remove the turn
    if (!one.isAgain && (isOwn || one.isStopped || (failed && isGone(failed)))) putBack(one, failed);
    if (["stop", "length"].includes(finish)) trouble("The model wrote nothing, so the question was not saved.");
  } else if (one.how?.continues && !failed && !turn.written.hasGrown) {
    show(before); // nothing was added, so the server kept the previous answer
    trouble("The model added nothing: the answer is unchanged.");
  } else {
    show(turns);
    tellDrafts(turn);
    say(answer.isThinking ? turn.written.facts.textContent : `Answer: ${answer.text}`);
  }
  refocus(turn, isOwn);
  if (failed && isGone(failed)) {
    const where = isLost(failed) && (await isThere()) ? "The connection was lost." : "The server stopped.";
    const left = one.isAgain ? "" : "Your question is in its field again.";
    trouble(`${where} ${turn.id === null ? left : "Your answer so far is saved."}`);
  } else if (failed) refused(failed);
  else if (stale) refresh();
  if (isOwn) changed();
  else list();
}

/** Read an answer.  If the connection is lost, reconnect and read the rest. */
async function read(one, stream) {
  if (one.isStopped) stop(one); // it could not be stopped before
  try {
    await one.turn.written.read(stream, (head) => named(one, head));
  } catch (error) {
    if (!isLost(error) || writing !== one || chat === null) throw error;
    await read(one, await again(one, error));
  }
}

/** Return the events of the answer from its beginning, as it is written or saved.  Throws `lost` if that fails. */
async function again(one, lost) {
  const { turn, number } = one;
  const { signal } = one.stopping;
  for (let tries = 0; tries < TRIES; tries++) {
    turn.written.reconnect();
    await new Promise((resolve) => setTimeout(resolve, 500));
    signal.throwIfAborted();
    if (writing !== one) break;
    const which = `api/chats/${chat}`;
    try {
      const response = await ask(`${which}/answer`, { signal });
      if (response.headers.get("X-Pjlocal-Answer") === number) return events(response);
      response.body?.cancel(); // another answer
      if (turn.id === null) break;
      const saved = await json(`${which}/turns/${turn.id}`, { signal });
      return [{ begun: saved.events }, { result: { ...saved.settings, finish_reason: saved.finish_reason } }];
    } catch (error) {
      if (!isLost(error)) throw error;
    }
  }
  throw lost;
}

/** Put the question of an answer into its field again: that of the turn that the answer would have replaced, or the form. */
function putBack({ turn, replaced }, failed) {
  const last = turns.at(-1);
  const isLeft = ["chat_gone_on", "chat_not_found"].includes(failed?.code);
  const isEdited = last?.actions.hidden; // another part of it, or again
  if (replaced && last?.id === replaced && !isLeft && !isEdited) edit(last, "question", turn.asked.words);
  else form.putBack(turn.asked);
}

/** If the element that had the focus is gone, focus a turn's answer, or else the question. */
function refocus(turn, orQuestion = true) {
  const { activeElement } = document;
  if (activeElement !== document.body && activeElement?.checkVisibility()) return;
  const { element } = turn.written.answer;
  if (turns.includes(turn)) element.focus({ preventScroll: true });
  else if (orQuestion) question.focus({ preventScroll: true });
}

/** The number of exchanges that did not fit into the prompt before a turn.  The next prompt leaves out no other ones as long
 * as the rest fits, so that the server need not read it anew. */
const leftOut = (turn) => turns.filter((other) => other !== turn).at(-1)?.written.leftOut ?? 0;

/** Note the numbers under which the chat and the turn are saved. */
function named(one, head) {
  if (head.turn === null) return;
  const { turn, isOwn } = one;
  turn.id = head.turn;
  if (writing !== one) return one.takeOut?.(); // it was saved nevertheless
  if (isOwn) views.note(one.fields);
  if (chat === null) {
    chat = head.chat;
    history.replaceState(null, "", `#${chat}`);
    entitle(head.title);
  }
  if (isOwn) changed();
}

/** Stop an answer.  Its stream is not closed, because its end tells whether the turn was saved.  While the connection is lost,
 * the answer cannot be stopped: `read` does that when the page has reconnected. */
function stop(one) {
  one.isStopped = true;
  if (one.number === undefined) return;
  ask(`api/answers/${one.number}/stop`, { body: {} }).catch((error) => isLost(error) || one.stopping.abort());
}

/** Stop an answer whose chat is left before its first token, and put its question into the form, unless it was asked before. */
function giveUp(one) {
  stop(one);
  if (!one.isAgain) one.takeOut = form.putBack(one.turn.asked);
}

// Actions on an answer.

/** Continue the last answer with another token at a position. */
function takeToken(turn, position, { id, text }) {
  const { events } = turn.written.answer;
  const none = { draft: null, judge: null, writer: null, q: null, accept_probability: null, rejected: null, pushes: {} };
  const given = { ...events[position], ...none, id, text, kind: "given", p: 1 };
  const takes = { position, text, token: id };
  send(turn.asked, turn, { takes }, [...events.slice(0, position), given]);
}

/** Show the alternatives to a token that was chosen. */
function tellOthers({ target, detail }) {
  const turn = turns.find(({ element }) => element.contains(target));
  if (!turn || turn.id === null || writing) return;
  const position = turn.written.answer.events.indexOf(detail.event);
  const find = async () => (await json(`api/chats/${chat}/turns/${turn.id}/tokens/${position}`)).alternatives;
  const isLast = turn === turns.at(-1);
  const take = isLast ? (other) => takeToken(turn, position, other) : null;
  pin(detail, find, take, "Other words in this place, with which a new chat from here can continue:");
}

/** Put another draft of the last turn in force. */
async function switchTo(draft) {
  const which = chat;
  const last = turns.at(-1);
  replaceLast(which, await json(`api/chats/${which}/draft`, { body: { turn: last.id, draft } }));
}

/** Let the user edit a part of the last turn; for `part` and `text` see `Turn.edit`. */
function edit(turn, part, text) {
  const save = { question: askAgain, answer: saveAnswer }[part];
  const onLeave = () => {
    show(turns);
    [...turn.actions.children].find(({ textContent }) => textContent === `Edit ${part}`)?.focus();
    refocus(turn);
  };
  turn.edit(part, (changed, leave) => save(turn, changed, leave), onLeave, text);
}

async function askAgain(turn, words, leave) {
  leave();
  send(files.withFiles(words, turn.asked.files), turn);
}

async function saveAnswer(turn, answer, leave) {
  if (turn.change) {
    const which = chat;
    replaceLast(which, await json(`api/chats/${which}/edit`, { body: { turn: turn.id, answer } }));
    turns.at(-1)?.written.answer.element.focus({ preventScroll: true });
  }
  leave();
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

/** Show the number of answers to the turn's question. */
async function tellDrafts(turn) {
  try {
    const saved = await json(`api/chats/${chat}/turns/${turn.id}`);
    if (!saved.drafts.length) return;
    turn.drafts = idsOf(saved);
    if (!writing) offer();
  } catch {
    // The next action on the chat reports the error.
  }
}

// Display.

function show(all) {
  detached = [...detached, ...turns].filter((turn) => turn.change && !all.includes(turn));
  turns = all;
  for (const turn of [...turns, ...detached]) turn.isLast = turn === turns.at(-1);
  place(by("turns"), [...turns, ...detached].map(({ element }) => element));
  by("begin").hidden = turns.length > 0;
  by("own").hidden = chat === null;
  by("rename").disabled = by("delete").disabled = Boolean(writing);
  by("stop").hidden = !writing;
  by("send").disabled = Boolean(writing);
  offer();
}

/** Show these elements in a part of the page.  Those that stay keep the focus and the selected text. */
function place(part, elements) {
  for (const old of [...part.children]) if (!elements.includes(old)) old.remove();
  elements.forEach((one, n) => part.children[n] === one || part.insertBefore(one, part.children[n] ?? null));
}

/** Make the buttons of each turn. */
function offer() {
  const last = turns.at(-1);
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
    act("Edit question", () => edit(turn, "question")),
    ...(text ? [act("Edit answer", () => edit(turn, "answer"))] : []),
    act("Compare modes", () => compare(chat, turn, leftOut(turn), switchTo)),
    from,
  ];
}

/** The position of the shown answer among the drafts; in the last turn with arrows to the others. */
function amongDrafts({ id, drafts }, isLast) {
  if (drafts.length < 2) return [];
  const at = drafts.indexOf(id);
  const count = element("span", "count", `${at + 1} of ${drafts.length}`);
  if (!isLast) return [element("span", "drafts", "Answer ", count)];
  const arrow = (sign, name, to) => {
    const made = act(sign, async () => {
      await switchTo(drafts[to]);
      const arrows = turns.at(-1).actions.querySelectorAll(".drafts button:enabled");
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
  if (!writing) by("trouble").textContent ||= error.message; // an answer being written reports a lost server itself
});

/** While an answer is written, keep its end in view, unless the user has scrolled away. */
function scrollAlong() {
  const room = document.scrollingElement;
  let near = true;
  addEventListener("scroll", () => (near = room.scrollHeight - room.scrollTop - innerHeight < 80), { passive: true });
  new ResizeObserver(() => writing && near && room.scrollTo(0, room.scrollHeight)).observe(by("turns"));
}

// Opening a chat.

const open = () => (opening = opened());

/** The chat in the page's address, and the turn in it that a search has found. */
function address() {
  const [, which, turn] = /^#(\d+)(?:-(\d+))?$/.exec(location.hash) ?? [];
  return { chat: which === undefined ? null : Number(which), turn: Number(turn) };
}

/** Scroll to the turn that was found, or else to the end.  Then remove the turn from the address, so that the same hit can
 * be opened again. */
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
  const left = writing;
  writing = null;
  unpin();
  trouble("");
  const comeBack = forget();
  if (left?.isOwn && left.turn.id === null) giveUp(left); // not saved yet
  else left?.stopping.abort();
  if (which !== null) {
    try {
      const found = await latest(which);
      if (found) load(found);
    } catch (error) {
      comeBack();
      trouble(error.message);
      if (left) refresh();
    }
  }
  list();
}

/** Load a saved chat, and the stream of the answer that is being written in it, if any; null if another chat was requested
 * meanwhile.  The stream is requested first: if there is none, the saved chat is complete. */
async function latest(which) {
  const number = ++requestNumber;
  const stopping = new AbortController();
  try {
    const response = await ask(`api/chats/${which}/answer`, { signal: stopping.signal });
    const saved = await json(`api/chats/${which}`);
    if (number === requestNumber) return { saved, running: response.status === 200 && { response, stopping } };
  } catch (error) {
    stopping.abort();
    if (number === requestNumber) throw error;
  }
  stopping.abort();
  return null;
}

/** Close the chat, and show an empty one.  Returns a function that shows the chat again, if another cannot be opened. */
function forget() {
  const before = { chat, title, turns };
  for (const dialog of document.querySelectorAll("dialog[open]:not(#asking)")) dialog.close();
  chats.unmark();
  chat = null;
  stale = false;
  requestNumber++; // replies about the closed chat are ignored
  const restoreFields = views.leaveChat();
  entitle("");
  show([]);
  if (!document.activeElement?.checkVisibility()) question.focus(); // a removed button had the focus
  return () => {
    chat = before.chat;
    history.replaceState(null, "", chat === null ? location.pathname : `#${chat}`);
    restoreFields();
    entitle(before.title);
    show(before.turns.filter(({ id }) => id !== null));
    toEnd();
  };
}

function load(found) {
  chat = found.saved.id;
  views.show(found.saved.settings);
  trouble(found.saved.notice);
  take(found);
  showHit();
}

const toEnd = () => document.scrollingElement.scrollTo(0, document.scrollingElement.scrollHeight);

/** Show the saved chat.  Turns that are unchanged stay, so that the focus and the pointer stay on them. */
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

// Changes by the user, in this tab or in another.

/** Update the list after a change, and tell other tabs, which also update the chat. */
function changed(which = chat) {
  list();
  others.postMessage(which);
}

/** Load the chat again; if an answer is being written here, do so when it ends. */
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

/** Show the error of a request.  If the chat was changed or deleted elsewhere, show its new state. */
async function refused(error) {
  if (error.code === "chat_not_found") {
    leaveBehind();
    list();
    trouble("This chat was deleted elsewhere: your next question begins a new chat.");
    return;
  }
  const isChanged = error.code === "chat_gone_on";
  if (!isChanged) trouble(error.message);
  if (isChanged || stale) await refresh();
  if (!isChanged || chat === null || writing?.isOwn) return;
  trouble("This chat has a new turn from elsewhere, which is above or appears with its first word. Read it, then ask again.");
  toEnd();
}

/** Close a chat that was deleted. */
function leaveBehind() {
  forget();
  history.replaceState(null, "", location.pathname);
}

/** Wrap an action on the chat: if the chat was deleted elsewhere, the action shows that. */
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

/** Ignore keys that confirm or cancel the choice of an input method. */
function ofInputMethod(event) {
  if (!event.isComposing && event.keyCode !== 229) return;
  event.stopImmediatePropagation();
  if (event.key === "Enter") event.preventDefault();
}

/** Listen to the form and the keys. */
function onForm() {
  by("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (writing || !question.value.trim()) return;
    if (files.isReading()) return trouble("A file is still being read: ask again when it is listed.");
    send(form.take());
  });
  addEventListener("keydown", ofInputMethod, true);
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    by("ask").requestSubmit();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && writing && !document.querySelector("dialog[open]")) stop(writing);
  });
  by("stop").addEventListener("click", () => writing && stop(writing));
  by("skip").addEventListener("click", (event) => {
    event.preventDefault();
    question.focus();
  });
}

/** Listen to the chat and the list of chats, also in other tabs. */
function onChats() {
  by("formatted").addEventListener("change", () => {
    for (const { written } of turns) written.answer.formatted = by("formatted").checked;
  });
  for (const one of by("export").querySelectorAll("button")) {
    one.addEventListener("click", () => chats.save(chat, one.dataset.form).catch((error) => trouble(error.message)));
  }
  addEventListener("scroll", stayBeside, { passive: true });
  by("turns").addEventListener("token", tellOthers);
  by("comparison").addEventListener("close", () => {
    if (!turns.length) return;
    tellDrafts(turns.at(-1));
    others.postMessage(chat);
  });
  addEventListener("hashchange", open);
  by("new").addEventListener("click", () => question.focus());
  chats.onSearch(list);
  manage({ title: () => title, shown: () => by("title").textContent, rename: unlessGone(rename), remove: unlessGone(remove) });
  others.addEventListener("message", ({ data }) => {
    list();
    if (data === null) return;
    if (data === chat) refresh();
    else if (address().chat === data) open(); // it is being loaded, perhaps without the change
  });
}

/** Keep the question, the settings and the edit of the last turn that are not saved for a reload of the page. */
function keepUnsent() {
  if (writing?.isOwn && chat === null) form.putBack(writing.turn.asked); // nothing is saved yet
  sessionStorage.removeItem(UNSENT); // it stays if there is no room for the new one
  const last = turns.at(-1);
  const edited = last?.change && { turn: last.id, ...last.change };
  const kept = { chat, asked: form.unsent(), fields: views.unsaved(), edited };
  sessionStorage.setItem(UNSENT, JSON.stringify(kept));
}

function restoreUnsent() {
  const kept = JSON.parse(sessionStorage.getItem(UNSENT));
  if (kept?.asked) form.putBack(kept.asked);
  if (kept?.fields && kept.chat === chat) views.restore(kept.fields);
  if (kept?.edited) {
    const { turn, part, text } = kept.edited;
    const last = turns.at(-1);
    if (kept.chat === chat && last?.id === turn) edit(last, part, text);
    else form.putBack({ words: text, files: [] });
  }
  addEventListener("pagehide", keepUnsent);
}

async function begin() {
  if (matchMedia("(max-width: 60rem)").matches) for (const part of document.querySelectorAll("aside details")) part.open = false;
  onForm();
  onChats();
  scrollAlong();
  const about = await json("api/model");
  by("model").textContent = visible(about.name);
  views.fill(about, () => chat);
  files.begin(about.most_file, trouble);
  await open();
  restoreUnsent();
  const isFree = document.activeElement === document.body && !document.querySelector("dialog[open]");
  if (isFree && !matchMedia("(pointer: coarse)").matches) question.focus({ preventScroll: true });
}

begin().catch((error) => trouble(error.message));
