"""Text that is shown cannot control the terminal."""

from __future__ import annotations

from pjlocal.visible import visible


def test_escape_sequences_in_text_do_not_reach_the_terminal() -> None:
    assert visible("a\x1b[31mred\x07\x9b2J\x7f\r") == "a␛[31mred␇<U+009B>2J␡␍"
    assert visible("evil\u202etxt.exe") == "evil<U+202E>txt.exe"
    assert visible("tab\tnewline\nünïcödé 🎂 [bold]") == "tab\tnewline\nünïcödé 🎂 [bold]"
