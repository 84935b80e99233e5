"""Preferences: presets, their texts and strengths, and the prefix of a view."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import UsageError, did_you_mean
from ..settings import VIEW_LETTERS, Generation, Mode, parse_strength
from ..textfile import fold, read_text

#: The paper's nine objectives (arXiv 2504.12663, section 4), then those of everyday use.  The names of the nine are the
#: paper's; all texts are pjlocal's own.  In the authors' program, vivid is a "richly descriptive" answer "with clarity
#: and detail", and creative is an "imaginative" one with "innovative ideas".
#:
#: A text is an instruction.  A description, as in "Be vivid: use lively images", was repeated in the answer more often.
PRESETS: dict[str, str] = {
    "helpful": "Give an answer that is useful and practical.",
    "harmless": "Say nothing dangerous, unethical or offensive.",
    "humorous": "Answer with humor and wit.",
    "correct": "Stick to facts that are true.",
    "informative": "Explain with facts and details.",
    "professional": "Write precisely and courteously, like an expert.",
    "creative": "Offer original, unexpected ideas.",
    "touching": "Write with feeling, so that it moves the reader.",
    "vivid": "Describe colors, sounds and smells.",
    "concise": "Answer in as few words as possible.",
    "simple": "Write in plain words and short sentences.",
    "formal": "Write in a formal, polite tone.",
    "friendly": "Talk like a kind friend.",
    "warm": "Write with warmth and kindness.",
    "enthusiastic": "Sound enthusiastic and full of energy.",
    "playful": "Write in a playful, teasing way.",
    "blunt": "Give a blunt, direct answer.",
    "cautious": "Point out risks, and say what is uncertain.",
    "detailed": "Give a long, detailed answer with examples.",
    "plain-words": "Use words that a child knows.",
    "step-by-step": "Answer in numbered steps.",
    "lists": "Answer in bullet points.",
    "no-lists": "Write one flowing paragraph instead of a list.",
    "emoji": "Write in sentences, each with an emoji.",
}

#: Words of a similar meaning.  By spelling alone, "harmless" would be suggested for "loving".
_MEANINGS = {
    "helpful": "useful practical",
    "harmless": "safe ethical",
    "humorous": "funny witty humor humour joking comic amusing",
    "correct": "accurate true factual honest precise right",
    "informative": "educational rich",
    "professional": "business expert businesslike serious",
    "creative": "imaginative original inventive artistic",
    "touching": "emotional moving heartfelt poetic",
    "vivid": "descriptive colorful colourful lively sensory",
    "concise": "short brief terse succinct compact",
    "simple": "easy clear basic",
    "formal": "polite official impersonal academic",
    "friendly": "casual nice informal supportive",
    "warm": "kind gentle loving caring affectionate",
    "enthusiastic": "excited cheerful energetic upbeat passionate",
    "playful": "fun silly teasing whimsical",
    "blunt": "direct frank straight outspoken",
    "cautious": "careful wary prudent hedged",
    "detailed": "long thorough verbose complete elaborate",
    "plain-words": "plain childlike everyday",
    "step-by-step": "steps stepwise numbered",
    "lists": "list bullets bulleted points",
    "no-lists": "prose paragraphs",
    "emoji": "emojis emoticons smileys",
}
_LIKE = {word: preset for preset, words in _MEANINGS.items() for word in words.split()}

#: Words of the chat's /prefer and /avoid, which cannot name a new preset.  The letters are names of views.
RESERVED = {*VIEW_LETTERS, "set", "add", "clear", "default"}

_own: dict[str, str] = {}
_personas: set[str] = set()  # names

_HOW_FREE_TEXT = "a preference of your own needs more than one word, as in 'Answer in rhyme', or @FILE"


def use_own(presets: Mapping[str, str], personas: Iterable[str] = ()) -> None:
    """Set the user's own presets, by name in lower case, and the names of the personas.  The built-in presets stay."""
    _own.clear()
    _own.update(presets)
    _personas.clear()
    _personas.update(personas)


def presets() -> dict[str, str]:
    """The text of every preset by name: the built-in ones and the user's own."""
    return PRESETS | _own


