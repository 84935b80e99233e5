"""Bare text for a pipe: an answer that is broken off does not run into what comes next."""

from __future__ import annotations

import io

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
