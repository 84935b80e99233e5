"""Preferences: presets, their texts and strengths, and the prefix of a view."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import UsageError, did_you_mean
from ..settings import parse_strength
from ..textfile import read_text

#: The paper's nine objectives (arXiv 2504.12663, section 4), then a few of everyday use.  The names are the paper's;
#: the texts are pjlocal's own.  In the authors' program, vivid is a "richly descriptive" answer "with clarity and
#: detail", and creative is an "imaginative" one with "innovative ideas".
PRESETS: dict[str, str] = {
    "helpful": "Be helpful: give a useful answer to what is really asked.",
    "harmless": "Be harmless: nothing dangerous, unethical or offensive.",
    "humorous": "Be humorous: answer with wit.",
    "correct": "Be correct: say only what is true.",
    "informative": "Be informative: give rich, relevant detail.",
    "professional": "Be professional: write precisely and courteously, as an expert.",
    "creative": "Be creative: offer original, unexpected ideas.",
    "touching": "Be touching: write with warmth that moves the reader.",
    "vivid": "Be vivid: use lively images and sensory detail.",
    "concise": "Be concise: use as few words as possible.",
    "simple": "Be simple: use plain words and short sentences.",
    "formal": "Be formal: use a polite, impersonal tone.",
    "friendly": "Be friendly: talk like a kind friend.",
}

#: Synonyms of the presets.  By spelling alone, "harmless" would be suggested for "warm".
_MEANINGS = {
    "helpful": "useful practical",
    "harmless": "safe ethical careful cautious",
    "humorous": "funny witty humor humour joking playful comic amusing",
    "correct": "accurate true factual honest precise right",
    "informative": "detailed thorough long verbose educational rich complete",
    "professional": "business expert businesslike serious",
    "creative": "imaginative original inventive artistic",
    "touching": "emotional moving heartfelt poetic",
    "vivid": "descriptive colorful colourful lively sensory",
    "concise": "short brief terse blunt succinct compact",
    "simple": "easy plain clear basic childlike",
    "formal": "polite official impersonal academic",
    "friendly": "warm kind casual nice cheerful enthusiastic informal gentle supportive",
}
_LIKE = {word: preset for preset, words in _MEANINGS.items() for word in words.split()}

_own: dict[str, str] = {}

_HOW_FREE_TEXT = "a preference of your own needs more than one word, as in 'Answer in rhyme', or @FILE"


def use_own(presets: Mapping[str, str]) -> None:
    """Set the user's own presets, by name in lower case.  The built-in ones stay."""
    _own.clear()
    _own.update(presets)


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
    spec = split_strength(spec)[0].strip()
    known = presets() if known is None else known
    if not spec:
        raise UsageError(f"a preference is empty: name a preset ({', '.join(known)}) or write one out")
    if spec.startswith("@"):
        return read_text(spec[1:], "preference file")
    if preset := known.get(spec.lower()):
        return preset
    if len(spec.split()) == 1 and max(spec) < "\u0e00":  # from U+0E00 on, scripts have no spaces between words
        name, colon, strength = spec.partition(":")
        if colon and name.lower() in known:
            _check_strength(spec, strength)
        hint = _hint(name.lower(), known)
        raise UsageError(f"unknown preset {spec!r}: {hint} ({_HOW_FREE_TEXT})")
    return spec


def _hint(word: str, known: Mapping[str, str]) -> str:
    """A suggestion of a preset with a similar meaning or spelling; else the names of all presets."""
    like = _LIKE.get(word)
    if like in known:
        return f"did you mean {like}?"
    return did_you_mean(word, known) or f"known are {', '.join(known)}"


_STRENGTH = re.compile(r"(?P<text>.*[^\s:]):(?P<strength>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|auto)", re.DOTALL)


def split_strength(spec: str) -> tuple[str, str | None]:
    """Split a preference at the strength after its last colon, as in ``vivid:1.5``.

    A colon in a text, as in ``a ratio of 3:2`` or ``note: 5``, belongs to the text.

    Raises:
        UsageError: the strength is outside its limits.
    """
    match = _STRENGTH.fullmatch(spec.strip())
    if match is None or (match["text"][-1].isdigit() and " " in match["text"]):
        return spec, None
    _check_strength(spec, match["strength"])
    return match["text"], match["strength"]


def _check_strength(spec: str, strength: str) -> None:
    try:
        parse_strength(strength)
    except UsageError as error:
        raise UsageError(f"the preference {spec!r}: {error}") from None


def prefix(preferences: Sequence[str]) -> str:
    """The preference prefix of one view: the texts of its preferences, one to a line; empty for none."""
    return "\n".join(resolve(preference) for preference in preferences)


def correction(preferences: Sequence[str], avoid: Sequence[str]) -> str:
    """The instruction to correct an answer."""
    lines = ["Rewrite your answer to follow these instructions:", prefix(preferences)]
    if avoid:
        lines += ["Do not follow these:", prefix(avoid)]
    return "\n".join([*lines, "Reply with the rewritten answer alone."])
