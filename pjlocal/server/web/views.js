/** The settings of the next question: the fields of the form. */

import { json } from "./api.js";
import { button, by, element } from "./nodes.js";
import { say } from "./token.js";

const MEANINGS = {
  judge: "One view drafts a few tokens and the other judges them; then they change roles.",
  base: "The first view always drafts and the second always judges: the second view's preference decides the text.",
  both: "Each word is weighed by all preferences at once.",
  prompt: "All preferences are in one prompt.",
  rewrite: "A plain answer first; then its correction by the preferences.",
  plain: "The model by itself, without preferences.",
};
const PLACES = {
  system: "in the system message",
  "user-turn": "in a user turn of its own",
  question: "after your question, the strongest place",
};
const AUTO = "follows, token by token, how far the preferences differ";
const WHOLE = ["max_tokens", "seed", "best"];
const NUMBERS = ["temperature", ...WHOLE];
const FIELDS = ["mode", "strength", "placement", "system", ...NUMBERS];
export const modes = Object.keys(MEANINGS);
let presets = {};
let strengths = {}; // the automatic strength in each mode
let automatic = {}; // the automatic temperature by source, and the automatic length
let source = "own"; // of the automatic temperature: pjlocal ("own") or the model's file ("model")
let preferred = ""; // the automatic mode, if there are preferences
let adjusting = Promise.resolve();
let defaults = { preferences: {} };
let chat = () => null; // returns the number of the open chat
let saved = ""; // the fields as they are saved in the chat
let fresh = ""; // the fields with the server's defaults
let ofChat = ""; // the text that stands for a seed that JavaScript rounds: the chat's seed stays in force, unless it is changed

/** whichChat: returns the number of the open chat; null if it is not saved yet. */
export function fill(about, whichChat) {
  chat = whichChat;
  ({ presets, strengths, automatic, default_mode: preferred, settings: defaults } = about);
  const options = (values) => values.map((value) => Object.assign(element("option", "", value), { value }));
  by("mode").append(...options(modes));
  by("placement").append(...options(Object.keys(PLACES)));
  by("views").addEventListener("submit", (event) => event.preventDefault());
  by("views").addEventListener("input", explain);
  for (const view of all()) {
    view.querySelector(".chips").append(...Object.entries(presets).map((preset) => chip(view, ...preset)));
    view.addEventListener("input", () => grow(view));
  }
  show({});
  fresh = contents();
}

/** Show the settings of a saved chat; missing ones are the server's defaults. */
export function show(settings) {
  const of = (group) => ({ ...defaults[group], ...settings[group] });
  const [preferences, generation, sampling, prompting] = ["preferences", "generation", "sampling", "prompting"].map(of);
  const explicit = settings.explicit ?? Object.keys(settings.sampling ?? {});
  for (const view of all()) {
    const texts = preferences[view.dataset.view] ?? [];
    setFields(view, texts);
    view.querySelector(".presets").open = !texts.length;
  }
  source = sampling.defaults;
  by("mode").value = modes.includes(generation.mode) ? generation.mode : ""; // or a removed one, in an old chat
  by("strength").value = generation.strength ?? "";
  by("placement").value = prompting.placement;
  by("system").value = prompting.system;
  const isSet = explicit.includes("temperature") || defaults.explicit.includes("temperature");
  by("temperature").value = isSet ? sampling.temperature : "";
  by("max_tokens").value = generation.max_tokens;
  showSeed(generation.seed);
  by("best").value = generation.best > 1 ? generation.best : "";
  by("adjusted").textContent = "";
  note(contents());
  unfold();
  explain();
}

/** Open "More" if a setting in it is not the server's default. */
function unfold() {
  const inMore = (contents) => String(JSON.parse(contents).slice(2 + FIELDS.indexOf("system")));
  if (fresh && inMore(contents()) !== inMore(fresh)) by("more").open = true;
}

/** The contents of the fields. */
export const contents = () => JSON.stringify([wishes("a"), wishes("b"), ...FIELDS.map((id) => by(id).value)]);

/** Note the contents of the fields that the chat has saved. */
export const note = (contents) => (saved = contents);

/** The contents of the fields if they are not saved in the chat; else null. */
export const unsaved = () => (contents() === saved ? null : contents());

export function restore(contents) {
  const [a, b, ...values] = JSON.parse(contents);
  all().forEach((view, n) => setFields(view, [a, b][n]));
  FIELDS.forEach((id, n) => (by(id).value = values[n]));
  unfold();
  explain();
}

/** Keep the fields for a new chat, except settings that belong to the previous chat: files of the server, and a rounded seed.
 * Returns a function that restores them. */
export function leaveChat() {
  const before = [contents(), saved, ofChat, source];
  const files = Object.values(defaults.preferences).flat().map(bare);
  for (const view of all()) {
    const texts = wishes(view.dataset.view);
    const left = texts.filter((wish) => !wish.startsWith("@") || files.includes(bare(wish)));
    if (left.length < texts.length) setFields(view, left);
  }
  if (ofChat) showSeed(defaults.generation.seed);
  source = defaults.sampling.defaults;
  note(fresh);
  explain();
  return () => {
    [, saved, ofChat, source] = before;
    restore(before[0]);
  };
}

function showSeed(seed) {
  ofChat = seed && !Number.isSafeInteger(seed) ? `about ${seed}` : "";
  by("seed").value = ofChat || (seed ?? "");
}

