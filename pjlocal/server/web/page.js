/** The chat on the page: its address names it, so that it is there again when the page is loaded anew. */

import { ask, json } from "./api.js";
import * as chats from "./chats.js";
import { compare } from "./compare.js";
import { element } from "./markdown.js";
import { hide, visible } from "./token.js";
import { Turn } from "./turn.js";
import * as views from "./views.js";

const by = (id) => document.getElementById(id);
const question = by("question");
let chat = null; // its number, once it is saved
let turns = [];
let writing = null; // the turn under way, with what stops it
let editing = false; // whether the last question is asked anew

// What is said.

async function send(text, replaced) {
  if (writing || !text.trim()) return;
  leave();
  const settings = views.chosen();
  const turn = new Turn(text, views.asSaved(settings), by("formatted").checked);
  const before = turns;
  const stopping = new AbortController();
  writing = { turn, stopping };
  trouble("");
  show([...turns.filter((one) => one !== replaced), turn]);
  turn.element.scrollIntoView({ block: "end" });
  try {
    const body = { question: text, session: chat, replacing: replaced?.id ?? null, pjlocal: settings };
    const response = await ask("api/turns", { body, signal: stopping.signal });
    if (writing?.turn !== turn) return; // another chat is open by now
    named(turn, response.headers);
    turn.written.leftOut = Number(response.headers.get("X-Pjlocal-Left-Out"));
    await turn.written.read(response);
  } catch (error) {
    if (error.name !== "AbortError") trouble(error.message);
  }
  if (writing?.turn !== turn) return;
  writing = null;
  const { answer } = turn.written;
  if (turn.id === null) {
    show(before); // as if it had not been asked
    question.value ||= text;
    if (!by("trouble").textContent && turn.written.finish) trouble("The answer is empty: it is as if nothing had been asked.");
  } else {
    show(turns);
    say(`Answer: ${answer.text}`);
    if (document.activeElement === document.body) answer.element.focus({ preventScroll: true }); // its button is gone
  }
  list();
}

/** The chat and the turn are saved from now on. */
function named(turn, headers) {
  const [saved, id] = ["X-Pjlocal-Chat", "X-Pjlocal-Turn"].map((name) => headers.get(name));
  if (id === null) return;
  turn.id = Number(id);
  if (chat === null) {
    chat = Number(saved);
    history.replaceState(null, "", `#${chat}`);
    by("title").textContent = visible(short(turn.question));
    list();
  }
}

const short = (text) => (text.length > 60 ? `${text.slice(0, 59).trimEnd()}…` : text);

function stop() {
  if (!writing) return;
  const { turn, stopping } = writing;
  if (turn.id === null) stopping.abort();
  else ask(`api/turns/${turn.id}/stop`, { body: {} }).catch(() => stopping.abort());
}

function edit() {
  editing = true;
  by("editing").hidden = false;
  question.value = turns[turns.length - 1].question;
  question.focus();
}

function leave() {
  if (editing) question.value = "";
  editing = false;
  by("editing").hidden = true;
}

// What is shown.

function show(all) {
  turns = all;
  by("turns").replaceChildren(...turns.map(({ element }) => element));
  by("begin").hidden = turns.length > 0;
  by("export").hidden = chat === null;
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

const trouble = (text) => (by("trouble").textContent = text);
const say = (text) => (by("said").textContent = text);
const list = () => chats.list(chat).catch((error) => trouble(error.message));

/** Follow an answer that is written while its end is in sight. */
function follow() {
  const room = document.scrollingElement;
  let near = true;
  addEventListener("scroll", () => (near = room.scrollHeight - room.scrollTop - innerHeight < 80), { passive: true });
  new ResizeObserver(() => writing && near && room.scrollTo(0, room.scrollHeight)).observe(by("turns"));
}

// Which chat.

async function open() {
  const wanted = /^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : null;
  if (wanted === chat && wanted !== null) return;
  writing?.stopping.abort();
  writing = null;
  leave();
  hide();
  trouble("");
  chat = null;
  by("title").textContent = "New chat";
  show([]);
  if (wanted !== null) {
    try {
      load(await json(`api/chats/${wanted}`));
    } catch (error) {
      trouble(error.message);
    }
  }
  list();
}

function load(saved) {
  chat = saved.id;
  by("title").textContent = visible(saved.title || "Untitled");
  views.show(saved.settings);
  show(
    saved.turns.map((one) => {
      const turn = new Turn(one.question, one.settings, by("formatted").checked, one.id);
      turn.written.answer.add(one.events);
      turn.written.end(one.finish_reason);
      return turn;
    }),
  );
  document.scrollingElement.scrollTo(0, document.scrollingElement.scrollHeight);
}

async function begin() {
  if (matchMedia("(max-width: 60rem)").matches) for (const part of document.querySelectorAll("aside details")) part.open = false;
  by("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const [text, replaced] = [question.value, editing ? turns[turns.length - 1] : undefined];
    if (writing || !text.trim()) return;
    editing = false;
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
  follow();
  const about = await json("api/about");
  by("model").textContent = visible(about.model);
  views.fill(about);
  await open();
}

begin().catch((error) => trouble(error.message));
