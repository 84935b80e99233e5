"""``pjlocal eval show``: show answers side by side in the terminal, coloured by the view that wrote each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from ..errors import UsageError, did_you_mean
from ..events import ALL
from ..screen.blame import blame, written_style
from ..screen.console import paged
from ..visible import shown, shown_line
from .records import AnswerRecord
from .side_by_side import SideBySide, facts, legends, spans
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


def show(rows: Sequence[SideBySide], suite: Suite, console: Console) -> None:
    """Print the rows, in a pager if they are longer than the terminal.

    Raises:
        UsageError: there are no rows.
    """
    if not rows:
        raise UsageError("there are no answers yet: pjlocal eval run writes them")
    with paged(console):
        for number, row in enumerate(rows, 1):
            console.print(Rule(f"{number}/{len(rows)} {shown_line(row.prompt_id)}", style="dim"))
            console.print(render_row(row, suite, console.width, console.no_color))
