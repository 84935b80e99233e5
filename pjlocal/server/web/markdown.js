/** Parse untrusted Markdown into trees of nodes.  `leaf(from, to, shown)` makes the nodes of a part of the source, with the
 * text `shown` instead if it is given, so the writer of each token stays known.  HTML is treated as text, and pictures are
 * shown by their descriptions.
 *
 * While it is parsed, a text is a list of lines, each with its start and end in the source. */

import { formula } from "./math.js";
import { node } from "./nodes.js";

const DEPTH = 8; // of nesting; anything deeper is treated as text
const LONGEST_FORMULA = 1000; // characters
const MARKED = /[\\`*_~[!$&]/;

/** The blocks of the source, in order, each with `from`, `to`, and `make(leaf)`, which returns its node. */
export function blocks(source) {
  return parse(source, lines(source), 0);
}

function lines(source) {
  const found = [];
  for (let from = 0; from <= source.length; ) {
    const end = source.indexOf("\n", from);
    const to = end < 0 ? source.length : end;
    found.push({ from, to });
    from = to + 1;
  }
  return found;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+|$)/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

const SIDES = { ":-": "left", ":-:": "center", "-:": "right" };

function parse(source, all, depth) {
  const text = ({ from, to }) => source.slice(from, to);
  const found = [];
  const add = (first, last, make) => found.push({ from: all[first].from, to: all[last - 1].to, make });
  let at = 0;
  const until = (goesOn) => {
    while (at < all.length && goesOn(text(all[at]))) at++;
    return at;
  };
  while (at < all.length) {
    const first = at;
    const line = text(all[at++]);
    let match;
    if (!line.trim()) continue;
    if ((match = FENCE.exec(line))) {
      const fence = match[1];
      until((next) => !(next.trim().startsWith(fence) && !next.trim().replaceAll(fence[0], "")));
      const inside = all.slice(first + 1, at);
      if (at < all.length) at++;
      add(first, at, (leaf) => {
        const copies = node("button", ["Copy code"], { className: "copy", type: "button" });
        return node("div", [copies, node("pre", [node("code", joined(inside, leaf))])], { className: "code" });
      });
    } else if ((match = HEADING.exec(line))) {
      const inside = [{ from: all[first].from + match[0].length, to: all[first].to }];
      const level = Math.min(6, match[1].length + 3); // below the question's
      add(first, at, (leaf) => node(`h${level}`, inline(source, inside, leaf)));
    } else if (RULE.test(line)) {
      add(first, at, () => node("hr"));
    } else if (depth < DEPTH && QUOTE.test(line)) {
      until((next) => QUOTE.test(next));
      const inside = all.slice(first, at).map((one) => cut(one, QUOTE.exec(text(one))[0].length));
      add(first, at, (leaf) => node("blockquote", made(parse(source, inside, depth + 1), leaf)));
    } else if (depth < DEPTH && ITEM.test(line)) {
      const { end, make } = list(source, all, first, depth);
      at = end;
      add(first, at, make);
    } else if (line.includes("|") && at < all.length && DIVIDER.test(text(all[at])) && text(all[at]).includes("-")) {
      at++;
      until((next) => next.includes("|"));
      const [head, divider, ...rows] = all.slice(first, at).map((row) => cells(source, row));
      const sides = divider.map((cell) => SIDES[text(cell).replace(/-+/, "-")]);
      add(first, at, (leaf) => table(source, [head, ...rows], sides, leaf));
    } else {
      until((next) => next.trim() && !begins(next));
      const inside = all.slice(first, at).map((one) => cut(one, spaces(text(one), Infinity)));
      add(first, at, (leaf) => node("p", inline(source, inside, leaf)));
      found[found.length - 1].plain = (leaf) => inline(source, inside, leaf);
    }
  }
  return found;
}

/** The list that begins with a line: the number of the line after it, and `make`, as for `blocks`. */
function list(source, all, first, depth) {
  const text = ({ from, to }) => source.slice(from, to);
  const ordered = /\d/.test(ITEM.exec(text(all[first]))[2]);
  const items = [];
  let at = first;
  let match;
  const until = (goesOn) => {
    while (at < all.length && goesOn(text(all[at]))) at++;
  };
  while (at < all.length && (match = ITEM.exec(text(all[at]))) && /\d/.test(match[2]) === ordered) {
    const begin = at++;
    const indent = match[1].length + match[2].length + 1;
    until((next) => !next.trim() || columns(next) >= Math.min(indent, 2));
    while (at - 1 > begin && !text(all[at - 1]).trim()) at--; // blank lines after it are between blocks
    const inside = all.slice(begin, at).map((one, n) => cut(one, n ? spaces(text(one), indent) : match[0].length));
    const task = /^\[([ xX])\] /.exec(text(inside[0]));
    const box = task && { from: inside[0].from, to: inside[0].from + 3, shown: task[1] === " " ? "☐ " : "☑ " };
    if (task) inside[0] = cut(inside[0], 4);
    items.push({ box, found: parse(source, inside, depth + 1) });
    const next = at;
    until((line) => !line.trim());
    if (at < all.length && !ITEM.test(text(all[at]))) at = next;
  }
  const start = ordered ? parseInt(text(all[first]), 10) : 1;
  const make = (leaf) =>
    node(ordered ? "ol" : "ul", items.map((item) => listed(item, leaf)), start === 1 ? {} : { start });
  return { end: at, make };
}

const begins = (line) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((block) => block.test(line));
const cut = ({ from, to }, n) => ({ from: Math.min(to, from + n), to });
const after = (column, char) => (char === "\t" ? column + 4 - (column % 4) : column + 1);
/** The columns of white space at the beginning of a line. */
const columns = (line) => [.../^\s*/.exec(line)[0]].reduce(after, 0);
/** The characters of white space at the beginning of a line that begin in its first `most` columns. */
const spaces = (line, most) => {
  let n = 0;
  for (let column = 0; column < most && /\s/.test(line[n] ?? ""); n++) column = after(column, line[n]);
  return n;
};
const made = (found, leaf) => found.map((block) => block.make(leaf));
/** The nodes of a list item; its first paragraph has no element of its own. */
const tight = (found, leaf) => found.flatMap((block, n) => (n || !block.plain ? [block.make(leaf)] : block.plain(leaf)));

function listed({ box, found }, leaf) {
  if (!box) return node("li", tight(found, leaf));
  return node("li", [...leaf(box.from, box.to, box.shown), ...tight(found, leaf)], { className: "task" });
}

function joined(all, leaf) {
  return all.flatMap(({ from, to }, n) => (n ? ["\n", ...leaf(from, to)] : leaf(from, to)));
}

function cells(source, { from, to }) {
  const found = [];
  let begin = from;
  const push = (end) => {
    const text = source.slice(begin, end);
    if (text.trim() || (begin !== from && end !== to)) {
      found.push({ from: begin + spaces(text, Infinity), to: begin + text.trimEnd().length });
    }
    begin = end + 1;
  };
  for (let at = from; at < to; at++) {
    if (source[at] === "|" && source[at - 1] !== "\\") push(at);
  }
  push(to);
  return found;
}

function table(source, [head, ...rows], sides, leaf) {
  const side = (n) => (sides[n] ? { className: sides[n] } : {});
  const row = (name, all) => node("tr", all.map((cell, n) => node(name, inline(source, [cell], leaf), side(n))));
  const body = node("tbody", rows.map((all) => row("td", all)));
  return node("div", [node("table", [node("thead", [row("th", head)]), body])], { className: "wide" });
}

/** The nodes of lines. */
function inline(source, all, leaf) {
  const text = all.map(({ from, to }) => source.slice(from, to)).join("\n");
  const starts = [];
  let length = 0;
  for (const { from, to } of all) {
    starts.push({ at: length, from });
    length += to - from + 1;
  }
  /** The nodes of a part of the text, which may span several lines. */
  const literal = (from, to, shown) => {
    const nodes = [];
    starts.forEach(({ at, from: begin }, n) => {
      const end = n + 1 < starts.length ? starts[n + 1].at - 1 : length - 1;
      if (n && at > from && at <= to) nodes.push("\n");
      const [first, last] = [Math.max(from, at), Math.min(to, end)];
      if (first < last) nodes.push(...leaf(begin + first - at, begin + last - at, shown));
    });
    return nodes;
  };
  return MARKED.test(text) || text.includes("http") ? spans(text, 0, text.length, literal, 0) : literal(0, text.length);
}

const AROUND = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "s"],
  ["*", "em"],
  ["_", "em"],
];

function spans(text, from, to, literal, depth, inLink = false) {
  const nodes = [];
  const unclosed = new Set(); // marks that nothing closes from here on
  let done = from;
  const flush = (end) => {
    if (done < end) nodes.push(...literal(done, end));
  };
  const put = (begin, end, ...made) => {
    flush(begin);
    nodes.push(...made);
    done = end;
    return end;
  };
  const inside = (name, begin, end, isLabel = inLink) => node(name, spans(text, begin, end, literal, depth + 1, isLabel));
  for (let at = from; at < to; ) {
    const here = text[at];
    const math = here === "$" || here === "\\" ? inFormula(text, at, to) : null;
    if (math) {
      at = put(at, math.next, node("span", formula(text, math.from, math.to, literal), { className: "math" }));
    } else if (here === "&") {
      const entity = /^&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][a-z\d]{1,31});/i.exec(text.slice(at, Math.min(to, at + 34)))?.[0];
      const shown = entity && new DOMParser().parseFromString(entity, "text/html").body.textContent;
      at = shown && shown.length <= 2 ? put(at, at + entity.length, ...literal(at, at + entity.length, shown)) : at + 1;
    } else if (here === "\\" && at + 1 < to && /[!-/:-@[-`{-~]/.test(text[at + 1])) {
      flush(at);
      done = at + 1;
      at += 2;
    } else if (here === "`") {
      const { begin, end, next } = inCode(text, at, to);
      at = end < 0 ? next : put(at, next, node("code", literal(begin, end)));
    } else if (depth < DEPTH && (here === "[" || (here === "!" && text[at + 1] === "["))) {
      const link = linkAt(text, at, to);
      if (link) {
        const begin = at + link[0].indexOf("[") + 1;
        at = put(at, at + link[0].length, linked(link[2], here === "!", inside("span", begin, begin + link[1].length, true)));
      } else at++;
    } else if (!inLink && here === "h" && /^https?:\/\//.test(text.slice(at, at + 8)) && !/\w/.test(text[at - 1] ?? "")) {
      const end = at + addressIn(text.slice(at, to)).length;
      at = put(at, end, linked(text.slice(at, end), false, node("span", literal(at, end))));
    } else if (depth < DEPTH) {
      const around = AROUND.find(([mark]) => text.startsWith(mark, at) && opens(text, at, mark));
      const end = around && !unclosed.has(around[0]) ? ends(text, at + around[0].length, to, around[0]) : -1;
      if (around && end < 0) unclosed.add(around[0]);
      if (end > 0) at = put(at, end + around[0].length, inside(around[1], at + around[0].length, end));
      else at += around ? around[0].length : 1;
    } else at++;
  }
  flush(to);
  return nodes;
}

