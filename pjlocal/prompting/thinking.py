"""What a reasoning model thinks aloud before it answers, told apart from the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

#: How models mark it, the beginning with the end.
MARKS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3 and most others
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # EXAONE Deep
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<mm:think>": "</mm:think>",  # MiniMax-M3
    "[THINK]": "[/THINK]",  # Magistral
    "◁think▷": "◁/think▷",  # Kimi-VL
    "<|channel>thought": "<channel|>",  # Gemma 4
    "<|channel|>": "<|channel|>final<|message|>",  # gpt-oss: every channel before the final one
}
_LONGEST_END = max(map(len, MARKS.values()))


def opened_by(prompt: str) -> bool:
    """Whether the prompt itself opens the thinking, as some chat templates have it."""
    return prompt.rstrip().endswith(tuple(MARKS))


def closing(prompt: str) -> str:
    """The text that ends the thinking which a prompt has opened; empty where it has opened none."""
    mark = next((mark for mark in MARKS if prompt.rstrip().endswith(mark)), None)
    return f"\n{MARKS[mark]}\n\n" if mark else ""


def answer_start(text: str) -> int:
    """Where the answer begins in a whole text: behind its thought; at its end where the thought has none."""
    head = len(text) - len(text.lstrip())
    mark = next((mark for mark in MARKS if text.startswith(mark, head)), None)
    if mark is None:
        return 0
    end = text.find(MARKS[mark], head)
    return len(text) if end < 0 else end + len(MARKS[mark])


def without_thoughts(text: str) -> str:
    """The text behind the last mark that ends a thought."""
    for end in MARKS.values():
        text = text.rpartition(end)[2]
    return text.lstrip()


def was_opened(answer: str) -> bool:
    """Whether the prompt had opened the thinking of a whole answer: then it closes what it did not open."""
    return any(end in answer and mark not in answer for mark, end in MARKS.items())


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
            self._text = self._text[-_LONGEST_END:]

    def finish(self) -> Iterator[tuple[T, bool]]:
        """No more tokens come: yields those still held back."""
        yield from self._release(False)

    def _release(self, thought: bool) -> Iterator[tuple[T, bool]]:
        held, self._held = self._held, []
        for item in held:
            yield item, thought
