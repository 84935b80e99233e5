"""The routes: each takes a request apart, orders answers, and sends what is told of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..engine.interrupt import Interrupted
from .guard import Guard, NotFound, TooLarge, TooSlow, described, error_body
from .metrics import Metrics
from .protocol import Body, Chat, Completion, Wrong, parse
from .replies import Choice, Reply
from .wish import Names, Wish
from .worker import Done, Order, Told, Worker

MOST_BODY = 4 << 20  # bytes
_PATIENCE_S = 30  # for a body to come


def create_app(
    worker: Worker,
    names: Names,
    wish: Wish,
    metrics: Metrics,
    n_ctx: int,
    *,
    key: str | None = None,
    local: bool = True,
    origins: Sequence[str] = (),
) -> Starlette:
    """The application.

    Args:
        wish: what answers are written under where a request does not say.
        n_ctx: the most tokens that a request may want.
        key, local, origins: see `Guard`.
    """
    middleware = [Middleware(Guard, key=key, local=local, origins=origins, metrics=metrics)]
    if origins:
        cors = Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], max_age=600
        )
        middleware.insert(0, cors)
    return Starlette(
        routes=routes(worker, names, wish, metrics, n_ctx),
        middleware=middleware,
        exception_handlers={HTTPException: _no_route},
    )


def routes(worker: Worker, names: Names, wish: Wish, metrics: Metrics, n_ctx: int) -> list[Route]:
    """What can be asked."""
    started = int(time.time())

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"}) if worker.alive else JSONResponse({"status": "stopping"}, 503)

    async def measured(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(name, started) for name in names.all()]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if names.find(name) is None:
            raise NotFound(f"no model {name!r}: {names.nearest(name)}")
        return JSONResponse(_model(name, started))

    async def chat(request: Request) -> Response:
        return _answering(parse(Chat, await _read(request)))

    async def completion(request: Request) -> Response:
        return _answering(parse(Completion, await _read(request)))

    def _answering(body: Body) -> Response:
        worn = names.find(body.model)
        if worn is None:
            raise NotFound(f"no model {body.model!r}: {names.nearest(str(body.model))}")
        system, said = body.said()
        own = body.config()
        if own.generation.get("max_tokens", 0) > n_ctx:
            raise Wrong(f"max_tokens must be at most {n_ctx}, for which the context has room", "max_tokens")
        wanted = wish.under(worn).under(own).behind(system)
        reply = Reply(body.model or names.model, isinstance(body, Chat), body.top is not None, body.with_events)
        answers = Answers(worker, [_seeded(wanted, number) for number in range(body.n or 1)], said, body.top)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            return Answering(answers, partial(_streamed, answers, reply, with_usage))
        return Answering(answers, partial(_whole, answers, reply))

    return [
        Route("/health", health),
        Route("/metrics", measured),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completion, methods=["POST"]),
    ]


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "pjlocal"}


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(error_body(said, "invalid_request_error"), error.status_code, error.headers)


async def _read(request: Request) -> bytes:
    """The body.

    Raises:
        TooLarge, TooSlow: it is, or does not come.
    """
    try:
        return await asyncio.wait_for(_read_all(request), _PATIENCE_S)
    except asyncio.TimeoutError:
        raise TooSlow(f"the body did not come within {_PATIENCE_S} seconds") from None


async def _read_all(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise TooLarge(f"the body has more than {MOST_BODY:,} bytes")
    return bytes(body)


def _seeded(wish: Wish, number: int) -> Wish:
    """The wish of one of several answers: where there is a seed, each has its own, counted on from that."""
    seed = wish.generation.seed
    if seed is None or not number:
        return wish
    return wish.seeded(seed + number)


class Answers:
    """The answers that one request wants."""

    def __init__(self, worker: Worker, wishes: Sequence[Wish], said: Any, top: int | None) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, Told]] = asyncio.Queue()
        self._orders = [Order(wish, said, top, partial(self._tell, index)) for index, wish in enumerate(wishes)]
        self.choices = [Choice() for _ in wishes]

    def _tell(self, index: int, told: Told) -> None:
        try:
            self._loop.call_soon_threadsafe(self._told.put_nowait, (index, told))
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    async def told(self) -> AsyncIterator[tuple[int, Told]]:
        """What is told of each, by its number, until all are done.

        Raises:
            Exception: what the worker could not do.
        """
        self._worker.submit(self._orders)
        while not all(choice.done for choice in self.choices):
            index, told = await self._told.get()
            if isinstance(told, Exception):
                raise told
            if isinstance(told, Done):
                if told.result.finish_reason == "interrupted":
                    raise Interrupted
                self.choices[index].done = told
            else:
                self.choices[index].tokens += told
            yield index, told

    def leave(self) -> None:
        """What is not written by now is not wanted."""
        self._worker.cancel(self._orders)


class Answering(Response):
    """The response to a request; no longer made, and its answers no longer written, when the client hangs up."""

    def __init__(self, answers: Answers, make: Callable[[], Awaitable[Response]]) -> None:
        super().__init__()
        self._answers = answers
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            response = await self._make()
            await response(scope, _never, send)

        responding = asyncio.ensure_future(respond())
        hung_up = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait({responding, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not responding.done():
                raise ClientDisconnect
            responding.result()
        finally:
            self._answers.leave()
            for task in (responding, hung_up):
                task.cancel()
            await asyncio.gather(responding, hung_up, return_exceptions=True)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _never() -> Any:
    """What a response is told that need not look whether the client is there: somebody else does."""
    await asyncio.Event().wait()


async def _whole(answers: Answers, reply: Reply) -> Response:
    async for _ in answers.told():
        pass
    return JSONResponse(reply.whole(answers.choices))


async def _streamed(answers: Answers, reply: Reply, with_usage: bool) -> Response:
    """A stream of events, once the first token is there: what goes wrong before that has a status of its own."""
    told = answers.told()
    first = await anext(told)
    chunks = _chunks(answers, first, told, reply, with_usage)
    return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _chunks(
    answers: Answers,
    first: tuple[int, Told],
    told: AsyncIterator[tuple[int, Told]],
    reply: Reply,
    with_usage: bool,
) -> AsyncIterator[bytes]:
    try:
        if reply.chat:
            for index, _ in enumerate(answers.choices):
                yield _event(reply.begin(index))
        yield _event(_chunk(reply, *first))
        async for item in told:
            yield _event(_chunk(reply, *item))
        if with_usage:
            yield _event(reply.usage(answers.choices))
        yield b"data: [DONE]\n\n"
    except Exception as error:  # in the middle of the stream it has no status any more
        yield _event(described(error)[1])


def _chunk(reply: Reply, index: int, told: Told) -> dict[str, Any]:
    if isinstance(told, Done):
        return reply.end(index, told.result)
    assert not isinstance(told, Exception)
    return reply.chunk(index, told)


def _event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
