/** What the next question is asked under: the fields of the form. */

import { element } from "./markdown.js";

const by = (id) => document.getElementById(id);
const MEANINGS = {
  "": "The views take turns where there is a preference; without any, the model answers by itself.",
  judge: "One view drafts a few tokens and the other judges them; then they change roles.",
  base: "The first view drafts and the second judges, all the time: what is written is the second view's.",
  both: "Each word is weighed by all preferences at once.",
  args: "The preferences choose among the words that are likely without them.",
  prompt: "All preferences stand in one prompt.",
  rewrite: "A plain answer first; then its correction by the preferences.",
  plain: "The model by itself, without preferences.",
};
export const modes = Object.keys(MEANINGS).filter(Boolean);

export function fill(about) {
  for (const [name, text] of Object.entries(about.presets)) {
    const option = element("option", "", text);
    option.value = name;
    by("presets").append(option);
  }
  const options = (values) => values.map((value) => Object.assign(element("option", "", value), { value }));
  by("mode").append(...options(about.modes));
  by("placement").append(...options(about.placements));
  by("mode").addEventListener("change", explain);
  by("views").addEventListener("submit", (event) => event.preventDefault());
  for (const view of document.querySelectorAll("[data-view]")) {
    view.addEventListener("input", () => grow(view));
  }
  show(about.settings);
}

/** Show settings as chats keep them. */
export function show({ preferences = {}, generation = {}, prompting = {} }) {
  for (const view of document.querySelectorAll("[data-view]")) {
    for (const field of view.querySelectorAll("input")) field.remove();
    for (const wish of preferences[view.dataset.view] ?? []) view.append(field(view, wish));
    grow(view);
  }
  by("mode").value = generation.mode ?? "";
  by("strength").value = generation.strength ?? "";
  by("placement").value = prompting.placement ?? by("placement").value;
  explain();
}

/** What of it goes with a question. */
export function chosen() {
  const strength = by("strength").value.trim();
  const settings = { draft_prefer: wishes("a"), judge_prefer: wishes("b"), placement: by("placement").value };
  if (by("mode").value) settings.mode = by("mode").value;
  if (strength) settings.strength = strength;
  return settings;
}

/** The same as saved turns have it. */
export const asSaved = ({ mode, draft_prefer: a, judge_prefer: b }) => ({ mode, preferences: { a, b } });

const wishes = (name) =>
  [...document.querySelectorAll(`[data-view=${name}] input`)].map(({ value }) => value.trim()).filter(Boolean);

const explain = () => (by("meaning").textContent = MEANINGS[by("mode").value] ?? "");

/** There is always one empty field more. */
function grow(view) {
  const fields = [...view.querySelectorAll("input")];
  if (!fields.length || fields[fields.length - 1].value) view.append(field(view, ""));
}

function field(view, value) {
  const made = element("input");
  const n = view.querySelectorAll("input").length;
  made.value = value;
  made.setAttribute("list", "presets");
  made.setAttribute("aria-label", `Preference ${n + 1} of view ${view.dataset.view}`);
  made.placeholder = n ? "and another" : view.dataset.view === "a" ? "vivid, or in your own words" : "creative";
  return made;
}
