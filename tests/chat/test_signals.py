"""Signals at a chat on a terminal: where one stops, leaves or suspends it, text and terminal are as they should be."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commandline import PJLOCAL
from terminal import Terminal, numbered, words
from waiting import PATIENCE_S

from pjlocal.chat.screen import HOW_TO_LEAVE

HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


def press(chat: Terminal) -> None:
    os.kill(chat.child.pid, signal.SIGINT)


def modes(terminal: Terminal) -> list[object]:
    return termios.tcgetattr(terminal.child.child_fd)


def shows_cursor(terminal: Terminal) -> bool:
    return terminal.raw.rfind(SHOW) > terminal.raw.rfind(HIDE)


@pytest.fixture(autouse=True)
def heeded_sighup() -> Iterator[None]:
    """Undo what nohup does: it makes the tests and the processes that they start ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def writing(start, toy, says) -> Callable[..., Terminal]:
    """Starts a chat that is writing an answer of so many words."""

    def writing(n: int = 3000, **options: object) -> Terminal:
        chat = start(*toy, *says(numbered(n)), **options)
        chat.type("Go\r")
        chat.until("word30")
        return chat

    return writing


# Ctrl-C.


@pytest.mark.slow
def test_a_signal_at_the_prompt_clears_the_line_or_says_how_to_leave(start, toy, sessions) -> None:
    chat = start(*toy, "-n", "2")
    for clear in (press, lambda chat: chat.type("\x03")):
        chat.type("some words")
        chat.at_prompt("some words")
        clear(chat)
        chat.at_prompt()
        assert HOW_TO_LEAVE not in chat.screen.display[-1]
        clear(chat)
        chat.until(HOW_TO_LEAVE)
        clear(chat)
        chat.type("Go")
        chat.until(lambda: HOW_TO_LEAVE not in chat.screen.display[-1])
        chat.send()
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["Go", "Go"]


@pytest.mark.slow
def test_a_line_that_was_begun_before_ctrl_c_stays_to_be_edited(writing, sessions) -> None:
    chat = writing()
    chat.type("What nxt\x1b[D\x1b[De\x05?")
    chat.until(lambda: "word60" in chat.text)  # the keys have arrived
    chat.type("\x03")
    chat.at_prompt("What next?")
    assert "typed ahead" not in chat.text and "(stopped)" in chat.text
    chat.type("\x03")
    chat.at_prompt()
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["Go"]


@pytest.mark.slow
def test_whole_lines_that_were_typed_before_ctrl_c_are_not_sent_and_can_be_brought_back(writing, sessions) -> None:
    chat = writing()
    chat.type("one\rtwo\rhalf")
    chat.until(lambda: "word60" in chat.text)
    chat.type("\x03")
    chat.at_prompt("half")
    assert "(2 lines typed ahead were not sent; press the up arrow to bring the text back)" in " ".join(
        chat.text.split()
    )
    chat.type("\x03")
    chat.at_prompt()
    chat.type("\x1b[A")
    chat.until("> one")
    chat.until("  two")
    chat.type("\x03")
    chat.at_prompt()
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["Go"]


@pytest.mark.slow
def test_ctrl_c_stops_all_lines_of_a_paste_that_is_not_marked_as_one(start, toy, says, sessions) -> None:
    chat = start(*toy, *says(numbered(3000)))
    chat.type("".join(f"line {i}{' more' * 20}\r" for i in range(50)))  # more than a terminal keeps by itself
    chat.until("word30")
    chat.type("\x03")
    chat.at_prompt()
    assert "(49 lines typed ahead were not sent" in chat.text
    chat.type("/set max-tokens 2\r")
    chat.until("max-tokens")
    chat.at_prompt()
    chat.say("Again")
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["line 0" + " more" * 20, "Again"]


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Go", "/compare", "/regen", "/model toy", "/sessions"])
def test_ctrl_c_held_down_does_not_end_the_chat(start, toy, says, sessions, line: str) -> None:
    text = numbered(3000)
    chat = start(*toy, *says(text))
    before = modes(chat)
    chat.type("First\r")
    chat.until("word10")
    chat.type("\x03")
    chat.at_prompt()
    chat.type(f"{line}\r")
    n_presses = 0

    def is_at_prompt() -> bool:
        nonlocal n_presses
        time.sleep(1 / 30)  # as a key repeats
        if n_presses < 60 or HOW_TO_LEAVE not in chat.screen.display[-1]:
            chat.type("\x03")
            n_presses += 1
            return False
        return True

    chat.until(is_at_prompt)
    chat.at_prompt()
    assert modes(chat) == before
    chat.say("/set max-tokens 5")
    assert "word0" in chat.say("Last")
    chat.leave()
    assert sessions()[0].turns[-1].question == "Last"
    assert b"Traceback" not in chat.raw


