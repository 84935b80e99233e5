"""A client of ``pjlocal serve`` for pjlocal's own commands, over a Unix socket or TCP.

A resident server of the same user is found by its socket; any other one is named by its URL.  Only the standard library
is imported: importing llama.cpp or the server's packages would take longer than writing a short answer.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import fields
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from . import __version__
from .engine.interrupt import Interrupt, Interrupted
from .errors import PjlocalError, RefusedError, UsageError
from .events import Alternative, FinishReason, Result, Started, Statistics, TokenEvent
from .prompting.preferences import PRESETS, presets, split_strength
from .prompting.thinking import split
from .request import Request
from .runtime_socket import is_private, socket_path
from .settings import DEFAULT_MODE, Engine, Mode
from .textfile import fold

log = logging.getLogger("pjlocal")

_T = TypeVar("_T")
_R = TypeVar("_R")

KEY_VARIABLE = "PJLOCAL_API_KEY"

_RESIDENT_S = 2.0  # time limit for the response of a resident server; after it the model is loaded here
_SILENT_S = 20.0  # silence after which a server counts as dead; it sends a line every 2 s while it writes
_STOPPING_S = 1.0  # time limit for stopping an answer
_BUSY_S = 1.0  # pause before a request to a busy server is repeated
_POLL_S = 0.05  # between two checks for Ctrl-C
_MOST_ERROR = 1 << 16  # bytes read of an error's body
_IN_PATHS = "/%:@!$&'()*+,;=~"  # ASCII characters of a path that are sent unchanged, besides letters and digits
_MOST_QUOTED = 200  # characters quoted of an unknown server's error
_NO_ROOM = "no_room"  # the code of an answer that the server can never write
_NO_CHAT = "chat_not_found"  # the code of a status 404; with others, the server is one of another version


class ServerError(PjlocalError):
    """The server did not write the answer, or only a part of it."""


class ServerGone(ServerError):
    """The connection to the server failed or was lost, or the server sends nothing."""


class KeyRefused(UsageError):
    """The server refuses this key."""


class ServerBusy(ServerError):
    """The server is full: it is writing answers, and its queue has no place left."""


class WarningLog:
    """Logs the warnings of started answers, each of them once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def __call__(self, started: Started) -> None:
        for warning in started.warnings:
            if warning not in self._logged:
                self._logged.add(warning)
                log.warning("%s", warning)


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_key(key: str, name: str) -> None:
    """Refuse an API key that no client can send in a header.

    Args:
        name: the option or the variable that holds the key.  The message names it, and does not show the key.

    Raises:
        UsageError: the key is not printable ASCII, or has spaces at its ends.
    """
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise UsageError(
            f"{name} must be printable ASCII without spaces or line ends around it: no client could send this key in a "
            "header"
        )


# Finding a resident server.


def find_server(model: Path, engine: Engine, interrupt: Interrupt) -> Server | None:
    """The resident server with this model; None if there is none, or with ``--verbose``, which shows
    llama.cpp's log here."""
    where = socket_path(model, engine)
    if where is None or engine.verbose or not is_private(where.parent) or not where.is_socket():
        return None
    return Server(where, interrupt)


def why_no_server(request: Request) -> str:
    """The reason why no server can write this answer; empty if one can.

    A server has one model and no adapters.  It does not read files: their names may mean other files there.
    """
    if request.generation.adapters():
        return "a server cannot use adapters"
    if request.generation.aligner:
        return "a server has only one model and cannot use --aligner"
    names_file = any(text.strip().startswith("@") for text in request.preferences)
    return "a server does not read files (@FILE)" if names_file else ""


def _spelled_out(request: Request) -> Request:
    """Replace the user's own presets by their texts, because another machine does not have them."""
    own = {name: text for name, text in presets().items() if name not in PRESETS}

    def spelled(spec: str) -> str:
        name, strength = split_strength(spec)
        text = own.get(fold(name.strip()))
        return spec if text is None else text if strength is None else f"{text}:{strength}"

    if not own:
        return request
    avoid = tuple(map(spelled, request.generation.avoid))
    return request.replace(views=[list(map(spelled, view)) for view in request.views], avoid=avoid)


# The server.


