/** A strip of an answer's tokens: a lane for each view with the tokens that it wrote, and behind them a band for the view
 * that drafted; also the counts in words. */

import { element } from "./nodes.js";
import { viewClass } from "./token.js";

const SVG = "http://www.w3.org/2000/svg";
const LANE = 6;

export class Strip {
  constructor() {
    this.element = element("div", "stripped");
    this.clear();
  }

  #n; // the number of events so far
  #judged; // the events of judged tokens
  #rounds;
  #counts;
  #writers;
  #lanes;
  #svg;
  #draft; // the band of the last round: its round, its position and its shape

  /** Remove all events. */
  clear() {
    this.words = ""; // the counts in words
    this.#n = this.#rounds = 0;
    [this.#judged, this.#lanes] = [[], []];
    this.#counts = { accepted: 0, resampled: 0, bonus: 0 };
    this.#writers = new Map([["a", 0], ["b", 0]]);
    this.element.replaceChildren();
  }

  /** The names of those who wrote tokens. */
  get writers() {
    return [...this.#writers.keys()].filter((name) => this.#writers.get(name));
  }

  /** Show the events of an answer; events that are already shown stay unchanged. */
  update(events) {
    const judged = events.slice(this.#n).filter(({ draft }) => draft !== null);
    this.#n = events.length;
    if (!judged.length) return;
    for (const event of judged) {
      const { kind, writer, round } = event;
      this.#rounds += round !== this.#judged[this.#judged.length - 1]?.round; // a continued answer counts from 0 again
      this.#judged.push(event);
      this.#counts[kind]++;
      this.#writers.set(writer ?? "all", (this.#writers.get(writer ?? "all") ?? 0) + 1);
    }
    this.words = this.#inWords();
    const isDrawn = this.#makeLanes(judged);
    const first = isDrawn ? this.#judged.length - judged.length : 0;
    this.#judged.slice(first).forEach((event, n) => this.#draw(event, first + n));
    this.#svg.setAttribute("viewBox", `0 0 ${this.#judged.length} ${this.#lanes.length * LANE}`);
    this.#svg.setAttribute("aria-label", this.words);
  }

  /** Make an empty strip if a lane is missing.  Returns false if the earlier tokens must be drawn again. */
  #makeLanes(judged) {
    const names = judged.flatMap(({ draft, judge }) => [draft, judge]).filter(Boolean);
    const lanes = [...new Set(["a", "b", ...this.#lanes, ...names])].filter((name) => name !== null).sort();
    if (this.#lanes.includes(null) || judged.some(({ writer }) => writer === null)) lanes.push(null); // tokens of all views together
    if (lanes.length === this.#lanes.length) return true;
    this.#lanes = lanes;
    this.#draft = undefined;
    this.#svg = shape("svg", { preserveAspectRatio: "none", role: "img" }, "strip");
    this.element.replaceChildren(this.#svg);
    return false;
  }

  #draw({ draft, writer, kind, round }, x) {
    const y = (name) => this.#lanes.indexOf(name) * LANE;
    if (this.#draft?.round !== round) {
      const drawn = shape("rect", { x, y: y(draft), height: LANE }, viewClass(draft), "draft");
      this.#draft = { round, x, drawn };
      this.#svg.append(drawn);
    }
    this.#draft.drawn.setAttribute("width", x + 1 - this.#draft.x);
    this.#svg.append(shape("rect", { x, y: y(writer) + 1, width: 0.8, height: LANE - 2 }, viewClass(writer), kind));
  }

  #inWords() {
    const { accepted, resampled } = this.#counts;
    const n = this.#judged.length;
    const { draft, judge } = this.#judged[n - 1];
    const many = this.#rounds === 1 ? "1 round" : `${this.#rounds} rounds`;
    const rate = accepted + resampled ? `${Math.round((100 * accepted) / (accepted + resampled))} % accepted` : "";
    const shares = [...this.#writers].map(([name, count]) => `${name} ${Math.round((100 * count) / n)} %`);
    const rounds = `${many}, ${draft} drafted last, ${judge ?? "all"} judged`;
    return [rate, `wrote: ${shares.join(", ")}`, rounds].filter(Boolean).join(" · ");
  }
}

function shape(name, attributes, ...classes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.classList.add(...classes.filter(Boolean));
  return made;
}
