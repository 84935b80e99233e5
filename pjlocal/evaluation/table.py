"""A table of an evaluation, for a terminal and as Markdown; ``report.html`` writes it as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ..screen.tables import plain_table
from ..visible import markdown_line, shown_line

NOISE = "≈"  # before a value whose difference from the baseline is within noise


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    text: empty if the value is not known.
    value: the number, by which cells are ranked.
    rank: 1 for the best in its column, 2 for the second, 0 for others and if there is no better or worse.
    noise: whether its difference from the baseline is within noise.
    """

    text: str = ""
    value: float | None = None
    rank: int = 0
    noise: bool = False

    def __str__(self) -> str:
        text = shown_line(self.text)
        return f"{NOISE} {text}" if self.noise and text else text or "-"


@dataclass(frozen=True)
class Column:
    """A column of cells with its heading, and a group heading above it that adjacent columns may share."""

    heading: str
    cells: tuple[Cell, ...]
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table that Rich can print.

    head: the heading of the row names, such as ``system``.
    names: the names of the rows.
    notes: sentences that explain it.
    """

    title: str
    head: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[tuple[str, list[Cell]]]:
        return [(name, [column.cells[at] for column in self.columns]) for at, name in enumerate(self.names)]

    @property
    def groups(self) -> list[tuple[str, tuple[Column, ...]]]:
        """Each group with its columns.  Columns without a group are left out."""
        return [(group, tuple(some)) for group, some in groupby(self.columns, lambda column: column.group) if group]

    @property
    def full_title(self) -> str:
        """The title, with the group if all columns have the same one."""
        return f"{self.title}: {self.groups[0][0]}" if len(self.groups) == 1 else self.title

    @property
    def headings(self) -> list[str]:
        """The headings of the columns, with their groups if there are several."""
        several = len(self.groups) > 1
        return [f"{column.group} {column.heading}".strip() if several else column.heading for column in self.columns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Print the best value in bold, the second underlined, and values within noise dimmed.

        Columns that do not fit on the screen follow in tables of their own, so that no value is wrapped.
        """
        yield Text(shown_line(self.full_title), "bold")
        for number, part in enumerate(_fitting(self, options.max_width)):
            if number:
                yield Text()
            if len(self.groups) > 1 and len(part.groups) == 1:
                yield Text(shown_line(part.groups[0][0]), "italic")
            yield _rich_table(part, options.max_width)
        yield from (Text(shown_line(note), "dim") for note in self.notes)


def rank_cells(cells: Sequence[Cell], better: int = 1) -> tuple[Cell, ...]:
    """Mark the best and the second best cells.  Cells with the same text have the same rank.

    Args:
        better: 1 if more is better, -1 if less is better, 0 to mark nothing.
    """
    known = [(better * cell.value, cell.text) for cell in cells if cell.value is not None]
    if not better or len({text for _, text in known}) < 2:
        return tuple(cells)

    def rank(cell: Cell) -> int:
        best = max(value for value, text in known if text == cell.text)
        place = 1 + sum(value > best for value, text in known if text != cell.text)
        return place if place < 3 else 0

    return tuple(cell if cell.value is None else replace(cell, rank=rank(cell)) for cell in cells)


# On a terminal


def _fitting(table: Table, width: int) -> list[Table]:
    """Split a table into parts that fit the width: between groups of columns if possible, else between columns."""
    if len(table.columns) < 2 or _needed(table) <= width:
        return [table]
    if len(table.groups) > 1:
        parts = [replace(table, columns=columns) for _, columns in table.groups]
        return [piece for part in parts for piece in _fitting(part, width)]
    firsts = [replace(table, columns=table.columns[:n]) for n in range(len(table.columns) - 1, 0, -1)]
    first = next((part for part in firsts if _needed(part) <= width), firsts[-1])
    return [first, *_fitting(replace(table, columns=table.columns[len(first.columns) :]), width)]


def _needed(table: Table, wraps: bool = True) -> int:
    """The width of a table in characters, with two spaces between its columns.

    Args:
        wraps: each word of a heading has a line of its own.
    """
    widths = [max(cell_len(shown_line(name)) for name in (table.head, *table.names))]
    for heading, column in zip(table.headings, table.columns, strict=True):
        texts = [*(_words(heading) if wraps else [shown_line(heading)]), *map(str, column.cells)]
        widths.append(max(map(cell_len, texts), default=0))
    return sum(widths) + 2 * (len(widths) - 1)


def _words(heading: str) -> list[str]:
    return shown_line(heading).split()


def _rich_table(table: Table, width: int) -> RichTable:
    # Rich would also break words to make room for a heading in one line.
    wraps = _needed(table, wraps=False) > width
    headings = ["\n".join(_words(heading)) if wraps else shown_line(heading) for heading in table.headings]
    grid = plain_table(shown_line(table.head), *headings, right=range(1, len(table.columns) + 1))
    for name, cells in table.rows:
        values = (Text(no_wrap=True).append(str(cell), _style(cell)) for cell in cells)  # padding has no style
        grid.add_row(Text(shown_line(name)), *values)
    return grid


def _style(cell: Cell) -> str:
    return " ".join(filter(None, ({1: "bold", 2: "underline"}.get(cell.rank), "dim" * cell.noise)))


# As Markdown


def markdown_tables(tables: Iterable[Table]) -> str:
    """Tables in GitHub's Markdown, each with its title and notes."""
    return "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    head = [_pipe(table.head) or " ", *map(_pipe, table.headings)]
    lines = [f"### {markdown_line(table.full_title)}", "", f"| {' | '.join(head)} |"]
    lines.append("|---" + "|---:" * len(table.columns) + "|")
    lines += [f"| {' | '.join([_pipe(name), *map(_markdown_cell, cells)])} |" for name, cells in table.rows]
    lines += ["", *(f"- {markdown_line(note)}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _pipe(text: str) -> str:
    return markdown_line(text).replace("|", r"\|")


def _markdown_cell(cell: Cell) -> str:
    mark = {1: "**{}**", 2: "<u>{}</u>"}.get(cell.rank, "{}")
    return f"{NOISE} " * (cell.noise and bool(cell.text)) + mark.format(_pipe(cell.text or "-"))
