"""Bare text for a pipe: an answer that is broken off does not run into what comes next."""

from __future__ import annotations

import io
import sys

import pytest
from talking import plain_event

from pjlocal.screen.display import Display


def broken_off(file: io.StringIO, error: type[Exception]) -> None:
    with Display(file) as display:
        display.show(plain_event(0, "Rain"))
        raise error


@pytest.mark.parametrize(("error", "ending"), [(ValueError, "\n"), (BrokenPipeError, "")])
def test_a_broken_off_answer_ends_its_line_where_somebody_reads_it(error: type[Exception], ending: str) -> None:
    file = io.StringIO()
    with pytest.raises(error):
        broken_off(file, error)
    assert file.getvalue() == f"Rain{ending}"


_THINKS = ["<think>", "\nHm,", " <b>", ".\n", "</think>", "\n\n", "Yes"]


@pytest.mark.parametrize(
    ("thoughts", "n_shown", "out", "err"),
    [
        ("hide", 7, "Yes\n", ""),
        ("hide", 3, "", ""),
        ("show", 7, "Hm, <b>.\n\nYes\n", ""),
        ("show", 3, "Hm, <b>\n", ""),
        ("stderr", 7, "Yes\n", "Hm, <b>.\n\n"),
        ("stderr", 3, "", "Hm, <b>\n"),
    ],
)
def test_a_pipe_gets_only_the_answer_or_the_thinking_too(capsys, thoughts, n_shown: int, out: str, err: str) -> None:
    with Display(sys.stdout, thoughts) as display:
        for n, text in enumerate(_THINKS[:n_shown]):
            display.show(plain_event(n, text, thought=text != "Yes"))
    assert capsys.readouterr() == (out, err)