/** The formula that begins at a position, with its delimiters; null if none begins there.  Two prices are no formula. */
function inFormula(text, at, to) {
  const mark = /^(\$\$?|\\[([])/.exec(text.slice(at, at + 2))?.[0];
  if (!mark || (mark[0] === "$" && /[\w$]/.test(text[at - 1] ?? ""))) return null;
  const from = at + mark.length;
  const last = { "\\(": "\\)", "\\[": "\\]" }[mark] ?? mark;
  if (mark === "$" && !/\S/.test(text[from] ?? " ")) return null;
  const part = text.slice(from, Math.min(to, from + LONGEST_FORMULA));
  for (let end = part.indexOf(last); end > 0; end = part.indexOf(last, end + 1)) {
    const isPrice = mark === "$" && (/\s/.test(part[end - 1]) || /\d/.test(part[end + 1] ?? ""));
    if (!isPrice) return { from, to: from + end, next: from + end + last.length };
  }
  return null;
}

const opens = (text, at, mark) =>
  /\S/.test(text[at + mark.length] ?? " ") && !(mark[0] === "_" && /\w/.test(text[at - 1] ?? " "));

/** The position of the mark that closes this one, outside code, formulas and links; -1 if none does. */
function ends(text, from, to, mark) {
  for (let at = from; at + mark.length <= to; at++) {
    const here = text[at];
    const math = here === "$" || here === "\\" ? inFormula(text, at, to) : null;
    const link = here === "[" ? linkAt(text, at, to) : null;
    if (math) at = math.next - 1;
    else if (link) at += link[0].length - 1;
    else if (here === "\\") at++;
    else if (here === "`") at = inCode(text, at, to).next - 1;
    else if (at > from && text.startsWith(mark, at)) {
      const run = /^(.)\1*/.exec(text.slice(at, Math.min(to, at + 4)))[0].length;
      if (mark.length === 1 && run === 2) at++; // of a strong text within
      else if (/\S/.test(text[at - 1]) && !(mark[0] === "_" && /\w/.test(text[at + mark.length] ?? " "))) {
        return at + (run > mark.length ? run - mark.length : 0);
      }
    }
  }
  return -1;
}

/** The begin and end of the code after some ticks, and where the text goes on.  The end is -1 if no ticks close it. */
function inCode(text, at, to) {
  const run = /^`+/.exec(text.slice(at, to))[0];
  const begin = at + run.length;
  for (let end = text.indexOf(run, begin); end >= 0 && end + run.length <= to; end = text.indexOf(run, end + 1)) {
    if (text[end - 1] !== "`" && text[end + run.length] !== "`") return { begin, end, next: end + run.length };
  }
  return { begin, end: -1, next: begin };
}

/** The link or picture that begins at a position, as a match: its label and its address; null if none begins there. */
const linkAt = (text, at, to) =>
  /^!?\[([^[\]\n]*)\]\(<?((?:[^\s()<>]|\([^\s()<>]*\))*)>?(?:\s+"[^"\n]*")?\)/.exec(text.slice(at, Math.min(to, at + 2000)));

/** The address at the beginning of a text.  Punctuation at its end, or a bracket that it does not open, belongs to the text. */
function addressIn(text) {
  let address = /^[^\s<>"`*]*/.exec(text)[0];
  let left = [...address].reduce((n, char) => n + (char === "(") - (char === ")"), 0);
  while (/[.,:;!?'([\]]$/.test(address) || (left < 0 && address.endsWith(")"))) {
    left += address.endsWith(")") - address.endsWith("(");
    address = address.slice(0, -1);
  }
  return address;
}

/** A link, if it leads to a web page; a picture is never fetched. */
function linked(address, isPicture, label) {
  if (isPicture || !/^https?:\/\/[^/]/i.test(address)) return label;
  return node("a", [label], { href: address, title: address, target: "_blank", rel: "noopener noreferrer nofollow" });
}
