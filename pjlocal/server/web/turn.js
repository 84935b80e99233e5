/** A question and its answer on the page. */

import { Answer } from "./answer.js";
import { isGone } from "./api.js";
import { copy } from "./copy.js";
import { button, element } from "./nodes.js";
import { Strip } from "./strip.js";
import { viewClass, visible } from "./token.js";

const ENDINGS = {
  length: "cut at the length limit",
  interrupted: "stopped",
  gone: "the server stopped",
  failed: "ended by an error",
};
let count = 0;

/** An answer, with its legend and the thoughts above it, and its strip and facts below it.
 *
 * settings: the settings of the answer, in the format of saved turns: `mode`, and `preferences` by view.
 * hasOthers: whether the page shows other tokens in the place of a chosen one. */
export class Written {
  constructor(settings, formatted, hasOthers = true) {
    this.answer = new Answer(() => this.#count(), hasOthers);
    this.finish = undefined; // the finish reason; undefined while it is written
    this.leftOut = 0; // exchanges that the model did not see
    this.warnings = []; // for example about settings without effect
    this.hasBegun = false; // whether its first token has come
    this.hasGrown = false; // whether the model has added text to the given beginning
    this.isCut = false; // whether the connection was lost, and the page tries to reconnect
    this.settings = settings;
    this.legend = element("ul", "legend");
    this.strip = new Strip();
    this.facts = element("p", "facts");
    this.copies = button("Copy", () => copy(this.answer.text, this.copies));
    Object.assign(this.copies, { className: "copy", title: "Copy the answer as Markdown" });
    const under = element("div", "under", this.facts, this.copies);
    this.parts = [this.legend, this.answer.thoughts.element, this.answer.element, this.strip.element, under];
    this.answer.element.setAttribute("aria-busy", "true");
    this.#describe();
    this.answer.formatted = formatted;
  }

  #n = 0; // tokens read from the stream

  /** Read the answer from the events of its stream.  After the connection was lost, read the rest from another stream of it.
   *
   * onHead: called with the facts that come with the first token. */
  async read(events, onHead = () => {}) {
    let n = 0;
    this.isCut = false;
    this.#wait({});
    for await (const { head, begun, event, result, waits } of events) {
      if (event ? n++ < this.#n : head && this.hasBegun) continue;
      if (waits) this.#wait(waits);
      if (begun) {
        this.strip.clear();
        this.answer.restart(begun);
        this.hasGrown ||= !head; // a whole saved answer
      }
      if (head) {
        this.hasBegun = true;
        this.leftOut = head.first;
        this.warnings = head.warnings;
        this.settings = head; // with the mode that automatic has become
        this.#describe();
        onHead(head);
      }
      if (event) {
        this.#n = n;
        this.answer.add([event]);
        this.hasGrown ||= Boolean(event.text);
      }
      if (result) {
        this.settings = result;
        this.end(result.finish_reason);
      }
    }
  }

  /** End an answer that an error has ended, also the user's stop. */
  fail(error) {
    this.end(error.name === "AbortError" ? "interrupted" : isGone(error) ? "gone" : "failed");
  }

  /** Until the first token comes, show what the answer waits for. */
  #wait({ n, all, text }) {
    if (this.hasBegun) return;
    const read = all && `Reading the prompt: ${Math.floor((100 * n) / all)} % of ${all.toLocaleString()} tokens`;
    this.facts.textContent = text || read || "Waiting for its turn";
  }

  /** Show that the connection was lost, until more of the answer is read, or it ends. */
  reconnect() {
    this.isCut = true;
    this.#count();
  }

  end(finish) {
    this.isCut = false;
    this.finish = finish;
    this.answer.element.removeAttribute("aria-busy");
    this.answer.render();
    this.#describe();
  }

  #describe() {
    const { mode, preferences = {} } = this.settings;
    const wrote = new Set(this.strip.writers);
    const names = mode === "plain" ? [] : [...new Set(["a", "b", ...Object.keys(preferences)])];
    const views = names.filter((name) => preferences[name]?.length || wrote.has(name));
    const item = (name, text) =>
      element("li", viewClass(name), element("b", "", name), " ", element("bdi", "", visible(text)));
    this.legend.replaceChildren(
      ...(mode ? [element("li", "", `${mode} mode`)] : []),
      ...views.map((name) => item(name, preferences[name]?.join(", ") || "no preference")),
      ...(wrote.has("all") ? [item("all", "what they agree on")] : []),
    );
  }

