"""`pjlocal chat` as people use it: on terminals of many kinds, and in a pipe.

Where the words of an answer must be known, a grammar allows no others.  Then a tiny random model is as good as a real
one, and faster.
"""

from __future__ import annotations

import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pexpect
import pyte
import pytest
import tiny_models
from conftest import PJLOCAL
from rich.console import Console
from rich.text import Text

from pjlocal.chat.commands import COMMANDS
from pjlocal.events import TokenEvent
from pjlocal.screen.live import LiveRegion, MarkdownFlow, markdown
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store

PREFER = ("-p", "vivid", "-p", "creative", "--seed", "1")
TIMEOUT = 30


class Screen(pyte.HistoryScreen):
    """A terminal that answers where its cursor is."""

    def __init__(self, columns: int, lines: int, reply: Callable[[str], Any]) -> None:
        super().__init__(columns, lines, history=5000, ratio=0.5)
        self.write_process_input = reply

    def row(self, y: int) -> str:
        return "".join(self.buffer[y][x].data for x in range(self.columns))

    @property
    def text(self) -> str:
        """Everything that can be scrolled to."""
        history = ["".join(line[x].data for x in range(self.columns)) for line in self.history.top]
        return "\n".join(row.rstrip() for row in [*history, *map(self.row, range(self.lines))]).strip()


class Terminal:
    """`pjlocal chat` on a pseudo-terminal, and what its screen shows."""

    def __init__(self, env: dict[str, str], folder: Path, args: tuple[str, ...], columns: int, lines: int) -> None:
        self.raw = b""
        self.child = pexpect.spawn(
            PJLOCAL[0], [*PJLOCAL[1:], "chat", *args], env=env, cwd=folder, dimensions=(lines, columns), timeout=TIMEOUT
        )
        self.child.delaybeforesend = None
        self.screen = Screen(columns, lines, self.child.send)
        self._stream = pyte.ByteStream(self.screen)

    @property
    def text(self) -> str:
        return self.screen.text

    @property
    def line(self) -> str | None:
        """What stands at the prompt, up to the cursor; None where there is no prompt."""
        row = self.screen.row(self.screen.cursor.y)
        waits = row.startswith("> ") and "context " in self.screen.row(self.screen.lines - 1)
        return row[2 : self.screen.cursor.x] if waits else None

    @property
    def menu(self) -> str:
        """What stands between the prompt and the status line."""
        return "\n".join(map(self.screen.row, range(self.screen.cursor.y + 1, self.screen.lines - 1)))

    def type(self, keys: str) -> None:
        self.child.send(keys)

    def until(self, ready: str | Callable[[], object]) -> None:
        """Read what the chat writes until its screen shows a text, or a condition holds."""
        condition = (lambda: any(ready in row for row in self.screen.display)) if isinstance(ready, str) else ready
        until = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < until, f"{ready!r} never came:\n{self.text}"
            try:
                chunk = self.child.read_nonblocking(1 << 16, 0.1)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                raise AssertionError(f"it ended before {ready!r}:\n{self.text}") from None
            self._feed(chunk)

    def _feed(self, chunk: bytes) -> None:
        self.raw += chunk
        self._stream.feed(chunk)

    def at_prompt(self, line: str = "") -> None:
        """Wait until that stands at the prompt."""
        self.until(lambda: self.line == line)

    def say(self, line: str) -> str:
        """Type a line, send it, and wait for the next prompt; returns what was shown for it."""
        self.type(line)
        self.at_prompt(line)
        self.type("\r")
        self.at_prompt()
        return self.shown(line)

    def shown(self, line: str) -> str:
        """What stands between the last time that line was sent and the prompt."""
        shown = self.text.rpartition(f"> {line}\n")[2]
        return shown[: shown.rindex("\n>")].strip() if "\n>" in shown else ""

    def resize(self, columns: int) -> None:
        """All at once: nothing that was drawn for the old size arrives in the new one."""
        with stopped(self.child.pid):
            while select.select([self.child], [], [], 0.02)[0]:
                self._feed(self.child.read_nonblocking(1 << 16))
            self.child.setwinsize(self.screen.lines, columns)
            self.screen.resize(self.screen.lines, columns)

    def end(self) -> int | None:
        """Wait for the end; returns the exit status."""
        self._feed(self.child.read())
        self.child.close()
        return self.child.exitstatus

    def leave(self) -> None:
        self.type("\x04")
        assert self.end() == 0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process stands still, and terminals have time to show what it wrote before."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(0.02)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


