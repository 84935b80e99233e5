"""Tables and panels for Rich to draw."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..events import Result
from ..settings import Settings, flag
from ..visible import visible
from .markdown import markdown

_COMPARE_COLUMN = 36  # the least width at which answers stand side by side


def plain_table(*headers: str, right: Iterable[int] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i in right else "left", overflow="fold")
    return table


def comparison(results: list[Result], width: int) -> RenderableType:
    """Answers side by side, or one below the other where the screen is too narrow for that."""
    n_columns = min(len(results), max(1, width // _COMPARE_COLUMN))
    panels = []
    for result in results:
        s = result.statistics
        facts = [f"{s.completion_tokens} tokens"]
        if s.acceptance_rate is not None:
            facts.append(f"{s.acceptance_rate:.0%} accepted")
        if s.tokens_per_second:
            facts.append(f"{s.tokens_per_second:.0f} tok/s")
        panels.append(
            Panel(
                Group(markdown(visible(result.text))),
                title=result.mode,
                subtitle=" · ".join(facts),
                width=width // n_columns,
            )
        )
    if n_columns == 1:
        return Group(*panels)
    return Columns(panels, padding=0, width=width // n_columns)


def settings(groups: Iterable[Settings], named: str | None = None) -> Table:
    """Every setting's value, and what it does; or the one that is named."""
    table = plain_table("setting", "value", "")
    for group in groups:
        for f in dataclasses.fields(group):  # type: ignore[arg-type]
            if named in (None, f.name):
                value = getattr(group, f.name)
                changed = "bold" if value != f.default else ""
                shown = " ".join(visible(_plain(value)).split())
                table.add_row(flag(f).removeprefix("--"), Text(shown, changed), Text(f.metadata["help"], "dim"))
    return table


def _plain(value: Any) -> str:
    """A setting's value as one would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return shlex.join(value) or "-"
    return "-" if value in (None, "") else str(value)
