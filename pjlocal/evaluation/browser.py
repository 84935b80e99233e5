"""``pjlocal eval show``: show answers side by side in the terminal, coloured by the view that wrote each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from ..errors import UsageError, did_you_mean
from ..events import ALL
from ..screen.blame import blame, written_style
from ..visible import shown, shown_line
from .records import AnswerRecord
from .side_by_side import SideBySide, facts, legends, matches, spans
from .suite import Suite

_COLUMN = 36  # least width of an answer beside others


def choose(rows: Sequence[SideBySide], systems: Sequence[str], objectives: Sequence[str] = ()) -> list[SideBySide]:
    """The rows of the named objectives, with the answers of the named systems in the order of the names.

    Without names, all are returned.

    Raises:
        UsageError: a name is unknown.
    """
    check_names("system", systems, [system for row in rows for system in row.answers])
    check_names("objectives", objectives, [row.objectives for row in rows])
    selected = [
        replace(row, answers={name: row.answers[name] for name in systems or row.answers if name in row.answers})
        for row in rows
        if not objectives or row.objectives in objectives
    ]
    return [row for row in selected if row.answers]


def check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse unknown names.

    Raises:
        UsageError: a name is unknown; the message lists the known ones.
    """
    for name in names:
        if name not in known:
            hint = did_you_mean(name, dict.fromkeys(known)) or f"there are {', '.join(dict.fromkeys(known)) or 'none'}"
            raise UsageError(f"no {what} {name!r} in these answers: {hint}")


def render_row(row: SideBySide, suite: Suite, width: int, no_color: bool = False) -> RenderableType:
    """A prompt and its answers, as many side by side as the width allows."""
    preferences = ", ".join(row.prefer)
    about = preferences if preferences == row.objectives else f"{row.objectives}: {preferences}"
    legend = [blame(views, "both" if agreed else None, no_color).legend for views, agreed in legends(row, suite)]
    boxes = [
        Panel(
            Group(_colored(answer, no_color), Rule(style="dim"), Text(" · ".join(facts(answer)), "dim")),
            title=Text(shown_line(name)),
        )
        for name, answer in row.answers.items()
    ]
    question = Text(shown_line(about), "dim"), Text(shown(row.prompt), "bold"), Text()
    return Group(*question, *legend, place_boxes(boxes, width))


def place_boxes(boxes: Sequence[Panel], width: int) -> RenderableType:
    """Place boxes side by side, as many as fit in the width."""
    n_columns = max(1, min(len(boxes), width // _COLUMN))
    for box in boxes:
        box.width = width // n_columns
    return Group(*boxes) if n_columns == 1 else Columns(boxes, padding=0, width=width // n_columns)


def _colored(answer: AnswerRecord, no_color: bool) -> Text:
    """An answer's text, coloured by the view that wrote each part."""
    text = Text()
    for span in spans(answer):
        text.append(span.text, written_style(None if span.writer == ALL else span.writer, span.kind, no_color))
    return text if text else Text("no answer", "dim italic")


@dataclass
class Browser:
    """The position in the rows; keys and searches move it.

    words: the words of the last search.
    """

    rows: Sequence[SideBySide]
    at: int = 0
    words: str = ""
    notice: str = field(default="", init=False)

    @property
    def row(self) -> SideBySide:
        return self.rows[self.at]

    def turn(self, by: int) -> None:
        """Move by a number of rows, at most to the first or last one."""
        self.notice = ""
        self.at = max(0, min(self.at + by, len(self.rows) - 1))

    def search(self, words: str) -> None:
        """Go to the next row that contains the words; after the last row, continue at the first.  Without words, repeat
        the last search."""
        self.words = words.strip() or self.words
        n = len(self.rows)
        for step in range(1, n + 1):
            if matches(self.rows[(self.at + step) % n], self.words):
                self.at, self.notice = (self.at + step) % n, ""
                return
        self.notice = f"nothing found: {self.words}"

    @property
    def status(self) -> str:
        place = f"{self.at + 1}/{len(self.rows)} {self.row.prompt_id}"
        return " · ".join(filter(None, [self.notice, place]))


def show(rows: Sequence[SideBySide], suite: Suite, console: Console, on_terminal: bool) -> None:
    """Page through the rows on a terminal; otherwise print them all.

    Raises:
        UsageError: there are no rows.
    """
    if not rows:
        raise UsageError("there are no answers yet: pjlocal eval run writes them")
    if on_terminal:
        _browse(rows, suite)
        return
    for number, row in enumerate(rows):
        if number:
            console.print()
        console.print(render_row(row, suite, console.width, console.no_color))


def _browse(rows: Sequence[SideBySide], suite: Suite) -> None:
    """Show one row at a time, on a terminal."""
    from ..screen.pager import Pager

    browser = Browser(rows)
    steps = {"n": 1, "right": 1, "p": -1, "left": -1, "g": -len(rows), "G": len(rows)}
    Pager(
        page=lambda width, no_color: render_row(browser.row, suite, width, no_color),
        notice=lambda: browser.status,
        hint="q quit, n next, p previous, / search",
        keys={key: partial(browser.turn, step) for key, step in steps.items()},
        search=browser.search,
    ).run()
