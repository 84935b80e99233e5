"""Show pages that fill the terminal and scroll.  The caller may define more keys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import StringIO

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.containers import ConditionalContainer, HSplit, VSplit, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.layout import Layout
from rich.console import RenderableType

from ..visible import one_line
from .console import make_console

_STATUS_ROWS = 1
_STYLE = re.compile(r"\x1b\[[\d;]*m")


@dataclass
class Pager:
    """A pager on the terminal: a page above a status line.  Both are computed again after every key.

    page: the content, for a width in columns and with or without colours.
    notice: the beginning of the status line.
    hint: a description of the keys, at the end of the status line, where it may be cut off.
    keys: actions by key; after an action the page is shown from its top.
    search: called with the words typed after a slash; None scrolls to the next row that contains them, and the key n to
        the one after it.
    widest: maximum width of a page in columns.
    """

    page: Callable[[int, bool], RenderableType]
    notice: Callable[[], str]
    hint: str
    keys: Mapping[str, Callable[[], None]]
    search: Callable[[str], None] | None = None
    widest: int | None = None
    _found: str = ""  # the words of the last search
    _hit: int = -1  # the row that contains them
    _top: int = 0  # row of the page in the first row of the screen
    _rows: list[str] = field(default_factory=list)
    _drawn_for: int | None = None  # columns

    def run(self) -> None:
        """Run until q, Ctrl-C, Ctrl-D or `leave`."""
        self._words = Buffer(multiline=False, accept_handler=self._search)
        self._body = FormattedTextControl(self._window, focusable=True, show_cursor=False)
        status = Window(FormattedTextControl(self._status_line), height=_STATUS_ROWS, wrap_lines=False)
        asks = VSplit([Window(FormattedTextControl("/"), width=1), Window(BufferControl(self._words))], height=1)
        searching = Condition(lambda: self._app.layout.has_focus(self._words))
        self._app: Application[None] = Application(
            Layout(
                HSplit(
                    [
                        Window(self._body, wrap_lines=False),
                        ConditionalContainer(asks, searching),
                        ConditionalContainer(status, ~searching),
                    ]
                ),
                focused_element=self._body,
            ),
            key_bindings=self._bindings(searching),
            full_screen=True,
        )
        self._app.run(handle_sigint=False)  # keeps the current handler of SIGINT

    def leave(self) -> None:
        self._app.exit()

    def _bindings(self, searching: Condition) -> KeyBindings:
        bindings = KeyBindings()

        def bind(*names: str, act: Callable[[], None]) -> None:
            for name in names:
                bindings.add(name, filter=~searching)(lambda event: act())

        bind("q", "c-c", "<sigint>", "c-d", act=self.leave)
        bind("c-z", act=lambda: self._app.suspend_to_background())
        bind("down", "j", act=lambda: self._scroll(1))
        bind("up", "k", act=lambda: self._scroll(-1))
        bind("pagedown", " ", act=lambda: self._scroll(self._height()))
        bind("pageup", "b", act=lambda: self._scroll(-self._height()))
        bind("home", "g", act=lambda: self._scroll(-len(self._rows)))
        bind("end", "G", act=lambda: self._scroll(len(self._rows)))
        bind("/", act=lambda: self._app.layout.focus(self._words))
        if self.search is None:
            bind("n", act=lambda: self._find(self._found))
        for key, act in self.keys.items():  # a later binding of a key replaces an earlier one
            bind(key, act=partial(self._act, act))

        @bindings.add("c-c", filter=searching)
        @bindings.add("escape", filter=searching, eager=True)
        def stop(event: KeyPressEvent) -> None:
            self._words.reset()
            self._app.layout.focus(self._body)

        return bindings

    def _act(self, act: Callable[[], None]) -> None:
        act()
        self._redraw()

    def _redraw(self) -> None:
        self._top, self._drawn_for = 0, None

    def _search(self, buffer: Buffer) -> bool:
        self._app.layout.focus(self._body)
        if self.search is None:
            self._find(buffer.text.strip() or self._found)
        else:
            self.search(buffer.text)
            self._redraw()
        return False  # the words go

    def _find(self, words: str) -> None:
        """Scroll to the next row that contains the words, or to the first one after the last."""
        is_seen = words == self._found and self._top <= self._hit < self._top + self._height()
        first = self._hit + 1 if is_seen else self._top
        self._found, self._hit = words, -1
        for row in [*range(first, len(self._rows)), *range(first)] if words else []:
            if words.casefold() in _STYLE.sub("", self._rows[row]).casefold():
                self._hit = row
                self._scroll(row - self._top)
                return

    def _height(self) -> int:
        return max(1, self._app.output.get_size().rows - _STATUS_ROWS)

    def _scroll(self, rows: int) -> None:
        self._top = max(0, min(self._top + rows, len(self._rows) - self._height()))

    def _window(self) -> ANSI:
        """The rows of the page on the screen."""
        columns = self._app.output.get_size().columns
        if self._drawn_for != columns:
            no_color = bool(os.environ.get("NO_COLOR"))
            width = min(columns, self.widest or columns)
            self._rows = drawn(self.page(width, no_color), width, no_color).split("\n")
            self._drawn_for, self._hit = columns, -1
        self._scroll(0)
        rows = self._rows[self._top : self._top + self._height()]
        if 0 <= self._hit - self._top < len(rows):
            rows[self._hit - self._top] = f"\x1b[7m{_STYLE.sub('', self._rows[self._hit])}\x1b[0m"
        return ANSI("\n".join(rows))

    def _status_line(self) -> ANSI:
        unseen = len(self._rows) - self._top - self._height()
        below = f"{unseen} rows below" if unseen > 0 else ""
        missed = f"nothing found: {self._found}" if self._found and self._hit < 0 else ""
        parts = [self.notice(), missed, below, self.hint]
        return ANSI(f"\x1b[2m{one_line(' · '.join(filter(None, parts)))}\x1b[0m")


def drawn(renderable: RenderableType, width: int, no_color: bool = False) -> str:
    """Rich's output for a renderable on a terminal of that width; every row ends in the style in which it began."""
    file = StringIO()
    options = {"force_terminal": True, "color_system": "standard", "legacy_windows": False}
    make_console(file, width=width, no_color=no_color, **options).print(renderable)
    return file.getvalue().rstrip("\n")