@pytest.mark.slow
def test_ctrl_c_at_any_moment_keeps_the_chat_and_the_next_answer_correct(start, toy, sessions) -> None:
    """Whether they come from the keyboard or by `kill`."""
    import random

    chance = random.Random(1)
    chat = start(*toy, "-n", "4", columns=200)
    chat.say("hello")
    for n in range(60):
        chat.type(f"question {n}")
        chat.at_prompt(f"question {n}")
        chat.type("\r")
        for _ in range(chance.choice([1, 1, 2])):
            time.sleep(chance.random() * 0.06)
            chance.choice([press, lambda chat: chat.type("\x03")])(chat)
        chat.at_prompt()
        chat.type("\x03")
        chat.until(HOW_TO_LEAVE)
        chat.say("/new")
        chat.say("hello")
    chat.leave()
    answers = {turn.answer for session in sessions() for turn in session.turns if turn.question == "hello"}
    assert len(answers) == 1


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_keeps_it_and_the_chat_continues(start, toy, says, sessions) -> None:
    text = numbered(600)
    chat = start(*toy, *says(text))
    chat.type("Go\r")
    chat.until("word50")
    chat.type("\x03")
    chat.at_prompt()
    (turn,) = sessions()[0].turns
    assert turn.finish_reason == "interrupted"
    assert text.startswith(turn.answer) and len(turn.answer) < len(text)
    assert words(chat.shown("Go")) == words(f"{turn.answer} (stopped)")
    chat.type("/compare\r")
    chat.until(lambda: re.search(r"^\d+ tokens · ", chat.text, re.MULTILINE))
    chat.type("\x03")
    chat.at_prompt()
    shown = chat.shown("/compare")
    assert "─ judge ─" in shown and "─ base ─" not in shown
    chat.say("/set max-tokens 5")
    assert "cut off after 5" in chat.say("Go on")
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["Go", "Go on"]
    assert b"Traceback" not in chat.raw


@pytest.mark.slow
def test_keys_typed_during_an_answer_wait_for_the_prompt(start, toy, says, sessions) -> None:
    chat = start(*toy, *says(numbered(80)))
    chat.type("Go\r")
    chat.until("word5")
    chat.type("What nxt\x1b[D\x1b[De\x05?\r/title Later\r/title")
    chat.until(lambda: chat.line == "/title")
    first, second = sessions()[0].turns
    assert words(chat.shown("Go").partition("\n> ")[0]) == words(first.answer)
    assert (first.question, second.question) == ("Go", "What next?")
    assert sessions()[0].title == "Later"


# Leaving.


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_ends_a_chat_keeps_the_answer_and_leaves_the_terminal_as_it_was(
    shell: Shell, toy, says, sessions, signum: signal.Signals
) -> None:
    before = shell.modes()
    shell.run("chat", *toy, *says(numbered(3000)))
    shell.terminal.until("context ")
    shell.terminal.type("Go\r")
    shell.terminal.until("word30")
    shell.signal(signum)
    shell.at_prompt()
    assert shell.status() == 128 + signum
    assert shell.modes() == before and shows_cursor(shell.terminal)
    (turn,) = sessions()[0].turns
    assert turn.finish_reason == "interrupted" and "word30" in turn.answer
    shell.run("chat", *toy)
    shell.terminal.until("context ")
    shell.terminal.type("half a line")
    shell.terminal.until("half a line")
    shell.signal(signum)
    shell.at_prompt()
    assert shell.status() == 128 + signum
    assert shell.modes() == before and shows_cursor(shell.terminal)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("less"), reason="less is not installed")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_chat_whose_pager_is_open(shell: Shell, toy, signum: signal.Signals) -> None:
    before = shell.modes()
    shell.run("chat", *toy)
    shell.terminal.until("context ")
    shell.terminal.type("/set\r")
    shell.terminal.until(lambda: shell.terminal.screen.row(39).startswith(":"))
    shell.signal(signum)
    shell.at_prompt()
    assert shell.status() == 128 + signum
    assert shell.modes() == before and shows_cursor(shell.terminal)


