"""A table of an evaluation, apart from where it is shown: on a terminal, in Markdown, in a page, to a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..screen.tables import plain_table
from ..visible import markdown_line, shown_line

NOISE = "≈"  # before a value that luck could have made


@dataclass(frozen=True)
class Cell:
    """A value as it is shown.

    text: empty where nothing is known.
    value: what the text says, for programs.
    low, high: the ends of its interval.
    rank: 1 of the best in its column, 2 of the second, 0 of the others and where nothing is better.
    noise: whether luck could have made its difference from the baseline.
    """

    text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    rank: int = 0
    noise: bool = False


@dataclass(frozen=True)
class Row:
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """A table.

    head: what the rows are, such as ``system``.
    groups: what stands above several columns, as (text, columns); empty for none.
    notes: what one must know to read it.
    """

    title: str
    head: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()


def ranked(cells: Sequence[Cell], higher: bool = True) -> list[Cell]:
    """A column with its best and its second best marked; values that look the same share a place.

    Args:
        higher: whether more is better.
    """
    known = [(cell.value if higher else -cell.value, cell.text) for cell in cells if cell.value is not None]
    if len({text for _, text in known}) < 2:
        return list(cells)  # nobody is better

    def place(cell: Cell) -> int:
        best = max(value for value, text in known if text == cell.text)
        return 1 + sum(value > best for value, text in known if text != cell.text)

    places = [3 if cell.value is None else place(cell) for cell in cells]
    return [replace(cell, rank=at if at < 3 else 0) for cell, at in zip(cells, places, strict=True)]


# On a terminal


def rich_grid(grid: Grid, width: int) -> RenderableType:
    """Best in bold, second underlined, and what luck could have made dimmed.

    Columns that the screen has no room for come in tables of their own below: no value is ever folded.
    """
    lines: list[RenderableType] = [Text(shown_line(_title(grid)), "bold")]
    for number, part in enumerate(fitting(grid, width)):
        if number:
            lines.append(Text())
        if len(grid.groups) > 1 and len(part.groups) == 1:
            lines.append(Text(shown_line(part.groups[0][0]), "italic"))
        lines.append(_table(part))
    return Group(*lines, *(Text(shown_line(note), "dim") for note in grid.notes))


def _title(grid: Grid) -> str:
    """With what would stand above all columns."""
    return f"{grid.title}: {grid.groups[0][0]}" if len(grid.groups) == 1 else grid.title


def fitting(grid: Grid, width: int) -> list[Grid]:
    """The table, or parts of it of whole groups of columns, or of single ones where a group is too wide as well."""
    if _needed(grid) <= width or len(grid.columns) < 2:
        return [grid]
    if len(grid.groups) > 1:
        sizes = [n for _, n in grid.groups]
        parts = [_part(grid, sum(sizes[:at]), n) for at, n in enumerate(sizes)]
        return [piece for part in parts for piece in fitting(part, width)]
    n = max((n for n in range(1, len(grid.columns)) if _needed(_part(grid, 0, n)) <= width), default=1)
    return [_part(grid, 0, n), *fitting(_part(grid, n, len(grid.columns) - n), width)]


def _part(grid: Grid, first: int, n: int) -> Grid:
    """Some of the columns; of their groups, those above them."""
    above = [text for text, size in grid.groups for _ in range(size)][first : first + n]
    rows = tuple(replace(row, cells=row.cells[first : first + n]) for row in grid.rows)
    groups = tuple((text, above.count(text)) for text in dict.fromkeys(above))
    return replace(grid, columns=grid.columns[first : first + n], rows=rows, groups=groups)


def _needed(grid: Grid) -> int:
    """Columns of a screen that the table takes, with a space between its own."""
    widths = [max(cell_len(shown_line(name)) for name in (grid.head, *(row.name for row in grid.rows)))]
    for at, heading in enumerate(_headings(grid)):
        words = [cell_len(word) for word in shown_line(heading).split()]
        widths.append(max([*words, *(cell_len(_marked(row.cells[at])) for row in grid.rows)], default=0))
    return sum(widths) + len(widths) - 1


def _table(grid: Grid) -> Table:
    table = plain_table(*map(shown_line, (grid.head, *_headings(grid))), right=range(1, len(grid.columns) + 1))
    for row in grid.rows:
        values = (Text(no_wrap=True).append(_marked(cell), _style(cell)) for cell in row.cells)
        table.add_row(Text(shown_line(row.name)), *values)
    return table


def _headings(grid: Grid) -> list[str]:
    """A column's heading, with what stands above it and not above all."""
    if len(grid.groups) < 2:
        return list(grid.columns)
    above = [text for text, n in grid.groups for _ in range(n)]
    return [f"{group} {column}".strip() for group, column in zip(above, grid.columns, strict=True)]


