"""A terminal that is resized in the middle of an answer loses and doubles nothing."""

from __future__ import annotations

import shutil

import pytest
from commandline import PJLOCAL
from terminal import Tmux, numbered, words

# Resized in the middle of an answer.


@pytest.mark.slow
def test_a_terminal_that_cuts_its_rows_is_resized(start, slow_toy, says, sessions) -> None:
    """Rows that are finished are short, since what such a terminal cuts off nobody brings back.

    2 of 150 runs failed, most likely by a row that was on its way to the screen at that very moment: six tries do
    not all fail by chance.
    """
    text = "".join(f"- item {i}\n" for i in range(8)) + "\nNo list.\n\n" + numbered(100)
    expected = words(text.replace("- ", "• "))
    for _ in range(6):
        chat = start(*slow_toy, *says(text), columns=80, TERM="linux")
        chat.type("Go\r")
        for seen, columns in (("item 2", 40), ("word5", 200), ("word30", 60)):
            chat.until(seen)
            chat.resize(columns)
        chat.at_prompt()
        (turn,) = sessions()[0].turns
        assert turn.answer == text
        shown = words(chat.text.rpartition("> Go\n")[2].rpartition("\n>")[0])
        if shown == expected:
            break
        chat.leave()
    assert shown == expected


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_a_terminal_that_rewraps_rows_may_be_resized(environment, slow_toy, says, sessions, tmp_path) -> None:
    text = "".join(f"- item {i} of a list whose rows are long enough to be folded\n" for i in range(4))
    text += "\nNo list.\n\n" + numbered(80)
    command = [*PJLOCAL, "chat", *slow_toy, *says(text)]
    with Tmux(environment, tmp_path, command, columns=80, lines=30) as tmux:
        tmux.until(">")
        tmux.type("Go")
        for seen, columns in (("item 1", 200), ("word5", 40), ("word30", 100)):
            tmux.until(seen)
            tmux.resize(columns)
        tmux.until("word79")
        tmux.until("\n>\n")
        shown = tmux.text.rpartition("> Go\n")[2].rpartition("\n>")[0]
    (turn,) = sessions()[0].turns
    assert turn.answer == text
    assert words(shown) == words(text.replace("- ", "• "))
