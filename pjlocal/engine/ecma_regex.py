"""Rewrite the regular expressions of a JSON schema, which are ECMAScript's, in Rust's syntax."""

from __future__ import annotations

import re


class Refused(Exception):
    """A part of a JSON schema is not supported; the message begins with its keyword, unless it is about a pattern."""


_PART = re.compile(
    r"\[(?P<negated>\^?)(?P<members>(?:\\.|[^\\\]])*)\]"  # a class
    r"|(?P<odd>\(\?(?![:=!]|<[=!]|P?<\w+>).?|\{,)"  # flags, and parts that some dialects read as plain text
    r"|\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|.",
    re.DOTALL,
)
_MEMBER = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|&&|--|~~|.", re.DOTALL)
_ESCAPES = "dDwWsSbBnrtfvxupPk0123456789"  # letters and digits with a meaning after a backslash in ECMAScript
_CLASSES = (r"\d", r"\D", r"\w", r"\W", r"\s", r"\S")
_SPACES = r"\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"  # ECMAScript's, not quite Unicode's
#: The narrowest meaning among validators: \\s is an ASCII space, and \\S excludes every space of ECMAScript.
_MEANS = {".": r"[^\n\r\u2028\u2029]", r"\s": r"[\t-\r ]", r"\S": f"[^{_SPACES}]"}
_MEANS_IN_CLASS = {
    "": {r"\s": _MEANS[r"\s"], r"\S": _MEANS[r"\S"]},
    "^": {r"\s": f"[{_SPACES}]", r"\S": r"[^\t-\r ]"},
}


def to_rust(pattern: str) -> str:
    """Rewrite an ECMAScript pattern in Rust's syntax, which llguidance reads.

    Raises:
        Refused: its meaning could differ.
    """
    regex = []
    for match in _PART.finditer(pattern):
        part = match[0]
        if match["odd"]:
            raise _ambiguous(part)
        if match["members"] is not None:
            regex.append(_class(match["negated"], match["members"]))
        else:
            _check_escape(part)
            regex.append(_MEANS.get(part, part))
        if len(part) > 1:
            _check_can_match(part)
    return "".join(regex)


def _class(negated: str, members: str) -> str:
    parts = _MEMBER.findall(members)
    if not parts:  # "[]a]" is one class in Rust
        raise _ambiguous(f"[{negated}]")
    for i, part in enumerate(parts):
        _check_escape(part)
        if part in ("[", "&&", "--", "~~"):
            raise _ambiguous(part)
        if part in _CLASSES and i > 1 and parts[i - 1] == "-":  # some dialects read this as a range
            raise _ambiguous(f"-{part}")
    return f"[{negated}{''.join(_MEANS_IN_CLASS[negated].get(part, part) for part in parts)}]"


def _check_escape(part: str) -> None:
    if part == "\\":
        raise Refused("it ends in a backslash")
    if part[0] == "\\" and part[1].isalnum() and part[1] not in _ESCAPES:
        raise _ambiguous(part)


def _ambiguous(part: str) -> Refused:
    return Refused(f"{part} has different meanings in different dialects: escape it, or write it in another way")


_SAMPLE = "".join(map(chr, (8, 9, 10, 12, 13, *range(0x20, 0x7F), *range(0x80, 0x180), 0x4E00, 0xFFFD)))


def _check_can_match(part: str) -> None:
    """Refuse a part that matches only characters that an answer cannot contain: llguidance would ignore it."""
    if r"\x" in part or r"\u" in part or r"\v" in part:
        try:
            can = re.search(part, _SAMPLE)
        except re.error:
            return  # llguidance will refuse it
        if not can and re.search(part, "".join(map(chr, range(0x80)))):
            raise Refused(f"{part} stands for a character that is not supported")
