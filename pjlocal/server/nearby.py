"""The socket for `pjlocal run` and `pjlocal chat` of the same user: what comes by it is written as they would write it
(see `near`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine.interrupt import Interrupted
from ..errors import PjlocalError, explain
from ..prompting.prompt import Message
from ..request import Request
from ..settings import Engine
from .near import ALIVE_S, About, Head, Step, is_private, socket_path
from .resident import Talk
from .worker import Busy, Done, SingleOrder, Stopping, Worker

log = logging.getLogger("pjlocal")

_MOST_ASKED = 64 << 20  # bytes of a line; whoever writes more loads the model
_PATIENCE_S = 10  # for a line to come

Told = Head | Step | Done | Exception


class _Unreadable(PjlocalError):
    """The bytes that came over the socket are not a request."""


@contextmanager
def listen_nearby(model: Path, engine: Engine) -> Iterator[socket.socket | None]:
    """A socket for this user's `pjlocal run` and `chat`; None where there can be none, or another server has it."""
    path = socket_path(model, engine)
    bound = _bound(path) if path else None
    try:
        yield bound
    finally:
        if bound and path:
            bound.close()
            path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket | None:
    """Needs a name that nobody listens at: one that is left of a server that was killed is taken over."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        for folder in (path.parent.parent, path.parent):  # of parents that are missing, `mkdir` sets no mode
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(path.parent):
            raise OSError(f"{path.parent} is open to others")
        if path.exists():
            if _is_listened_at(path):
                raise OSError(f"another server listens at {path}")
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o600)  # nobody reaches it before it listens
        listening.listen()
    except OSError as error:  # such as a path that is too long for a socket; the server is of use without
        log.debug("pjlocal run will not find this server: %s", error)
        listening.close()
        return None
    return listening


def _is_listened_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except (ConnectionError, FileNotFoundError):
            return False
        except OSError:  # it does not come to accept
            return True
        return True


class Nearby:
    """Answers who comes by the socket.

    Args:
        most: answers at once, beyond which who wants a single one is sent away, and loads the model.
        about: the model that answers.
    """

    def __init__(self, worker: Worker, most: int, about: About) -> None:
        self._worker = worker
        self._most = most
        self._about = about
        self._talks: set[asyncio.Task[Any]] = set()
        self._orders: set[SingleOrder] = set()
        self._stopping = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._talk, sock=listening, limit=_MOST_ASKED)

    async def stop(self, patience: float) -> None:
        """Let nobody else in, and wait until those who are were told how their answers end."""
        self._stopping.set()
        if self._server:
            self._server.close()
        if self._talks:
            await asyncio.wait(self._talks, timeout=patience)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._talks.add(task)
        talk, asked = Talk(), _Asked()
        reading = asyncio.ensure_future(asked.read(reader, talk))
        try:
            with suppress(ConnectionError):
                await self._converse(asked, reading, writer, talk)
        finally:
            self._worker.leave(talk)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._talks.discard(task)
            writer.close()

    async def _converse(
        self, asked: _Asked, reading: asyncio.Future[None], writer: asyncio.StreamWriter, talk: Talk
    ) -> None:
        """Answer what is asked, one after the other, until the other side hangs up or the server stops."""
        try:
            try:
                said = await asyncio.wait_for(asked.next(self._stopping), _PATIENCE_S)
            except asyncio.TimeoutError:
                raise _Unreadable(f"no request came within {_PATIENCE_S} seconds") from None
            while said is not None:
                if "hello" in said:
                    await _say(writer, hello=asdict(self._about))
                else:
                    await self._answer(said, reading, writer, talk)
                said = await asked.next(self._stopping)
        except ConnectionError:
            raise
        except Exception as error:  # whatever it is, the other side can do without
            _log_fault(error)
            await _say(writer, refused=str(error))

    async def _answer(
        self, said: dict[str, Any], reading: asyncio.Future[None], writer: asyncio.StreamWriter, talk: Talk
    ) -> None:
        """Write an answer, to its end or until the other side hangs up."""
        told: asyncio.Queue[Told] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(one: Told) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(told.put_nowait, one)

        try:
            request, prompt = Request().restore(said), _conversation(said["prompt"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _Unreadable(f"not a request of this version of pjlocal: {error!r}") from None
        if len(self._orders) >= self._most and isinstance(prompt, str):
            raise Busy("others are being answered")
        talk.interrupt.clear()
        order = SingleOrder(request, prompt, talk, tell)
        self._worker.submit([order])
        self._orders.add(order)
        telling = asyncio.ensure_future(_tell_all(writer, told))
        try:
            await asyncio.wait({telling, reading}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()  # raises what kept it from its end
        finally:
            self._worker.cancel([order])
            self._orders.discard(order)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)


class _Asked:
    """What comes from the other side: to stop at once, the rest in turn."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()

    async def read(self, reader: asyncio.StreamReader, talk: Talk) -> None:
        """Until the other side hangs up."""
        try:
            while line := await reader.readline():
                said = json.loads(line)
                if not isinstance(said, dict):
                    raise ValueError("a line is not an object")
                if "stop" in said:
                    talk.interrupt.set()
                else:
                    self._lines.put_nowait(said)
            self._lines.put_nowait(None)
        except (ValueError, RecursionError) as error:  # no JSON, or no end of a line
            self._lines.put_nowait(_Unreadable(str(error)))
        except Exception as error:  # such as a connection that breaks
            self._lines.put_nowait(error)

    async def next(self, stopping: asyncio.Event) -> dict[str, Any] | None:
        """What is asked next; None where nothing will be.  Raises what was wrong with it."""
        line, stop = asyncio.ensure_future(self._lines.get()), asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({line, stop}, return_when=asyncio.FIRST_COMPLETED)
            said = line.result() if line.done() else None
        finally:
            line.cancel()
            stop.cancel()
        if isinstance(said, Exception):
            raise said
        return said


def _conversation(prompt: str | Sequence[Mapping[str, Any]]) -> str | list[Message]:
    if isinstance(prompt, str):
        return prompt
    return [Message(said["role"], said["content"], tuple(said["tokens"])) for said in prompt]


async def _tell_all(writer: asyncio.StreamWriter, told: asyncio.Queue[Told]) -> None:
    """Pass on what is told of an answer, to its end."""
    await _say(writer, taken=True)
    while True:
        try:
            one = await asyncio.wait_for(told.get(), ALIVE_S)
        except asyncio.TimeoutError:
            await _say(writer)
            continue
        await _say(writer, **_in_words(one))
        if isinstance(one, Done | Exception):
            return


def _in_words(told: Told) -> dict[str, Any]:
    if isinstance(told, Head):
        return {"head": asdict(told)}
    if isinstance(told, Step):
        return {"event": told.event.as_dict(), "so_far": told.so_far}
    if isinstance(told, Done):
        return {"result": told.result.whole()}
    if isinstance(told, Stopping):
        return {"refused": str(told)}
    if isinstance(told, Interrupted):
        return {"interrupted": True}
    _log_fault(told)
    message, status = explain(told)
    return {"error": message, "status": status}


def _log_fault(error: Exception) -> None:
    """Tell whoever runs the server of an error that nobody foresaw."""
    if not isinstance(error, PjlocalError | ConnectionError):
        log.error("%s", explain(error)[0])


async def _say(writer: asyncio.StreamWriter, **said: Any) -> None:
    writer.write(json.dumps(said).encode() + b"\n")
    await writer.drain()
