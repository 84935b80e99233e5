"""Export a session as Markdown, JSON, or HTML with the numbers of every token.

Texts of models, users and files pass through `visible.visible`; in JSON they are escaped instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from math import exp
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import plural
from ..events import ALL, TokenEvent, pushes_text
from ..html import render, view_color
from ..settings import JUDGED
from ..textfile import output_file, write_text
from ..visible import markdown_line, shown, shown_line, visible, whole_characters
from .session import Session, Turn

_UNTITLED = "Conversation"
_ENDINGS = {"length": "cut at the length limit", "interrupted": "interrupted", None: "unfinished"}


def write_export(session: Session, target: Path, force: bool = False, drafts: bool = False) -> None:
    """Write a session atomically, in the format of the file's ending.  Only the owner can read a new file.

    Args:
        drafts: whether to include drafts that are not in force; JSON always has them.

    Raises:
        UsageError: no format has this ending, or the file exists and ``force`` is not set.
        OutputError: the file cannot be written.
    """
    path, form = output_file(target, FORMATS, force)
    write_text(path, form(session, drafts))


def as_markdown(session: Session, drafts: bool = False) -> str:
    """The session as Markdown.  Questions are quoted; thoughts and answers, which are Markdown, stay unchanged.

    Undone turns have no number.
    """
    parts = [f"# {markdown_line(session.title) or _UNTITLED}", f"pjlocal {__version__}, {_date(session.created)}"]
    n_kept = 0
    for turn in session.turns:
        is_undone = all(draft.undone for draft in turn.drafts)
        if turn is not turn.drafts[0] if is_undone else turn.undone:
            continue  # among the drafts of another
        n_kept += not is_undone
        number = "(undone)" if is_undone else f"{n_kept}"
        quoted = "\n".join(f"> {line}".rstrip() for line in shown(turn.question).split("\n"))
        parts += [f"### Question {number}", quoted, *_answer_parts(turn, number)]
        for n, draft in _other_drafts(turn) if drafts else ():
            parts += _answer_parts(draft, f"{number}, draft {n}", _asked(draft, turn))
    return "\n\n".join(part for part in parts if part) + "\n"


def _answer_parts(turn: Turn, number: str, note: str = "") -> list[str]:
    """The thinking and the answer, under headings with this number."""
    preferences = [f"{name}: {', '.join(wishes)}" for name, wishes in _preferences(turn).items() if wishes]
    facts = [*_facts(turn), *preferences, _ENDINGS.get(turn.ending, ""), note]
    answer, thinking = shown(turn.answer), shown(turn.thinking)
    thoughts = [f"### Thinking {number}", thinking + _closing_fence(thinking)] if thinking else []
    line = " · ".join(markdown_line(fact) for fact in facts if fact)
    return [*thoughts, f"### Answer {number}", line, answer + _closing_fence(answer)]


def as_json(session: Session, drafts: bool = True) -> str:
    """The whole session as one JSON object.

    ::

        {"pjlocal": version, "title": ..., "created": when, "settings": {...},
         "turns": [{"question": ..., "thinking": ..., "answer": ..., "created": when, "settings": {...},
                    "finish_reason": ..., "statistics": {...}, "tokens": [...],
                    "drafts": [...]}]}

    ``drafts`` are the turn's other answers, as turns without drafts, each with its ``number`` among all drafts.

    ``created`` is ISO 8601 in UTC.  ``settings`` of the chat are those of its next answer.  ``settings``,
    ``finish_reason`` and ``statistics`` of a turn are those of `session.Turn`; a token is the result of
    `TokenEvent.as_dict`, as in a trace.  Characters that `visible.visible` would mark, and halves of surrogate pairs,
    are escaped.  `importing.parse_export` reads it.
    """
    whole = {
        "pjlocal": __version__,
        "title": session.title,
        "created": _time(session.created).isoformat(),
        "settings": session.settings,
        "turns": [
            _as_dict(turn) | {"drafts": [_as_dict(draft) | {"number": number} for number, draft in _other_drafts(turn)]}
            for turn in session.turns
        ],
    }
    text = json.dumps(whole, ensure_ascii=False, indent=1)
    return re.sub("[\x7f-\uffff]", _json_escape, text) + "\n"


def _as_dict(turn: Turn) -> dict[str, Any]:
    return {
        "question": turn.question,
        "thinking": turn.thinking,
        "answer": turn.answer,
        "created": _time(turn.created).isoformat(),
        "settings": turn.settings,
        "finish_reason": turn.finish_reason,
        "statistics": turn.statistics,
        "tokens": [event.as_dict() for event in turn.events],
    }


def _json_escape(match: re.Match[str]) -> str:
    char = match[0]
    return char if visible(char) == char and not "\ud800" <= char <= "\udfff" else f"\\u{ord(char):04x}"


def as_html(session: Session, drafts: bool = False) -> str:
    """One HTML page without scripts: every token in the colour of its view, with its numbers in a tooltip."""
    count = f"{len(session.turns)} {plural(len(session.turns), 'turn')}"
    legends = [_legend(turn) for turn in session.turns]
    shared = legends[0] if legends and all(legend == legends[0] for legend in legends) else None
    turns = [
        _on_page(turn)
        | {
            "legend": legend if shared is None and any(legend) else None,
            "drafts": [(n, _asked(draft, turn), _on_page(draft)) for n, draft in _other_drafts(turn)] if drafts else [],
        }
        for turn, legend in zip(session.turns, legends, strict=True)
    ]
    return render(
        "sessions/export.html",
        title=shown_line(session.title) or _UNTITLED,
        summary=f"{count} · {_date(session.created)} · pjlocal {__version__}",
        legend=shared if shared and any(shared) else ({"a": [""], "b": [""]}, False),
        turns=turns,
    )


def _on_page(turn: Turn) -> dict[str, Any]:
    return {
        "question": turn.question,
        "facts": [*_facts(turn), *_share(turn)],
        "thoughts": _tokens(turn, thought=True),
        "n_thoughts": sum(event.thought for event in turn.events),
        "tokens": _tokens(turn, thought=False),
        "ending": _ENDINGS.get(turn.ending, ""),
    }


FORMATS: dict[str, Callable[[Session, bool], str]] = {"md": as_markdown, "json": as_json, "html": as_html}


# What the formats share.


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), timezone.utc)


def _date(seconds: float) -> str:
    return f"{_time(seconds):%Y-%m-%d %H:%M} UTC"


def _at(table: object, *keys: str) -> Any:
    """The value at nested keys; None if one is missing."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _other_drafts(turn: Turn) -> list[tuple[int, Turn]]:
    """The drafts of a turn that are not in force, each with its number."""
    return [(number, draft) for number, draft in enumerate(turn.drafts, 1) if draft is not turn]


