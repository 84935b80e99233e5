"""The saved chats, which the page shares with ``pjlocal chat``: listed, opened, exported, named, deleted, and gone on
with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from random import SystemRandom
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import UsageError
from ..request import Request as AnswerRequest
from ..sessions.asking import as_messages
from ..sessions.cache import remove_session
from ..sessions.export import FORMATS
from ..sessions.session import Session, Turn, title_of
from ..sessions.store import RemovedError, Store, check_title
from .answering import Answering, Answers, as_stream, chunks, read_body, streamed
from .guard import GoneOn, NoChat, NotFound
from .names import Names
from .protocol import Naming, Question, parse, validated
from .recording import Recording, SavedAs
from .replies import Reply
from .unsupported import Wrong
from .worker import Worker

_NO_CHAT = "there is no saved chat of this number"
_MOST_QUERY = 1000  # characters
_MOST_DIGITS = len(str(2**63))
_TYPES = {"md": "text/markdown", "json": "application/json", "html": "text/html"}

_T = TypeVar("_T")


def chat_routes(worker: Worker, names: Names, defaults: AnswerRequest, n_ctx: int, saved_as: SavedAs) -> list[Route]:
    """What the page can ask of the chats."""
    begun: set[Recording] = set()  # turns that were accepted and are not at their end
    accepting = asyncio.Lock()  # held from the check of a chat's last turn until the new turn is in `begun`

    async def chats(request: Request) -> Response:
        query = request.query_params.get("q", "")
        if len(query) > _MOST_QUERY:
            raise Wrong(f"a search has at most {_MOST_QUERY} characters, and this has {len(query):,}", "q")
        if query.strip():
            return as_json({"hits": [asdict(hit) for hit in await _stored(lambda store: store.search(query))]})
        return as_json({"chats": [asdict(summary) for summary in await _stored(Store.summaries)]})

    async def chat(request: Request) -> Response:
        return as_json(_described(await _opened(_number(request, "id"))))

    async def rename(request: Request) -> Response:
        number = _number(request, "id")
        title = validated(Naming, await read_body(request)).title
        check_title(title)
        title = " ".join(title.split())
        await _changed(number, lambda store: store.rename(number, title))
        return as_json({"title": title})

    async def remove(request: Request) -> Response:
        number = _number(request, "id")
        await _changed(number, partial(remove_session, session_id=number))
        return Response(status_code=204)

    async def export(request: Request) -> Response:
        form = request.path_params["form"]
        if form not in FORMATS:
            raise NotFound(f"no format {form!r}: there are {', '.join(FORMATS)}")
        session = await _opened(_number(request, "id"))
        headers = {"Content-Disposition": f'attachment; filename="chat-{session.id}.{form}"'}
        return Response(FORMATS[form](session), media_type=_TYPES[form], headers=headers)

    async def ask(request: Request) -> Response:
        asked = parse(Question, await read_body(request))
        async with accepting:
            _check_rests(asked, begun)
            session = Session() if asked.session is None else await _opened(asked.session)
            replaced = _found(session, asked)
            before = [turn for turn in session.turns if turn is not replaced]
            wanted = _gone_on(defaults, session).override(asked.config(n_ctx))
            seed = _seed(wanted, replaced, asked.keep)
            messages = as_messages(before, asked.question)
            answers = Answers(worker, [wanted.replace(seed=seed)], messages, None, shortens=True)
            reply = Reply(names.model, chat=True, with_logprobs=False, with_events=True)
            if not asked.keep:
                return Answering(answers, partial(streamed, answers, reply, with_usage=False))
            session.title = session.title or title_of(asked.question)
            recording = Recording(answers, session, Turn(asked.question), wanted, seed, saved_as, replaced)
            begun.add(recording)

        async def end() -> None:
            try:
                await recording.end()
            finally:
                begun.discard(recording)

        return Answering(answers, partial(_recorded, recording, reply), end)

    async def _recorded(recording: Recording, reply: Reply) -> Response:
        told = recording.told()
        first = await anext(told)
        named = {
            "X-Pjlocal-Chat": recording.session.id,
            "X-Pjlocal-Turn": recording.turn.id,  # None where the answer is empty
            "X-Pjlocal-Left-Out": recording.n_left_out,
        }
        headers = {name: str(number) for name, number in named.items() if number is not None}
        return as_stream(chunks(recording.answers, first, told, reply), headers)

    async def stop(request: Request) -> Response:
        turn = _number(request, "turn")
        writing = [recording for recording in begun if recording.turn.id == turn]
        if not writing:
            raise NotFound("nothing is written there")
        writing[0].answers.stop()
        return Response(status_code=204)

    return [
        Route("/api/chats", chats),
        Route("/api/chats/{id}", chat),
        Route("/api/chats/{id}", rename, methods=["PATCH"]),
        Route("/api/chats/{id}", remove, methods=["DELETE"]),
        Route("/api/chats/{id}/export.{form}", export),
        Route("/api/turns", ask, methods=["POST"]),
        Route("/api/turns/{turn}/stop", stop, methods=["POST"]),
    ]


def _number(request: Request, name: str) -> int:
    """A chat's or a turn's number in the path; 0, which none has, for what is not one.

    Starlette's convertor for numbers fails where Python reads none: beyond 4,300 digits.
    """
    text: str = request.path_params[name]
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0


async def _stored(read: Callable[[Store], _T]) -> _T:
    """What is read of the database, beside what else is going on."""

    def reading() -> _T:
        with Store(reading=True) as store:
            return read(store)

    return await asyncio.to_thread(reading)


async def _changed(number: int, change: Callable[[Store], None]) -> None:
    """A chat in the database is, beside what else is going on.

    Raises:
        StoreError: it cannot be.
        NoChat: there is none, or no more.
    """

    def changing() -> None:
        with Store() as store:
            change(store)

    _check_number(number)
    try:
        await asyncio.to_thread(changing)
    except RemovedError:
        raise NoChat(_NO_CHAT) from None


async def _opened(number: int) -> Session:
    """A chat.

    Raises:
        NoChat: there is none.
    """
    _check_number(number)
    try:
        return await _stored(lambda store: store.load(number))
    except UsageError:
        raise NoChat(_NO_CHAT) from None


def _check_number(number: int) -> None:
    """Raises NoChat: the database can have no such number."""
    if not 0 < number < 2**63:
        raise NoChat(_NO_CHAT)


def _found(session: Session, asked: Question) -> Turn | None:
    """The turn that is replaced: the last, for what was said later would not fit another answer.

    Raises:
        GoneOn: the last turn is another one than whoever asks has seen.
    """
    last = session.turns[-1] if session.turns else None
    if asked.keep and asked.after is not None and asked.after != (last.id if last else 0):
        raise GoneOn("the chat has gone on elsewhere since: load the chat again")
    if asked.replacing is None:
        return None
    if last is None or last.id != asked.replacing:
        raise GoneOn("only the last turn can be replaced, and that is another one: load the chat again")
    return last


def _check_rests(asked: Question, begun: Iterable[Recording]) -> None:
    """Refuse to go on in a chat in which another question was accepted and is not answered to its end.

    Raises:
        GoneOn: the client has not seen that question.
        Wrong: they have.
    """
    if not asked.keep or (asked.after is None and asked.replacing is None):
        return
    for recording in begun:
        if recording.session.id is None or recording.session.id != asked.session or recording.is_over:
            continue
        if recording.turn.id is None or recording.turn.id not in (asked.after, asked.replacing):
            raise GoneOn("another question is being answered in this chat: load the chat again")
        raise Wrong("the last answer is still being written, in another window: wait for its end, or stop it there")


def _gone_on(defaults: AnswerRequest, session: Session) -> AnswerRequest:
    """The settings in force in a chat, without mode and strength: the page sends these with every question, and where
    it names none, they follow from the preferences."""
    return defaults.restore(session.settings).replace(mode=None, strength=None)


def _seed(request: AnswerRequest, replaced: Turn | None, keep: bool) -> int:
    """The seed in force; of a turn that is asked again the next one, since the same would give the same answer; and of
    one that is only looked at beside another, that one's."""
    given = request.generation.seed
    seed = SystemRandom().getrandbits(63) if given is None else given
    if replaced is None or (keep and given is None):
        return seed
    return (int(replaced.settings.get("seed", seed)) + keep) % 2**63


def _described(session: Session) -> dict[str, Any]:
    """A chat as the page reads it."""
    turns = [
        {
            "id": turn.id,
            "question": turn.question,
            "finish_reason": turn.finish_reason,
            "settings": turn.settings,
            "statistics": turn.statistics,
            "events": [event.as_dict() | {"writer": event.writer} for event in turn.events],
        }
        for turn in session.turns
    ]
    return {"id": session.id, "title": session.title, "settings": session.settings, "turns": turns}


def as_json(data: Any) -> Response:
    """With every character beyond ASCII escaped: settings may hold halves of surrogate pairs."""
    return Response(json.dumps(data), media_type="application/json", headers={"Cache-Control": "no-store"})
