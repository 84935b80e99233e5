"""Separate the thinking of a reasoning model from its answer."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Marks:
    """The marks around the thinking of a family of models.

    before, after: text that the models write before and after the closing mark, usually white space.
    """

    open: str
    close: str
    before: str = "\n"
    after: str = "\n\n"

    @property
    def opening(self) -> str:
        """The text before the thinking."""
        return f"{self.open}{self.before}"

    @property
    def ending(self) -> str:
        """The text between the thinking and the answer."""
        return f"{self.before}{self.close}{self.after}"


#: The marks of gpt-oss, which thinks in every channel before the final one.
HARMONY = Marks("<|channel|>", "<|channel|>final<|message|>", before="<|end|><|start|>assistant", after="")

MARKS = (
    Marks("<think>", "</think>"),  # DeepSeek-R1, Qwen3 and most others
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),  # EXAONE Deep
    Marks("<seed:think>", "</seed:think>", before="", after=""),  # Seed-OSS
    Marks("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Marks("[THINK]", "[/THINK]", before="", after=""),  # Magistral
    Marks("◁think▷", "◁/think▷"),  # Kimi-VL
    Marks("<|channel>thought", "<channel|>", after=""),  # Gemma 4
    HARMONY,
)

_BEFORE_CHANNEL = ("<|end|>", "<|start|>", "<|channel|>")
_BETWEEN = r"(?:<\|end\|>)?(?:<\|start\|>[^<]*)?"
_CHANNEL = re.compile(_BETWEEN + r"<\|channel\|>(?!final)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_LAST = re.compile(_BETWEEN + r"\s*\Z")


#: The tokens at the end of a prompt in whose text `opened_by` searches.
END_OF_PROMPT = 32


def opened_by(prompt: str) -> Marks | None:
    """The marks of the thinking that the end of the prompt opens, as in some chat templates; None if it opens none."""
    end = prompt.rstrip()
    return next((marks for marks in MARKS if end.endswith(marks.open)), None)


class Thinking:
    """The state of an answer's thinking, token by token.

    The thinking begins with an opening mark at the beginning of the answer, or in the prompt.  It ends with the closing
    mark and the white space after it.

    Args:
        opened: the marks of the thinking that the prompt opens.
        may_begin: whether an opening mark at the beginning of the answer opens the thinking.
    """

    def __init__(self, opened: Marks | None = None, may_begin: bool = True) -> None:
        #: Whether the last token is part of the thinking; None while the tokens so far may become an opening mark.
        self.is_thought: bool | None = None if opened or may_begin else False
        self.marks = opened
        self.n_tokens = 0  # of the thinking, including its marks
        self.is_closed = not (opened or may_begin)
        self._text = b""  # the last bytes, which may become a mark
        self._has_answered = False  # whether the token with the end of the closing mark begins the answer

    def accept(self, spelled: bytes) -> None:
        """Add the next token by its bytes; for a control token, its spelling."""
        if self.is_closed:
            if self.is_thought:  # the last token ended the thinking, or was white space after it
                self.is_thought = bool(spelled) and not spelled.strip() and not self._has_answered
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
        _, mark, rest = self._text.partition(close)
        self.is_closed, self._has_answered = bool(mark), bool(rest.strip())
        self._text = self._text[-len(close) :]

    def accept_all(self, tokens: Iterable[bytes]) -> list[bool]:
        """Add tokens, and return whether each of them is part of the thinking; False if that remains unknown."""
        flags = []
        for spelled in tokens:
            self.accept(spelled)
            flags.append(self.is_thought)
        first = next((flag for flag in flags if flag is not None), False)
        return [first if flag is None else flag for flag in flags]

    @property
    def is_open(self) -> bool:
        """True if the next token is part of the thinking."""
        return self.marks is not None and not self.is_closed

    @property
    def ending(self) -> str:
        """The text that ends open thinking: its closing mark, with the usual text around it."""
        marks = self.marks
        if marks is None:
            return ""
        if marks.before.isspace() and self._text.endswith(b"\n"):
            return marks.ending.removeprefix(marks.before)
        return marks.ending

    @property
    def ends_with_mark(self) -> bool:
        """True if the last token ended with the closing mark."""
        return self.marks is not None and self.is_closed and self._text.endswith(self.marks.close.encode())


@dataclass
class AnswerPart:
    """The part of a text that is the answer, behind the thinking: an `engine.constraint.Gate`.

    start: the position of its first token; None while the model thinks.
    openings: tokens with which a constrained answer may begin to think.
    """

    start: int | None
    openings: Collection[int]


@dataclass
class ThinkingPhase:
    """The part of an answer that a model thinks: a `decoding.schedule.Phase`.

    thinking: the state of the answer's thinking.
    spell: returns the bytes of a token; for a control token, its spelling.
    split: tokenizes a text with spelled control tokens, within an answer.
    force: makes a policy that gives one token the probability 1.
    most: the most tokens of the thinking; None if only the limit of the whole answer applies.
    most_answer: the most tokens of the answer after the thinking.
    openings: tokens with which a constrained answer may begin to think.
    is_constrained: whether the answer has a constraint.  It applies after the white space that follows the closing
        mark; from the first token on, also to the thinking, if it spells the opening mark itself.
    """

    thinking: Thinking
    spell: Callable[[int], bytes]
    split: Callable[[str], list[int]]
    force: Callable[[int], Any]
    most: int | None
    most_answer: int
    openings: Collection[int] = ()
    is_constrained: bool = False
    #: The policy that decides the thinking; None leaves it to the rounds.
    thinker: Any = None
    _n_tokens: int = 0
    _forced: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        # Not this object: in a reference cycle with the thinker, llama.cpp's samplers would be freed only by Python's
        # garbage collector.
        self.answer = AnswerPart(None if self.thinking.is_open else 0, self.openings)
        self._end_in_time()

    @property
    def policy(self) -> Any:
        if self._forced:
            return self.force(self._forced[0])
        return self.thinker if self.thinking.is_open else None

    @property
    def limit(self) -> int:
        if self.most is None:
            return self.most_answer
        if self.thinking.is_open or self._forced:
            return sys.maxsize
        return self.most_answer + (self.thinking.n_tokens if self.thinking.is_closed else 0)

    @property
    def may_change(self) -> bool:
        return bool(self._forced) or not self.thinking.is_closed

    def accept(self, token: int) -> None:
        thinking = self.thinking
        if self._n_tokens == 0 and token in self.openings:
            self.answer.start = None
        self._n_tokens += 1
        was_open = thinking.is_open
        thinking.accept(self.spell(token))
        if thinking.is_open and not self.is_constrained:
            self.answer.start = None
        elif thinking.is_thought and not self.is_constrained:  # the closing mark, or white space behind it
            self.answer.start = self._n_tokens
        if self._forced:
            self._forced.popleft()
        elif (
            was_open
            and self.is_constrained
            and thinking.ends_with_mark
            and thinking.marks
            and self.answer.start is None
        ):
            self._forced += self.split(thinking.marks.after)
        self._end_in_time()
        if self.answer.start is None and thinking.is_closed and not self._forced:
            self.answer.start = self._n_tokens
        if self.thinker:  # it reads where the answer starts
            self.thinker.accept(token)

    def _end_in_time(self) -> None:
        """End the thinking at its token limit, unless a constraint covers it."""
        may_end = self.thinking.is_open and not self._forced and (self.answer.start is None or not self.is_constrained)
        if may_end and self.most is not None and self.thinking.n_tokens >= self.most:
            self._forced += self.split(self.thinking.ending)


class Token(Protocol):
    """A token with its text, and whether it is part of the thinking; `events.TokenEvent` is one."""

    @property
    def text(self) -> str: ...
    @property
    def thought(self) -> bool: ...


class ThinkingText:
    """Splits a stream of events into the texts of thinking and answer, without the marks.

    Text that may belong to the closing mark, and white space before it, is held back until more is known.
    """

    def __init__(self) -> None:
        self._marks: Marks | None = None
        self._held = ""  # text of the thinking that is held back
        self._n_last = 0  # characters of its last token
        self._has_started = False  # the opening mark was seen, or there is none
        self._has_thought = self._has_answered = False  # some text was returned

    def push(self, event: Token) -> tuple[str, str]:
        """Add an event, and return the texts that it adds to the thinking and to the answer."""
        if event.thought:
            self._held += event.text
            self._n_last = len(event.text)
            self._has_started = self._has_started or self._begins()
            return self._take(self._settled()) if self._has_started else "", ""
        if self._has_answered:
            return "", event.text
        thinking, text = self.finish()
        text += event.text
        if self._has_started:  # there was a thought
            text = text.lstrip()
        self._has_answered = bool(text)
        return thinking, text

    def finish(self) -> tuple[str, str]:
        """Return the rest of the thinking, and the text that its last token adds to the answer."""
        held = self._held
        end, after = max(self._ends(), default=(len(held), len(held)))
        thinking = self._take(len(_LAST.sub("", held[:end]).rstrip()))
        self._held = ""
        return thinking, held[after:].lstrip()

    @property
    def _closes(self) -> list[str]:
        return [marks.close for marks in ([self._marks] if self._marks else MARKS)]

    def _ends(self) -> list[tuple[int, int]]:
        """The start and end of each closing mark in the held text that may end the thinking.

        If the prompt opened the thinking, its marks are not known, and all are searched.  A mark with more thinking
        after it is a quotation.
        """
        held, n_before = self._held, len(self._held) - self._n_last
        find = held.find if self._marks else held.rfind
        matches = [(at, at + len(close)) for close in self._closes if (at := find(close)) >= 0]
        return [(at, end) for at, end in matches if self._marks or end > n_before or not held[end:].strip()]

    def _begins(self) -> bool:
        """Remove the opening mark; False if more of it may follow."""
        head = self._held.lstrip()
        if any(marks.open.startswith(head) and marks.open != head for marks in MARKS):
            return False
        self._marks = next((marks for marks in MARKS if head.startswith(marks.open)), None)
        if self._marks and self._marks is not HARMONY:
            self._held = head.removeprefix(self._marks.open)
        return True

    def _settled(self) -> int:
        """The number of held characters that cannot become part of a mark."""
        begins, ends = self._closes, [at for at, _ in self._ends()]
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
    """Split all events of an answer into the texts of thinking and answer."""
    texts = ThinkingText()
    thoughts, answers = zip(*map(texts.push, events), texts.finish(), strict=True)
    return "".join(thoughts), "".join(answers)


def answer_start(text: str) -> int:
    """The index at which the answer begins in a text with thinking; the text's length if the thinking is not closed."""
    thinking = Thinking()
    thinking.accept(text.encode("utf-8", "surrogatepass"))  # the tokenizer refuses a lone surrogate, with its message
    if thinking.marks is None:
        return 0
    head = len(text) - len(text.lstrip())
    end = text.find(thinking.marks.close, head)
    return len(text) if end < 0 else end + len(thinking.marks.close)


def find_thoughts(texts: Sequence[str]) -> list[bool]:
    """Find the tokens of the thinking in an answer that was saved without this information: True for each of them."""
    text = "".join(texts)
    opened = next((marks for marks in MARKS if marks.close in text and marks.open not in text), None)
    return Thinking(opened).accept_all(each.encode("utf-8", "surrogatepass") for each in texts)