_MODEL_FACTS = {"name", "lasting_name", "context_limit", "description", "recommended", "placed"}


class Server:
    """A ``pjlocal serve``.

    Args:
        where: its URL, or the path of a resident server's socket.
        interrupt: ends every wait.

    Raises:
        UsageError: the URL is not an HTTP URL, or the key cannot be sent.
    """

    def __init__(self, where: str | Path, interrupt: Interrupt) -> None:
        self.interrupt = interrupt
        self.is_resident = isinstance(where, Path)
        self._socket = where if isinstance(where, Path) else None
        self._key = None if self.is_resident else os.environ.get(KEY_VARIABLE)
        self._host, self._port, self._is_secure, self._path = "localhost", 80, False, ""
        self.url = str(where)
        if not isinstance(where, Path):
            self._parse(where)

    def _parse(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")  # as `socket.create_connection` does
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise UsageError(f"--server must be a URL, as in http://localhost:8473 (not {url!r})")
        self._host, self._is_secure = host, parts.scheme == "https"
        self._port = port or (443 if self._is_secure else 80)
        path = parts.path.rstrip("/").removesuffix("/v1")
        self._path = quote(path, safe=_IN_PATHS, errors="surrogateescape")
        token = parse_qs(parts.query).get("token", [None])[0]  # from the address that the server prints
        self._key = token or self._key
        if self._key:
            check_key(self._key, "the token in --server" if token else KEY_VARIABLE)
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"

    @property
    def name(self) -> str:
        return "your server" if self.is_resident else f"the server at {self.url}"

    def check_can_write(self, request: Request) -> None:
        """Refuse a request that no server can write.

        Raises:
            ServerError: the server is resident, so the model can be loaded here instead.
            UsageError: the server is not resident.
        """
        if why := why_no_server(request):
            raise ServerError(why) if self.is_resident else UsageError(f"{why}: --no-server loads the model here")
        if self.is_resident and request.generation.schedule == "reference":  # possible with the model loaded here
            raise ServerError("a server supports only the schedule lockstep")

    def as_body(self, request: Request) -> dict[str, Any]:
        """The request as JSON for the server."""
        return (request if self.is_resident else _spelled_out(request)).as_dict()

    def answer(self, request: Request, **body: Any) -> RemoteAnswer:
        """Request an answer.  It is returned when the server has accepted it.

        Args:
            body: the rest of the body: ``messages`` or ``chat``.

        Raises:
            UsageError: the request is not valid.
            ServerError: the server does not write the answer.
            Interrupted: on request.
        """
        self.check_can_write(request)
        patience = _Patience(self._first_s, self.interrupt)
        response = self._open("POST", "/api/answers", patience, {"request": self.as_body(request), **body})
        number = response.headers.get("X-Pjlocal-Answer")
        if number is None:
            response.close()
            raise self.protocol_error()
        return RemoteAnswer(self, response, patience, number)

    def answer_when_free(self, request: Request, **body: Any) -> RemoteAnswer:
        """Request an answer, again and again while all places of the server are taken.

        Raises the errors of `answer`, except ServerBusy.
        """
        while not self.interrupt.is_set():
            try:
                return self.answer(request, **body)
            except ServerBusy:
                time.sleep(_BUSY_S)
        raise Interrupted

    def model(self) -> Any:
        """The facts about the model.  Raises the errors of `call`."""
        about = self.call("GET", "/api/model")
        if not isinstance(about, dict) or not about.keys() >= _MODEL_FACTS:
            raise self.protocol_error()
        return about

    def check(self, request: Request) -> None:
        """Refuse a request that the model cannot write.  Raises the errors of `call`."""
        data = self.call("POST", "/api/check", {"request": self.as_body(request)})
        if data:
            error = self.make_error(data)
            raise error if isinstance(error, UsageError | ServerError) else ServerError(str(error))

    def stop(self, number: str) -> None:
        """End an answer as interrupted.  Raises ServerError."""
        patience = _Patience(_STOPPING_S, None)
        self._open("POST", f"/api/answers/{quote(number, safe='')}/stop", patience, {}).close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call a route and return its JSON; None for an empty body.

        Raises:
            UsageError: the server refuses the request.
            ServerError: the server does not answer.
            Interrupted: on request.
        """
        with self._open(method, path, _Patience(self._first_s, self.interrupt), body) as response:
            try:
                text = response.read()
                return json.loads(text) if text else None
            except ValueError:
                raise self.protocol_error() from None
            except (OSError, HTTPException) as error:
                raise self.gone_error() from error

    def gone_error(self) -> ServerGone:
        return ServerGone(
            "the server has stopped" if self.is_resident else f"{self.name} does not answer: check that it is running"
        )

    def protocol_error(self, why: str = "") -> ServerError:
        """The error for a server that speaks another protocol."""
        return ServerError(f"{self.name} is not a pjlocal server of this version{why and f' ({why})'}")

    @property
    def _first_s(self) -> float:
        return _RESIDENT_S if self.is_resident else _SILENT_S

    def _open(self, method: str, path: str, patience: _Patience, body: Mapping[str, Any] | None = None) -> HTTPResponse:
        """Send a request, and return the response if it succeeds.  Raises the errors of `call`."""
        headers = {"Connection": "close", "User-Agent": f"pjlocal/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            try:
                data = json.dumps(body, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise UsageError("the text is not valid UTF-8") from None
        connection = HTTPConnection(self._host, self._port)
        try:
            connection.sock = self._connect(patience)
            connection.request(method, f"{self._path}{path}", data, headers)
            response = connection.getresponse()
            if connection.sock:
                connection.sock.close()  # closes the socket when the response is closed
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError | HTTPException):
                raise self._unreachable(error) from error
            raise
        if response.status >= 300:
            with response:
                raise self._refusal(response)
        return response

    def _unreachable(self, error: Exception) -> PjlocalError:
        if self.is_resident or isinstance(error, ConnectionResetError):
            return self.gone_error()
        if isinstance(error, HTTPException):
            return self.protocol_error()
        return ServerGone(f"cannot reach {self.name}: {getattr(error, 'strerror', None) or error}")

    def _connect(self, patience: _Patience) -> socket.socket:
        with patience.at_once():
            address = self._host, self._port
            raw = socket.socket(socket.AF_UNIX) if self._socket else socket.create_connection(address, patience.seconds)
            try:
                if self._socket:
                    raw.settimeout(patience.seconds)
                    raw.connect(str(self._socket))
                else:
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected = _secured(raw, self._host) if self._is_secure else _Plain(fileno=raw.detach())
            except BaseException:
                raw.close()
                raise
        connected.settimeout(_POLL_S)
        connected.patience = patience
        patience.restart()
        return connected

    def make_error(self, data: Mapping[str, Any]) -> PjlocalError:
        """The error that the server reports after the status was sent."""
        if data.get("code") == "stopping":
            return _stopped()
        if data.get("code") == _NO_ROOM and self.is_resident:
            return ServerError(data["error"])
        if data.get("status") == UsageError.exit_status:
            return UsageError(data["error"])
        if data.get("type") == "invalid_request_error":
            return RefusedError(data["error"])
        return PjlocalError(f"{self.name}: {data['error']}")

    def _refusal(self, response: HTTPResponse) -> PjlocalError:
        """The error in a response."""
        status = response.status
        if status == 401:
            problem = "refuses this key" if self._key else "needs its token or its key, which protect the saved chats"
            return KeyRefused(
                f"{self.name} {problem}: give the URL with the ?token= that it printed when it started (each start "
                f"prints a new one), or set {KEY_VARIABLE} to the key that it was started with"
            )
        try:
            error = json.loads(response.read(_MOST_ERROR))["error"]
            message, code = str(error["message"]), error.get("code")
        except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError):
            return self.protocol_error(f"status {status}")
        if status in (404, 405) and code != _NO_CHAT:  # all other routes exist in this version
            return self.protocol_error(f"status {status}: {message[:_MOST_QUOTED]}")
        if status == 429:
            return ServerBusy(f"{self.name} is busy: {message}")
        if status == 503:
            return ServerGone(f"{self.name}: {message}")
        if code == _NO_ROOM and self.is_resident:  # the model can be loaded here instead
            return ServerError(message)
        if status in (400, 404) or (status < 500 and not self.is_resident):
            return UsageError(message)
        return ServerError(f"{self.name}: {message}")


class _Patience:
    """The time limit for a server that sends nothing, and the effect of Ctrl-C during a wait.

    Args:
        seconds: silence after which the server counts as dead.
        interrupt: ends the wait; None if Ctrl-C has no effect.
    """

    def __init__(self, seconds: float, interrupt: Interrupt | None) -> None:
        self.seconds = seconds
        self._interrupt = interrupt
        #: Called at the first Ctrl-C to stop the server, instead of ending the wait.
        self.ask_to_stop: Callable[[], None] | None = None
        self._is_stopping = False
        self._last_activity = time.monotonic()

    def restart(self) -> None:
        """Restart the time limit, after data was received or sent."""
        self._last_activity = time.monotonic()

    def check_interrupt(self) -> None:
        """Handle Ctrl-C: ask the server to stop.  Raises Interrupted if it cannot be asked, or sends nothing then."""
        if not (self._interrupt and self._interrupt.is_set()):
            return
        if self._is_stopping and time.monotonic() - self._last_activity <= _STOPPING_S:
            return
        if self._is_stopping or self.ask_to_stop is None:
            raise Interrupted
        self._is_stopping = True
        with suppress(PjlocalError):  # the answer has just ended, or the server is gone
            self.ask_to_stop()
        self.restart()

    def check_silence(self) -> None:
        """Raise TimeoutError if the silence exceeds the time limit."""
        if time.monotonic() - self._last_activity > self.seconds:
            raise TimeoutError("the server sends nothing")

    @property
    def was_interrupted(self) -> bool:
        return self._is_stopping or (self._interrupt is not None and self._interrupt.is_set())

    def at_once(self) -> AbstractContextManager[None]:
        """A context in which Ctrl-C raises Interrupted."""
        return self._interrupt.at_once() if self._interrupt else nullcontext()


class _Plain(socket.socket):
    """A socket that checks its `patience` while it waits."""

    patience: _Patience

    def recv_into(self, *args: Any) -> int:
        return self._waited(lambda: super(_Plain, self).recv_into(*args))

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data).cast("B")
        while left:
            left = left[self._waited(lambda left=left: self.send(left)) :]  # type: ignore[misc]

    def _waited(self, transfer: Callable[[], int]) -> int:
        """Wait until a transfer succeeds, and return its number of bytes."""
        while True:
            self.patience.check_interrupt()
            try:
                n_bytes = transfer()
            except TimeoutError:
                self.patience.check_silence()
            else:
                self.patience.restart()
                return n_bytes


def _secured(plain: socket.socket, host: str) -> Any:
    """The socket wrapped in TLS."""
    import ssl

    class Secured(_Plain, ssl.SSLSocket):
        pass

    context = ssl.create_default_context()
    context.sslsocket_class = Secured
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLError as error:
        if error.reason == "WRONG_VERSION_NUMBER":
            error.strerror = "it answers without encryption, so give http:// instead of https://"
        raise


# An answer.


_STARTED_FIELDS = frozenset(f.name for f in fields(Started))


class RemoteAnswer:
    """An answer that a server writes.  Iterate over its token events, then read `result`, as with an `Answer`.

    `started` is set before the first event.
    """

    def __init__(self, server: Server, response: HTTPResponse, patience: _Patience, number: str) -> None:
        self.server = server
        self._response = response
        self._patience = patience
        patience.seconds = _SILENT_S
        patience.ask_to_stop = lambda: server.stop(number)
        self.started: Started | None = None
        #: Called when the answer starts.
        self.on_started: Callable[[Started], None] = lambda started: None
        #: Called with a text about the work before the first event.
        self.on_progress: Callable[[str], object] = lambda text: None
        #: The mode until the answer has started.
        self.expected: Mode = DEFAULT_MODE
        self.statistics = Statistics()
        self.finish_reason: FinishReason | None = None
        #: Alternatives to the answer's only token, if the request has them.
        self.alternatives: list[Alternative] = []
        self._result: Result | None = None
        self._emitted: list[TokenEvent] = []
        self._events = self._run()
        self._ahead: list[TokenEvent] = []  # events read by `wait`

    def wait(self) -> None:
        """Wait for the first token.  Raises the errors of iterating."""
        self._ahead += islice(self._events, 1)

    def close(self) -> None:
        """End the answer."""
        self._events.close()
        self._response.close()

    @property
    def mode(self) -> Mode:
        return self.started.mode if self.started else self.expected

    @property
    def labels(self) -> Mapping[str, list[str]]:
        return self.started.labels if self.started else {}

    @property
    def pushing(self) -> Sequence[str]:
        return self.started.pushing if self.started else ()

    @property
    def seed(self) -> int | None:
        return self.started.seed if self.started else None

    @property
    def drafted(self) -> list[TokenEvent]:
        """The token events of the first answer in mode rewrite."""
        return list(self.started.drafted) if self.started else []

    @property
    def result(self) -> Result:
        """The answer so far; the whole answer once the events are exhausted."""
        if self._result:
            return self._result
        thinking, text = split(self._emitted)
        started = self.started or Started(self.mode)
        return Result(
            text=text,
            model=started.model,
            mode=self.mode,
            preferences=dict(started.preferences),
            lam=started.request.get("generation", {}).get("lam", 0),
            seed=started.seed or 0,
            finish_reason="interrupted",
            statistics=self.statistics,
            strengths=dict(started.strengths),
            layout=started.layout,
            thinking=thinking,
        )

    def __iter__(self) -> Iterator[TokenEvent]:
        """The token events, as they arrive.

        Raises:
            ServerError: the connection was lost.
            UsageError: the prompt does not fit, or a setting cannot be used.
            PjlocalError: the server failed.
        """
        ahead, self._ahead = self._ahead, []
        return chain(ahead, self._events)

    def _run(self) -> Generator[TokenEvent]:
        try:
            for data in self._messages():
                if "head" in data:
                    self._start(data["head"])
                if "event" in data:
                    self.statistics = Statistics(**data["statistics"])
                    event = TokenEvent.from_dict(data["event"])
                    self.alternatives = [Alternative(**each) for each in data.get("alternatives", ())]
                    self._emitted.append(event)
                    yield event
                if "error" in data:
                    raise self.server.make_error(data)
                if "result" in data:
                    self._end(Result.from_whole(data["result"]))
                    return
            raise _broken_off()
        except Interrupted:
            self.finish_reason = "interrupted"
        except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _broken_off() from error
        finally:
            self._response.close()

    def _messages(self) -> Iterator[dict[str, Any]]:
        while line := self._response.readline():
            if line.startswith(b"data:"):
                yield json.loads(line[5:])
            elif line.startswith(b": Writing "):  # several answers, of which one is chosen
                self.on_progress(line[2:].decode().strip())

    def _start(self, head: Mapping[str, Any]) -> None:
        known = {name: value for name, value in head.items() if name in _STARTED_FIELDS}
        self.started = Started(**known | {"drafted": list(map(TokenEvent.from_dict, head.get("drafted", ())))})
        self.on_started(self.started)

    def _end(self, result: Result) -> None:
        if result.finish_reason == "interrupted" and not self._patience.was_interrupted:
            raise _stopped()
        self._result = result
        self.statistics, self.finish_reason = result.statistics, result.finish_reason


def as_finished(work: Callable[[_T], _R], items: Iterable[_T], parallel: int) -> Generator[_R]:
    """Work on items in ``parallel`` threads, as for answers of a server, and yield each result when it is finished.

    If one fails, the work in progress is finished and yielded too, and then the error is raised.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed  # a single answer needs none

    with ThreadPoolExecutor(parallel) as pool:
        waiting = {pool.submit(work, item) for item in items}
        try:
            for done in as_completed([*waiting]):
                waiting.remove(done)
                yield done.result()
        except GeneratorExit:  # nobody takes the results
            raise
        except BaseException:
            pool.shutdown(cancel_futures=True)
            yield from (done.result() for done in waiting if not done.cancelled() and not done.exception())
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _stopped() -> ServerGone:
    return ServerGone("the server was stopped during the answer: try again")


def _broken_off() -> ServerGone:
    return ServerGone("the server stopped responding during the answer: try again, or with --no-server")
