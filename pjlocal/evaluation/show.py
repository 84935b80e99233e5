"""``pjlocal eval show``: the answers side by side in the terminal, in the colours of who wrote what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from ..errors import UsageError, did_you_mean
from ..screen.blame import blame, written_style
from ..visible import shown, shown_line
from .records import AnswerRecord
from .sheets import ALL, Sheet, matching, pieces, views
from .suite import Suite, System

_COLUMN = 36  # the least width at which answers stand side by side


def chosen(of: Sequence[Sheet], systems: Sequence[str], objectives: Sequence[str] = ()) -> list[Sheet]:
    """The sheets of those objectives with the answers of those systems, in the order in which they are named; all of
    them where none is.

    Raises:
        UsageError: nobody of that name answered.
    """
    answered = dict.fromkeys(system for sheet in of for system in sheet.answers)
    asked = dict.fromkeys(sheet.objectives for sheet in of)
    for what, names, known in (("system", systems, answered), ("objectives", objectives, asked)):
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known) or f"there are {', '.join(known) or 'none'}"
                raise UsageError(f"no {what} {name!r} in these answers: {hint}")
    found = [
        replace(
            sheet, answers={name: sheet.answers[name] for name in systems or sheet.answers if name in sheet.answers}
        )
        for sheet in of
        if not objectives or sheet.objectives in objectives
    ]
    return [sheet for sheet in found if sheet.answers]


def rendered(sheet: Sheet, suite: Suite, width: int, no_color: bool = False) -> RenderableType:
    """A prompt and its answers: side by side as far as the width goes, or one below the other."""
    systems = {system.name: system for system in suite.systems}
    n_columns = min(len(sheet.answers), max(1, width // _COLUMN))
    panels = [
        Panel(
            written(answer, no_color),
            title=Text(shown_line(name)),
            subtitle=Text(" · ".join(_facts(answer))),
            width=width // max(1, n_columns),
        )
        for name, answer in sheet.answers.items()
    ]
    answers = Group(*panels) if n_columns <= 1 else Columns(panels, padding=0, width=width // n_columns)
    return Group(heading(sheet), *_legend(sheet, systems, no_color), answers)


def heading(sheet: Sheet) -> RenderableType:
    """What was asked, and for which preferences."""
    wishes = ", ".join(sheet.prefer)
    asked = f"{sheet.objectives}: {wishes}" if wishes != sheet.objectives else wishes
    return Group(Text(shown_line(asked), "dim"), Text(shown(sheet.prompt), "bold"), Text())


def written(answer: AnswerRecord, no_color: bool = False) -> Text:
    """An answer's text in the colours of who wrote it."""
    text = Text()
    for piece in pieces(answer):
        text.append(piece.text, written_style(None if piece.writer == ALL else piece.writer, piece.kind, no_color))
    return text if text else Text("no answer", "dim italic")


def _legend(sheet: Sheet, systems: dict[str, System], no_color: bool) -> list[Text]:
    """What the colours mean, once for all answers that have the same views."""
    lines: dict[str, Text] = {}
    for name, answer in sheet.answers.items():
        if wishes := views(sheet.prefer, systems.get(name), answer):
            agreed = any(piece.writer == ALL for piece in pieces(answer))
            line = blame(wishes, "both" if agreed else None, no_color).legend
            lines.setdefault(line.plain, line)
    return list(lines.values())


def _facts(answer: AnswerRecord) -> list[str]:
    facts = [f"{answer.tokens} tokens"]
    if answer.acceptance_rate is not None:
        facts.append(f"{answer.acceptance_rate:.0%} accepted")
    if answer.finish_reason == "length":
        facts.append("cut")
    return facts


@dataclass
class Leafing:
    """Where one is among the sheets."""

    sheets: Sequence[Sheet]
    at: int = 0
    words: str = ""  # that were searched for
    notice: str = field(default="", init=False)

    @property
    def sheet(self) -> Sheet:
        return self.sheets[self.at]

    def turn(self, by: int) -> None:
        """To another sheet; the first and the last are the ends."""
        self.notice = ""
        self.at = max(0, min(self.at + by, len(self.sheets) - 1))

    def search(self, words: str) -> None:
        """To the next sheet in which the words stand, from the first again behind the last; no words: the last ones."""
        self.words = words.strip() or self.words
        n = len(self.sheets)
        for step in range(1, n + 1):
            if matching(self.sheets[(self.at + step) % n], self.words):
                self.at, self.notice = (self.at + step) % n, ""
                return
        self.notice = f"nothing found: {self.words}"

    @property
    def status(self) -> str:
        place = f"{self.at + 1}/{len(self.sheets)} {self.sheet.prompt_id}"
        return " · ".join(filter(None, [self.notice, place]))


def print_all(of: Sequence[Sheet], suite: Suite, console: Console) -> None:
    """Every sheet, one below the other: what a pipe gets."""
    for number, sheet in enumerate(of):
        if number:
            console.print()
        console.print(rendered(sheet, suite, console.width, console.no_color))


def page_through(of: Sequence[Sheet], suite: Suite) -> None:
    """One sheet at a time, on a terminal."""
    from ..screen.pager import Pager

    leafing = Leafing(of)
    Pager(
        page=lambda width, no_color: rendered(leafing.sheet, suite, width, no_color),
        notice=lambda: leafing.status,
        hint="n next, p previous, / search, q quit",
        keys={
            "n": lambda: leafing.turn(1),
            "right": lambda: leafing.turn(1),
            "p": lambda: leafing.turn(-1),
            "left": lambda: leafing.turn(-1),
            "g": lambda: leafing.turn(-len(of)),
            "G": lambda: leafing.turn(len(of)),
        },
        search=leafing.search,
    ).run()


def show(of: Sequence[Sheet], suite: Suite, console: Console, on_terminal: bool) -> None:
    """Page through the sheets where a person sees them, or print them all.

    Raises:
        UsageError: there is nothing to show.
    """
    if not of:
        raise UsageError("there are no answers yet: make them with pjlocal eval run")
    if on_terminal:
        page_through(of, suite)
    else:
        print_all(of, suite, console)
