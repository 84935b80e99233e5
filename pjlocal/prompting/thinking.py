"""What a reasoning model thinks aloud before it answers, told apart from the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

#: How models mark it: DeepSeek-R1, Qwen3 and most others; a few; Magistral.
MARKS = {"<think>": "</think>", "<thinking>": "</thinking>", "[THINK]": "[/THINK]"}


def opened_by(prompt: str) -> bool:
    """Whether the prompt itself opens the thinking, as some chat templates have it."""
    return prompt.rstrip().endswith(tuple(MARKS))


class Thinking(Generic[T]):
    """Says of each token of an answer whether it is thought: all up to the closing mark, where the answer begins with
    an opening one.  The first tokens are held back while they may still become an opening mark."""

    def __init__(self, opened: bool = False) -> None:
        self._ends = tuple(MARKS.values()) if opened else ()  # marks that close what is open
        self._begun = opened
        self._held: list[T] = []
        self._text = ""  # of the held tokens; later the end of what was thought

    def push(self, item: T, text: str) -> Iterator[tuple[T, bool]]:
        """Add a token; yields those of which it is known now."""
        self._held.append(item)
        if not self._begun:
            self._text += text
            head = self._text.lstrip()
            if any(mark.startswith(head) and mark != head for mark in MARKS):
                return
            self._begun = True
            self._ends = tuple(MARKS[mark] for mark in MARKS if head.startswith(mark))
            text = head
            self._text = ""
        yield from self._release(bool(self._ends))
        if self._ends:
            self._text += text
            if any(end in self._text for end in self._ends):
                self._ends = ()
            self._text = self._text[-16:]

    def finish(self) -> Iterator[tuple[T, bool]]:
        """No more tokens come: yields those still held back."""
        yield from self._release(False)

    def _release(self, thought: bool) -> Iterator[tuple[T, bool]]:
        held, self._held = self._held, []
        for item in held:
            yield item, thought
