"""The thinking of a reasoning model before it answers: told apart from the answer, for all models alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Marks:
    """How a family of models marks its thinking.

    before, behind: white space that the models put before and behind the closing mark.
    """

    open: str
    close: str
    before: str = "\n"
    behind: str = "\n\n"


#: gpt-oss's, which thinks in every channel before the final one.
HARMONY = Marks("<|channel|>", "<|channel|>final<|message|>", before="<|end|><|start|>assistant", behind="")

MARKS = (
    Marks("<think>", "</think>"),  # DeepSeek-R1, Qwen3 and most others
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),  # EXAONE Deep
    Marks("<seed:think>", "</seed:think>", before="", behind=""),  # Seed-OSS
    Marks("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Marks("[THINK]", "[/THINK]", before="", behind=""),  # Magistral
    Marks("◁think▷", "◁/think▷"),  # Kimi-VL
    Marks("<|channel>thought", "<channel|>", behind=""),  # Gemma 4
    HARMONY,
)

_BEFORE_CHANNEL = ("<|end|>", "<|start|>", "<|channel|>")
_BETWEEN = r"(?:<\|end\|>)?(?:<\|start\|>[^<]*)?"
_CHANNEL = re.compile(_BETWEEN + r"<\|channel\|>(?!final)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_LAST = re.compile(_BETWEEN + r"\s*\Z")


def opened_by(prompt: str) -> Marks | None:
    """The marks of the thinking that the prompt itself opens at its end, as some chat templates have it."""
    end = prompt.rstrip()
    return next((marks for marks in MARKS if end.endswith(marks.open)), None)


class Thinking:
    """Follows an answer token by token, and knows of each token whether it is thought: all up to the closing mark, and
    a token of white space behind it, where the answer begins with an opening mark or the prompt has opened one.

    Args:
        opened: the marks of the thinking that the prompt opens.
        expected: False of a text that no thinking begins in.
    """

    def __init__(self, opened: Marks | None = None, expected: bool = True) -> None:
        #: Whether the last token is thought; None while the tokens so far may become an opening mark.
        self.is_thought: bool | None = None if opened or expected else False
        self.marks = opened
        self.n_tokens = 0  # of the thinking, with its marks
        self.is_closed = not (opened or expected)
        self._text = b""  # of the tokens that may become a mark

    def accept(self, spelled: bytes) -> None:
        """Learn of the next token by its bytes, a control token's spelling included."""
        if self.is_closed:
            if self.is_thought:  # the closing mark came last
                self.is_thought = bool(spelled) and not spelled.strip()
                self.n_tokens += self.is_thought
            return
        self.n_tokens += 1
        self._text += spelled
        if self.marks is None:
            head = self._text.lstrip()
            spellings = {marks.open.encode(): marks for marks in MARKS}
            if any(mark.startswith(head) and mark != head for mark in spellings):
                return
            self.marks = next((marks for mark, marks in spellings.items() if head.startswith(mark)), None)
            if self.marks is None:
                self.is_thought, self.is_closed, self.n_tokens, self._text = False, True, 0, b""
                return
            self._text = head
        self.is_thought = True
        close = self.marks.close.encode()
        self.is_closed = close in self._text
        self._text = self._text[-len(close) :]

    @property
    def is_open(self) -> bool:
        """Whether the next token is thought as well."""
        return self.marks is not None and not self.is_closed


class Token(Protocol):
    """A token of which it is known whether it is thought, such as `events.TokenEvent`."""

    @property
    def text(self) -> str: ...
    @property
    def thought(self) -> bool: ...


class ThinkingText:
    """The texts of events without the marks of thinking: the thinking and the answer, as they come.

    Text that may belong to the closing mark, and white space before it, is held back until it is known.
    """

    def __init__(self) -> None:
        self._marks: Marks | None = None
        self._held = ""  # of the thinking
        self._has_begun = False  # the opening mark is known, or there is none
        self._has_thought = self._has_answered = False  # some text of it came out

    def push(self, event: Token) -> tuple[str, str]:
        """The text that an event adds to the thinking, and to the answer."""
        if event.thought:
            self._held += event.text
            self._has_begun = self._has_begun or self._begins()
            return self._take(self._settled()) if self._has_begun else "", ""
        if self._has_answered:
            return "", event.text
        thinking, text = self.finish()
        text += event.text
        if self._has_begun:  # there was a thought
            text = text.lstrip()
        self._has_answered = bool(text)
        return thinking, text

    def finish(self) -> tuple[str, str]:
        """The rest of the thinking, and what its last token adds to the answer."""
        held = self._held
        end, close = max(((held.rfind(close), close) for close in self._closes), default=(-1, ""))
        behind = len(held) if end < 0 else end + len(close)
        thinking = self._take(len(_LAST.sub("", held[: behind - len(close)]).rstrip()))
        self._held = ""
        return thinking, held[behind:].lstrip()

    @property
    def _closes(self) -> list[str]:
        return [marks.close for marks in ([self._marks] if self._marks else MARKS)]

    def _begins(self) -> bool:
        """Take the opening mark away; False where more of it may come."""
        head = self._held.lstrip()
        if any(marks.open.startswith(head) and marks.open != head for marks in MARKS):
            return False
        self._marks = next((marks for marks in MARKS if head.startswith(marks.open)), None)
        if self._marks and self._marks is not HARMONY:
            self._held = head.removeprefix(self._marks.open)
        return True

    def _settled(self) -> int:
        """How many characters of what is held cannot become part of a mark any more."""
        begins = self._closes
        if self._marks is HARMONY:
            self._held = _CHANNEL.sub("\n\n", self._held)
            begins = [*_BEFORE_CHANNEL, *begins]
        ends = [at for begin in begins if (at := self._held.find(begin)) >= 0]
        for n in range(1, max(map(len, begins))):
            if any(begin.startswith(self._held[-n:]) for begin in begins):
                ends.append(max(0, len(self._held) - n))
        return len(self._held[: min(ends, default=len(self._held))].rstrip())

    def _take(self, n: int) -> str:
        text, self._held = self._held[:n], self._held[n:]
        text = text if self._has_thought else text.lstrip()
        self._has_thought = self._has_thought or bool(text)
        return text


def split(events: Iterable[Token]) -> tuple[str, str]:
    """The thinking and the answer that events make."""
    texts = ThinkingText()
    thoughts, answers = zip(*map(texts.push, events), texts.finish(), strict=True)
    return "".join(thoughts), "".join(answers)


def answer_start(text: str) -> int:
    """Where the answer begins in a whole text: behind its thought; at its end where the thought has none."""
    thinking = Thinking()
    thinking.accept(text.encode())
    if thinking.marks is None:
        return 0
    head = len(text) - len(text.lstrip())
    end = text.find(thinking.marks.close, head)
    return len(text) if end < 0 else end + len(thinking.marks.close)


def find_thoughts(texts: Sequence[str]) -> list[bool]:
    """Whether each token is thought, by the tokens' texts: of answers that were saved without saying so."""
    text = "".join(texts)
    opened = next((marks for marks in MARKS if marks.close in text and marks.open not in text), None)
    thinking, flags = Thinking(opened), []
    for each in texts:
        thinking.accept(each.encode("utf-8", "surrogatepass"))
        flags.append(thinking.is_thought)
    first = next((flag for flag in flags if flag is not None), False)  # of those before, nothing was known then
    return [first if flag is None else flag for flag in flags]
