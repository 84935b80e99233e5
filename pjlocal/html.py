"""Render HTML pages from Jinja2 templates.  Text of a model, a user or a file never becomes markup.

Every value passes through `visible.shown` and is then escaped, without a need to do so in the templates.  Templates,
styles and scripts are files of this package; their names are relative to it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from . import __version__
from .settings import VIEW_LETTERS
from .visible import shown, shown_line

if TYPE_CHECKING:
    from jinja2 import Environment

_N_COLORS = 6  # colours in blame.css; more views repeat them


def render(template: str, **values: Any) -> str:
    """Render a template with values.  The same values give the same text."""
    return _environment().get_template(template).render(values)


def source(name: str) -> str:
    """The text of a file of this package."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def view_color(view: str | None) -> str:
    """The CSS class of a view's colour; empty if no single view wrote the token."""
    return VIEW_LETTERS[VIEW_LETTERS.index(view) % _N_COLORS] if view and view in (*VIEW_LETTERS,) else ""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else shown(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(line=lambda value: shown_line(str(value)), color=view_color)
    environment.globals.update(version=__version__, source=source)
    return environment
