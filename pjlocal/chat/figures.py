"""Tables and coloured texts about a conversation, for Rich to draw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..events import Alternative, Statistics, TokenEvent, pushes_text
from ..request import in_turn
from ..screen.blame import blame
from ..screen.choose import make_tint
from ..screen.display import THOUGHT, local_time, number_text
from ..screen.tables import plain_table
from ..screen.tint import Tint
from ..sessions.finding import Summary
from ..sessions.session import Session, Turn, first_words, title_of
from ..settings import View
from ..visible import one_line, visible

_WHY_COLUMNS = 72  # the least width for all columns except the pushes


def why(turn: Turn, view: View, no_color: bool, width: int) -> Iterable[RenderableType]:
    """The answer coloured by the view that wrote each token, or in the view ``push`` by the preference that pushed it;
    and a table of every token's numbers, with fewer columns on a narrow screen."""
    tint = turn_tint(turn, view, no_color) or blame(*_view_settings(turn), no_color)
    pushing = _pushing(turn)
    yield tint.legend
    text = Text()
    for event in turn.events:
        text.append(visible(event.text), f"{THOUGHT if event.thought else ''} {tint.style(event)}")
    yield text
    yield Text()
    pushes = [f"push {name}" for name in pushing]
    narrow = width < _WHY_COLUMNS + sum(len(header) + 2 for header in pushes)
    if narrow:
        table = plain_table("#", "token", "by", "p", "q", "accept", right=(0, 3, 4, 5))
    else:
        headers = "#", "token", "kind", "written by", "p", "q", "accept", *pushes, "in place of"
        table = plain_table(*headers, right=(0, *range(4, 7 + len(pushes))))
    for event in turn.events:
        token = Text(_in_cell(event.text) or f"<{event.id}>", tint.style(event))
        numbers = map(number_text, (event.shown_p, event.q, event.accept_probability))
        rejected = event.rejected
        instead = (
            f"{_in_cell(rejected.text)} (p {number_text(rejected.p)}, q {number_text(rejected.q)})" if rejected else ""
        )
        if narrow:
            if rejected:
                token.append(f"\nfor {_in_cell(rejected.text)}", _UNMARKED)
            if event.pushes:
                token.append(f"\n{visible(pushes_text(event.pushes))}", _UNMARKED)
            table.add_row(str(event.position), token, event.shown_writer or "-", *numbers)
        else:
            table.add_row(
                str(event.position),
                token,
                event.kind,
                event.shown_writer or "-",
                *numbers,
                *(number_text(event.pushes.get(name), "{:+.2f}") for name in pushing),
                Text(instead),
            )
    yield table


def alternatives(found: Sequence[Alternative], written: TokenEvent) -> Table:
    """The most probable tokens at a position, with a mark at the one that was written."""
    views = list(found[0].p) if found else []
    table = plain_table("", "#", "token", *views, right=(1, *range(3, 3 + len(views))))
    for number, each in enumerate(found, 1):
        mark = "*" if each.id == written.id else ""
        name = Text(_in_cell(each.text) or f"<{each.id}>")
        table.add_row(mark, str(number), name, *(number_text(each.p.get(view)) for view in views))
    return table


def thoughts(turn: Turn, view: View, no_color: bool) -> RenderableType:
    """The thoughts before an answer, coloured in a view with colours."""
    tint = turn_tint(turn, view, no_color)
    if tint is None:
        return Text(visible(turn.thinking))
    return Group(tint.legend, Text.assemble(*((visible(e.text), tint.style(e)) for e in turn.events if e.thought)))


def turn_tint(turn: Turn, view: View, no_color: bool) -> Tint | None:
    """The colours of an earlier answer; None in a view without colours."""
    return make_tint(view, *_view_settings(turn), _pushing(turn), no_color)


def _view_settings(turn: Turn) -> tuple[Mapping[str, Sequence[str]], str | None]:
    return turn.settings.get("preferences", {}), turn.settings.get("mode")


def _pushing(turn: Turn) -> list[str]:
    return list(dict.fromkeys(name for event in turn.events for name in event.pushes))


_UNMARKED = "not bold not underline not reverse"


