/** An answer as it grows: Markdown, or the bare text, in which every token has the colour of its writer. */

import { blocks, element } from "./markdown.js";
import { hide, show, viewClass, visible } from "./token.js";

const eventOf = new WeakMap(); // of each token's element

export class Answer {
  /** onRender: is called when what has come is on the page. */
  constructor(onRender) {
    this.onRender = onRender;
    this.events = []; // those without a text too: the end is one
    this.text = "";
    this.element = element("div", "answer");
    this.element.tabIndex = 0;
    this.element.dir = "auto";
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "Answer. The left and right arrow keys go from token to token, with Shift to the next resampled one");
    this.element.addEventListener("pointerover", ({ target }) => this.#point(target));
    this.element.addEventListener("click", ({ target }) => this.#point(target));
    this.element.addEventListener("pointerleave", hide);
    this.element.addEventListener("blur", () => this.#leave());
    this.element.addEventListener("keydown", (event) => this.#key(event));
  }

  #tokens = []; // those that have a text
  #starts = []; // where each of them begins in the text
  #shown = []; // the blocks that are on the page
  #now = null; // the token that the keyboard is at
  #due = false;
  #formatted = true;

  add(events) {
    for (const event of events) {
      this.events.push(event);
      if (!event.text) continue;
      this.#tokens.push(event);
      this.#starts.push(this.text.length);
      this.text += event.text;
    }
    this.#plan();
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
      const event = this.#tokens[n];
      const begin = Math.max(from, this.#starts[n]);
      const end = Math.min(to, this.#starts[n] + event.text.length);
      const kind = ["resampled", "bonus", "given"].includes(event.kind) ? event.kind : "";
      const span = element("span", ["t", viewClass(event.writer), kind].filter(Boolean).join(" "), visible(this.text.slice(begin, end)));
      eventOf.set(span, event);
      nodes.push(span);
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

  #point(target) {
    const span = target.closest(".t");
    if (span) show(span, eventOf.get(span));
    else hide();
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.#leave();
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const all = [...this.element.querySelectorAll(event.shiftKey ? ".t.resampled, .t.now" : ".t")];
    const next = all[this.#now?.isConnected ? all.indexOf(this.#now) + step : step > 0 ? 0 : all.length - 1];
    if (!next) return;
    this.#now?.classList.remove("now");
    this.#now = next;
    next.classList.add("now");
    next.scrollIntoView({ block: "nearest" });
    show(next, eventOf.get(next), true);
  }

  #leave() {
    this.#now?.classList.remove("now");
    this.#now = null;
    hide();
  }
}
