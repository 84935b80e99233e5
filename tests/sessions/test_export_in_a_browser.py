"""An exported page in a browser, where one is installed: nothing planted runs, and each token tells its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Chromium
from exported_chats import HOSTILE, accepted, bonus, chat, hostile_session, resampled

from pjlocal.sessions.export import write_export


@pytest.mark.slow
def test_in_a_browser_nothing_that_was_planted_runs(chromium: Chromium, tmp_path: Path) -> None:
    session = hostile_session()
    write_export(session, tmp_path / "page.html")
    chromium.size(1000, 800)
    chromium.open(tmp_path / "page.html")
    for selector in (".question", ".t.accepted", ".t.resampled", ".t.bonus"):
        for number in range(1, len(session.turns) + 1):
            chromium.hover(f"article:nth-of-type({number}) {selector}")
    assert chromium.eval("document.title").startswith("<script>document.title='pwned'</script> </title>")
    assert chromium.eval("document.querySelectorAll('script, img, a, iframe').length") == 0
    assert chromium.eval("document.querySelectorAll('.t').length") == 3 * len(HOSTILE)


def test_in_a_browser_facts_are_set_apart_by_dots_and_the_ends_of_lines_are_marked(chromium, tmp_path: Path) -> None:
    write_export(chat(accepted("Be"), accepted("\n\n")), tmp_path / "page.html")
    chromium.open(tmp_path / "page.html")
    content = "getComputedStyle(document.querySelector({!r}), {!r}).content"
    assert chromium.eval(content.format("article .facts bdi:first-child", "::after")) == '"\xa0·"'
    assert chromium.eval(content.format(".line-end", "::before")) == '"↵"'


@pytest.mark.parametrize("width", [1400, 1000, 400])
def test_in_a_browser_a_tokens_numbers_show_where_one_points_and_stay_in_the_window(
    chromium: Chromium, tmp_path: Path, width: int
) -> None:
    events = [accepted("Be"), resampled(" cause", instead=" so"), *[bonus(f" and{n}", n) for n in range(400)]]
    session = chat(*events, accepted(" " + "wide" * 3000), accepted(" end"))
    write_export(session, tmp_path / "page.html")
    chromium.size(width, 700)
    chromium.open(tmp_path / "page.html")
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert chromium.tip() is None
    numbers = {1: "0.5000", 2: "in place of ␣so", 9: "0.4375", 200: "␣and197", 403: "␣widewide", 404: "␣end"}
    for n, expected in numbers.items():
        chromium.hover(f".t:nth-child({n})")
        assert_inside(chromium, expected)
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert chromium.tip() is None
    assert chromium.eval("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_in_a_browser_tab_goes_to_the_next_resampled_token_and_pointing_wins(chromium, tmp_path: Path) -> None:
    events = [accepted("Be"), resampled(" cause"), *[bonus("\n and") for _ in range(9)], resampled(" so")]
    write_export(chat(*events), tmp_path / "page.html")
    chromium.size(1000, 700)
    chromium.open(tmp_path / "page.html")
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    for text in ("␣cause", "␣so"):
        for kind in ("rawKeyDown", "keyUp"):
            chromium("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert_inside(chromium, text)
    _, y = chromium.hover(".t.accepted")
    top = assert_inside(chromium, "accepted, drafted by a")
    assert 0 < top - chromium.eval("scrollY") - y < 40, "beside the token that is pointed at"


def assert_inside(chromium: Chromium, expected: str) -> float:
    """The panel shows the text, and is within the window; returns where on the page it begins."""
    tip = chromium.tip()
    assert tip
    text, (x, top_of_panel, width, height) = tip
    left, top, right, bottom = chromium.eval(
        "[scrollX, scrollY, scrollX + document.documentElement.clientWidth, scrollY + innerHeight]"
    )
    assert expected in text
    assert left <= x and x + width <= right
    assert top <= top_of_panel and top_of_panel + height <= bottom
    return top_of_panel
