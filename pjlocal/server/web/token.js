/** The panel with a token's numbers, beside the token. */

import { button, element } from "./nodes.js";

const panel = document.getElementById("token");
const said = document.getElementById("said");
let pinned = null; // the token whose panel stays open
let at = null; // the token that the panel is beside

/** Make untrusted text safe to show: replace control characters and direction marks by visible marks. */
export const visible = (text) =>
  text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]/g, (char) => {
    const code = char.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "␡" : `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
  });

const named = (text, id) =>
  visible(text).slice(0, 60).replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") || `token ${id}`;
const number = (p) => (p === 0 || p >= 0.0001 ? p.toFixed(4) : p.toExponential(0));

/** A token's numbers: each with its name, its value as text, and the probability to draw as a bar, if it is one. */
function rows(event) {
  const { draft, rejected } = event;
  const judge = event.judge ?? "all";
  const knows = draft === null ? "p" : `p, ${judge === "all" ? "all" : `judge ${judge}`}`;
  const chance = (what, p) => (p === null ? [] : [[what, number(p), p]]);
  const pushes = Object.entries(event.pushes ?? {}).map(([name, nats]) => [
    `push ${name}`,
    `${nats < 0 ? "−" : "+"}${Math.abs(nats).toFixed(2)}  ×${Number(Math.exp(nats).toPrecision(3))}`,
  ]);
  return [
    ...(event.kind === "given" ? [] : chance(knows, event.p)),
    ...chance(`q, draft ${draft}`, event.q),
    ...(rejected
      ? [
          ["in place of", named(rejected.text, rejected.id)],
          ...chance(`its ${knows}`, rejected.p),
          ...chance(`its q, draft ${draft}`, rejected.q),
        ]
      : []),
    ...chance("accepted with", event.accept_probability),
    ...pushes,
  ];
}

function origin({ kind, draft, judge }) {
  const judges = judge ?? "all";
  if (kind === "given") return "given: the model did not write it";
  if (draft === null) return kind === "plain" ? "written by one view alone" : kind;
  if (kind === "bonus") return `bonus from ${judges}, after all that ${draft} drafted was accepted`;
  return `${kind}, drafted by ${draft}, judged by ${judges}`;
}

function bar(p) {
  const made = element("span", "bar");
  made.style.setProperty("--p", Math.min(1, p));
  return made;
}

/** Show the numbers of an element's token; `aloud` announces them to screen readers too. */
export function show(span, event, aloud = false) {
  if (pinned) return;
  const list = element("dl");
  const numbers = rows(event);
  for (const [what, value, p] of numbers) {
    const cell = element("dd", "", value);
    if (p !== undefined) cell.append(bar(p));
    list.append(element("dt", "", what), cell);
  }
  const head = element("p", "", element("strong", "", named(event.text, event.id)), ` ${origin(event)}`);
  panel.className = viewClass(event.writer);
  panel.replaceChildren(head, list);
  panel.hidden = false;
  place(span);
  if (aloud) {
    say([event.text.trim() || named(event.text, event.id), origin(event), ...numbers.map(([what, value]) => `${what} ${value}`)].join(", "));
  }
}

export function hide() {
  if (!pinned) panel.hidden = true;
}

/** Keep the panel open, and list the alternatives to the token in it.
 *
 * find: returns the alternatives; take: called with the chosen one, null if none can be taken, for the reason `why`. */
export async function pin({ span, event, byKey }, find, take, why) {
  pinned = span;
  const others = element("div", "others", element("p", "", "Other words in this place: …"));
  others.setAttribute("role", "group");
  others.setAttribute("aria-label", "Other words in this place");
  panel.classList.add("pinned");
  panel.append(others);
  place(span);
  const shown = await find().then(
    (found) => [element("p", "", take ? "Take another word, and the answer continues from it:" : why), choices(found, event, take)],
    (error) => [element("p", "", error.message)],
  );
  if (!others.isConnected) return;
  others.replaceChildren(...shown);
  place(span);
  if (!byKey) return;
  const first = others.querySelector("button:enabled");
  if (first) first.focus();
  else say(others.innerText);
}

/** A table of the alternatives, with their probabilities in each view. */
function choices(found, event, take) {
  const views = Object.keys(found[0]?.p ?? {});
  const names = views.map((name) => Object.assign(element("th", "", name), { scope: "col" }));
  const row = (other) => {
    const isThis = other.id === event.id;
    const made = button(named(other.text, other.id), () => {
      unpin();
      take(other);
    });
    made.disabled = !take || isThis || !other.text;
    const chances = views.map((name) => element("td", viewClass(name), number(other.p[name]), bar(other.p[name])));
    return element("tr", isThis ? "this" : "", element("th", "", made), ...chances);
  };
  return element("table", "", element("tr", "", element("td"), ...names), ...found.map(row));
}

/** Close the panel, also if it was kept open; returns whether it was open. */
export function unpin() {
  const wasOpen = !panel.hidden;
  const back = panel.contains(document.activeElement) && pinned?.closest("[tabindex]");
  pinned = null;
  panel.hidden = true;
  if (back) back.focus({ preventScroll: true });
  return wasOpen;
}

/** Keep the panel beside its token when the page scrolls. */
export function stayBeside() {
  if (panel.hidden) return;
  if (at.isConnected) place(at);
  else unpin();
}

addEventListener("pointerdown", ({ target }) => pinned && !panel.contains(target) && unpin());
panel.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.stopPropagation();
  unpin();
});

export const say = (text) => (said.textContent = text);

/** Move the panel and the announcements into a part of the page: screen readers ignore everything outside an open dialog,
 * and the dialog covers it. */
export function showIn(part) {
  unpin();
  part.append(said, panel);
}

/** The CSS class of a view's colour.  There are six colours; more views use them again. */
export const viewClass = (name) => (/^[a-z]$/.test(name ?? "") ? "abcdef"[(name.charCodeAt(0) - 97) % 6] : "");

/** Place the panel below the token's first line, or above it if there is no room, and within the window. */
function place(span) {
  at = span;
  const box = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const { width, height } = panel.getBoundingClientRect();
  const below = box.bottom + 8;
  const top = below + height < innerHeight ? below : Math.max(8, box.top - height - 8);
  panel.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8))}px`;
  panel.style.top = `${top}px`;
}
