"""`pjlocal chat` on a terminal: what is typed there, and what its screen shows."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pyte
from waiting import PATIENCE_S, when

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


_PROMPT_BEGINS = b"\x1b[?2004h"


class Terminal:
    """A command on a pseudo-terminal, and what its screen shows."""

    def __init__(
        self,
        env: dict[str, str],
        folder: Path,
        command: Sequence[str],
        columns: int = 80,
        lines: int = 30,
    ) -> None:
        self.raw = b""
        self.child = pexpect.spawn(
            command[0],
            [*command[1:]],
            env={"TERM": "xterm-256color"} | env,
            cwd=folder,
            dimensions=(lines, columns),
            timeout=PATIENCE_S,
        )
        self.child.delaybeforesend = None
        self.screen = Screen(columns, lines, self.child.send)
        self._stream = pyte.ByteStream(self.screen)

    @property
    def text(self) -> str:
        return self.screen.text

    def colors(self, text: str) -> list[str]:
        """The colour of each character of a text on the screen, where it stands last."""
        y = max(y for y, row in enumerate(self.screen.display) if text in row)
        x = self.screen.display[y].index(text)
        return [self.screen.buffer[y][i].fg for i in range(x, x + len(text))]

    @property
    def line(self) -> str | None:
        """What stands at the prompt, up to the cursor; None where there is no prompt."""
        row = self.screen.row(self.screen.cursor.y)
        waits = row.startswith("> ") and self.screen.row(self.screen.lines - 1).strip()
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
        until = time.monotonic() + PATIENCE_S
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

    def send(self) -> None:
        """Press Enter, and wait for the next prompt, which asks anew that pastes be marked."""
        before = self.raw.count(_PROMPT_BEGINS)
        self.type("\r")
        self.until(lambda: self.raw.count(_PROMPT_BEGINS) > before)
        self.at_prompt()

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

    def close(self) -> None:
        """Kill the command, and wait for its end however busy the machine is."""
        self.child.kill(signal.SIGKILL)
        self.child.wait()
        self.child.close()

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
        when(lambda: seen in self.text, lambda: f"{seen!r} never came:\n{self.text}")


def database(environment: dict[str, str]) -> Path:
    return Path(environment["XDG_DATA_HOME"]) / "pjlocal" / "chats.db"


def words(text: str) -> list[str]:
    return text.split()


def numbered(n: int) -> str:
    """A paragraph of n words, each of which is there once."""
    return " ".join(f"word{i}" for i in range(n))
