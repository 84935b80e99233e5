"""Answers side by side in a terminal: coloured by writer, and paged."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from evaluated import HOSTILE, IN_TESTS, SUITE, answer, answers
from rich.console import Console
from terminal import Terminal

from pjlocal.errors import UsageError
from pjlocal.evaluation.browser import choose, show
from pjlocal.evaluation.side_by_side import SideBySide, side_by_side
from pjlocal.evaluation.suite import Objectives

SHOW = """
import sys
from dataclasses import replace
from evaluated import SUITE, answers
from pjlocal.evaluation.browser import show
from pjlocal.evaluation.side_by_side import side_by_side
from pjlocal.evaluation.suite import Objectives
from pjlocal.screen.console import make_console
suite = replace(SUITE, objectives=(*SUITE.objectives, Objectives("long", ("vivid", "creative"))))
long = " ".join(f"word{n}" for n in range(200))
records = answers(3) + answers(4, objectives=("long",), text=long)[9:]
show(side_by_side(records, suite), suite, make_console(sys.stdout))
"""


def printed(of: list[SideBySide], width: int = 120, **options: object) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False, **options)
    show(of, SUITE, console)
    return file.getvalue()


@pytest.fixture
def start(on_terminal: Callable[..., Terminal]) -> Callable[..., Terminal]:
    return partial(on_terminal, sys.executable, "-c", SHOW, **{"columns": 120} | IN_TESTS)


def test_answers_stand_side_by_side_or_one_below_the_other_where_it_is_narrow() -> None:
    one = side_by_side(answers(1, objectives=("bright",)), SUITE)
    wide, narrow = printed(one), printed(one, width=40)
    assert any("prompt" in row and "judge" in row and "both" in row for row in wide.splitlines())
    assert not any("prompt" in row and "judge" in row for row in narrow.splitlines())
    assert narrow.index("─ prompt ─") < narrow.index("─ judge ─") < narrow.index("─ both ─")
    assert max(map(len, wide.splitlines())) <= 120 and max(map(len, narrow.splitlines())) <= 40


@pytest.mark.parametrize("width", [120, 80, 40, 20])
def test_the_reason_why_an_answer_ended_is_shown_at_every_width(width: int) -> None:
    text = printed(side_by_side(answers(3, objectives=("bright",)), SUITE)[2:], width)
    words = " ".join(text.replace("│", " ").split())
    assert words.count("limit") == 3 and words.count("accepted") == 2, text


def test_two_systems_may_be_chosen_and_unknown_ones_are_refused() -> None:
    of = side_by_side(answers(2), SUITE)
    assert [[*row.answers] for row in choose(of, ["both", "prompt"], ["sea"])] == [["both", "prompt"]] * 2
    with pytest.raises(UsageError, match=r"no system 'juge' in these answers: did you mean judge\?"):
        choose(of, ["juge"])
    with pytest.raises(UsageError, match="no objectives 'x' in these answers: there are bright, sea"):
        choose(of, [], ["x"])


def test_colours_tell_who_wrote_what_and_without_colours_other_styles_do() -> None:
    one = choose(side_by_side(answers(1), SUITE), ["both"], ["bright"])
    colored = printed(one, force_terminal=True, color_system="standard")
    assert "\x1b[36mboth\x1b[0m" in colored and "\x1b[35m says\x1b[0m" in colored, "by a, by b"
    assert "\x1b[4;35m that\x1b[0m" in colored and "\x1b[4m is\x1b[0m" in colored, "resampled by b, by all"
    bare = printed(one, force_terminal=True, color_system="standard", no_color=True)
    assert "\x1b[3" not in bare.replace("\x1b[3m", "") and "\x1b[7m says\x1b[0m" in bare
    assert "a: vivid  b: creative  all: what they agree on  resampled  bonus" in printed(one)


def test_escape_sequences_in_an_answer_do_not_reach_the_terminal() -> None:
    records = [
        answer("both", n, text, objectives=text, pieces=[[text, "bonus", "b"]]) for n, text in enumerate(HOSTILE)
    ]
    suite = replace(SUITE, objectives=tuple(Objectives(text, ("vivid", "creative")) for text in HOSTILE))
    text = printed(side_by_side(records, suite))
    assert "\x1b" not in text and "\u202e" not in text and "[bold]" in text
    text.encode()


def test_no_answers_are_one_clear_line() -> None:
    with pytest.raises(UsageError, match="there are no answers yet"):
        show([], SUITE, Console())


def test_a_terminal_pages_through_the_answers(start: Callable[..., Terminal]) -> None:
    terminal = start(PAGER="grep /7")
    assert terminal.end() == 0
    titles = [row.strip("─ ") for row in terminal.text.splitlines()]
    assert titles == [f"{number}/7 p{(number - 1) % 3 + 1}" for number in range(1, 7)] + ["7/7 p4"]


def test_no_color_removes_colours(start: Callable[..., Terminal]) -> None:
    terminal = start(NO_COLOR="1", PAGER="cat")
    assert terminal.end() == 0
    assert "What is 1?" in terminal.text
    assert b"\x1b[36m" not in terminal.raw and b";36m" not in terminal.raw
    assert b"\x1b[7m" in terminal.raw or b";7m" in terminal.raw, "in reverse"