def _asked(draft: Turn, turn: Turn) -> str:
    """The question of a draft, if it differs from that of the draft in force; else empty."""
    return "" if draft.question == turn.question else f"question: {shown(draft.question)}"


def _preferences(turn: Turn) -> dict[str, list[str]]:
    return _at(turn.settings, "preferences") or {}


def _facts(turn: Turn) -> list[str]:
    """The settings and statistics of an answer as texts."""
    mode = _at(turn.settings, "mode")
    judged = mode in JUDGED
    generation = _at(turn.settings, "generation")
    rule, avoided = _at(generation, "rule"), _at(generation, "avoid")
    pushes = _at(turn.statistics, "pushes")
    known = [
        ("{}", "edited" if turn.is_edited else None),
        ("{}", _at(turn.settings, "model")),
        ("{} mode", mode),
        ("λ {}", _at(generation, "lam") if judged else None),
        ("strength {}", _at(generation, "strength")),
        ("rule {}", rule if mode == "both" and rule != "push" else None),  # of earlier versions
        ("avoid {}", ", ".join(map(str, avoided)) if avoided and mode != "plain" else None),
        ("floor {}", _at(generation, "floor") if pushes else None),
        ("seed {}", _at(turn.settings, "seed")),
        ("{:.0%} accepted", _at(turn.statistics, "acceptance_rate")),
        ("push {}", pushes_text(pushes) if pushes else None),
        ("{:.1f} tokens/s", _at(turn.statistics, "timings", "tokens_per_second")),
    ]
    return [form.format(value) for form, value in known if value is not None]


# Markdown


