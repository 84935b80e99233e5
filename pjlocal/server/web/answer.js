/** An answer as it grows: Markdown, or the bare text, in which every token has the colour of its writer. */

import { copy } from "./copy.js";
import { blocks } from "./markdown.js";
import { element, node, patch } from "./nodes.js";
import { hide, show, unpin, viewClass, visible } from "./token.js";

const eventOf = new WeakMap(); // of each token's element

export class Answer {
  /** onRender: is called when what has come is on the page. */
  constructor(onRender) {
    this.onRender = onRender;
    this.events = []; // of thoughts as well, and those without a text too: the end is one
    this.text = ""; // the answer alone
    this.thoughts = new Thoughts();
    this.element = withNumbers(element("div", "answer"), "Answer");
    this.element.dir = "auto";
  }

  #tokens = []; // those of the answer that have a text
  #starts = []; // where each of them begins in the text
  #shown = []; // the blocks that are on the page, with their sources and nodes
  #due = false;
  #formatted = true;

  add(events) {
    for (const event of events) {
      this.events.push(event);
      if (event.thought) this.thoughts.add(event);
      else if (event.text) {
        this.#tokens.push(event);
        this.#starts.push(this.text.length);
        this.text += event.text;
      }
    }
    this.#plan();
  }

  /** Begin anew, with tokens that are known already. */
  restart(events) {
    this.events = [];
    this.text = "";
    this.#tokens = [];
    this.#starts = [];
    this.thoughts.clear();
    this.#clear();
    this.add(events);
    this.render();
  }

  #clear() {
    this.#shown = [];
    this.element.replaceChildren();
  }

  /** Whether the last token belongs to a thought. */
  get isThinking() {
    return Boolean(this.events[this.events.length - 1]?.thought);
  }

  #plan() {
    if (this.#due) return;
    this.#due = true;
    const due = () => this.#due && this.render();
    requestAnimationFrame(due);
    setTimeout(due, 200); // a window that is not seen draws no frames
  }

  set formatted(formatted) {
    this.#formatted = formatted;
    this.#clear();
    this.render();
  }

  /** Put on the page what has come; what is there already stays, with what points at it. */
  render() {
    this.#due = false;
    const { text } = this;
    const leaf = (...part) => this.#leaf(...part);
    const raw = { from: 0, to: text.length, make: () => node("div", leaf(0, text.length), { className: "raw" }) };
    const shown = this.#shown;
    this.#shown = (this.#formatted ? blocks(text) : [raw]).map(({ from, to, make }, n) => {
      const source = text.slice(from, to);
      const isSame = shown[n]?.from === from && shown[n].source === source;
      return isSame ? shown[n] : { from, source, node: make(leaf) };
    });
    const nodes = (all) => all.map((block) => block.node);
    patch(this.element, nodes(shown), nodes(this.#shown));
    this.onRender();
  }

  /** A part of the text as tokens; or, as one, what is shown instead of it. */
  #leaf(from, to, shown) {
    const nodes = [];
    const leaf = (n, text) => ({ key: `${n} ${text}`, draw: () => token(this.#tokens[n], text) });
    for (let n = this.#tokenAt(from); n < this.#tokens.length && this.#starts[n] < to; n++) {
      const start = this.#starts[n];
      if (shown !== undefined) return [leaf(n, shown)];
      nodes.push(leaf(n, this.#tokens[n].text.slice(Math.max(0, from - start), to - start)));
    }
    return nodes;
  }

  #tokenAt(at) {
    let [low, high] = [0, this.#starts.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle] <= at) low = middle;
      else high = middle;
    }
    return low;
  }
}

/** The model's thoughts before an answer: folded; the line that opens them counts their tokens. */
class Thoughts {
  constructor() {
    this.count = 0;
    this.element = element("details", "thoughts");
    this.element.hidden = true;
    this.element.append(this.#heading, this.#text);
  }

  #heading = element("summary");
  #text = withNumbers(element("div", "raw"), "Thoughts");

  clear() {
    this.count = 0;
    this.element.hidden = true;
    this.#text.replaceChildren();
  }

  add(event) {
    this.count++;
    this.element.hidden = false;
    this.#heading.textContent = `Thinking · ${this.count} token${this.count === 1 ? "" : "s"}`;
    if (event.text) this.#text.append(token(event));
  }
}

/** A token in the colour of its writer, or a part of it. */
function token(event, text = event.text) {
  const kind = ["resampled", "bonus", "given"].includes(event.kind) ? event.kind : "";
  const classes = ["t", viewClass(event.writer), kind].filter(Boolean).join(" ");
  const span = element("span", classes, visible(text));
  eventOf.set(span, event);
  return span;
}

/** Have the tokens of a text show their numbers, where one points and where the arrow keys go. */
function withNumbers(text, name) {
  let now = null; // the token that the keyboard is at
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  const keys = "The left and right arrow keys go from token to token, with Shift to the next resampled one";
  text.setAttribute("aria-label", `${name}. ${keys}; Enter shows other tokens in its place`);

  const point = ({ target }) => {
    const span = target.closest(".t");
    if (span) show(span, eventOf.get(span));
    else hide();
  };
  /** Show the token, and tell the page that it was chosen. */
  const choose = (span, byKey) => {
    unpin();
    show(span, eventOf.get(span));
    text.dispatchEvent(new CustomEvent("token", { bubbles: true, detail: { span, event: eventOf.get(span), byKey } }));
  };
  const leave = () => {
    now?.classList.remove("now");
    now = null;
    hide();
  };
  text.addEventListener("pointerover", point);
  text.addEventListener("click", (event) => {
    const button = event.target.closest(".copy");
    if (button) copy(button.parentElement.querySelector("code").textContent, button);
    else if (event.target.closest("a") || !getSelection().isCollapsed) point(event); // a link, or words to copy
    else if (event.target.closest(".t")) choose(event.target.closest(".t"), false);
  });
  text.addEventListener("pointerleave", hide);
  text.addEventListener("blur", leave);
  text.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") leave();
    if (event.key === "Enter" && now && event.target === text) {
      event.preventDefault();
      choose(now, true);
    }
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const all = [...text.querySelectorAll(event.shiftKey ? ".t.resampled, .t.now" : ".t")];
    const next = all[now?.isConnected ? all.indexOf(now) + step : step > 0 ? 0 : all.length - 1];
    if (!next) return;
    now?.classList.remove("now");
    now = next;
    next.classList.add("now");
    next.scrollIntoView({ block: "nearest" });
    unpin();
    show(next, eventOf.get(next), true);
  });
  return text;
}