  #count() {
    const { length } = this.strip.writers;
    this.strip.update(this.answer.events);
    if (this.strip.writers.length !== length) this.#describe();
    const n = this.leftOut;
    const unseen = n && `the context is full: the model no longer sees the oldest ${n === 1 ? "exchange" : `${n} exchanges`}`;
    this.copies.hidden = this.finish === undefined || !this.answer.text;
    const facts = [this.strip.words, this.#ending, unseen, ...this.warnings.map(visible)].filter(Boolean).join(" · ");
    this.facts.textContent = this.isCut ? "The connection was lost: trying to reconnect" : facts;
  }

  /** The ending in words; empty while the answer is written. */
  get #ending() {
    if (this.finish === undefined) return "";
    const isWritten = this.finish === "interrupted" && this.answer.events.at(-1)?.kind === "given"; // by the user
    const ending = this.finish === null ? "unfinished" : isWritten ? "" : ENDINGS[this.finish] ?? "";
    return this.answer.isThinking ? `${ending || "ended"} while thinking, without an answer` : ending;
  }
}

/** A turn of the chat.
 *
 * asked: the whole `question`, and its `words` and `files`. */
export class Turn {
  constructor(asked, settings, formatted, id = null) {
    this.id = id;
    this.asked = { question: asked.question, words: asked.words, files: asked.files };
    this.drafts = []; // the numbers of all answers to the question, if there are several
    this.written = new Written(settings, formatted);
    this.heading = element("h3", "question", ...this.#files(), visible(asked.words));
    this.heading.dir = "auto";
    this.heading.id = `turn-${++count}`;
    this.actions = element("div", "actions");
    this.element = element("article", "", this.heading, ...this.written.parts, this.actions);
    this.element.setAttribute("aria-labelledby", this.heading.id);
  }

  #rewriting = null; // the form in which a part is edited: the part, its field with the text `before`, and other elements

  #files() {
    return this.asked.files.map(({ name }) => element("bdi", "file", visible(name)));
  }

  /** Let the user edit a part of the turn: "question", whose files stay, or "answer".
   *
   * save(text, leave): called with the edited text, and with a function that closes the form; returns a promise.
   * onLeave: called when the form is closed; it sets the focus.
   * text: what the field contains at first, if not the part. */
  edit(part, save, onLeave, text) {
    const isQuestion = part === "question";
    const { answer } = this.written;
    const shown = isQuestion ? this.heading : answer.element;
    const field = Object.assign(element("textarea"), { dir: "auto", required: true });
    field.setAttribute("aria-label", `The ${part}`);
    field.value = isQuestion ? this.asked.words : answer.text;
    const before = field.value; // the field changes line ends
    field.value = text ?? before;
    const trouble = element("p", "trouble");
    const done = Object.assign(element("button", "", isQuestion ? "Ask again" : "Save the answer"), { type: "submit" });
    const leave = () => {
      this.#rewriting = null;
      form.remove();
      shown.hidden = this.actions.hidden = false;
      onLeave();
    };
    const buttons = element("div", "actions", done, button("Cancel", leave));
    const form = element("form", "rewriting", ...(isQuestion ? this.#files() : []), field, trouble, buttons);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!field.value.trim()) trouble.textContent = "Write a text first.";
      else save(field.value, leave).catch((error) => (trouble.textContent = error.message));
    });
    form.addEventListener("keydown", (event) => {
      const { key, target, shiftKey, ctrlKey, metaKey } = event;
      const submits = key === "Enter" && target === field && (isQuestion ? !shiftKey : ctrlKey || metaKey);
      if (key === "Escape") {
        event.stopPropagation();
        leave();
      } else if (submits) {
        event.preventDefault();
        if (!done.hidden) form.requestSubmit();
      }
    });
    shown.after(form);
    this.#rewriting = { part, field, before, trouble, done };
    shown.hidden = this.actions.hidden = true;
    field.focus();
  }

  /** The part that is being edited, and its text; null if it is unchanged. */
  get change() {
    const { part, field, before } = this.#rewriting ?? {};
    return field && field.value !== before ? { part, text: field.value } : null;
  }

  /** Whether the turn is the last one of the open chat; in others an edited text cannot be saved. */
  set isLast(isLast) {
    if (!this.#rewriting) return;
    const { trouble, done } = this.#rewriting;
    const words = isLast ? "" : "This turn is no longer the last one of the chat: copy your text.";
    if (done.hidden === isLast) trouble.textContent = words;
    done.hidden = !isLast;
  }
}
