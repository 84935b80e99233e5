"""Colours show the writer of a token, or the preference that pushed it; without colours, other styles do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pjlocal.events import Statistics, TokenEvent
from pjlocal.screen.blame import blame, blame_style
from pjlocal.screen.display import statistics_line
from pjlocal.screen.push import push, push_style

TOKEN = TokenEvent(0, 7, "x", "accepted", 0, "a", 0.5, 0.5, 1.0, judge="b")


@pytest.mark.parametrize("no_color", [False, True])
def test_every_view_has_its_own_style_and_styles_repeat_after_the_last(no_color: bool) -> None:
    styles = [blame_style(replace(TOKEN, draft=name), no_color) for name in "abcdefgh"]
    assert len(set(styles)) == 8
    assert blame_style(replace(TOKEN, draft="z"), no_color) in {
        blame_style(replace(TOKEN, draft=name), no_color) for name in "abcdefghij"
    }


def test_tokens_that_all_views_agree_on_have_no_views_colour() -> None:
    both = replace(TOKEN, kind="resampled", judge=None)
    assert blame_style(both) == blame_style(both, no_color=True) == "underline"
    assert blame({"a": ["vivid"], "b": []}, "both").legend.plain == (
        "a: vivid  b: no preference  all: what they agree on  resampled  bonus"
    )


@pytest.mark.parametrize("mode", ["prompt", "rewrite", "plain"])
def test_modes_of_one_view_do_not_explain_colours_that_they_cannot_show(mode: str) -> None:
    assert blame({"a": ["vivid"], "b": []}, mode).legend.plain == f"mode {mode}: one view wrote all tokens"


@pytest.mark.parametrize(
    ("pushes", "style", "no_color"),
    [
        ({}, "", ""),
        ({"a": -1.0, "b": 0.05}, "", ""),
        ({"a": 0.2, "b": 0.1}, "cyan", "dim underline"),
        ({"a": 0.2, "b": 0.8}, "bold magenta", "reverse"),
        ({"a": 2.4, "b": 2.5}, "bold reverse magenta", "bold reverse"),
        ({"a": 0.1, "c": 1.0}, "bold yellow", "italic"),
        ({"prompt": 0.2}, "cyan", "dim underline"),
        ({"a": 0.2, "avoid 1": 3.0}, "bold reverse red", "bold strike"),
    ],
)
def test_the_hardest_pull_gives_a_token_its_colour_and_its_strength(pushes, style: str, no_color: str) -> None:
    event = replace(TOKEN, pushes=pushes)
    assert push_style(event) == style and push_style(event, no_color=True) == no_color


def test_the_push_view_explains_its_colours_or_says_that_there_are_no_pushes() -> None:
    line = push({"a": ["vivid"], "b": ["two words"]}, ["a", "b", "avoid 1"]).legend.plain
    assert line == "a: vivid  b: two words  avoid 1  more probable by it: ×1.1 ×2 ×10"
    nothing = push({"a": ["vivid"]}, [])
    assert nothing.legend.plain.startswith("no pushes: they need preferences with a strength other than 1")
    assert nothing.style(replace(TOKEN, pushes={"a": 9.0})) == ""


def test_the_statistics_tell_how_far_each_preference_has_moved_the_text() -> None:
    statistics = Statistics(prompt_tokens=[5, 5, 4], completion_tokens=4, pushed={"a": 2.0, "b": -1.0})
    assert statistics_line(statistics).endswith(" | push a +0.50 b -0.25 nats/token")
    assert "push" not in statistics_line(replace(statistics, pushed={}))
