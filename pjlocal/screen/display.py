"""Show an answer as plain text, as for a pipe."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import IO, TYPE_CHECKING

from ..errors import plural
from ..prompting.thinking import ThinkingText
from ..settings import Thoughts
from ..visible import one_line, visible

if TYPE_CHECKING:
    from ..events import Statistics, TokenEvent


def local_time(seconds: float) -> str:
    """A time in seconds since the epoch as a local date and time, to the minute."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def number_text(value: float | None, form: str = "{:.3f}") -> str:
    """A number in this form; ``-`` for None."""
    return "-" if value is None else form.format(value)


def when_ready(events: Iterable[TokenEvent]) -> Iterator[TokenEvent]:
    """Wait for the first event, and return all of them."""
    rest = iter(events)
    return itertools.chain(list(itertools.islice(rest, 1)), rest)


def cut_off(n_tokens: int, n_limited: int, most: int, allows: str, while_thinking: str = "") -> str:
    """A message that an answer was cut off, with advice on how to get a longer one.

    Args:
        n_limited, most: the number of tokens that count towards the limit, and the limit.  If fewer were written, the
            context was full.
        allows: how to raise the limit.
        while_thinking: the words for an answer that was cut off while thinking.
    """
    n = n_limited or n_tokens
    cut = f"cut off after {n} {plural(n, 'token')}{while_thinking}"
    if n_limited < most:
        return f"{cut}: the context is full, and a larger --ctx has room for more"
    return f"{cut}: {allows}"


def in_columns(head: str, text: str, file: IO[str]) -> str:
    """Format a head and a text.  On a terminal the text is indented and wrapped between words.

    Pipes get one line.  A word that is longer than a row, such as a path, is left to the terminal to wrap, so that it
    can be copied whole.
    """
    if not file.isatty():
        return head + text
    from rich.cells import cell_len

    columns = os.get_terminal_size(file.fileno()).columns or 80
    indent = cell_len(head) if cell_len(head) <= columns // 2 else 4
    rows = [head] if indent == cell_len(head) else [head.rstrip(), " " * indent]
    is_first = True
    for word in text.split():
        if not is_first and cell_len(rows[-1]) + 1 + cell_len(word) > columns:
            rows.append(" " * indent)
            is_first = True
        rows[-1] += word if is_first else f" {word}"
        is_first = False
    return "\n".join(rows)


#: The style of thoughts, and of the line shown instead of them.
THOUGHT = "dim"


def thinking_line(n_tokens: int, *, is_over: bool = False) -> str:
    """The line shown instead of hidden thoughts."""
    tokens = f"{n_tokens:,} {plural(n_tokens, 'token')}"
    return f"Thought for {tokens}" if is_over else f"Thinking… {tokens}"


def thoughts_on_terminal(thoughts: Thoughts) -> Thoughts:
    """Where the thoughts go if the answer is on a terminal: above it, if standard error is a terminal too."""
    return "show" if thoughts == "stderr" and sys.stderr.isatty() else thoughts


class Display:
    """Streamed text without styles, as for a pipe.  Use as a context manager and `show` each event.

    Args:
        thoughts: whether the thoughts before the answer are shown above it, or go to standard error.
    """

    def __init__(self, file: IO[str], thoughts: Thoughts = "hide") -> None:
        self._file = file
        self._thoughts = {"show": file, "stderr": sys.stderr}.get(thoughts)
        self._texts = ThinkingText()
        self._is_thinking = False
        self._at_line_start = True

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """End the last line, even of an interrupted answer, unless the output is closed."""
        if kind and issubclass(kind, OSError):
            return
        self._add(*self._texts.finish(), "")
        self._end_thoughts()
        if not self._at_line_start:
            self._write("\n")

    def show(self, event: TokenEvent) -> None:
        self._add(*self._texts.push(event), "")

    def _add(self, thinking: str, answer: str, style: str) -> None:
        """Show more of the thinking, and of the answer, in a style as Rich writes it."""
        if thinking and self._thoughts:
            self._write(visible(thinking), f"{THOUGHT} {style}", self._thoughts)
            self._is_thinking = True
        if answer:
            self._end_thoughts(gap="\n")
            self._write(visible(answer), style)
            self._at_line_start = answer.endswith("\n")

    def _end_thoughts(self, gap: str = "") -> None:
        """End the last line of the thoughts, with a gap below it if the answer follows."""
        if self._is_thinking:
            self._write(f"\n{gap}", file=self._thoughts)
        self._is_thinking = False

    def _write(self, text: str, style: str = "", file: IO[str] | None = None) -> None:
        file = file or self._file
        file.write(text)
        file.flush()


#: Descriptions of the layouts.
LAYOUT_TEXT = {"contexts": "in contexts side by side", "batched": "in one batch"}


def statistics_line(
    statistics: Statistics,
    draft: Statistics | None = None,
    of_model: str = "",
    placed: str = "",
    layout: str | None = None,
    best: str = "",
) -> str:
    """The line that ``--stats`` prints.  A server may have written parts of it.

    Args:
        draft: the statistics of the first answer in mode ``rewrite``.
        of_model: the sampling settings from the model's file, as text.
        placed: the devices of the model's layers, as text.
        layout: the layout of several views.
        best: the number of answers that this one was chosen from, as text.
    """
    s = statistics

    from ..events import pushes_text

    more = [f"push {pushes_text(s.mean_pushes)} nats/token"] if s.pushed else []
    if draft:
        more.append(f"first answer {draft.completion_tokens} tokens in {draft.prefill_s + draft.decode_s:.2f} s")
    if best:
        more.append(best)
    if placed:
        more.append(placed)
    if layout:
        more.append(f"views {LAYOUT_TEXT[layout]}")
    if of_model:
        more.append(f"sampling of the model: {of_model}")
    parts = [
        f"{s.completion_tokens} tokens",
        f"{number_text(s.tokens_per_second, '{:.1f}')} tokens/s",
        f"load {s.load_s:.2f} s",
        f"prefill {s.prefill_s:.2f} s ({' + '.join(map(str, s.prompt_tokens))} tokens)",
        f"acceptance rate {number_text(s.acceptance_rate, '{:.0%}')}",
        f"{s.rounds} rounds",
        f"mean accepted run {number_text(s.mean_accepted_run, '{:.2f}')}",
        *more,
    ]
    return one_line(" | ".join(parts))