Start = Callable[..., Terminal]


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts chats; each is ready for the first line."""
    started: list[Terminal] = []

    def start(*args: str, columns: int = 80, lines: int = 30, ready: bool = True, **env: str) -> Terminal:
        env = {**environment, "TERM": "xterm-256color", **env}
        started.append(Terminal(env, tmp_path, args, columns, lines))
        if ready:
            started[-1].at_prompt()
        return started[-1]

    yield start
    for terminal in started:
        terminal.child.close(force=True)


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with room for long chats."""
    return tiny_models.write_llama(tmp_path_factory.mktemp("toy") / "toy.gguf", n_ctx_train=8192)


@pytest.fixture
def toy(toy_model: Path, tmp_path: Path) -> tuple[str, ...]:
    """Arguments for a chat with it; by its name, from a folder of models."""
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / "toy.gguf").symlink_to(toy_model)
    return ("-m", "toy.gguf", *PREFER)


@pytest.fixture
def slow_toy(tmp_path: Path) -> tuple[str, ...]:
    """As `toy`, at a pace at which one can see it write."""
    path = tiny_models.write_llama(tmp_path / "slow.gguf", n_ctx_train=8192, n_embd=256, n_layer=4, n_ff=512)
    return ("-m", str(path), *PREFER)


