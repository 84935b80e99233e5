"""Run a model's Jinja template in a process of its own, which is killed if it takes too long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from ..errors import ModelError
from ..visible import one_line
from . import jinja_process

MOST_SECONDS = 5.0  # for one conversation; SmolLM2's template takes 0.1 ms, and the round trip another 0.1 ms
_START_SECONDS = 60.0
_LONGEST_ANSWER = 6 * jinja_process.MOST_ANSWER + 1024  # bytes: JSON takes at most six for a character


class Refusal(Exception):
    """The template refuses the conversation, or is broken; the message is the template's own."""


class TemplateProcess:
    """Renders prompts with one template.

    The constructor starts the process and does not wait for it, so that it starts while the model is loaded: 60 ms for
    a new Python, and 3 ms for a fork.

    Args:
        seconds: the time limit for one conversation.
    """

    def __init__(self, seconds: float = MOST_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.RLock()  # Ctrl-C as it is released leaves it locked by this thread, which must not wait
        self._broken = ""
        self._template: Mapping[str, Any] = {}  # the first request of a new process; empty before `compile`
        self._launch(_forked if _may_fork() else _started)

    def _launch(self, start: Callable[[], _Process]) -> None:
        self._ready = False
        try:
            self._process = start()
        except OSError as error:
            raise ModelError(f"cannot start the process for the chat template: {error.strerror or error}") from None
        self.close = weakref.finalize(self, _end, self._process, os.getpid())

    def end(self) -> None:
        """End the process for good."""
        self._broken = "this chat template is closed"
        self.close()

    def compile(self, template: str, **variables: str) -> None:
        """Compile the template with variables for all conversations.

        Raises:
            Refusal: the template is broken.
            ModelError: the template takes too much time or memory.
        """
        request = {"template": template, "variables": variables}
        self._ask(request)
        self._template = request

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """The prompt of a conversation, up to the beginning of the model's answer.

        Raises:
            Refusal: the template refuses the conversation.
            ModelError: the template takes too much time or memory.
        """
        nothing = dict.fromkeys(("functions", "function_call", "tools", "tool_choice"))
        return self._ask({"messages": messages, "add_generation_prompt": True, **nothing, **variables})

    def _ask(self, request: Mapping[str, Any]) -> str:
        with self._lock:
            if self._broken:
                raise ModelError(self._broken)
            if not self.close.alive:  # Ctrl-C interrupted a restart
                self._restart()
            try:
                answer = self._answer(request)
            except BaseException:  # Ctrl-C: the next request would read the reply to this one
                self._restart()
                raise
            if answer is None and not self.close.alive and not self._broken:
                sys.exit()  # Python is ending, and ended the process before this daemon thread
            if answer is None or "memory" in answer:
                self._broken = self._broken or f"the model's chat template {_MEMORY}: {_ANOTHER}"
                self.close()
                raise ModelError(self._broken)
        if "refusal" in answer:
            raise Refusal(one_line(str(answer["refusal"]))[:300])
        return str(answer["text"])

    def _restart(self) -> None:
        self.close()
        try:
            self._launch(_started)  # not a fork, because this process has a model in memory by now
        except ModelError as error:
            self._broken = str(error)

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The process's reply; None if it has ended."""
        if not self._ready:
            if self._line(b"", _START_SECONDS) is None:
                return None
            if self._template and self._exchange(self._template) is None:
                return None
        self._ready = True
        return self._exchange(request)

    def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        line = self._line(json.dumps(request).encode() + b"\n", self._seconds)
        try:
            answer = json.loads(line or b"")
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None

    def _line(self, request: bytes, seconds: float) -> bytes | None:
        """Send a request, and return the next complete line; None if the process ended, or was killed at the time
        limit."""
        into, out = self._process.stdin, self._process.stdout
        assert into and out
        watch = threading.Timer(seconds, self._too_long, (seconds,))
        watch.daemon = True
        try:
            watch.start()
            into.write(request)
            into.flush()
            line = out.readline(_LONGEST_ANSWER)
            return line if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        finally:
            watch.cancel()

    def _too_long(self, seconds: float) -> None:
        self._broken = f"the model's chat template takes longer than {seconds:g} s: {_ANOTHER}"
        self._process.kill()


_MEMORY = f"needs more than {jinja_process.MOST_BYTES >> 20} MiB of memory, or has crashed"
_ANOTHER = "use another model, or another file of this one"


def _started() -> _Process:
    paths = [folder for folder in sys.path if folder]  # the same paths, without the current folder
    start = f"import runpy, sys; sys.path[:] = {paths!r}; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", start, str(Path(jinja_process.__file__))]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _may_fork() -> bool:
    """True if a fork is safe: no other Python thread can hold a lock, and the system is Linux (macOS's libraries do not
    work after a fork)."""
    return sys.platform == "linux" and threading.active_count() == 1


@dataclass
class _Forked:
    pid: int
    stdin: IO[bytes]
    stdout: IO[bytes]
    returncode: int | None = None

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


_Process = subprocess.Popen[bytes] | _Forked


def _forked() -> _Process:
    requests_end, requests = os.pipe()
    replies, replies_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's idle threads are safe
        pid = os.fork()
    if pid == 0:
        _be_the_child(requests_end, replies_end)
    os.close(requests_end)
    os.close(replies_end)
    return _Forked(pid, os.fdopen(requests, "wb"), os.fdopen(replies, "rb"))


def _be_the_child(requests_end: int, replies_end: int) -> NoReturn:
    from fcntl import F_DUPFD, fcntl

    try:
        os.setsid()
        ends = requests_end, replies_end, os.open(os.devnull, os.O_WRONLY)
        for fd, end in enumerate([fcntl(end, F_DUPFD, 3) for end in ends]):  # a pipe may have one of the numbers 0 to 2
            os.dup2(end, fd)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        with open(0, encoding="utf-8") as lines, open(1, "w", encoding="utf-8") as answers:
            jinja_process.main(lines, answers)
    finally:
        os._exit(0)


def _end(process: _Process, owner: int) -> None:
    if os.getpid() != owner:  # in a child of os.fork, the process belongs to the parent
        return
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            try:
                pipe.close()
            except OSError:
                pass  # the process ended before it read everything
    process.wait()
