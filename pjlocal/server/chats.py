"""The routes of the saved chats, which the page shares with ``pjlocal chat``: list, open, export, change, delete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import UsageError
from ..sessions.cache import remove_session
from ..sessions.export import FORMATS
from ..sessions.faults import RemovedError
from ..sessions.finding import check_title
from ..sessions.recorder import Recorder
from ..sessions.session import Session, Turn
from ..sessions.store import Store
from .auth import GoneOn, NoChat, NotFound
from .bodies import Exact, Object, Whole, Wrong, parse_request, validated
from .streaming import read_body

_NO_CHAT = "no saved chat has this number"
_MOST_QUERY = 1000  # characters
_MOST_DIGITS = len(str(2**63))
_TYPES = {"md": "text/markdown", "json": "application/json", "html": "text/html"}

_T = TypeVar("_T")


class _Change(Exact):
    """A change of a saved chat."""

    title: str | None = None
    settings: Object | None = None


class _OfTurn(Exact):
    turn: Whole


class _Switch(Exact):
    """Another draft of the last turn."""

    turn: Whole
    draft: Whole


class _Edit(Exact):
    """A changed answer of the last turn."""

    turn: Whole
    answer: Annotated[str, Field(min_length=1)]


def chat_routes() -> list[Route]:
    """The routes of `/api/chats`."""

    async def chats(request: Request) -> Response:
        query = request.query_params.get("q", "")
        if len(query) > _MOST_QUERY:
            raise Wrong(f"a search must have at most {_MOST_QUERY} characters (not {len(query):,})", "q")
        if query.strip():
            return as_json({"hits": [asdict(hit) for hit in await _stored(lambda store: store.search(query))]})
        return as_json({"chats": [asdict(summary) for summary in await _stored(Store.summaries)]})

    async def chat(request: Request) -> Response:
        with_undone = request.query_params.get("undone") == "true"
        return as_json(_described(await open_chat(number_of(request, "id"), with_undone=with_undone)))

    async def change(request: Request) -> Response:
        number = number_of(request, "id")
        changes = validated(_Change, await read_body(request))
        if changes.settings is not None:
            parse_request(changes.settings)  # so that all can go on with it
            session = Session(settings=changes.settings, id=number)
            await _changed(number, lambda store: store.save_settings(session))
        if changes.title is None:
            if changes.settings is None:
                raise Wrong("title is missing", "title")
            return as_json({"settings": changes.settings})
        check_title(changes.title)
        title = " ".join(changes.title.split())
        await _changed(number, lambda store: store.rename(number, title))
        return as_json({"title": title})

    async def remove(request: Request) -> Response:
        number = number_of(request, "id")
        await _changed(number, partial(remove_session, session_id=number))
        return Response(status_code=204)

    async def export(request: Request) -> Response:
        form = request.path_params["form"]
        if form not in FORMATS:
            raise NotFound(f"unknown format {form!r}: use {', '.join(FORMATS)}")
        session = await open_chat(number_of(request, "id"))
        headers = {"Content-Disposition": f'attachment; filename="chat-{session.id}.{form}"'}
        text = FORMATS[form](session, request.query_params.get("drafts") == "true")
        return Response(text, media_type=_TYPES[form], headers=headers)

    async def undo(request: Request) -> Response:
        number = number_of(request, "id")
        turn = validated(_OfTurn, await read_body(request)).turn
        await _last_turn(number, turn, "undone")
        await _changed(number, lambda store: store.set_undone(turn))
        return Response(status_code=204)

    async def edit(request: Request) -> Response:
        number = number_of(request, "id")
        body = validated(_Edit, await read_body(request))
        before = await _last_turn(number, body.turn, "edited")
        edited = before.edited(body.answer)
        edited.join(before)
        edited.put_in_force()

        def replace(store: Store) -> None:
            store.put_in_force(store.add_turn(number, edited))

        await _changed(number, replace)
        return as_json(_turn(edited))

    async def switch(request: Request) -> Response:
        number = number_of(request, "id")
        body = validated(_Switch, await read_body(request))
        last = await _last_turn(number, body.turn, "switched")
        draft = next((draft for draft in last.drafts if draft.id == body.draft), None)
        if draft is None:
            raise Wrong("the last turn has no such draft: load the chat again", "draft")
        draft.put_in_force()
        await _changed(number, lambda store: store.put_in_force(body.draft))
        return as_json(_turn(draft))

    async def fork(request: Request) -> Response:
        number = number_of(request, "id")
        turn = validated(_OfTurn, await read_body(request)).turn
        session = await open_chat(number)
        n_turns = find_turn(session, turn) + 1
        forks: list[Session] = []
        await _changed(number, lambda store: forks.append(Recorder(store, session, None).fork(n_turns)))
        return as_json(_described(forks[0]))

    return [
        Route("/api/chats", chats),
        Route("/api/chats/{id}", chat),
        Route("/api/chats/{id}", change, methods=["PATCH"]),
        Route("/api/chats/{id}", remove, methods=["DELETE"]),
        Route("/api/chats/{id}/export.{form}", export),
        Route("/api/chats/{id}/undo", undo, methods=["POST"]),
        Route("/api/chats/{id}/edit", edit, methods=["POST"]),
        Route("/api/chats/{id}/draft", switch, methods=["POST"]),
        Route("/api/chats/{id}/fork", fork, methods=["POST"]),
    ]


def number_of(request: Request, name: str) -> int:
    """The number in the path, or 0, which no chat or turn has, if it is not a number.

    Starlette's convertor for numbers fails above 4,300 digits, which Python does not parse.
    """
    text: str = request.path_params[name]
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def find_turn(session: Session, turn_id: int) -> int:
    """The place of a turn in its chat, from 0.

    Raises:
        GoneOn: the chat has no such turn.
    """
    for place, turn in enumerate(session.turns):
        if turn.id == turn_id:
            return place
    raise GoneOn("the chat has no such turn: load the chat again")


async def _last_turn(number: int, turn_id: int, done: str) -> Turn:
    """The last turn of a chat, which must be ``turn_id``.

    Raises:
        GoneOn: the chat has a newer turn.
    """
    session = await open_chat(number)
    if not session.turns or session.turns[-1].id != turn_id:
        raise GoneOn(f"only the last turn can be {done}, and the chat has a newer one: load the chat again")
    return session.turns[-1]


async def _stored(read: Callable[[Store], _T]) -> _T:
    """Read from the database in a thread."""

    def reading() -> _T:
        with Store(reading=True) as store:
            return read(store)

    return await asyncio.to_thread(reading)


async def _changed(number: int, change: Callable[[Store], None]) -> None:
    """Change a chat in the database in a thread.

    Raises:
        StoreError: the change cannot be saved.
        NoChat: the chat does not exist.
    """

    def changing() -> None:
        with Store() as store:
            change(store)

    _check_number(number)
    try:
        await asyncio.to_thread(changing)
    except RemovedError:
        raise NoChat(_NO_CHAT) from None


async def open_chat(number: int, *, with_undone: bool = False) -> Session:
    """Load a chat, optionally with its undone turns.

    Raises:
        NoChat: the chat does not exist.
    """
    _check_number(number)
    try:
        return await _stored(lambda store: store.load(number, with_undone))
    except UsageError:
        raise NoChat(_NO_CHAT) from None


def _check_number(number: int) -> None:
    """Raises NoChat: the database can have no such number."""
    if not 0 < number < 2**63:
        raise NoChat(_NO_CHAT)


def _described(session: Session) -> dict[str, Any]:
    """A chat as JSON for the page."""
    return {
        "id": session.id,
        "title": session.title,
        "created": session.created,
        "updated": session.updated,
        "settings": session.settings,
        "turns": [*map(_turn, session.turns)],
    }


def _turn(turn: Turn) -> dict[str, Any]:
    """A turn as the page reads it, with its drafts in their order; of itself among them the number alone."""
    drafts = [{"id": turn.id} if draft is turn else _answered(draft) for draft in turn.drafts]
    return _answered(turn) | {"drafts": drafts if len(drafts) > 1 else []}


def _answered(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.id,
        "question": turn.question,
        "created": turn.created,
        "undone": turn.undone,
        "finish_reason": turn.finish_reason,
        "settings": turn.settings,
        "statistics": turn.statistics,
        "events": [event.as_dict() | {"writer": event.writer} for event in turn.events],
    }


def as_json(data: Any) -> Response:
    """A JSON response in ASCII, because settings may contain halves of surrogate pairs."""
    return Response(json.dumps(data), media_type="application/json", headers={"Cache-Control": "no-store"})
