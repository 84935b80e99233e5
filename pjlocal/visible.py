"""Text that anyone may have written, as it can be shown: nobody takes orders from it."""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline, DEL, and the marks that reorder or hide text on a terminal.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """The text with control characters, escape sequences and direction marks as visible marks.

    Whatever a model writes, or a file that is loaded holds, the terminal takes no orders from it.
    """
    return _UNSAFE.sub(_mark, text)


def _mark(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def one_line(text: str) -> str:
    """Text that anyone may have written, fit for a line of a terminal."""
    return visible(" ".join(text.split()))