@pytest.mark.slow
def test_ctrl_backslash_keeps_the_answer_and_leaves(writing, sessions) -> None:
    chat = writing()
    chat.type("\x1c")
    assert chat.end() == 128 + signal.SIGQUIT
    assert sessions()[0].turns[0].finish_reason == "interrupted"
    assert shows_cursor(chat)


@pytest.mark.slow
def test_ctrl_d_during_an_answer_leaves_after_it(start, toy, says, sessions) -> None:
    text = numbered(100)
    chat = start(*toy, *says(text))
    chat.type("Go\r")
    chat.until("word5")
    chat.type("\x04")
    assert chat.end() == 0
    assert [turn.answer for turn in sessions()[0].turns] == [text]


def piped_chat(environment: dict[str, str], folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """A chat whose streams are pipes."""
    pipe = subprocess.PIPE
    command = [*PJLOCAL, "chat", *options]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=folder)


@pytest.mark.slow
def test_ctrl_c_without_a_terminal_ends_with_130_and_keeps_what_was_written(
    environment, tmp_path: Path, toy, says, sessions
) -> None:
    text = numbered(6000)
    process = piped_chat(environment, tmp_path, *toy, *says(text))
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(b"one\ntwo\nthree\n")
    process.stdin.close()
    shown = process.stdout.read(200)
    process.send_signal(signal.SIGINT)
    shown += process.stdout.read()
    assert (process.wait(), process.stderr.read()) == (130, b"")
    (turn,) = sessions()[0].turns
    assert turn.question == "one" and words(shown.decode()) == words(turn.answer)


@pytest.mark.slow
def test_ctrl_c_while_a_chat_waits_for_lines_of_a_pipe_ends_with_130(environment, tmp_path: Path, toy) -> None:
    process = piped_chat(environment, tmp_path, *toy, "-n", "2")
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline()
    assert b"cut off after 2 tokens" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert (process.wait(PATIENCE_S), process.stderr.read()) == (130, b"")


# Ctrl-Z.


class Shell:
    """A shell with job control on a terminal."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        env = {**env, "PS1": "shell$ ", "HISTFILE": os.devnull}
        self.terminal = Terminal(env, folder, ("bash", "--noprofile", "--norc", "-i"), lines=40)
        self._folder = folder
        self._n_status = 0
        self.at_prompt()

    def close(self) -> None:
        self.terminal.close()

    def at_prompt(self) -> None:
        def ready() -> bool:
            screen = self.terminal.screen
            return screen.row(screen.cursor.y)[: screen.cursor.x] == "shell$ "

        self.terminal.until(ready)

    def type(self, line: str) -> None:
        self.terminal.type(f"{line}\r")

    def run(self, *args: str) -> None:
        self.type(" ".join([*PJLOCAL, *args]))

    def signal(self, signum: signal.Signals) -> None:
        child = subprocess.run(
            ["pgrep", "-P", str(self.terminal.child.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        os.kill(int(child[-1]), signum)

    def modes(self) -> str:
        """The terminal's modes, while a command runs."""
        file = self._folder / "modes"
        file.unlink(missing_ok=True)
        self.type(f"stty -g > {file}.new; mv {file}.new {file}")
        self.terminal.until(file.exists)
        self.at_prompt()
        return file.read_text()

    def status(self) -> int:
        self._n_status += 1
        self.type(f"echo status{self._n_status}:$?.")
        self.terminal.until(lambda: re.search(rf"status{self._n_status}:\d+\.", self.terminal.text))
        found = re.search(rf"status{self._n_status}:(\d+)\.", self.terminal.text)
        assert found
        return int(found[1])


