"""Turn the bytes of tokens into text: whole UTF-8 characters, without stop strings."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class TextStream(Generic[T]):
    """A stream that returns each token with its text, as soon as the text is final.

    A token is held back while its last character is incomplete, or while its text may begin a stop string.  A character
    that spans tokens belongs to the token that completes it; an incomplete one at the end of the text is dropped.
    Bytes that are not UTF-8 are shown as U+FFFD.

    Args:
        head: a text that is left out if the stream begins with it, of one character.
        before: the text before the stream, in which a stop string may begin.
    """

    def __init__(self, stops: Sequence[str] = (), head: str = "", before: str = "") -> None:
        self._stops = [stop for stop in stops if stop]
        self._head, self._before = head, before
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: deque[tuple[T, str]] = deque()
        self.stopped = False  # a stop string was found

    def push(self, item: T, piece: bytes) -> Iterator[tuple[T, str]]:
        """Add a token, and yield the tokens whose text is final now."""
        decoded = self._decoder.decode(piece)
        if decoded:
            decoded, self._head = decoded.removeprefix(self._head), ""
        self._held.append((item, decoded))
        text = self._before + "".join(held for _, held in self._held)
        n_before = len(self._before)
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            yield from self._release(max(0, min(ends) - n_before), whole=True)
        elif not self._decoder.getstate()[0]:
            n_decided = len(text) - self._undecided(text) - n_before
            if n_decided > 0:
                self._before = ""
            yield from self._release(max(0, n_decided))

    def finish(self) -> Iterator[tuple[T, str]]:
        """End the stream, and yield the tokens that are still held back."""
        yield from self._release(sum(len(held) for _, held in self._held), whole=True)

    def _undecided(self, text: str) -> int:
        """The length of the longest suffix of ``text`` that is the beginning of a stop string."""
        longest = 0
        for stop in self._stops:
            for n in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:n]):
                    longest = n
                    break
        return longest

    def _release(self, n_chars: int, whole: bool = False) -> Iterator[tuple[T, str]]:
        """Yield the held tokens whose text is in the first ``n_chars`` characters.

        Args:
            whole: whether to yield all of them, with the text cut there.
        """
        while self._held:
            item, text = self._held[0]
            if not whole and len(text) > n_chars:
                return
            self._held.popleft()
            yield item, text[:n_chars]
            n_chars = max(0, n_chars - len(text))
