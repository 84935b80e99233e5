"""A server of the same user that has the same model in memory: found without being told, and asked by a Unix socket.

What crosses it is a line of JSON each.  There goes a `Wish` with a prompt, and ``stop`` after Ctrl-C.  Back comes
``taken`` or ``refused``; then, now and then, a line that says nothing but that the server lives; a `Head` with the
first token; token events; the result, or what went wrong.  Who hangs up wants no more.

Who asks imports neither llama.cpp nor the server's packages, which would take longer than a short answer.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from .. import __version__
from ..engine.interrupt import Interrupt, Interrupted
from ..errors import PjlocalError, UsageError
from ..events import Result, TokenEvent
from ..folders import runtime_folder
from ..prompting.preferences import presets
from ..settings import Engine, Mode
from .wish import Wish

ALIVE_S = 2.0  # between two lines of the server's, at most
_TAKEN_S = 2.0  # within which it says whether it will
_SILENT_S = 20.0  # after which it is taken for dead
_LOOK_S = 0.05  # between two looks at whether Ctrl-C was pressed
_PART = 1 << 16

#: Variables of the environment that change what llama.cpp computes on, by their beginnings.
_COMPUTING = ("GGML_", "CUDA_", "HIP_", "ROCR_")


class Lost(PjlocalError):
    """The server is gone, or says nothing any more."""


@dataclass(frozen=True)
class Head:
    """What is known of an answer when its first token comes.

    told: the views' preferences in words.
    pushing: see `answer.Answer`.
    followed_sampling, placed: the filters that are the model's own, and where its layers are, in words.
    """

    mode: Mode
    told: dict[str, list[str]]
    pushing: Sequence[str]
    followed_sampling: str
    placed: str


def socket_path(model: Path, engine: Engine) -> Path | None:
    """Where a server listens that would write what this process would; None where there can be none.

    The name tells such servers from all others: those with another model file, or one that has changed since, with
    other engine settings or presets, or of another version.
    """
    folder = runtime_folder()
    if folder is None or not hasattr(socket, "AF_UNIX"):
        return None
    try:
        file = model.resolve()
        status = file.stat()
    except (OSError, RuntimeError):  # which loading it tells of
        return None
    computing = {name: value for name, value in os.environ.items() if name.startswith(_COMPUTING)}
    same = [__version__, str(file), status.st_size, status.st_mtime_ns, engine.as_dict(), presets(), computing]
    return folder / f"{sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]}.sock"


def is_private(folder: Path) -> bool:
    """Whether nobody but this user can have put something there."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def ask(model: Path, engine: Engine, wish: Wish, prompt: str, interrupt: Interrupt) -> NearAnswer | None:
    """The answer of a server, once its first token is on its way; None where there is none to write it.

    Raises:
        PjlocalError: what the server could not do, which this process could not do either.
        Interrupted: on request.
    """
    where = socket_path(model, engine)
    if where is None or not _is_for_servers(wish, engine) or not is_private(where.parent):
        return None
    try:
        talk = _Talk(where, interrupt)
    except OSError:  # nobody is there, or not any more
        return None
    try:
        talk.send(wish.as_dict() | {"prompt": prompt})
        return NearAnswer(talk, interrupt)
    except Lost:
        talk.close()
        return None
    except BaseException:
        talk.close()
        raise


def _is_for_servers(wish: Wish, engine: Engine) -> bool:
    """Whether a server writes such answers: in one go, with nothing in memory besides the model, and no files to be
    found from this folder; and nobody wants to see llama.cpp's log."""
    named = (*chain.from_iterable(wish.views), *wish.generation.avoid)
    has_files = any(text.strip().startswith("@") for text in named) or wish.generation.adapters()
    return wish.generation.mode != "rewrite" and not has_files and not engine.verbose


class NearAnswer:
    """An answer that a server writes: iterate over its token events, then look at `result`, as at an `Answer`'s.

    Raises:
        Lost: the server did not begin.
    """

    def __init__(self, talk: _Talk, interrupt: Interrupt) -> None:
        self._talk = talk
        self._interrupt = interrupt
        self._result: Result | None = None
        self.drafted: list[TokenEvent] = []
        self.head = Head(**next(self._told("head")))

    def close(self) -> None:
        """Have no more of it written."""
        self._talk.close()

    @property
    def mode(self) -> Mode:
        return self.head.mode

    @property
    def told(self) -> dict[str, list[str]]:
        return self.head.told

    @property
    def pushing(self) -> Sequence[str]:
        return self.head.pushing

    @property
    def result(self) -> Result:
        assert self._result
        return self._result

    def __iter__(self) -> Iterator[TokenEvent]:
        """Its token events, as they come.

        Raises:
            Lost: the server is gone in the middle.
            PjlocalError: it could not go on.
        """
        yield from map(TokenEvent.from_dict, self._told("event"))

    def _told(self, key: str) -> Iterator[Any]:
        """What the lines hold under a key, until the result has come."""
        while self._result is None:
            said = self._talk.read()
            if "refused" in said:
                raise Lost(said["refused"])
            if "error" in said:
                raise (UsageError if said["status"] == UsageError.exit_status else PjlocalError)(said["error"])
            if "interrupted" in said:
                raise Interrupted if self._interrupt.is_set() else _gone()
            if key in said:
                yield said[key]
            if "result" in said:
                self._result = Result.from_whole(said["result"])
                self._check_end(self._result)

    def _check_end(self, result: Result) -> None:
        if result.finish_reason == "interrupted" and not self._interrupt.is_set():
            raise Lost("the server that was writing this was stopped: run it again")


class _Talk:
    """A connection to a server.

    Raises:
        OSError: nobody listens there.
    """

    def __init__(self, where: Path, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._came = b""
        self._stopped = self._taken = False
        try:
            self._socket.settimeout(_TAKEN_S)
            self._socket.connect(str(where))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, said: dict[str, Any]) -> None:
        """Raises Lost: it cannot be told."""
        try:
            self._socket.sendall(json.dumps(said).encode() + b"\n")
        except OSError as error:
            raise _gone() from error

    def read(self) -> dict[str, Any]:
        """The next line.

        Raises:
            Lost: none comes.
        """
        heard = time.monotonic()
        while b"\n" not in self._came:
            if self._interrupt.is_set() and not self._stopped:
                self._stopped = True
                self.send({"stop": True})
            if part := self._part():
                self._came += part
                heard = time.monotonic()
            elif time.monotonic() - heard > (_SILENT_S if self._taken else _TAKEN_S):
                raise _gone()
        line, _, self._came = self._came.partition(b"\n")
        self._taken = True
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise _gone() from error
        return said

    def _part(self) -> bytes:
        """What has come; nothing where nothing comes for a moment.

        Raises:
            Lost: nothing will.
        """
        if not select.select([self._socket], [], [], _LOOK_S)[0]:
            return b""
        try:
            part = self._socket.recv(_PART)
        except OSError as error:
            raise _gone() from error
        if not part:
            raise _gone()
        return part


def _gone() -> Lost:
    return Lost("the server that was writing this is gone: run it again, or with --no-server")
