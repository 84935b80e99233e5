"""Progress bars: for a terminal alone."""

from __future__ import annotations

import pytest

from pjlocal.screen.progress import progress_bars


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_log_file_gets_no_progress_bar(capsys: pytest.CaptureFixture[str], monkeypatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")  # as continuous integration sets it
    with progress_bars() as show:
        show("answers", 1, 2)
    assert capsys.readouterr() == ("", "")