def _closing_fence(text: str) -> str:
    """The fence that closes a code block that the answer left open; empty if it left none open."""
    fence = ""
    for line in text.split("\n"):
        mark = re.match(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
    return fence and "\n" * (not text.endswith("\n")) + fence


# HTML


def _legend(turn: Turn) -> tuple[dict[str, list[str]], bool]:
    """The preferences of each view that has one or wrote a token, and whether all views chose a token together."""
    preferences = _preferences(turn)
    wrote = {event.shown_writer for event in turn.events}
    names = [name for name in dict.fromkeys(["a", "b", *preferences]) if preferences.get(name) or name in wrote]
    return {name: preferences.get(name) or [] for name in names}, ALL in wrote


def _share(turn: Turn) -> list[str]:
    """The share of the answer's tokens that each view wrote, as a text in a list; empty if there was only one view."""
    answer = (event for event in turn.events if event.text and not event.thought)
    writers = [writer for event in answer if (writer := event.shown_writer)]
    if not writers:
        return []
    names = [*sorted({"a", "b", *writers} - {ALL}), *[ALL] * (ALL in writers)]
    shares = [f"{name} {writers.count(name) / len(writers):.0%}" for name in names]
    return [", ".join(shares).replace(" ", " wrote ", 1)]


def _tokens(turn: Turn, thought: bool) -> list[dict[str, Any]]:
    events = [event for event in turn.events if event.thought is thought]
    return [*map(_token, whole_characters(events, lambda event: event.text))]


def _token(group: Sequence[TokenEvent]) -> dict[str, Any]:
    """The values of a token, or of several tokens that form one character, for the page."""
    first = group[0]
    text = shown("".join(event.text for event in group))
    line_end = "line-end" if text.lstrip(" ").startswith("\n") else ""
    return {
        "text": text,
        "classes": " ".join(filter(None, ["t", view_color(first.writer), first.kind, line_end])),
        "tabindex": 0 if first.kind == "resampled" else -1,  # Tab stops only at these; a click focuses any token
        "tip": "\n\n".join(map(_tip, group)),
    }


def _tip(event: TokenEvent) -> str:
    """A token's numbers, as lines of text."""
    draft, judge = event.draft, event.judge or ALL
    knows = ALL if judge == ALL else f"judge {judge}"
    lines = [_named(event.text, event.id)]
    if draft is None:
        chance = [] if event.shown_p is None else [_row("", "p", event.shown_p)]
        return "\n".join([*lines, event.kind, *chance, *_push_rows(event)])
    bonus = f"bonus from {judge}, after the λ that {draft} had drafted and {judge} accepted"
    lines.append(bonus if event.kind == "bonus" else f"{event.kind}, drafted by {draft}, judged by {judge}")
    lines.append(_row(knows, "p", event.p))
    if event.q is not None:
        lines.append(_row(f"draft {draft}", "q", event.q))
    if event.rejected:
        rejected = event.rejected
        lines += ["", f"in place of {_named(rejected.text, rejected.id)}, drafted by {draft} and rejected"]
        lines += [_row(knows, "p", rejected.p), _row(f"draft {draft}", "q", rejected.q)]
    if event.accept_probability is not None:
        lines.append(_row("accept", "", event.accept_probability))
    return "\n".join([*lines, *_push_rows(event)])


def _push_rows(event: TokenEvent) -> list[str]:
    """Lines with the push of each preference on the token: in nats, and as a factor of the probability."""
    rows = [f"push {name:9}{nats:+6.2f}  ×{exp(min(nats, 99)):.3g}" for name, nats in event.pushes.items()]
    return ["", *rows] if rows else []


def _named(text: str, token: int) -> str:
    """A token's text, shortened, with visible white space, or its id if it has no text."""
    marked = shown(text[:60]).translate({10: "↵", 9: "⇥", 32: "␣"})
    return marked + "…" * (len(text) > 60) or f"token {token}"


def _row(who: str, what: str, probability: float) -> str:
    """A probability as a number and as a bar."""
    halves = round(40 * min(1.0, max(0.0, probability)))
    whole, half = divmod(halves, 2)
    number = f"{probability:.4f}" if probability == 0 or probability >= 0.0001 else f"{probability:.0e}"
    return f"{who:8}{what:2}{number:>7} {'━' * whole}{'╾' * half}{'─' * (20 - whole - half)}"