def _marked(cell: Cell) -> str:
    text = shown_line(cell.text)
    return f"{NOISE} {text}" if cell.noise and text else text or "-"


def _style(cell: Cell) -> str:
    styles = {1: "bold", 2: "underline"}.get(cell.rank, ""), "dim" if cell.noise else ""
    return " ".join(filter(None, styles))


# As Markdown


def markdown_grids(grids: Iterable[Grid]) -> str:
    """GitHub's tables, each under its title, with its notes below."""
    return "\n".join(_markdown(grid) for grid in grids)


def _markdown(grid: Grid) -> str:
    head = [_pipe(grid.head) or " ", *map(_pipe, _headings(grid))]
    lines = [f"### {markdown_line(_title(grid))}", "", f"| {' | '.join(head)} |"]
    lines.append("|" + "---|" + "---:|" * len(grid.columns))
    for row in grid.rows:
        lines.append(f"| {' | '.join([_pipe(row.name), *map(_markdown_cell, row.cells)])} |")
    lines += ["", *(f"- {markdown_line(note)}" for note in grid.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _pipe(text: str) -> str:
    return markdown_line(text).replace("|", r"\|")


def _markdown_cell(cell: Cell) -> str:
    mark = {1: "**{}**", 2: "<u>{}</u>"}.get(cell.rank, "{}")
    return f"{NOISE} " * (cell.noise and bool(cell.text)) + mark.format(_pipe(cell.text or "-"))


# As HTML


def html_grid(grid: Grid) -> str:
    """A table element; the classes ``best``, ``second`` and ``noise`` are the page's to paint."""
    groups = "".join(f'<th colspan="{n}" scope="colgroup">{_html(text)}</th>' for text, n in grid.groups)
    above = f"<tr><td></td>{groups}</tr>\n" if groups else ""
    columns = "".join(f'<th scope="col">{_html(column)}</th>' for column in grid.columns)
    rows = "".join(
        f'<tr><th scope="row">{_html(row.name)}</th>{"".join(map(_html_cell, row.cells))}</tr>\n' for row in grid.rows
    )
    notes = "".join(f"<li>{_html(note)}</li>" for note in grid.notes)
    return f"""<div class="wide" role="region" aria-label="{escape(shown_line(grid.title))}" tabindex="0"><table>
<caption>{_html(grid.title)}</caption>
<thead>
{above}<tr><th scope="col">{_html(grid.head)}</th>{columns}</tr>
</thead>
<tbody>
{rows}</tbody>
</table></div>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
"""


def _html(text: str) -> str:
    return f"<bdi>{escape(shown_line(text))}</bdi>" if text else ""


def _html_cell(cell: Cell) -> str:
    names = {1: "best", 2: "second"}.get(cell.rank, ""), "noise" if cell.noise else ""
    classes = " ".join(filter(None, names))
    return f'<td class="{classes}">{_html(_marked(cell))}</td>' if classes else f"<td>{_html(_marked(cell))}</td>"
