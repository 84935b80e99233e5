"""A chat in a pipe gives bare answers, one a line typed."""

from __future__ import annotations

import pytest
from commandline import PREFER, one_line

# In a pipe.


def test_a_pipe_gets_one_bare_answer_a_line(pjlocal, toy, says, sessions) -> None:
    result = pjlocal("chat", *toy, *says("Rain *falls*."), stdin="q1\n\nq2")
    assert (result.returncode, result.stdout, result.stderr) == (0, "Rain *falls*.\nRain *falls*.\n", "")
    assert [turn.question for turn in sessions()[0].turns] == ["q1", "q2"]


def test_warnings_name_settings_as_a_chat_sets_them(pjlocal, toy, says) -> None:
    lines = "/prefer vivid\n/mode base\nq1\n/set mode plain\n/set strength 2\nq2\n"
    result = pjlocal("chat", *toy, *says("Rain."), stdin=lines)
    assert result.stderr.splitlines()[3:5] == [
        "pjlocal: mode base writes the text of view b, which has no preference: give it one with /prefer b",
        "pjlocal: strength has no effect in mode plain",
    ]


@pytest.mark.slow
def test_the_real_model_in_a_pipe_remembers(pjlocal) -> None:
    """In a form, because its free words depend on how a CPU rounds."""
    form = ("--regex", r"Your name is (Adriana|Tom|Eve|Bob)\.")
    told, asked = (
        pjlocal("chat", *PREFER, *form, stdin=lines)
        for lines in ("My name is Adriana.\nWhat is my name?\n", "What is my name?\n")
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "Adriana" in told.stdout.splitlines()[-1] and "Adriana" not in asked.stdout
    assert "\x1b" not in told.stdout


def test_a_line_without_an_end_ends_the_chat(pjlocal, toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pjlocal.chat.loop.MOST_BYTES", 1 << 20)
    result = pjlocal("chat", *toy, stdin=b"\0" * ((1 << 20) + 1))
    assert (result.returncode, result.stdout) == (2, "")
    assert one_line(result.stderr) == "pjlocal: a line of standard input is larger than 1 MiB"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("-n", "3"), "cut off after 3 tokens: /continue goes on, /set max-tokens allows more"),
        (("-n", "900", "--ctx", "256"), "tokens: the context is full, and a larger --ctx has room for more"),
    ],
)
def test_an_answer_cut_off_in_a_pipe_is_reported(pjlocal, toy, options: tuple[str, ...], says: str) -> None:
    result = pjlocal("chat", *toy, *options, "--ignore-end", stdin="q1\n")
    assert result.returncode == 0 and says in one_line(result.stderr)
    assert "cut off" not in result.stdout


def test_commands_in_a_pipe(pjlocal, toy, says, sessions) -> None:
    args = ("chat", *toy, *says("Rain."))
    result = pjlocal(*args, stdin="/swap\nq1\n/view blame\n/regen\n/why\n/title T\n/quit\nq2\n")
    assert result.returncode == 0
    notes = ["a: creative", "b: vivid", "view blame", "title: T"]
    assert result.stderr.splitlines() == [f"pjlocal: {note}" for note in notes]
    legend = "a: creative  b: vivid  all: what they agree on  resampled  bonus"
    assert result.stdout.startswith(f"Rain.\nRain.\n{legend}\nRain.\n\n#  token")
    assert "\x1b" not in result.stdout
    assert len(sessions()[0].turns) == 1


@pytest.mark.slow
def test_a_failed_line_in_a_pipe_is_reported_and_the_rest_answered(pjlocal, toy, says) -> None:
    args = ("chat", *toy, *says("Rain."))
    result = pjlocal(*args, stdin="/swpa\nq1\n")
    assert (result.returncode, result.stdout) == (2, "Rain.\n")
    assert result.stderr == "pjlocal: unknown command /swpa: did you mean /swap?\n"
    result = pjlocal(*args, stdin="/model nowhere\nq1\n")
    assert (result.returncode, result.stdout) == (1, "Rain.\n")
    result = pjlocal(*args, stdin=b"caf\xe9\nq1\n")
    assert (result.returncode, result.stdout) == (2, "Rain.\n")
    assert "not UTF-8" in result.stderr
    result = pjlocal("chat", "-m", "nowhere", stdin="q1\n")
    assert result.returncode == 1 and "no model 'nowhere'" in result.stderr


def test_a_byte_order_mark_is_not_part_of_a_line(pjlocal, toy, says, sessions) -> None:
    args = ("chat", *toy, *says("Rain."))
    result = pjlocal(*args, stdin=b"\xef\xbb\xbf/title T\r\nq1\r\n\xef\xbb\xbfq2 \xef\xbb\xbf\n//q3\n")
    assert (result.returncode, result.stderr) == (0, "pjlocal: title: T\n")
    assert [turn.question for turn in sessions()[0].turns] == ["q1", "q2 \ufeff", "/q3"]
