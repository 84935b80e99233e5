/** An answer while it is written: as Markdown or plain text, with each token in the colour of the view that wrote it. */

import { copy } from "./copy.js";
import { blocks } from "./markdown.js";
import { element, node, patch } from "./nodes.js";
import { hide, show, unpin, viewClass, visible } from "./token.js";

const eventOf = new WeakMap(); // the event of each token's element

export class Answer {
  /** onRender: called after new tokens have been drawn; hasOthers: as for `Written`. */
  constructor(onRender, hasOthers) {
    this.onRender = onRender;
    this.events = []; // including thoughts, and tokens without text, such as the end token
    this.text = ""; // of the answer, without thoughts
    this.thoughts = new Thoughts(hasOthers);
    this.element = withNumbers(element("div", "answer"), "Answer", hasOthers);
    this.element.dir = "auto";
  }

  #tokens = []; // the answer's tokens that have text
  #starts = []; // the position of each of them in the text
  #shown = []; // the blocks on the page, with their sources and nodes
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

  /** Start again with these tokens. */
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

  /** True if the last token belongs to the thinking. */
  get isThinking() {
    return Boolean(this.events[this.events.length - 1]?.thought);
  }

  #plan() {
    if (this.#due) return;
    this.#due = true;
    const due = () => this.#due && this.render();
    requestAnimationFrame(due);
    setTimeout(due, 200); // hidden windows get no animation frames
  }

  set formatted(formatted) {
    this.#formatted = formatted;
    this.#clear();
    this.render();
  }

  /** Draw new tokens.  Elements that are unchanged stay, so that the focus and the pointer stay on them. */
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

  /** The tokens of a part of the text; or one token with the text `shown` instead. */
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

/** The thoughts before an answer, folded under a line that counts their tokens. */
class Thoughts {
  constructor(hasOthers) {
    this.count = 0;
    this.#text = withNumbers(element("div", "raw"), "Thoughts", hasOthers);
    this.element = element("details", "thoughts");
    this.element.hidden = true;
    this.element.append(this.#heading, this.#text);
  }

  #heading = element("summary");
  #text;

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

/** The element of a token, or of a part of its text, in the colour of its view. */
function token(event, text = event.text) {
  const kind = ["resampled", "bonus", "given"].includes(event.kind) ? event.kind : "";
  const classes = ["t", viewClass(event.writer), kind].filter(Boolean).join(" ");
  const span = element("span", classes, visible(text));
  eventOf.set(span, event);
  return span;
}

/** Show a token's numbers when the pointer or the arrow keys reach it. */
function withNumbers(text, name, hasOthers) {
  let now = null; // the token selected by the keyboard
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  const keys = "The left and right arrow keys go from token to token, with Shift to the next resampled one";
  text.setAttribute("aria-label", `${name}. ${keys}${hasOthers ? "; Enter shows other tokens in its place" : ""}`);

  const point = ({ target }) => {
    const span = target.closest(".t");
    if (span) show(span, eventOf.get(span));
    else hide();
  };
  /** Show the token's numbers, and send the page an event that it was chosen. */
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
    else if (event.target.closest("a") || !getSelection().isCollapsed) point(event); // a link, or selected text
    else if (event.target.closest(".t")) choose(event.target.closest(".t"), false);
  });
  text.addEventListener("pointerleave", hide);
  text.addEventListener("blur", ({ relatedTarget }) => relatedTarget?.closest(".pinned") || leave()); // else the place stays
  text.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") {
      if (unpin()) {
        event.stopPropagation(); // or it would also stop the answer that is being written
        event.preventDefault(); // or close the dialog
      }
      leave();
    }
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
