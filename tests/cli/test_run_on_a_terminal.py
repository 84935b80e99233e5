"""`pjlocal run` on a terminal: its views, its colours, and no orders from a model's text."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from commandline import PJLOCAL, PREFER, QUESTION

RUN = (*PJLOCAL, "run")


@pytest.fixture
def small(tiny) -> tuple[str, ...]:
    """Arguments for a tiny model that writes on to the end."""
    return ("-m", str(tiny("llama")), "--ignore-end", "--threads", "1")


@pytest.mark.slow
def test_a_terminal_shows_the_text_and_the_spinner_is_gone(on_terminal, pjlocal, small) -> None:
    expected = pjlocal("run", *PREFER, *small, "-n", "20", QUESTION).stdout
    terminal = on_terminal(*RUN, *PREFER, *small, "-n", "20", QUESTION)
    terminal.end()
    assert terminal.child.exitstatus == 0
    told = "pjlocal: the answer was cut off after 20 tokens: a larger --max-tokens (-n) allows more"
    assert "".join(terminal.text.split()) == "".join(
        (expected + told).split()
    )  # the terminal breaks lines where it likes


@pytest.mark.slow
def test_the_blame_view_colours_by_writer_and_has_a_legend(on_terminal, small) -> None:
    terminal = on_terminal(*RUN, *PREFER, *small, "--mode", "judge", "-n", "60", "--view", "blame", QUESTION)
    terminal.end()
    raw = terminal.raw
    assert terminal.text.splitlines()[0].split() == ["a:", "vivid", "b:", "creative", "resampled", "bonus"]
    assert b"\x1b[36m" in raw and b"\x1b[35m" in raw, "both views have a colour"
    styles = {cell.bold for line in terminal.screen.buffer.values() for cell in line.values()}
    assert styles == {True, False}, "bonus tokens are bold"


@pytest.mark.slow
def test_no_color_removes_colours_and_a_dumb_terminal_gets_bare_text(on_terminal, small) -> None:
    terminal = on_terminal(*RUN, *PREFER, *small, "-n", "40", "--view", "blame", QUESTION, NO_COLOR="1")
    terminal.end()
    raw = terminal.raw
    assert not re.search(rb"\x1b\[[\d;]*3[0-9]m", raw)
    terminal = on_terminal(*RUN, *PREFER, *small, "-n", "20", "--view", "markdown", QUESTION, TERM="dumb")
    terminal.end()
    raw = terminal.raw
    assert b"\x1b" not in raw


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 120])
def test_the_markdown_view_leaves_clean_text_behind(on_terminal, tmp_path, tiny, columns: int) -> None:
    """Longer than the screen is high: nothing is lost, nothing doubled."""
    items = "".join(f'"- item number {i} [b] end\\n" ' for i in range(40))
    (tmp_path / "g.gbnf").write_text(
        f'root ::= "# Title\\n\\nSome *words* here.\\n\\n" {items} "\\n```python\\nx = 1\\n```\\n\\n" "The end."'
    )
    model = ("-m", str(tiny("llama")), "--ctx", "2048", "-n", "1900")
    args = ("run", *PREFER, *model, "--grammar", str(tmp_path / "g.gbnf"), "--view", "markdown", "List things")
    terminal = on_terminal(*PJLOCAL, *args, columns=columns, lines=24)
    terminal.end()
    assert terminal.child.exitstatus == 0
    text = terminal.text
    for i in range(40):
        assert text.count(f"item number {i} [b] end") == 1
    assert text.count("Title") == 1 and text.count("x = 1") == 1 and text.count("The end.") == 1
    assert text.count("Some words here.") == 1


@pytest.mark.slow
def test_escape_sequences_of_the_model_do_not_reach_the_terminal(on_terminal, pjlocal, tiny, tmp_path) -> None:
    evil = 'root ::= "a[bold]b[/x]\\x1b[2J\\x1b]0;title\\x07c\\x9b31md"'
    (tmp_path / "evil.gbnf").write_text(evil)
    args = ("run", "-m", str(tiny("llama")), *PREFER, "--grammar", str(tmp_path / "evil.gbnf"), "hi")
    shown = "a[bold]b[/x]␛[2J␛]0;title␇c<U+009B>31md"
    assert pjlocal(*args).stdout == shown + "\n"
    for view in ("text", "blame", "markdown"):
        terminal = on_terminal(*PJLOCAL, *args, "--view", view, columns=100)
        terminal.end()
        raw = terminal.raw
        assert terminal.text.splitlines()[-1] == shown
        assert b"\x1b]0" not in raw and b"\x1b[2J" not in raw
    assert json.loads(pjlocal(*args, "--json").stdout)["text"] == "a[bold]b[/x]\x1b[2J\x1b]0;title\x07c\x9b31md"


def test_ctrl_c_on_a_terminal_keeps_the_text_on_the_screen(on_terminal) -> None:
    terminal = on_terminal(*RUN, *PREFER, "-n", "4000", "Write a very long story.")
    terminal.child.expect(rb"\w+ \w+ \w+ \w+")
    seen = terminal.child.after
    terminal.child.sendintr()
    rest = terminal.child.read()
    terminal.child.close()
    assert terminal.child.exitstatus == 130
    assert b"Traceback" not in seen + rest


@pytest.mark.slow
def test_the_push_view_colours_by_what_pulled_a_token_in_or_says_why_it_cannot(on_terminal, tiny) -> None:
    args = ("run", *PREFER, "-m", str(tiny("llama")), "-n", "40", "--ignore-end", "--view", "push", "hi")
    both = on_terminal(*PJLOCAL, *args, "--mode", "both", columns=100)
    both.end()
    raw = both.raw
    assert both.text.splitlines()[0] == "a: vivid  b: creative  more probable by it: ×1.1 ×2 ×10"
    assert b"\x1b[36m" in raw and b"\x1b[35m" in raw, "both preferences pulled at something"
    plain = on_terminal(*PJLOCAL, *args, "--mode", "judge", columns=200)
    plain.end()
    raw = plain.raw
    assert plain.text.startswith("no pushes: they need preferences with a strength other than 1")
    assert b"\x1b[36m" not in raw


@pytest.mark.slow
def test_thinking_is_counted_or_shown(on_terminal, tiny, tmp_path) -> None:
    (tmp_path / "g.gbnf").write_text(r'root ::= "<think>\nLet me *see*.\n</think>\n\nIt *rains*."')
    args = (*RUN, *PREFER, "-m", str(tiny("llama")), "-n", "200", "--grammar", str(tmp_path / "g.gbnf"), "Hi")
    for view, answer in (("text", "It *rains*."), ("blame", "It *rains*."), ("markdown", "It rains.")):
        folded = on_terminal(*args, "--view", view)
        folded.end()
        *_, line, last = folded.text.splitlines()
        assert re.fullmatch(r"Thought for \d+ tokens", line) and last == answer
        assert "Thinking… 3 tokens".encode() in folded.raw or view == "markdown", "it is counted live"
        shown = on_terminal(*args, "--view", view, "--thoughts", "show")
        shown.end()
        assert shown.text.splitlines()[-3:] == ["Let me *see*.", "", answer]
        assert b"\x1b[2" in shown.raw
    cut = on_terminal(*args, "-n", "12", columns=200)
    cut.end()
    told = "pjlocal: the model was cut off after 12 tokens while thinking, without an answer: "
    told += "a larger --max-tokens (-n) allows more, --think-tokens limits the thinking, "
    told += "and --think off turns it off"
    assert cut.text.splitlines() == ["Thought for 12 tokens", told]


@pytest.mark.slow
def test_a_line_counts_while_several_answers_are_written(on_terminal, small) -> None:
    options = ("--mode", "both", "--best", "3", "--seed", "1", "-n", "200")
    terminal = on_terminal(*RUN, *PREFER, *small, *options, QUESTION)
    terminal.end()
    assert re.search(rb"Writing 3 answers: \d+ of 200 tokens", terminal.raw)
    assert "Writing" not in terminal.text


@pytest.mark.slow
def test_an_answer_in_markdown_is_shown_on_a_terminal_whose_keys_belong_to_another_program(on_terminal, tiny) -> None:
    command = shlex.join(
        [
            *PJLOCAL,
            "run",
            "-m",
            str(tiny("llama")),
            "--threads",
            "1",
            "-n",
            "4",
            "--view",
            "markdown",
            "--regex",
            "[a-z]{4}",
        ]
    )
    for shell in (f"echo Hello | {command}", f"set -m; {command} Hello & wait"):
        terminal = on_terminal("sh", "-c", f"{shell}; echo ended with $?")
        terminal.until("ended with 0")
