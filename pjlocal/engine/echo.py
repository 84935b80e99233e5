"""Tokens that copy a preference into the answer instead of following it.

A view repeats text of its prompt.  The neutral view does not contain the preference.  So a push away from the neutral
view repeats the preference most of all: "Talk like a cowboy." in place of an answer.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

from .model import Model

_QUOTES = "[\"“”„«»`]|(?<!\\w)'"


class Echo:
    """The tokens that would begin or continue a copy of a preference, from its first word on.

    A copy begins with the preference's first word at the start of a line, or with its second one behind the first
    anywhere.  Capitals and punctuation do not matter.  What a preference quotes, and all behind it, may be copied, as
    in: End with "Amen".

    Args:
        preferences: the text of each view with preferences, one preference a line.
    """

    def __init__(self, model: Model, preferences: Mapping[int, str]) -> None:
        self._model = model
        self._preferences = [
            (view, [(word, self._spellings(word)) for word in self._words(line)])
            for view, text in preferences.items()
            for line in text.splitlines()
        ]
        self._begin_line()

    def _begin_line(self) -> None:
        self._copied = [{0} for _ in self._preferences]  # numbers of words of each preference that were copied last

    def accept(self, token: int) -> None:
        """Advance by an emitted token."""
        text = _text(self._model, token)
        if not text or "\n" in text:
            self._begin_line()
        if word := _word(text):
            self._copied = [
                {n + 1 for n in {0, *copied} if n < len(words) and words[n][0] == word}
                for copied, (_, words) in zip(self._copied, self._preferences, strict=True)
            ]

    def copies(self, view: int) -> list[int]:
        """The tokens that would copy a preference of the view."""
        return [
            token
            for copied, (of, words) in zip(self._copied, self._preferences, strict=True)
            for n in copied
            if of == view and n < len(words)
            for token in words[n][1]
        ]

    def clone(self) -> Echo:
        return copy.copy(self)

    def _words(self, line: str) -> list[str]:
        tokens = self._model.tokenize(re.split(_QUOTES, line)[0], special=False)
        return [word for token in tokens if (word := _word(_text(self._model, token)))]

    def _spellings(self, word: str) -> set[int]:
        spelled = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
        tokens = [self._model.tokenize(text, special=False, continues=True) for text in spelled]
        return {found[0] for found in tokens if len(found) == 1}


def _text(model: Model, token: int) -> str:
    return model.piece(token).decode(errors="ignore")


def _word(text: str) -> str:
    """The word of a token, or its part, as it is compared; empty if it has no letters."""
    return text.strip().casefold() if any(map(str.isalpha, text)) else ""
