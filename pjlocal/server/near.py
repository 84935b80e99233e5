"""A server of the same user that has the same model in memory: found without being told, and asked by a Unix socket.

The protocol is JSON lines.  The client sends a `Request` with a prompt or a conversation, and ``stop`` after Ctrl-C.
Back comes ``taken`` or ``refused``; then, now and then, a line that says nothing but that the server lives; a `Head`
with the first token; token events; the result, or what went wrong.  A chat asks again then, and the server has kept
what it read; who hangs up wants no more.  Who says ``hello`` is told `About` the model.

Who asks imports neither llama.cpp nor the server's packages, which would take longer than a short answer.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.interrupt import Interrupt, Interrupted
from ..errors import PjlocalError, UsageError
from ..events import Result, TokenEvent
from ..request import Request
from ..runtime_socket import is_private, socket_path
from ..settings import Engine, Mode

if TYPE_CHECKING:
    from ..prompting.prompt import Message

log = logging.getLogger("pjlocal")

ALIVE_S = 2.0  # between two lines of the server's, at most
_TAKEN_S = 2.0  # within which it says whether it will
_SILENT_S = 20.0  # after which it is taken for dead
_STOPPING_S = 1.0  # that it may take to stop
_LOOK_S = 0.05  # between two looks at whether Ctrl-C was pressed
_PART = 1 << 16


class Lost(PjlocalError):
    """The server does not write the answer, or not to its end."""


class Gone(Lost):
    """It is gone, or says nothing any more."""


@dataclass(frozen=True)
class Head:
    """What is known of an answer when its first token comes.

    labels: the views' preferences in words.
    pushing: see `answer.Answer`.
    followed_sampling, placed: the filters that are the model's own, and where its layers are, in words.
    warnings: what `pjlocal run` says on standard error before the answer.
    """

    mode: Mode
    labels: dict[str, list[str]]
    pushing: Sequence[str]
    followed_sampling: str
    placed: str
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """A token's event, and the answer's `Statistics` so far."""

    event: TokenEvent
    so_far: dict[str, Any]


@dataclass(frozen=True)
class About:
    """The model that a server has in memory.

    context_limit: tokens that a view may hold.
    description: architecture, size and quantization, in llama.cpp's words.
    offload: a `gguf.fit.Offload`'s fields.
    """

    context_limit: int
    description: str
    offload: dict[str, Any]


def ask(model: Path, engine: Engine, request: Request, prompt: str, interrupt: Interrupt) -> NearAnswer | None:
    """The answer of a server, once its first token is on its way; None where there is none to write it.

    Raises:
        PjlocalError: what the server could not do, which this process could not do either.
        Interrupted: on request.
    """
    if kept_from_servers(request):
        return None
    talk = connect(model, engine, interrupt)
    if talk is None:
        return None
    try:
        talk.ask(request, prompt)
        return NearAnswer(talk)
    except Lost:
        talk.close()
        return None
    except BaseException:
        talk.close()
        raise


def connect(model: Path, engine: Engine, interrupt: Interrupt) -> Talk | None:
    """A connection to a server; None where nobody is there, or who asks wants to see llama.cpp's log."""
    where = socket_path(model, engine)
    if where is None or engine.verbose or not is_private(where.parent):
        return None
    try:
        return Talk(where, interrupt)
    except OSError:  # nobody is there, or not any more
        return None


def kept_from_servers(request: Request) -> str:
    """Why no server writes such an answer; empty where one does: in one go, with nothing in memory besides the model,
    and no files to be found from this folder."""
    if request.generation.mode == "rewrite":
        return "a server does not write in mode rewrite"
    if request.generation.adapters():
        return "a server has no adapters"
    named = (*chain.from_iterable(request.views), *request.generation.avoid)
    return "a server reads no files" if any(text.strip().startswith("@") for text in named) else ""


class NearAnswer:
    """An answer that a server writes: iterate over its token events, then look at `result`, as at an `Answer`'s.

    Raises:
        Lost: the server did not begin.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._result: Result | None = None
        self.drafted: list[TokenEvent] = []
        self._said = talk.said()
        self.head = Head(**next(self._told("head")))
        for warning in self.head.warnings:
            log.warning("%s", warning)

    def close(self) -> None:
        """Have no more of it written."""
        self._talk.close()

    @property
    def mode(self) -> Mode:
        return self.head.mode

    @property
    def labels(self) -> dict[str, list[str]]:
        return self.head.labels

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
        for said in self._said:
            if key in said:
                yield said[key]
            if "result" in said:
                self._result = Result.from_whole(said["result"])
                self._talk.check_end(self._result)


class Talk:
    """A connection to a server, which writes one answer at a time.

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

    def about(self) -> About:
        """What the server has in memory.  Raises Lost."""
        self._send({"hello": True})
        said = self._read()
        if "hello" not in said:
            raise _gone()
        return About(**said["hello"])

    def ask(self, request: Request, said: Sequence[Message] | str) -> None:
        """Have an answer written; the one before must have been told to its end.

        Raises:
            Lost: the server does not write it.
        """
        self._stopped = self._taken = False
        prompt = said if isinstance(said, str) else [asdict(message) for message in said]
        self._send(request.as_dict() | {"prompt": prompt})
        if "refused" in (first := self._read()):
            raise Lost(first["refused"])

    def said(self) -> Iterator[dict[str, Any]]:
        """What is told of the answer, to its result.

        Raises:
            Lost: the server does not write it, or not to its end.
            PjlocalError: what the server could not do.
            Interrupted: on request.
        """
        while True:
            said = self._read()
            if "refused" in said:
                raise Lost(said["refused"])
            if "error" in said:
                raise (UsageError if said["status"] == UsageError.exit_status else PjlocalError)(said["error"])
            if "interrupted" in said:
                raise Interrupted if self._interrupt.is_set() else _gone()
            yield said
            if "result" in said:
                return

    def leave(self) -> None:
        """Have no more written of the answer, and hear what was still told of it."""
        try:
            self._send({"stop": True})
            self._stopped = True
            for _ in self.said():
                pass
        except Interrupted:
            pass
        except PjlocalError:  # which nobody wants to know any more
            self.close()

    def check_end(self, result: Result) -> None:
        """Raises Lost: it is not this side that had it stopped."""
        if result.finish_reason == "interrupted" and not self._interrupt.is_set():
            raise Gone("the server that was writing this was stopped: run it again")

    def _send(self, said: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(said).encode() + b"\n")
        except OSError as error:
            raise _gone() from error

    def _read(self) -> dict[str, Any]:
        """The next line.

        Raises:
            Lost: none comes.
        """
        heard = time.monotonic()
        while b"\n" not in self._came:
            if self._interrupt.is_set() and not self._stopped:
                self._stopped = True
                self._send({"stop": True})
                heard = time.monotonic()
            if part := self._part():
                self._came += part
                heard = time.monotonic()
            elif self._stopped and time.monotonic() - heard > _STOPPING_S:
                self.close()
                raise Interrupted  # whatever the server does
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


def _gone() -> Gone:
    return Gone("the server that was writing this is gone: run it again, or with --no-server")
