"""Find the part of an answer's text that its tokens spell."""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache

from ..engine.model import Model
from .thinking import MARKS


class AnswerTokens:
    """Compares the text of answers with their tokens, which may be those of another model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._piece = cache(model.piece)

    def ends(self, text: str, tokens: Sequence[int]) -> list[int]:
        """A zero, and the index in the text at which each token's text ends, up to the first token that differs.

        A control token differs unless it is a mark of thinking, so that no other reaches the prompt.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        ends = [0]
        for token in tokens:
            if not 0 <= token < self._model.n_vocab:
                break
            spelling = self._piece(token) or self._mark(token)
            piece = decoder.decode(spelling)
            if not spelling or not text.startswith(piece, ends[-1]):
                break
            ends.append(ends[-1] + len(piece))
        return ends

    def _mark(self, token: int) -> bytes:
        """The spelling of a control token in the text of thinking; empty for tokens that end an answer."""
        return b"" if self._model.is_end(token) else self._model.piece(token, special=True)

    def spelled(self, text: str, tokens: Sequence[int], trimmed: bool) -> tuple[slice, slice] | None:
        """The tokens that spell a part of the text, and this part; None if there are none.

        The part is the whole text, unless a stop string cut it.

        Args:
            trimmed: whether to leave out the thinking, and white space around the answer, which many templates drop.
        """
        ends, begin, end = self.ends(text, tokens), 0, len(text)
        if trimmed:
            closes = [marks.close for marks in MARKS]
            begin = max((text.rfind(close) + len(close) for close in closes if close in text), default=0)
            begin = len(text) - len(text[begin:].lstrip())
            end = len(text.rstrip())
        first = bisect_left(ends, begin)
        last = bisect_left(ends, ends[bisect_right(ends, end) - 1])  # without an incomplete character at the end
        return (slice(first, last), slice(ends[first], ends[last])) if first < last else None
