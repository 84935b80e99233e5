/** An answer's tokens in a strip: a lane for each view, its tokens in its colour, behind them who drafted in the round. */

import { viewClass } from "./token.js";

const SVG = "http://www.w3.org/2000/svg";
const LANE = 6;

/** The strip, and in words what it shows; null where nothing was judged. */
export function strip(events) {
  const judged = events.filter((event) => event.draft !== null);
  if (!judged.length) return null;
  const names = new Set(judged.flatMap(({ draft, judge }) => [draft, judge]).filter(Boolean));
  const lanes = [...new Set(["a", "b", ...names])].sort();
  if (judged.some(({ writer }) => writer === null)) lanes.push(null); // what all wrote
  const lane = (name) => lanes.indexOf(name) * LANE;
  const svg = shape("svg", { viewBox: `0 0 ${judged.length} ${lanes.length * LANE}`, preserveAspectRatio: "none" });
  svg.classList.add("strip");
  let from = 0;
  judged.forEach(({ draft, round }, n) => {
    if (n + 1 < judged.length && judged[n + 1].round === round) return;
    svg.append(shape("rect", { x: from, y: lane(draft), width: n + 1 - from, height: LANE }, viewClass(draft), "draft"));
    from = n + 1;
  });
  judged.forEach(({ writer, kind }, x) => {
    svg.append(shape("rect", { x, y: lane(writer) + 1, width: 0.8, height: LANE - 2 }, viewClass(writer), kind));
  });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", words(judged));
  return svg;
}

/** How the answer went, in words. */
export function words(events) {
  const judged = events.filter((event) => event.draft !== null);
  if (!judged.length) return "";
  const kinds = judged.map(({ kind }) => kind);
  const count = (kind) => kinds.filter((one) => one === kind).length;
  const asked = count("accepted") + count("resampled");
  const rate = asked ? `${Math.round((100 * count("accepted")) / asked)} % accepted` : "";
  const writers = new Map([["a", 0], ["b", 0]]);
  for (const { writer } of judged) writers.set(writer ?? "all", (writers.get(writer ?? "all") ?? 0) + 1);
  const shares = [...writers].map(([name, n]) => `${name} ${Math.round((100 * n) / judged.length)} %`);
  const rounds = judged[judged.length - 1].round + 1;
  const { draft, judge } = judged[judged.length - 1];
  return [rate, `wrote: ${shares.join(", ")}`, `${rounds} round${rounds === 1 ? "" : "s"}, ${draft} drafted last, ${judge ?? "all"} judged`]
    .filter(Boolean)
    .join(" · ");
}

function shape(name, attributes, ...classes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.classList.add(...classes.filter(Boolean));
  return made;
}
