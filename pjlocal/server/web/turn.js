/** A question and its answer on the page. */

import { Answer } from "./answer.js";
import { events } from "./api.js";
import { element } from "./markdown.js";
import { strip, words } from "./strip.js";
import { viewClass, visible } from "./token.js";

const ENDINGS = { length: "cut at the length limit", interrupted: "stopped" };
let count = 0;

/** An answer with its facts and the model's thoughts above and its strip below.
 *
 * settings: what it is written under, as saved turns have it: `mode` and `preferences` by view. */
export class Written {
  constructor(settings, formatted) {
    this.answer = new Answer(() => this.#count());
    this.finish = undefined; // how it ended; undefined while it is written
    this.leftOut = 0; // exchanges that the model did not see
    this.settings = settings;
    this.legend = element("ul", "legend");
    this.strip = element("div", "stripped");
    this.facts = element("p", "facts");
    this.parts = [this.legend, this.answer.thoughts.element, this.answer.element, this.strip, this.facts];
    this.answer.element.setAttribute("aria-busy", "true");
    this.#describe();
    this.answer.formatted = formatted;
  }

  /** Read the answer from a response's stream; onHead is called with what is known when its first token comes. */
  async read(response, onHead = () => {}) {
    try {
      for await (const { head, event, result } of events(response)) {
        if (head) {
          this.leftOut = head.first;
          onHead(head);
        }
        if (event) this.answer.add([event]);
        if (result) {
          this.settings = result;
          this.end(result.finish_reason);
        }
      }
    } finally {
      if (this.finish === undefined) this.end("interrupted");
    }
  }

  end(finish) {
    this.finish = finish;
    this.answer.element.removeAttribute("aria-busy");
    this.#describe();
    this.answer.render();
  }

  #describe() {
    const { mode, preferences = {} } = this.settings;
    const views = mode === "plain" ? [] : Object.entries(preferences).filter(([, wishes]) => wishes.length);
    this.legend.replaceChildren(
      ...(mode ? [element("li", "", `${mode} mode`)] : []),
      ...views.map(([name, wishes]) =>
        element("li", viewClass(name), element("b", "", name), " ", element("bdi", "", visible(wishes.join(", ")))),
      ),
    );
  }

  #count() {
    const { events } = this.answer;
    this.strip.replaceChildren(...[strip(events)].filter(Boolean));
    const n = this.leftOut;
    const unseen = n && `the context is full: the model no longer sees the oldest ${n === 1 ? "exchange" : `${n} exchanges`}`;
    this.facts.textContent = [words(events), this.#ending, unseen].filter(Boolean).join(" · ");
  }

  /** How it ended, in words; nothing while it is written. */
  get #ending() {
    if (this.finish === undefined) return "";
    const ending = this.finish === null ? "unfinished" : ENDINGS[this.finish] ?? "";
    return this.answer.isThinking ? `${ending || "ended"} while thinking, without an answer` : ending;
  }
}

/** A turn of the chat. */
export class Turn {
  constructor(question, settings, formatted, id = null) {
    this.id = id;
    this.question = question;
    this.written = new Written(settings, formatted);
    const heading = element("h3", "question", visible(question));
    heading.dir = "auto";
    heading.id = `turn-${++count}`;
    this.actions = element("div", "actions");
    this.element = element("article", "", heading, ...this.written.parts, this.actions);
    this.element.setAttribute("aria-labelledby", heading.id);
  }
}
