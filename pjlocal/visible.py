"""Make untrusted text safe to show: replace its control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Part = TypeVar("Part")

# C0 and C1 controls but tab and newline, DEL, and the marks that reorder or hide text on a terminal.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """Replace control characters, escape sequences and direction marks by visible marks.

    Otherwise the text of a model or a file could control the terminal.
    """
    return _UNSAFE.sub(_mark, text)


def _mark(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def one_line(text: str) -> str:
    """Make untrusted text safe, on one line of a terminal."""
    return visible(" ".join(text.split()))


def shown(text: str) -> str:
    """Make untrusted text safe for a file, also with valid Unicode and one kind of line ends."""
    return visible(_SURROGATES.sub("\ufffd", text.replace("\r\n", "\n")))


def shown_line(text: str) -> str:
    """Make untrusted text safe for a file, on one line."""
    return one_line(shown(text))


_SURROGATES = re.compile("[\ud800-\udfff]")


def markdown_line(text: str) -> str:
    """Make untrusted plain text safe, on one line of Markdown."""
    return re.sub(r"[\\`*\[\]<&~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", shown_line(text))


def whole_characters(parts: Iterable[Part], text_of: Callable[[Part], str]) -> Iterator[list[Part]]:
    """Group the non-empty parts of a text so that each group ends with a complete character (grapheme).

    A character whose parts have different styles would be broken on a screen.
    """
    together: list[Part] = []
    before = ""
    for part in parts:
        if not (text := text_of(part)):
            continue
        if before and not _goes_on(before, text[0]):
            yield together
            together, before = [], ""
        together.append(part)
        before += text
    if together:
        yield together


def _goes_on(before: str, char: str) -> bool:
    """True if ``char`` belongs to the character (grapheme) at the end of ``before``."""
    if "\U0001f1e6" <= char <= "\U0001f1ff":  # two regional indicators make a flag
        return len(before) % 2 != len(re.sub("[\U0001f1e6-\U0001f1ff]+$", "", before)) % 2
    return (
        before[-1] == "\u200d" or char == "\u200d"  # zero width joiner
        or unicodedata.category(char) in ("Mn", "Mc", "Me")  # accents, vowel signs, variation selectors
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags, as in the flag of Scotland
    )  # fmt: skip
