"""Make tables for Rich to draw."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..settings import Settings, flag, in_chat_words
from ..visible import visible


class _PlainTable(Table):
    """A table that replaces control characters in its cells: saved chats and model files may contain any."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(visible(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def plain_table(*headers: str, right: Iterable[int] = ()) -> Table:
    table = _PlainTable(box=None, pad_edge=False, header_style="bold")
    for i, header in enumerate(headers):
        table.add_column(visible(header), justify="right" if i in right else "left", overflow="fold")
    return table


def settings(groups: Iterable[Settings], in_force: Mapping[str, str], named: str | None = None) -> Table:
    """A table of all settings with values and help, or of one setting, as a chat shows it.

    Args:
        in_force: the values of settings that were not set, by name.
    """
    table = plain_table("setting", "value", "")
    for group in groups:
        for f in dataclasses.fields(group):
            if named in (None, f.name):
                value = getattr(group, f.name)
                changed = "bold" if value != f.default else ""
                automatic = in_force.get(f.name) if value is None else None
                unset = in_chat_words(f.metadata.get("unset", "none"))
                text = f"{automatic} (automatic)" if automatic else _plain(value, unset)
                shown = " ".join(visible(text).split())
                about = in_chat_words(f.metadata["help"]).replace("(repeatable", "(one or more")
                table.add_row(flag(f).removeprefix("--"), Text(shown, changed), Text(about, "dim"))
    return table


def _plain(value: Any, unset: str) -> str:
    """A setting's value in the form that a user types."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return shlex.join(value) or unset
    return unset if value in (None, "") else str(value)
