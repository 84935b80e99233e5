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
_SENTENCE_END = r"(?<=[.!?])\s+|(?<=[。！？])"


class Echo:
    """The tokens that would begin or continue a copy of a sentence of a preference, from its first word on.

    A copy begins with the sentence's first word at the start of a line, or with its first two words anywhere.  Capitals
    and punctuation do not matter.  Text from the first quotation mark of a line on may be copied, as in: End with
    "Amen".

    Args:
        preferences: the text of each view with preferences, one preference a line.
    """

    def __init__(self, model: Model, preferences: Mapping[int, str]) -> None:
        self._model = model
        self._sentences = [
            (view, [(word, self._spellings(word)) for word in self._words(sentence)])
            for view, text in preferences.items()
            for line in text.splitlines()
            for sentence in re.split(_SENTENCE_END, re.split(_QUOTES, line)[0])
        ]
        self._begin_line()

    def _begin_line(self) -> None:
        self._copied = [{0} for _ in self._sentences]  # numbers of words of each sentence that were copied last

    def accept(self, token: int) -> None:
        """Advance by an emitted token."""
        piece = self._model.piece(token)
        if not piece or b"\n" in piece:
            self._begin_line()
        if word := _word(piece):
            self._copied = [
                {n + 1 for n in {0, *copied} if n < len(words) and words[n][0] == word}
                for copied, (_, words) in zip(self._copied, self._sentences, strict=True)
            ]

    def copies(self, view: int) -> list[int]:
        """The tokens that would copy a preference of the view."""
        return [
            token
            for copied, (of, words) in zip(self._copied, self._sentences, strict=True)
            for n in copied
            if of == view and n < len(words)
            for token in words[n][1]
        ]

    def clone(self) -> Echo:
        return copy.copy(self)

    def _words(self, sentence: str) -> list[str]:
        tokens = self._model.tokenize(sentence, special=False)
        return [word for token in tokens if (word := _word(self._model.piece(token)))]

    def _spellings(self, word: str) -> set[int]:
        spelled = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
        tokens = [self._model.tokenize(text, special=False, continues=True) for text in spelled]
        return {found[0] for found in tokens if len(found) == 1}


def _word(piece: bytes) -> str:
    """The word of a token, or its part, as it is compared; empty if it has no letters."""
    text = piece.decode(errors="ignore")
    return text.strip().casefold() if any(map(str.isalpha, text)) else ""
