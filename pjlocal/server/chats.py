"""The routes of the saved chats, which the page shares with ``pjlocal chat``: list, open, export, change, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..attachments import split_attachments, with_attachments
from ..errors import UsageError
from ..prompting.preferences import resolve
from ..request import GROUPS
from ..request import Request as AnswerRequest
from ..sessions.cache import remove_session
from ..sessions.export import FORMATS
from ..sessions.faults import RemovedError
from ..sessions.finding import parse_title
from ..sessions.importing import parse_export
from ..sessions.recorder import Recorder
from ..sessions.session import Session, Turn, in_two_views
from ..sessions.store import Store
from ..settings import REMOVED, advise
from .bodies import Exact, Whole, Wrong, parse_request, validated
from .replies import JsonResponse
from .streaming import as_events, read_body

_MOST_QUERY = 1000  # characters
_MOST_EXPORT = 1 << 28  # bytes of a chat to import
_MOST_DIGITS = 18  # of a number in a path; the database has no numbers from 2**63
_TYPES = {"md": "text/markdown", "json": "application/json", "html": "text/html"}

_T = TypeVar("_T")
_no_chat = partial(Wrong, "no saved chat has this number", status=404, code="chat_not_found")
#: The error for a client that does not know the newest turns of a chat.
chat_changed = partial(Wrong, code="chat_gone_on")


class _Views(Exact):
    a: list[str] = Field(default=[])
    b: list[str] = Field(default=[])


class _Settings(Exact):
    """The settings of a chat: those of `Request.as_dict`, and the model."""

    model: str = ""
    preferences: _Views = _Views()
    generation: dict[str, Any] = Field(default={})
    sampling: dict[str, Any] = Field(default={})
    prompting: dict[str, Any] = Field(default={})
    explicit: list[str] = Field(default=[])


class _Change(Exact):
    """A change of a saved chat."""

    title: str | None = None
    settings: _Settings | None = None


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
            return JsonResponse({"hits": [asdict(hit) for hit in await _stored(lambda store: store.search(query))]})
        return JsonResponse({"chats": [asdict(summary) for summary in await _stored(Store.summaries)]})

    async def add(request: Request) -> Response:
        text = (await read_body(request, _MOST_EXPORT)).decode("utf-8", "replace")
        return JsonResponse({"id": await asyncio.to_thread(_added, text)})

    async def saved_chat(request: Request) -> Response:
        with_undone = request.query_params.get("undone") == "true"
        return JsonResponse(_described(await open_chat(number_of(request, "id"), with_undone=with_undone)))

    async def change(request: Request) -> Response:
        number = number_of(request, "id")
        changes = validated(_Change, await read_body(request))
        if changes.title is None and changes.settings is None:
            raise Wrong("title is missing", "title")
        title = None if changes.title is None else parse_title(changes.title)
        settings = None if changes.settings is None else changes.settings.model_dump(exclude_unset=True)
        if settings is not None:
            _check_settings(settings)
            session = Session(settings=settings, id=number)
            await _changed(number, lambda store: store.save_settings(session))
        if title is None:
            return JsonResponse({"settings": settings})
        await _changed(number, lambda store: store.rename(number, title))
        return JsonResponse({"title": title})

    async def remove(request: Request) -> Response:
        number = number_of(request, "id")
        await _changed(number, partial(remove_session, session_id=number))
        return Response(status_code=204)

    async def export(request: Request) -> Response:
        form = request.path_params["form"]
        if form not in FORMATS:
            raise Wrong(f"unknown format {form!r}: use {', '.join(FORMATS)}", status=404)
        session = await open_chat(number_of(request, "id"))
        headers = {"Content-Disposition": f'attachment; filename="chat-{session.id}.{form}"'}
        text = FORMATS[form](session, request.query_params.get("drafts") == "true")
        return Response(text, media_type=_TYPES[form], headers=headers)

    async def undo(request: Request) -> Response:
        number = number_of(request, "id")
        turn = validated(_OfTurn, await read_body(request)).turn
        session = await _ending_with(number, turn, "undone")
        await _recorded(session, lambda recorder: recorder.undo(session.turns[-1]))
        return Response(status_code=204)

    async def edit(request: Request) -> Response:
        number = number_of(request, "id")
        body = validated(_Edit, await read_body(request))
        session = await _ending_with(number, body.turn, "edited")
        before = session.turns[-1]
        if body.answer == before.answer:
            return JsonResponse(_turn(before))
        edited = before.edited(body.answer)
        await _recorded(session, lambda recorder: recorder.replace(edited, before))
        return JsonResponse(_turn(edited))

    async def switch(request: Request) -> Response:
        number = number_of(request, "id")
        body = validated(_Switch, await read_body(request))
        session = await _ending_with(number, body.turn, "switched")
        draft = next((draft for draft in session.turns[-1].drafts if draft.id == body.draft), None)
        if draft is None:
            raise Wrong("the last turn has no such draft: load the chat again", "draft")
        await _recorded(session, lambda recorder: recorder.switch(draft))
        return JsonResponse(_turn(draft))

    async def fork(request: Request) -> Response:
        number = number_of(request, "id")
        turn = validated(_OfTurn, await read_body(request)).turn
        session = await open_chat(number)
        n_turns = find_turn(session, turn) + 1
        fork = session.fork(n_turns)
        await _changed(number, lambda store: store.add_whole(fork))
        return JsonResponse(_described(fork))

    async def one_turn(request: Request) -> Response:
        session = await open_chat(number_of(request, "id"))
        return JsonResponse(_turn(session.turns[find_turn(session, number_of(request, "turn"))]))

    return [
        Route("/api/chats", chats),
        Route("/api/chats", add, methods=["POST"]),
        Route("/api/chats/{id}", saved_chat),
        Route("/api/chats/{id}", change, methods=["PATCH"]),
        Route("/api/chats/{id}", remove, methods=["DELETE"]),
        Route("/api/chats/{id}/export.{form}", export),
        Route("/api/chats/{id}/undo", undo, methods=["POST"]),
        Route("/api/chats/{id}/edit", edit, methods=["POST"]),
        Route("/api/chats/{id}/draft", switch, methods=["POST"]),
        Route("/api/chats/{id}/fork", fork, methods=["POST"]),
        Route("/api/chats/{id}/turns/{turn}", one_turn),
    ]


def number_of(request: Request, name: str) -> int:
    """The number in the path; 0, which no chat or turn has, if the path has no number.

    Starlette's convertor for numbers fails above 4,300 digits, which Python does not parse.
    """
    text: str = request.path_params[name]
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def find_turn(session: Session, turn_id: int) -> int:
    """The place of a turn in its chat, from 0.

    Raises:
        Wrong: the chat has no such turn.
    """
    for place, turn in enumerate(session.turns):
        if turn.id == turn_id:
            return place
    raise chat_changed("the chat has no such turn: load the chat again")


async def _ending_with(number: int, turn_id: int, done: str) -> Session:
    """The chat, whose last turn must be ``turn_id``.

    Raises:
        Wrong: the chat has a newer turn.
    """
    session = await open_chat(number)
    if not session.turns or session.turns[-1].id != turn_id:
        raise chat_changed(f"only the last turn can be {done}, and the chat has a newer one: load the chat again")
    return session


async def _stored(read: Callable[[Store], _T]) -> _T:
    """Read from the database in a thread."""

    def reading() -> _T:
        with Store(reading=True) as store:
            return read(store)

    return await asyncio.to_thread(reading)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a chat that the terminal cannot use or would ignore.  Raises UsageError."""
    request = parse_request(settings)
    for table, group in GROUPS.items():
        known = [f.name for f in fields(group)]
        for name in settings.get(table, {}):
            if name not in known and name not in REMOVED:
                hint = advise(name, known) or f"known are {', '.join(known)}"
                raise UsageError(f"unknown setting {name!r} in {table}: {hint}")
    for preference in request.preferences:
        resolve(preference)