def _in_cell(token: str) -> str:
    """A token's text for a table cell, with visible white space."""
    return visible(token).replace("\n", "↵").replace("\t", "⇥").replace(" ", "·")


def drafts(turn: Turn) -> Table:
    """The drafts of a turn, with a mark at the one in force."""
    table = plain_table("", "draft", "mode", "preferences", "tokens", "answer", right=(1, 4))
    for number, draft in enumerate(turn.drafts, 1):
        mark = "*" if draft is turn else ""
        mode = str(draft.settings.get("mode", "-"))
        views = {} if mode == "plain" else draft.settings.get("preferences", {})
        other = "" if draft.question == turn.question else f"{title_of(draft.question)} → "
        beginning = one_line(f"{other}{first_words(draft.answer) or 'no answer'}")
        wishes = one_line(", ".join(in_turn([*views.values()])))
        table.add_row(mark, str(number), mode, Text(wishes), str(len(draft.events)), Text(beginning))
    return table


def sessions(summaries: Iterable[Summary], current: int | None) -> Table:
    """A table of saved sessions, with a mark at the current one."""
    table = plain_table("", "id", "when", "turns", "title", right=(1, 3))
    for s in summaries:
        mark = "*" if s.id == current else ""
        table.add_row(mark, str(s.id), local_time(s.updated), str(s.n_turns), Text(one_line(s.title)))
    return table


def facts(statistics: Statistics) -> str:
    """Tokens, acceptance rate and speed of an answer, on one line."""
    parts = [f"{statistics.completion_tokens} tokens"]
    if statistics.acceptance_rate is not None:
        parts.append(f"{statistics.acceptance_rate:.0%} accepted")
    if statistics.tokens_per_second:
        parts.append(f"{statistics.tokens_per_second:.0f} tok/s")
    return " · ".join(parts)


def statistics(session: Session) -> Table:
    """A table with a row for each turn, and the totals."""
    pushed = any(turn.statistics.get("pushes") for turn in session.turns)
    headers = "turn", "mode", "prompt", "tokens", "tokens/s", "accepted", "first token", *["push"] * pushed
    table = plain_table(*headers, right=range(2, 7))
    total = 0
    for number, turn in enumerate(session.turns, 1):
        usage: Mapping[str, Any] = turn.statistics.get("usage", {})
        timings: Mapping[str, Any] = turn.statistics.get("timings", {})
        n = usage.get("completion_tokens", sum(event.kind != "given" for event in turn.events))
        total += n
        table.add_row(
            str(number),
            visible(str(turn.settings.get("mode", "-"))),
            " + ".join(map(str, usage.get("prompt_tokens", []))) or "-",
            str(n),
            number_text(timings.get("tokens_per_second"), "{:.1f}"),
            number_text(turn.statistics.get("acceptance_rate"), "{:.0%}"),
            number_text(timings.get("prefill_s"), "{:.2f} s"),
            *[pushes_text(turn.statistics.get("pushes") or {}) or "-"] * pushed,
        )
    table.add_row("all", "", "", str(total))
    return table


def commands(rows: Iterable[tuple[str, str]], width: int) -> RenderableType:
    """Each command's usage and description: side by side, or one below the other on a narrow screen."""
    if width < _HELP_COLUMNS:
        lines = [
            line for usage, what in rows for line in (_at_bars(usage, width), Padding(Text(what, "dim"), (0, 0, 0, 2)))
        ]
        return Group(*lines)
    table = plain_table("command", "what it does")
    for usage, what in rows:
        table.add_row(_at_bars(usage, _USAGE_COLUMNS), Text(what))
    table.columns[0].no_wrap = True
    return table


_HELP_COLUMNS = 60  # the least width for both side by side
_USAGE_COLUMNS = 32


def _at_bars(usage: str, width: int) -> Text:
    """A command's usage, broken between words and after the bars of a choice."""
    lines = [""]
    for part in re.findall(r"[^\s|]+\|?|\s+", usage):
        if len(lines[-1] + part.rstrip()) > width:
            lines.append("  ")
        lines[-1] += part
    return Text("\n".join(line.rstrip() for line in lines))
