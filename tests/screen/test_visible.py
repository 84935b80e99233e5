"""Text that is shown cannot control the terminal."""

from __future__ import annotations

import io

import pytest

from pjlocal.events import Statistics
from pjlocal.screen.console import Spinner, say
from pjlocal.screen.display import statistics_line
from pjlocal.visible import visible


def test_escape_sequences_in_text_do_not_reach_the_terminal() -> None:
    assert visible("a\x1b[31mred\x07\x9b2J\x7f\r") == "a␛[31mred␇<U+009B>2J␡␍"
    assert visible("evil\u202etxt.exe") == "evil<U+202E>txt.exe"
    assert visible("tab\tnewline\nünïcödé 🎂 [bold]") == "tab\tnewline\nünïcödé 🎂 [bold]"


def test_a_message_is_one_line_that_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("an error of a server:\n\x1b]0;title\x07 [/red]")
    assert capsys.readouterr() == ("", "pjlocal: an error of a server: ␛]0;title␇ [/red]\n")


def test_statistics_from_a_server_cannot_control_the_terminal() -> None:
    line = statistics_line(Statistics(), of_model="top-k 5\x1b[2J", placed="\x1b[2Jon the\nCPU")
    assert "␛[2Jon the CPU" in line and "top-k 5␛[2J" in line and "\x1b" not in line


def test_a_spinners_text_from_a_server_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Spinner() as spinner:
        spinner.say("[/x]")
        spinner.say("Writing [/x]\x1b]0;title\x07")
    assert "Writing [/x]␛]0;title␇" in terminal.getvalue()