def resolve(spec: str, known: Mapping[str, str] | None = None) -> str:
    """The text of a preference, which is a preset's name, several words of free text, or ``@file``.

    Args:
        known: the presets by name, by default all of `presets`.

    Raises:
        UsageError: the preference is empty, an unknown preset, or a file that cannot be read as UTF-8.
    """
    spec = without_strength(spec)
    known = presets() if known is None else known
    if not spec:
        raise UsageError(f"a preference is empty: name a preset ({', '.join(known)}) or write one out")
    if spec.startswith("@"):
        return read_text(spec[1:], "preference file")
    if preset := known.get(fold(spec)):
        return preset
    # Scripts from U+0E00 on have no spaces between words.
    if len(spec.split()) == 1 and not any(char.isalpha() and char >= "\u0e00" for char in spec):
        check_strength(spec, known)
        if fold(spec) in _personas:
            raise UsageError(f"{spec!r} is a persona: use -P {spec}")
        hint = preset_hint(fold(spec.partition(":")[0]), known)
        raise UsageError(f"unknown preset {spec!r}: {hint} ({_HOW_FREE_TEXT})")
    return spec


def check_strength(spec: str, known: Collection[str]) -> None:
    """Refuse another word than a strength behind a preset's name, as in ``vivid:very``.  Raises UsageError."""
    name, colon, strength = spec.partition(":")
    if colon and fold(name) in known:
        _check_strength(spec, strength)


def preset_hint(word: str, known: Collection[str]) -> str:
    """A suggestion of a preset with a similar meaning or spelling; else the names of all presets."""
    like = _LIKE.get(word)
    if like in known:
        return f"did you mean {like}?"
    return did_you_mean(word, known) or f"known are {', '.join(known)}"


_STRENGTH = re.compile(r"(?P<text>.*[^\s:]):(?P<strength>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|auto)", re.DOTALL)

_HOST = re.compile(r"://[^/\s]*\Z")  # a port follows


def split_strength(spec: str) -> tuple[str, str | None]:
    """Split a preference at the strength after its last colon, as in ``vivid:1.5``.

    A colon in a text, as in ``a ratio of 3:2``, ``note: 5`` or ``http://localhost:8080``, belongs to the text.  After
    the name of a file, as in ``@my files/prompt2:1.5``, it begins the strength.

    Raises:
        UsageError: the strength is outside its limits.
    """
    match = _STRENGTH.fullmatch(spec.strip())
    if match is None:
        return spec, None
    text = match["text"]
    if not text.startswith("@") and ((text[-1].isdigit() and " " in text) or _HOST.search(text)):
        return spec, None
    _check_strength(spec, match["strength"])
    return text, match["strength"]


def without_strength(spec: str) -> str:
    """A preference without its strength."""
    return split_strength(spec)[0].strip()


def _check_strength(spec: str, strength: str) -> None:
    try:
        parse_strength(strength)
    except UsageError as error:
        raise UsageError(f"the preference {spec!r}: {error}") from None


def strengths(wishes: Sequence[str], generation: Generation, mode: Mode) -> set[float | None]:
    """The strengths of the preferences of one view.  Raises UsageError: one is outside its limits."""
    otherwise = strength_in_force(generation, mode)
    return {parse_strength(split_strength(wish)[1] or otherwise) for wish in wishes or [""]}


def strength_in_force(generation: Generation, mode: Mode) -> str:
    """The strength of preferences that have none of their own: 1, as in the paper, except in mode both, where ``auto``
    meets both preferences more often (docs/results.md)."""
    return generation.strength or ("auto" if mode == "both" else "1")


def prefix(preferences: Sequence[str]) -> str:
    """The preference prefix of one view: the texts of its preferences, one to a line; empty for none."""
    return "\n".join(resolve(preference) for preference in preferences)


def correction(preferences: Sequence[str], avoid: Sequence[str]) -> str:
    """The instruction to correct an answer."""
    lines = ["Rewrite your answer to follow these instructions:", prefix(preferences)]
    if avoid:
        lines += ["Do not follow these:", prefix(avoid)]
    return "\n".join([*lines, "Reply with the rewritten answer alone."])