@pytest.fixture
def shell(environment, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(environment, tmp_path)
    yield shell
    shell.close()


def suspended(shell: Shell) -> None:
    """Press Ctrl-Z; the shell then has a cursor and its usual modes, and runs something."""
    shell.terminal.type("\x1a")
    shell.terminal.until("Stopped")
    shell.at_prompt()
    assert shows_cursor(shell.terminal)
    shell.type("seq -f 'row%g of the shell' 8")
    shell.terminal.until("row8 of the shell")
    shell.at_prompt()


def rows_of_the_shell(shell: Shell) -> list[str]:
    return re.findall(r"^row\d of the shell$", shell.terminal.text, re.MULTILINE)


@pytest.mark.slow
def test_ctrl_z_suspends_a_chat_while_it_writes_and_at_its_prompt(shell: Shell, toy, says, sessions) -> None:
    text = numbered(150)
    before = shell.modes()
    shell.run("chat", *toy, *says(text))
    shell.terminal.until("context ")
    shell.terminal.type("Go\r")
    shell.terminal.until("word30")
    suspended(shell)
    assert len(rows_of_the_shell(shell)) == 8
    shell.type("fg")
    shell.terminal.until(lambda: shell.terminal.line == "")
    assert len(rows_of_the_shell(shell)) == 8
    assert all(f"word{i}" in shell.terminal.text.split() for i in range(150))
    shell.terminal.type("half")
    shell.terminal.until(lambda: shell.terminal.line == "half")
    suspended(shell)
    shell.type("fg")
    shell.terminal.until(lambda: shell.terminal.line == "half")
    assert len(rows_of_the_shell(shell)) == 16
    shell.terminal.type("\x03")
    shell.terminal.until(lambda: shell.terminal.line == "")
    shell.terminal.type("\x04")
    shell.at_prompt()
    assert shell.modes() == before
    assert [turn.answer for turn in sessions()[0].turns] == [text]


@pytest.mark.slow
def test_ctrl_z_suspends_a_comparison_and_the_tokens_a_second_do_not_count_the_pause(
    shell: Shell, toy, says, sessions
) -> None:
    shell.run("chat", *toy, *says(numbered(150)))
    shell.terminal.until("context ")
    started = time.monotonic()
    shell.terminal.type("Go\r")
    shell.terminal.until("word30")
    suspended(shell)
    time.sleep(3)
    shell.type("fg")
    shell.terminal.until(lambda: shell.terminal.line == "")
    assert sessions()[0].turns[0].statistics["timings"]["decode_s"] < time.monotonic() - started - 3
    shell.terminal.type("/compare\r")
    shell.terminal.until("─ base ─")
    suspended(shell)
    shell.type("fg")
    shell.terminal.until("─ both ─")
    shell.terminal.type("\x03")
    shell.terminal.until(lambda: shell.terminal.line == "")
    assert len(rows_of_the_shell(shell)) == 16


@pytest.mark.slow
def test_a_run_is_suspended_by_ctrl_z_and_ended_by_a_signal(shell: Shell, slow_toy, says) -> None:
    before = shell.modes()
    for n, view in enumerate(("markdown", "blame"), 1):
        shell.run("run", *slow_toy, *says(numbered(60)), "--view", view, "Go")
        shell.terminal.until(lambda n=n: shell.terminal.text.count("word20") == n)
        suspended(shell)
        shell.type("fg")
        shell.terminal.until(lambda n=n: shell.terminal.text.count("word59") == n)
        shell.at_prompt()
        assert shows_cursor(shell.terminal) and shell.modes() == before
        assert len(rows_of_the_shell(shell)) == 8 * n
    shell.run("run", *slow_toy, *says(numbered(1000)), "--view", "markdown", "Go")
    shell.terminal.until(lambda: shell.terminal.text.count("word20") == 3)
    shell.signal(signal.SIGTERM)
    assert shell.status() == 128 + signal.SIGTERM
    assert shows_cursor(shell.terminal) and shell.modes() == before
