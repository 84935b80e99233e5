"""Errors that reach the user: each is one line that says what to do, with the exit status it deserves."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PjlocalError(Exception):
    """An error whose text is written for the person at the terminal."""

    exit_status = 1


class UsageError(PjlocalError):
    """The request itself is wrong: an option, a prompt, a preference, or a file one of them names."""

    exit_status = 2


class ModelError(PjlocalError):
    """The model cannot be found, loaded or run, or there is not enough memory for it."""


class OutputError(PjlocalError):
    """Something that was generated cannot be written where it should go."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean this or that?``, of the names nearest to a wrong one; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""