def _added(text: str) -> int:
    """Add a chat that was exported as JSON, and return its number."""
    session = parse_export(text, "the body")
    parse_request(session.settings)  # as of a change: a server reads no files that a client names
    for number, turn in enumerate(session.turns, 1):
        for draft in turn.drafts:
            try:
                parse_request(in_two_views(draft.settings), is_answered=True)
            except UsageError as error:
                raise UsageError(f"the settings of turn {number}: {error}") from None
    with Store() as store:
        return store.add_whole(session)


async def _recorded(session: Session, change: Callable[[Recorder], _T]) -> _T:
    """Change a loaded chat as the terminal does.  Raises the errors of `_changed`."""
    assert session.id is not None
    return await _changed(session.id, lambda store: change(Recorder(store, session, None)))


async def _changed(number: int, change: Callable[[Store], _T]) -> _T:
    """Change a chat in the database in a thread.

    Raises:
        StoreError: the change cannot be saved.
        Wrong: the chat does not exist.
    """

    def changing() -> _T:
        with Store() as store:
            return change(store)

    try:
        return await asyncio.to_thread(changing)
    except RemovedError:
        raise _no_chat() from None


async def open_chat(number: int, *, with_undone: bool = False) -> Session:
    """Load a chat, optionally with its undone turns.

    Raises:
        Wrong: the chat does not exist.
    """
    try:
        return await _stored(lambda store: store.load(number, with_undone))
    except (UsageError, OverflowError):
        raise _no_chat() from None


def _described(session: Session) -> dict[str, Any]:
    """A chat as JSON for the page."""
    return {
        "id": session.id,
        "title": session.title,
        "created": session.created,
        "updated": session.updated,
        "settings": session.settings,
        "notice": session.notice,
        "turns": [*map(_turn, session.turns)],
    }


def _turn(turn: Turn) -> dict[str, Any]:
    """A turn as the page reads it, with all its drafts in order; the turn itself is listed among them by its id
    alone."""
    drafts = [{"id": turn.id} if draft is turn else _answered(draft) for draft in turn.drafts]
    return _answered(turn) | {"drafts": drafts if len(drafts) > 1 else []}


def question_as_dict(question: str) -> dict[str, Any]:
    """A question with its files: ``head`` is the text that a file adds before it, ``words`` is the question
    itself."""
    attachments, words = split_attachments(question)
    files = [{"name": attachment.name, "head": with_attachments([attachment], "")} for attachment in attachments]
    return {"question": question, "words": words, "files": files}


def _answered(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.id,
        **question_as_dict(turn.question),
        "created": turn.created,
        "undone": turn.undone,
        "finish_reason": turn.finish_reason,
        "settings": turn.settings,
        "statistics": turn.statistics,
        "events": as_events(turn.events),
    }


def chat_defaults(defaults: AnswerRequest, session: Session) -> AnswerRequest:
    """The settings of a chat without mode and strength.

    The page sends these two with every question.  If it sends none, they follow from the preferences.
    """
    return defaults.restore(session.settings).with_model_defaults({}).replace(mode=None, strength=None)
