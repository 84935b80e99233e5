/** An answer as it grows: Markdown, or the bare text, in which every token has the colour of its writer. */

import { blocks, element } from "./markdown.js";
import { hide, show, viewClass, visible } from "./token.js";

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
  #shown = []; // the blocks that are on the page
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
    this.#shown = [];
    this.element.replaceChildren();
    this.render();
  }

  /** Put on the page what has come; blocks that are there already stay, with what points at them. */
  render() {
    this.#due = false;
    const { text } = this;
    const leaf = (from, to) => this.#leaf(from, to);
    const raw = { from: 0, to: text.length, make: () => element("div", "raw", ...leaf(0, text.length)) };
    const found = this.#formatted ? blocks(text) : [raw];
    const same = (block, n) => this.#shown[n]?.from === block.from && this.#shown[n].source === text.slice(block.from, block.to);
    let kept = 0;
    while (kept < found.length && same(found[kept], kept)) kept++;
    for (const { made } of this.#shown.splice(kept)) made.remove();
    for (const block of found.slice(kept)) {
      const made = block.make(leaf);
      this.element.append(made);
      this.#shown.push({ from: block.from, source: text.slice(block.from, block.to), made });
    }
    this.onRender();
  }

  /** A part of the text as tokens. */
  #leaf(from, to) {
    const nodes = [];
    for (let n = this.#tokenAt(from); n < this.#tokens.length && this.#starts[n] < to; n++) {
      const start = this.#starts[n];
      nodes.push(token(this.#tokens[n], Math.max(from, start) - start, to - start));
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

  add(event) {
    this.count++;
    this.element.hidden = false;
    this.#heading.textContent = `Thinking · ${this.count} token${this.count === 1 ? "" : "s"}`;
    if (event.text) this.#text.append(token(event));
  }
}

/** A token in the colour of its writer, or the part of it between two of its characters. */
function token(event, from = 0, to = event.text.length) {
  const kind = ["resampled", "bonus", "given"].includes(event.kind) ? event.kind : "";
  const classes = ["t", viewClass(event.writer), kind].filter(Boolean).join(" ");
  const span = element("span", classes, visible(event.text.slice(from, to)));
  eventOf.set(span, event);
  return span;
}

/** Have the tokens of a text show their numbers, where one points and where the arrow keys go. */
function withNumbers(text, name) {
  let now = null; // the token that the keyboard is at
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `${name}. The left and right arrow keys go from token to token, with Shift to the next resampled one`);

  const point = ({ target }) => {
    const span = target.closest(".t");
    if (span) show(span, eventOf.get(span));
    else hide();
  };
  const leave = () => {
    now?.classList.remove("now");
    now = null;
    hide();
  };
  text.addEventListener("pointerover", point);
  text.addEventListener("click", point);
  text.addEventListener("pointerleave", hide);
  text.addEventListener("blur", leave);
  text.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") leave();
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const all = [...text.querySelectorAll(event.shiftKey ? ".t.resampled, .t.now" : ".t")];
    const next = all[now?.isConnected ? all.indexOf(now) + step : step > 0 ? 0 : all.length - 1];
    if (!next) return;
    now?.classList.remove("now");
    now = next;
    next.classList.add("now");
    next.scrollIntoView({ block: "nearest" });
    show(next, eventOf.get(next), true);
  });
  return text;
}