@pytest.fixture
def says(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Arguments that make any model answer with one text."""

    def says(text: str, name: str = "answer.gbnf") -> tuple[str, ...]:
        (tmp_path / name).write_text(f"root ::= {json.dumps(text, ensure_ascii=False)}\n")
        return ("--grammar", name, "-n", "8000")

    return says


@pytest.fixture
def sessions(environment: dict[str, str]) -> Callable[[], list[Session]]:
    """What is saved, the oldest session first."""

    def sessions() -> list[Session]:
        with Store(database(environment)) as store:
            return [store.load(summary.id) for summary in sorted(store.summaries(), key=lambda s: s.id)]

    return sessions


def database(environment: dict[str, str]) -> Path:
    return Path(environment["XDG_DATA_HOME"]) / "pjlocal" / "chats.db"


def words(text: str) -> list[str]:
    return text.split()


def numbered(n: int) -> str:
    """A paragraph of n words, each of which is there once."""
    return " ".join(f"word{i}" for i in range(n))


# A conversation.


def test_a_conversation_of_several_turns(start, sessions) -> None:
    chat = start(*PREFER, "-n", "20", columns=120)
    assert "SmolLM2-135M-Instruct" in chat.text
    first = chat.say("My name is Ada. What is yours?")
    second = chat.say("Why?")
    chat.leave()
    (session,) = sessions()
    assert session.title == "My name is Ada. What is yours?"
    assert [turn.question for turn in session.turns] == ["My name is Ada. What is yours?", "Why?"]
    cut = " (cut off after 20 tokens; /set max-tokens allows more)"
    for shown, turn in zip((first, second), session.turns, strict=True):
        assert len(turn.events) == 20
        assert words(shown) == words(turn.answer + cut)
    read = [turn.statistics["usage"]["prompt_tokens"] for turn in session.turns]
    assert read[1] > read[0], "the second answer has read the first"


def test_the_status_line_tells_roles_acceptance_rate_speed_and_context(start, toy, says) -> None:
    line = (
        rb"judge \xce\xbb4 \xc2\xb7 a (drafts|judges): vivid \xc2\xb7 b (drafts|judges): creative \xc2\xb7 "
        rb"\d+% accepted \xc2\xb7 \d+ tokens/s \xc2\xb7 context \d+/8192"
    )
    chat = start(*toy, *says(numbered(200)), columns=120)
    assert "context 0/8192" in chat.text
    before = len(chat.raw)
    chat.say("Count")
    found = [match.group() for match in re.finditer(line, chat.raw[before:])]
    assert len(found) > 3, "while it is written, and at the prompt"
    assert len({match.split()[4] for match in found}) == 2, "the roles swap"
    assert re.search(line, chat.screen.display[-1].encode())
    context = [int(match.split()[-1].split(b"/")[0]) for match in found]
    assert context == sorted(context)


# The line that is typed.


def test_the_line_can_be_edited(start, toy, sessions) -> None:
    chat = start(*toy, "-n", "2")
    chat.type("Wht is thiss?")
    chat.type("\x1b[D" * 2 + "\x7f" + "\x1b[D" * 8 + "a")
    chat.at_prompt("Wha")
    chat.type("\x05\r")  # Ctrl-E: to the end
    chat.at_prompt()
    chat.type("never mind")
    chat.at_prompt("never mind")
    chat.type("\x03")
    chat.at_prompt()
    chat.type("ok")
    chat.at_prompt("ok")
    chat.type("\x1b[A\x1b[A")  # up and up: at "ok", then the question before
    chat.at_prompt("What is this?")
    chat.type("\x03")
    chat.at_prompt()
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["What is this?"]


def test_the_arrow_up_brings_back_what_was_typed_in_an_earlier_run(start, toy, environment) -> None:
    chat = start(*toy, "-n", "2")
    chat.say("an earlier question")
    chat.leave()
    assert (database(environment).with_suffix(".history").stat().st_mode & 0o777) == 0o600
    chat = start(*toy, "-n", "2")
    chat.type("\x1b[A")
    chat.at_prompt("an earlier question")


def test_tab_completes_commands_presets_models_and_titles(start, toy, environment) -> None:
    with Store(database(environment)) as store:
        store.add_session(Session("Cats and dogs"))
    chat = start(*toy, "-n", "2")
    for typed, completed in (
        ("/sw", "/swap"),
        ("/prefer a viv", "/prefer a vivid"),
        ("/mode pl", "/mode plain"),
        ("/set min", "/set min-p"),
        ("/view bl", "/view blame"),
        ("/model to", "/model toy.gguf"),
        ("/load cats", "/load Cats and dogs"),
        ("/export h", "/export html"),
    ):
        chat.type(typed)
        offered = completed if " " not in typed else completed.split(" ", typed.count(" "))[-1]
        chat.until(lambda: offered in chat.menu)
        chat.type("\t")
        chat.at_prompt(completed)
        chat.type("\x03")
        chat.at_prompt()
    chat.type("not /sw\t!")
    chat.at_prompt("not /sw!")


def test_several_lines_arrive_as_one_question(start, toy, sessions) -> None:
    chat = start(*toy, "-n", "2")
    chat.type("one\x1b\rtwo\nthree")  # Alt-Enter, Ctrl-J
    chat.until("three")
    chat.type("\r")
    chat.at_prompt()
    chat.type('"""four\r\rfive"""\r')
    chat.at_prompt()
    pasted = "\n".join(f"line {i}: /swap" for i in range(200))
    chat.type(f"\x1b[200~{pasted}\n\x1b[201~")
    chat.until("line 199")
    chat.type("\r")
    chat.at_prompt()
    chat.leave()
    questions = [turn.question for turn in sessions()[0].turns]
    assert questions == ["one\ntwo\nthree", "four\n\nfive", pasted + "\n"]


# Commands.

#: Every command at least once, and what it must show; in this order, after the question "What is rain?".
DRIVEN = (
    ("/help", r"/prefer \[a\|b\].*Show or change the preferences.*/quit .*Ctrl-C stops an answer"),
    ("/udno", r"^unknown command /udno: did you mean /undo\?$"),
    ("/zzz", r"^unknown command /zzz: /help lists them$"),
    ("/why", r"a: vivid.*# +token +kind +drafted by +p +q +accept +in place of\n0 .*\n *5 "),
    ("/compare", r"─ judge ─.*─ base ─.*─ prompt ─.*─ plain ─.*6 tokens"),
    ("/regen", r"cut off after 6 tokens"),
    ("/edit", r"cut off after 6 tokens"),  # $EDITOR writes a question of its own
    ("/undo", r"^taken back: What is snow\?$"),
    ("/undo", r"^nothing was said yet$"),
    ("Hello", r"cut off after 6 tokens"),
    ("/stats", r"turn +mode +prompt +tokens +tokens/s +accepted +first token\n1 +judge +\d+ \+ \d+ +6"),
    ("/prefer", r"^a: vivid\nb: creative$"),
    ("/prefer b add concise", r"^a: vivid\nb: creative, concise$"),
    ("/prefer a Talk like a pirate, please", r"^a: Talk like a pirate, please\nb: creative, concise$"),
    ("/prefer vivdi", r"unknown preset 'vivdi': did you mean vivid\?"),
    ("/swap", r"^a: creative, concise\nb: Talk like a pirate, please$"),
    ("/prefer clear a", r"^a: no preference\nb: Talk like a pirate, please$"),
    ("/mode base", r"^mode base$"),
    ("/mode best", r"^the mode is one of judge, base, prompt, plain \(not 'best'\)$"),
    ("/lambda 6", r"lambda +6 "),
    ("/set", r"temperature +0.7 .*top-k +20 "),
    ("/set temperature 0.5", r"temperature +0.5 "),
    ("/set temperatur 0.5", r"^no setting 'temperatur': did you mean temperature"),
    ("/set top-k many", r"^--top-k must be a whole number \(not 'many'\)$"),
    ("/system Be brief.", r"^system text: Be brief.$"),
    ("/think off", r"^this model's chat template has no switch for it\nthink off$"),
    ("/model", r"^toy.gguf: .*context 8192 tokens a view\nto be had by name: smollm2, other.gguf, toy.gguf$"),
    ("/model nowhere", r"^no model 'nowhere' here"),
    ("/model other", r"^other.gguf: .*context 512 tokens a view$"),
    ("/think on", r"^think on$"),
    ("Hello again", r"cut off after 6 tokens"),
    ("/view blame", r"^view blame$"),
    ("/title Of rain and snow", r"^title: Of rain and snow$"),
    ("/sessions", r"\* +1  20\d\d-\d\d-\d\d \d\d:\d\d +2  Of rain and snow"),
    ("/export", r"^written to of-rain-and-snow.md$"),
    ("/export html", r"^written to of-rain-and-snow.html$"),
    ("/export sub.json", r"^written to sub.json$"),
    ("/export md", r"^written to of-rain-and-snow-2.md$"),
    ("/new", r"^a new session$"),
    ("/load of RAIN", r"^Of rain and snow: 2 turns\n\n> Hello again\n\n."),
    ("/load nothing like it", r"^there is no saved chat 'nothing like it'"),
    ("/etc/hosts is a path", r"cut off after 6 tokens"),
    ("//help", r"cut off after 6 tokens"),
)


def test_every_command(start, toy, says, environment, tmp_path, sessions) -> None:
    template = (
        tiny_models.CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    )
    tiny_models.write_llama(tmp_path / "models" / "other.gguf", chat_template=template)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\ngrep -q 'What is rain?' \"$1\" && echo 'What is snow?' > \"$1\"\n")
    editor.chmod(0o700)
    driven = {line.split()[0] for line, _ in DRIVEN if line.startswith("/")} | {"/quit"}
    assert driven >= COMMANDS.keys(), "a command is not driven here"

    args = (*toy, *says("rain and snow"), "-n", "6")
    chat = start(*args, columns=100, lines=60, VISUAL="", EDITOR=str(editor))
    chat.say("What is rain?")
    for line, expected in DRIVEN:
        shown = chat.say(line)
        assert re.search(expected, shown, re.DOTALL), f"{line} showed\n{shown}"
    chat.type("/quit\r")
    assert chat.end() == 0

    session = sessions()[0]
    assert [turn.question for turn in session.turns] == ["Hello", "Hello again", "/etc/hosts is a path", "/help"]
    first, last = session.turns[0].settings, session.turns[-1].settings
    assert (first["model"], first["mode"], first["lambda"]) == ("toy.gguf", "judge", 4)
    assert (last["model"], last["mode"], last["lambda"]) == ("other.gguf", "base", 6)
    assert last["preferences"] == {"a": [], "b": ["Talk like a pirate, please"]}
    assert (last["sampling"]["temperature"], last["prompting"]["system"]) == (0.5, "Be brief.")
    with Store(database(environment)) as store:
        undone = [turn.question for turn in store.load(1, with_undone=True).turns]
    assert undone == ["What is rain?", "What is rain?", "What is snow?", *(turn.question for turn in session.turns)]
    assert json.loads((tmp_path / "sub.json").read_text())["title"] == "Of rain and snow"
    assert "Hello again" in (tmp_path / "of-rain-and-snow.md").read_text()
    assert "<!doctype html>" in (tmp_path / "of-rain-and-snow.html").read_text()
    assert chat.raw.decode().count("(stopped)") == 0


def test_wrong_use_of_commands_is_told_in_one_line(start, toy) -> None:
    chat = start(*toy, columns=200)
    for line, expected in (
        ("/why", "nothing was said yet"),
        ("/compare", "nothing was said yet"),
        ("/regen", "nothing was said yet"),
        ("/edit", "nothing was said yet"),
        ("/export", "nothing was said yet"),
        ("/load", "say which session: /sessions lists them"),
        ("/prefer a", "say which preference, as in /prefer a vivid, or /prefer clear"),
        ("/prefer clear vivid", "/prefer clear takes a view or nothing behind it, as in /prefer clear b"),
        ("/set ctx 100", "ctx is fixed once the model is loaded: give it to pjlocal chat"),
        ("/set grammar nowhere.gbnf", "cannot read grammar file nowhere.gbnf: No such file or directory"),
        ("/view loud", "the view is one of text, blame, markdown (not 'loud')"),
        ("/lambda 0", "--lambda must be at least 1 (not 0)"),
    ):
        assert chat.say(line) == expected


# How answers look.

MARKDOWN = """# Rain

Some *soft* words in a paragraph that is long enough to be folded on a screen of forty columns.

- one item
- another

```python
def fall(drops: int) -> str:
    return "drop " * drops
```

| name | value |
|------|-------|
| rain | wet   |

The end."""


@pytest.mark.parametrize("columns", [40, 200])
def test_markdown_on_narrow_and_wide_screens(start, toy, says, columns: int) -> None:
    chat = start(*toy, *says(MARKDOWN), columns=columns)
    shown = chat.say("Go")
    rows = shown.splitlines()
    assert words(shown) == words(
        "Rain Some soft words in a paragraph that is long enough to be folded on a screen of forty columns. "
        '• one item • another def fall(drops: int) -> str: return "drop " * drops '
        f"name value {next(row for row in rows if '──' in row)} rain wet The end."
    )
    assert rows[0] == "Rain"
    code = rows.index("def fall(drops: int) -> str:")
    assert rows[code + 1] == '    return "drop " * drops', "code can be copied as it is"
    assert len(set(colors(chat, "def fall"))) > 1, "code is highlighted"
    assert set(colors(chat, "The end.")) == {"default"}
    assert "\n\n\n" not in shown
    assert b"forty columns.\r\n" in chat.raw, "rows end where their text ends"
    assert re.search(r"\d+% (accepted )?· \d+ tok(ens)?/s · context \d+/8192$", chat.screen.display[-1].rstrip())
    table = chat.say("/why").splitlines()[-len(MARKDOWN) - 5 :]
    assert any(re.fullmatch(r" *2 +R( +\w+)?( +[ab])(( +\d\.\d{3}| +-)){3}.*", row) for row in table)


def colors(chat: Terminal, text: str) -> list[str]:
    """The colour of each character of a text on the screen, where it stands last."""
    y = max(y for y, row in enumerate(chat.screen.display) if text in row)
    x = chat.screen.display[y].index(text)
    return [chat.screen.buffer[y][i].fg for i in range(x, x + len(text))]


def test_the_text_view_shows_the_markup_and_blame_who_wrote_it(start, toy, says, sessions) -> None:
    chat = start(*toy, *says(MARKDOWN), "--view", "text", columns=120, lines=60)
    chat.say("Go")
    assert MARKDOWN in chat.text
    chat.say("/view blame")
    chat.say("Again")
    *_, turn = sessions()[0].turns
    assert chat.shown("Again") == f"a: vivid  b: creative  resampled  bonus\n{MARKDOWN}"
    written = ["cyan" if event.writer == "a" else "magenta" for event in turn.events for _ in event.text]
    assert colors(chat, "The end.") == written[-8:]
    chat.say("/view markdown")
    assert "# Rain" not in chat.say("And again")


def test_no_color_is_obeyed(start, toy, says) -> None:
    chat = start(*toy, *says(MARKDOWN), "--view", "blame", NO_COLOR="1")
    chat.say("Go")
    chat.say("/why")
    chat.say("/view markdown")
    chat.say("/regen")
    chat.say("/help")
    chat.leave()
    assert "\x1b[7m" in chat.raw.decode().partition("/why")[2].partition("/view")[0], "who wrote it shows all the same"
    codes = {code for codes in re.findall(rb"\x1b\[([\d;]*)m", chat.raw) for code in codes.split(b";")}
    assert codes <= {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"22", b"23", b"24", b"27"}


def test_a_dumb_terminal_gets_prompts_and_bare_answers(start, toy, says) -> None:
    chat = start(*toy, *says("Rain *falls*."), ready=False, TERM="dumb")
    for line in ("Go", "/why", "And?"):
        chat.until(lambda: chat.text.endswith(">"))
        chat.type(f"{line}\r")
        chat.until(line)
    chat.until(lambda: chat.text.count("Rain *falls*.") == 3)
    chat.until(lambda: chat.text.endswith(">"))
    chat.type("\x04")
    assert chat.end() == 0
    assert b"\x1b" not in chat.raw
    assert chat.text.splitlines()[:3] == ["> Go", "Rain *falls*.", "> /why"]


def test_thinking_is_dimmed_and_told_apart(start, toy, says) -> None:
    chat = start(*toy, *says("<think>\nLet me see.\n</think>\n\nIt *rains*."))
    shown = chat.say("Go")
    assert shown.splitlines() == ["<think>", "Let me see.", "</think>", "", "It rains."]
    dimmed = re.findall(rb"\x1b\[2m([^\x1b]*)", chat.raw.replace(b"\x1b[0m\x1b[2m", b""))
    assert b"Let me see." in dimmed and not any(b"rains" in text for text in dimmed)
    chat.say("/view text")
    assert chat.say("/regen").splitlines() == ["<think>", "Let me see.", "</think>", "", "It *rains*."]


def test_what_is_finished_can_be_scrolled_to_while_the_rest_is_written(start, toy, says) -> None:
    items = "".join(f"- item {i}\n" for i in range(40))
    lines = "".join(f"def f{i}():\n    pass\n\n\n" for i in range(20))
    chat = start(*toy, *says(f"{items}\n```python\n{lines}```\n\n{numbered(100)}"), lines=12)
    chat.type("Go\r")
    chat.until(lambda: "item 30" in chat.text)
    assert "item 1\n" in chat.text
    chat.until(lambda: "f15" in chat.text)
    assert "def f1():\n    pass\n\n\ndef f2():" in chat.text
    chat.at_prompt()
    for i in range(20):
        assert chat.text.count(f"item {i}\n") == chat.text.count(f"def f{i}():\n") == 1


def test_an_answer_looks_the_same_however_its_tokens_are_cut() -> None:
    text = MARKDOWN.replace("- another", "- another\n  goes on\n\n  on and on\n- third\n\n---")
    listed = "1. one\n2. two\n   - deep\n3. three\n\n   ```\n   a\n\n   b\n   ```\n4. four\n\n"
    text = text.replace("The end.", f"{listed}2024\n\n```\nx\n\n\ny\n```\n\n**x**")
    whole = drawn(markdown(text))
    random = Random(1)
    for _ in range(50):
        flow, shown, at = MarkdownFlow(), [], 0
        while at < len(text):
            n = random.choice([1, 1, 2, 3, 20])
            flow.add(text[at : at + n], "", False)
            shown += flow.take_finished()
            at += n
        assert drawn(*shown, *flow.take_finished(everything=True)) == whole


def drawn(*renderables: Any) -> str:
    console = Console(width=60, color_system=None, force_terminal=True)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return capture.get()


def test_a_screen_that_gets_narrower_during_a_drawing_cuts_nothing_off() -> None:
    class Narrowing:
        def __rich_console__(self, console: Console, options: Any) -> Iterator[Text]:
            yield Text("x" * 80)
            console.width = 40

    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    LiveRegion(console).draw(Narrowing())
    assert console.file.getvalue().count("x") == 80


# Resized in the middle of an answer.


def test_a_terminal_that_cuts_its_rows_is_resized(start, slow_toy, says, sessions) -> None:
    """Rows that are finished are short, since what such a terminal cuts off nobody brings back.

    2 of 150 runs failed, most likely by a row that was on its way to the screen at that very moment: three tries all
    fail by chance once in 400,000.
    """
    text = "".join(f"- item {i}\n" for i in range(8)) + "\nNo list.\n\n" + numbered(100)
    expected = words(text.replace("- ", "• "))
    for _ in range(3):
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


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_a_terminal_that_folds_its_rows_anew_is_resized(environment, slow_toy, says, sessions, tmp_path) -> None:
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


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_tmux_keeps_no_copies_of_what_is_drawn_again_at_the_top_of_the_screen(environment, tmp_path) -> None:
    code = """
from rich.console import Console
from pjlocal.screen.live import LiveRegion
region = LiveRegion(Console())
for i in range(5):
    region.draw(f"first\\nsecond {i}")
region.close(["done"])
input()"""
    with Tmux(environment, tmp_path, [sys.executable, "-c", code], columns=80, lines=30) as tmux:
        tmux.until("done")
        assert tmux.text.split() == ["done"]


class Tmux:
    """A command in a tmux of its own, which folds rows anew when it is resized."""

    def __init__(self, env: dict[str, str], folder: Path, command: list[str], columns: int, lines: int) -> None:
        self._env, self._folder = env, folder
        size = ("-x", str(columns), "-y", str(lines))
        self._call("-f", "/dev/null", "new-session", "-d", *size, *command)

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *exc: object) -> None:
        self._call("kill-server")

    def _call(self, *args: str) -> str:
        command = ["tmux", "-S", str(self._folder / "tmux"), *args]
        return subprocess.run(
            command, env=self._env, cwd=self._folder, capture_output=True, text=True, check=True
        ).stdout

    @property
    def text(self) -> str:
        """Everything that can be scrolled to; rows that were folded by tmux are whole."""
        return self._call("capture-pane", "-p", "-J", "-S", "-")

    def type(self, line: str) -> None:
        self._call("send-keys", line, "Enter")

    def resize(self, columns: int) -> None:
        self._call("resize-window", "-x", str(columns))

    def until(self, seen: str) -> None:
        until = time.monotonic() + TIMEOUT
        while seen not in self.text:
            assert time.monotonic() < until, f"{seen!r} never came:\n{self.text}"
            time.sleep(0.05)


# Interrupted.


def test_ctrl_c_stops_an_answer_and_keeps_it_and_the_chat_goes_on(start, toy, says, sessions) -> None:
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
    chat.until(lambda: re.search(r"judge: \d+ tokens", chat.text))
    chat.type("\x03")
    chat.at_prompt()
    shown = chat.shown("/compare")
    assert "─ judge ─" in shown and "─ base ─" not in shown
    chat.say("/set max-tokens 5")
    assert "cut off after 5" in chat.say("Go on")
    chat.leave()
    assert [turn.question for turn in sessions()[0].turns] == ["Go", "Go on"]
    assert b"Traceback" not in chat.raw


def test_what_is_typed_while_an_answer_streams_waits_for_the_prompt(start, toy, says, sessions) -> None:
    chat = start(*toy, *says(numbered(80)))
    chat.type("Go\r")
    chat.until("word5")
    chat.type("What nxt\x1b[D\x1b[De\x05?\r/title Later\r/title")
    chat.until(lambda: chat.line == "/title")
    first, second = sessions()[0].turns
    assert words(chat.shown("Go").partition("\n> ")[0]) == words(first.answer)
    assert (first.question, second.question) == ("Go", "What next?")
    assert sessions()[0].title == "Later"


def test_what_was_said_outlives_kill_9(start, toy, says, pjlocal, sessions) -> None:
    text = numbered(600)
    chat = start(*toy, *says(text))
    chat.type("Go\r")
    chat.until("word50")
    chat.child.kill(signal.SIGKILL)
    result = pjlocal("sessions", "show", "Go")
    assert result.returncode == 0
    assert "> Go" in result.stdout and "word50" in result.stdout
    (turn,) = sessions()[0].turns
    assert text.startswith(turn.answer) and turn.answer in result.stdout
    assert turn.finish_reason is None and "unfinished" in result.stdout


# Untrusted text.

EVIL = "a[bold red]b[/x]\x1b[2J\x1b]0;title\x07c\x9b31md\u202egpj\u2066e"
SHOWN = "a[bold red]b[/x]␛[2J␛]0;title␇c<U+009B>31md<U+202E>gpj<U+2066>e"


def gives_no_orders(raw: bytes) -> bool:
    text = raw.decode(errors="replace")
    return not re.search("\x1b\\]0|\x1b\\[2J|\x1b\\[31m|[\x9b\u202e\u2066\x07]", text)


def test_what_a_model_writes_stays_inert_in_every_view(start, toy, tmp_path) -> None:
    escaped = EVIL.encode("unicode_escape").decode().replace("\\x9b", "\\x9B")
    (tmp_path / "evil.gbnf").write_text(f'root ::= "{escaped}"\n')
    chat = start(*toy, "--grammar", "evil.gbnf", columns=150, lines=60)
    for view in ("markdown", "text", "blame"):
        chat.say(f"/view {view}")
        assert chat.say("Go").splitlines()[-1] == SHOWN
        assert SHOWN in chat.say("/why").splitlines()
    assert "[bold" in chat.say("/compare")
    assert gives_no_orders(chat.raw)


def test_what_a_saved_session_or_a_file_name_holds_stays_inert(start, toy, environment, tmp_path) -> None:
    session = Session(title=f"T {EVIL}", settings={"preferences": {"a": [f"P {EVIL}"], "b": []}})
    event = TokenEvent(0, 5, f"A {EVIL}\n\n# Title {EVIL}", "plain", 0, None, 1.0, None, None, None)
    turn = Turn(f"Q {EVIL}", [event], settings={"preferences": session.settings["preferences"], "mode": f"M {EVIL}"})
    with Store(database(environment)) as store:
        store.add_turn(store.add_session(session), turn)
    (tmp_path / "models" / f"N {EVIL.replace('/', '')}.gguf").touch()
    chat = start("--continue", "-m", "toy.gguf", columns=250, lines=60)
    assert f"T {SHOWN}: 1 turn" in chat.text
    assert f"> Q {SHOWN}" in chat.text and f"A {SHOWN}" in chat.text
    for line, expected in (
        ("/prefer", f"a: P {SHOWN}"),
        ("/why", f"a: P {SHOWN}"),
        ("/stats", f"M {SHOWN}"),
        ("/sessions", f"T {SHOWN}"),
        ("/title", f"title: T {SHOWN}"),
        ("/load 1", f"T {SHOWN}: 1 turn"),
        ("/model", f"N {SHOWN.replace('/', '')}.gguf"),
        ("/undo", f"taken back: Q {SHOWN}"),
    ):
        assert expected in chat.say(line), line
    assert f"a: P {SHOWN}" in chat.screen.display[-1]
    for typed in ("/load T", "/model N"):
        chat.type(f"{typed}\t\t!")
        chat.at_prompt(f"{typed}!")
        chat.type("\x03")
        chat.at_prompt()
    assert gives_no_orders(chat.raw)


def test_a_very_long_line_without_spaces(start, toy, says, sessions) -> None:
    chat = start(*toy, *says("x" * 500))
    for view in ("markdown", "text"):
        chat.say(f"/view {view}")
        shown = chat.say("Go")
        assert shown.replace("\n", "") == "x" * 500
    chat.type("z" * 500)
    chat.until(lambda: chat.text.count("z") == 500)
    chat.type("\r")
    chat.at_prompt()
    assert chat.text.count("z") == 500
    assert sessions()[0].turns[-1].question == "z" * 500


# In a pipe.


def test_a_pipe_gets_one_bare_answer_a_line(pjlocal, toy, says, sessions) -> None:
    result = pjlocal("chat", *toy, *says("Rain *falls*."), stdin="q1\n\nq2")
    assert (result.returncode, result.stdout, result.stderr) == (0, "Rain *falls*.\nRain *falls*.\n", "")
    assert [turn.question for turn in sessions()[0].turns] == ["q1", "q2"]


def test_the_real_model_in_a_pipe_remembers(pjlocal) -> None:
    result = pjlocal("chat", *PREFER, "-n", "20", stdin="My name is Ada.\nWhat is my name?\n")
    assert result.returncode == 0 and result.stderr == ""
    assert "Ada" in result.stdout.splitlines()[-1]
    assert "\x1b" not in result.stdout


def test_commands_in_a_pipe(pjlocal, toy, says, sessions) -> None:
    args = ("chat", *toy, *says("Rain."))
    result = pjlocal(*args, stdin="/swap\nq1\n/view blame\n/regen\n/why\n/title T\n/quit\nq2\n")
    assert result.returncode == 0
    notes = ["a: creative", "b: vivid", "view blame", "title: T"]
    assert result.stderr.splitlines() == [f"pjlocal: {note}" for note in notes]
    assert result.stdout.startswith("Rain.\nRain.\na: creative  b: vivid  resampled  bonus\nRain.\n\n#  token")
    assert "\x1b" not in result.stdout
    assert len(sessions()[0].turns) == 1


def test_a_line_that_fails_in_a_pipe_is_told_and_the_rest_answered(pjlocal, toy, says) -> None:
    args = ("chat", *toy, *says("Rain."))
    result = pjlocal(*args, stdin="/swpa\nq1\n")
    assert (result.returncode, result.stdout) == (2, "Rain.\n")
    assert result.stderr == "pjlocal: unknown command /swpa: did you mean /swap or /stats?\n"
    result = pjlocal(*args, stdin="/model nowhere\nq1\n")
    assert (result.returncode, result.stdout) == (1, "Rain.\n")
    result = pjlocal(*args, stdin=b"caf\xe9\n")
    assert result.returncode == 2
    assert "not UTF-8" in result.stderr
    result = pjlocal("chat", "-m", "nowhere", stdin="q1\n")
    assert result.returncode == 1 and "no model 'nowhere'" in result.stderr


# Sessions.


def test_a_chat_goes_on_with_its_turns_preferences_and_settings(start, toy, toy_model, says, sessions) -> None:
    chat = start(*toy, *says("Rain."), "--session", "Weather")
    chat.say("Go")
    for line in ("/prefer humorous concise", "/set temperature 0.3", "/lambda 2", "/mode base", "/system Be kind."):
        chat.say(line)
    chat.leave()
    for again in (("--continue",), ("--session", "weath")):
        chat = start(*again)
        assert chat.text.startswith("toy.gguf · /help lists the commands\n\nWeather: 1 turn\n\n> Go\n\nRain.")
        assert "base λ2 · a: humorous · b: concise" in chat.text
        assert re.search(r"temperature +0.3 ", chat.say("/set temperature"))
        assert chat.say("/system") == "system text: Be kind."
        chat.leave()
    chat = start("--continue", "-l", "3", "-p", "formal")
    assert "base λ3 · a: formal · b: no preference" in chat.text
    chat.say("And?")
    assert len(sessions()) == 1 and len(sessions()[0].turns) == 2


def test_a_chat_that_is_not_saved_leaves_no_file(start, toy, environment) -> None:
    chat = start(*toy, "-n", "2", "--no-save")
    chat.say("Go")
    assert chat.say("/sessions") == "this chat is not saved (--no-save), and knows no sessions"
    chat.type("\x1b[A")
    chat.at_prompt("/sessions")
    chat.type("\x03")
    chat.at_prompt()
    chat.leave()
    assert not Path(environment["XDG_DATA_HOME"]).exists()


def test_a_missing_model_leaves_the_old_one_in_use(start, smollm2, toy, tmp_path) -> None:
    (tmp_path / "models" / "broken.gguf").write_text("not a model")
    chat = start(*PREFER, "-n", "3", "--ignore-end", columns=120)
    for name, says in (("nowhere", "no model 'nowhere' here"), ("broken", "is not a GGUF file")):
        assert says in chat.say(f"/model {name}")
        assert chat.say("/model").startswith("SmolLM2-135M-Instruct")
    assert "cut off after 3 tokens" in chat.say("Hello")
    assert chat.say("/model toy").startswith("toy.gguf")
    assert "cut off after 3 tokens" in chat.say("Hello")