/** The settings to send with a question, and the names of those that the user left empty, or that have no effect. */
export function chosen() {
  const isGiven = (name) => text(name) && (hasPreferences() || !["strength", "best"].includes(name));
  const settings = { draft_prefer: wishes("a"), judge_prefer: wishes("b"), placement: by("placement").value };
  settings.system = by("system").value.trim();
  if (by("mode").value) settings.mode = by("mode").value;
  if (isGiven("strength")) settings.strength = decimal("strength");
  for (const name of NUMBERS) if (isGiven(name)) settings[name] = WHOLE.includes(name) ? whole(text(name)) : number(decimal(name));
  if (ofChat && text("seed") === ofChat) delete settings.seed;
  return { settings, unset: NUMBERS.filter((name) => !isGiven(name)) };
}

/** The settings in the format of saved turns. */
export const asSaved = ({ mode, draft_prefer: a, judge_prefer: b }) => ({ mode, preferences: { a, b } });

const all = () => [...document.querySelectorAll("[data-view]")];
const fields = (view) => [...view.querySelectorAll("textarea")];
const wishes = (name) => fields(document.querySelector(`[data-view=${name}]`)).map(({ value }) => value.trim()).filter(Boolean);
const text = (id) => by(id).value.trim();
const decimal = (id) => text(id).replace(",", ".");
// Text that is not a number is sent unchanged: the server's message names the field.  `ask` refuses a number that would be rounded.
const number = (text) => (Number.isNaN(Number(text)) ? text : Number(text));
const whole = (text) => (!/^-?\d+$/.test(text) ? text : Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text));
const hasPreferences = () => wishes("a").length + wishes("b").length > 0;
const modeInForce = () => by("mode").value || (hasPreferences() ? preferred : "plain");

function explain() {
  const mode = modeInForce();
  by("meaning").textContent = (by("mode").value ? "" : `Automatic is ${mode} here: `) + MEANINGS[mode];
  const idle = ["plain", "rewrite"].includes(mode);
  const automaticStrength = strengths[mode] === "auto" ? AUTO : `is ${strengths[mode]}`;
  const here = idle ? "It changes nothing in this mode." : text("strength") ? "" : `Automatic ${automaticStrength} here.`;
  by("meaning-strength").textContent = `Strength says how hard a preference pushes: 1 is its ordinary effect, more exaggerates it, below 0 reverses it. ${here}`;
  by("meaning-more").textContent =
    `Temperature: 0 takes the most probable word, higher values vary more; automatic is ${automatic.temperature[source]} here. ` +
    `Length is the most tokens that an answer may have; automatic is ${automatic.max_tokens}. The same seed gives the same answer again. ` +
    "Best of writes this number of answers, and keeps the one that meets both preferences best.";
  const place = idle ? "it changes nothing in this mode" : `the preferences are put ${PLACES[by("placement").value] ?? ""}`;
  by("meaning-placement").textContent = `Placement: ${place}.`;
}

// The preferences of a view: a field for each, and an empty field for another.

function setFields(view, texts) {
  view.querySelector(".wishes").replaceChildren();
  for (const text of texts) addField(view).value = text;
  grow(view);
}

function grow(view) {
  if (fields(view).at(-1)?.value !== "") addField(view);
  const names = wishes(view.dataset.view).map(nameOf);
  for (const one of view.querySelectorAll(".chip")) one.setAttribute("aria-pressed", names.includes(one.textContent));
}

function addField(view) {
  const n = fields(view).length;
  const [name, which] = [`Preference ${n + 1} of view ${view.dataset.view}`, view.dataset.view === "a"];
  const field = Object.assign(element("textarea"), { rows: 1, dir: "auto" });
  field.placeholder = n ? "and another" : which ? "vivid, or in your own words" : "creative";
  field.setAttribute("aria-label", name);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    const next = fields(view)[fields(view).indexOf(field) + 1];
    (next ?? field).focus();
  });
  const dial = (sign, more, what) => {
    const made = Object.assign(button(sign, () => adjust(view, field, more)), { title: `${what} of it` });
    made.setAttribute("aria-label", `${what} of: ${name}`);
    return made;
  };
  view.querySelector(".wishes").append(element("div", "wish", field, dial("−", false, "Less"), dial("+", true, "More")));
  return field;
}

function chip(view, name, text) {
  const made = button(name, () => {
    const texts = wishes(view.dataset.view);
    const left = texts.filter((wish) => nameOf(wish) !== name);
    setFields(view, left.length < texts.length ? left : [...texts, name]);
    explain();
  });
  return Object.assign(made, { className: "chip", title: text });
}

/** A preference without the strength after its last colon. */
const bare = (wish) => wish.replace(/\s*:\s*([-+.\d]+|auto)$/i, "");
const nameOf = (wish) => bare(wish).toLowerCase().normalize("NFC");

/** Raise or lower the strength of a preference by 0.5, as `/more` and `/less` do; at 0 it is removed.  Clicks queue up. */
const adjust = (...step) => (adjusting = adjusting.then(() => adjusted(...step)));

async function adjusted(view, field, more) {
  const before = field.value.trim();
  if (!before || !field.isConnected) return;
  const { settings: { mode, strength } } = chosen();
  const asked = { preference: before, more, settings: { mode, strength }, chat: chat() };
  let said;
  try {
    const { preference } = await json("api/dials", { body: asked });
    field.value = preference;
    said = `${bare(before)}: ${preference ? `strength ${preference.slice(bare(preference).length + 1)}` : "removed"}`;
  } catch (error) {
    said = error.message;
  }
  const texts = wishes(view.dataset.view);
  if (!field.value) setFields(view, texts);
  by("adjusted").textContent = said;
  say(said);
  explain();
  if (!field.isConnected) fields(view)[0].focus(); // the button that had the focus was removed
}
