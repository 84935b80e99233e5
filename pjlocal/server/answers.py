"""The routes for answers as streams of token events, for the page and for `pjlocal run` and `chat`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .. import __version__
from ..attachments import parse_attachment, with_attachments
from ..errors import PjlocalError, UsageError
from ..events import N_ALTERNATIVES, Result, Started, TokenEvent
from ..prompting.conversation import parse_conversation
from ..prompting.dials import STEP, adjust
from ..prompting.prompt import Message
from ..request import KEYS, refuse_removed
from ..request import Request as AnswerRequest
from ..service import Checked, Job, ModelName, News, SavedTurn, Service
from ..sessions.asking import as_messages, turn_seed, written_under
from ..sessions.faults import GONE_ON
from ..sessions.session import Session, Turn, title_of
from ..settings import VIEW_NAMES
from .auth import GoneOn, NotFound, described, refusal
from .bodies import Exact, Object, Whole, Wrong, check_overrides, parse_request, validated
from .chats import find_turn, number_of, open_chat, question_as_dict
from .openai import Names
from .replies import JsonResponse, as_event
from .streaming import AnswerResponse, Answers, as_events, as_stream, read_body, until_done

ALIVE_S = 2.0  # the most seconds between two lines of a stream
_PROGRESS_S = 0.5  # seconds between two lines while a prompt is read
_VERDICT_S = 1.0  # after which the verdict on a request is no status; `pjlocal.client` waits 2 s for one
_REJOIN_S = 10.0  # seconds that an answer continues without a client, for example while its page is reloaded
_MOST_ALTERNATIVES = 100
_MOST_BODY = 16 << 20  # bytes; a conversation contains the tokens of its answers
MOST_FILE = 8 << 20  # bytes of an attached file


class _Message(Exact):
    role: Literal["system", "developer", "user", "assistant"]
    content: str
    tokens: list[Annotated[int, Field(ge=0)]] = Field(default=[], fail_fast=True)


class _Taken(Exact):
    """A token, or a text, that replaces a token of an answer."""

    position: Annotated[Whole, Field(ge=0)]
    text: Annotated[str, Field(min_length=1)]
    token: Annotated[Whole, Field(ge=0)] = 0


class _InChat(Exact):
    """The next turn of a saved chat.

    id: the chat's number; None for a new chat.
    after: the last turn that the client has seen, 0 for none.  A chat with a newer turn is refused.
    replacing: the turn that is asked again or replaced.
    keep: whether the new turn replaces that one.  If not, it is saved as a draft of it.
    continues: whether to continue the answer of the replaced turn.
    lasts: whether to continue writing for a while after the client disconnects, because it will come back.
    takes: instead of ``continues``, continue that answer from a token, which another one replaces.
    """

    question: Annotated[str, Field(min_length=1)]
    id: Whole | None = None
    after: Whole | None = None
    replacing: Whole | None = None
    keep: bool = True
    continues: bool = False
    lasts: bool = False
    takes: _Taken | None = None


class _Body(Exact):
    """A request for an answer.

    request: all settings, as the result of `Request.as_dict`.
    settings: instead of ``request``, the settings that differ from those of the server or the chat.
    unset: settings to reset to their defaults, whatever the server or the chat has.
    messages: the conversation.
    chat: instead of ``messages``, a saved chat.
    first: the number of exchanges already left out of the conversation.
    shortens: leave out more exchanges if not all fit.
    alternatives: the answer is a single token; send this number of the most probable tokens of each view with it.
    """

    request: Object | None = None
    settings: Object | None = None
    unset: list[str] = Field(default=[], max_length=len(KEYS))
    messages: Annotated[list[_Message] | None, Field(min_length=1, fail_fast=True)] = None
    chat: _InChat | None = None
    first: Annotated[Whole, Field(ge=0)] = 0
    shortens: bool = False
    alternatives: Annotated[Whole, Field(ge=1, le=_MOST_ALTERNATIVES)] | None = None


class _ToCheck(Exact):
    request: Object


class _Dial(Exact):
    """A preference to make half a step stronger or weaker.

    settings: the settings that differ from those of the server or the chat.
    chat: the saved chat in which the question is asked.
    """

    preference: Annotated[str, Field(min_length=1)]
    more: bool
    settings: Object = Field(default={})
    chat: Whole | None = None


@dataclass(eq=False)
class _Accepted:
    """A question in a saved chat whose answer is not finished."""

    session: Session
    turn: Turn
    replaced: Turn | None
    request: AnswerRequest
    begun: Sequence[TokenEvent] = field(init=False)  # the beginning of an answer that is continued

    def __post_init__(self) -> None:
        self.begun = [*self.turn.events]

    @property
    def is_over(self) -> bool:
        return self.turn.finish_reason is not None

    def described(self) -> dict[str, Any]:
        """The question and its settings as JSON, for other clients that show the same chat."""
        preferences = dict(zip(VIEW_NAMES, self.request.views, strict=True))
        return {
            **question_as_dict(self.turn.question),
            "turn": self.turn.id,
            "replacing": self.replaced.id if self.replaced else None,
            "settings": {"mode": self.request.generation.mode, "preferences": preferences},
        }


class _BeingWritten:
    """An answer being written, with its events so far.  Clients can follow it from its beginning at any time.

    Without a client it is cancelled.

    Args:
        question: the question in a saved chat; None for an answer that is not saved.
        patience: seconds for which it continues without a client, once its chat is saved.
        end: called at its end, whatever the outcome.
    """

    def __init__(
        self,
        answers: Answers,
        question: _Accepted | None,
        patience: float,
        end: Callable[[], object],
        *,
        in_flags: bool,
    ) -> None:
        self.answers = answers
        self.question = question
        self._patience = patience
        self._end = end
        self._in_flags = in_flags
        self._events: list[bytes] = []
        self._more = asyncio.Event()  # set and replaced when there are more events
        self._n_clients = 0
        self._timer: asyncio.TimerHandle | None = None  # ends the answer, after the last client has left
        self._writing = asyncio.create_task(self._write())
        self._writing.add_done_callback(self._finish)  # also called if it is cancelled before it starts

    async def _write(self) -> None:
        try:
            while not self.answers.are_done:
                _, news = await self.answers.next()
                self._add(_as_events(news, self.question.begun if self.question else ()))
        except Exception as error:
            self._add([_error(error, in_flags=self._in_flags)])

    def _finish(self, writing: asyncio.Task[None]) -> None:
        self._more.set()
        self.answers.cancel()
        self._end()

    def _add(self, events: Sequence[Mapping[str, Any]]) -> None:
        self._events += [as_event(event) for event in events]
        self._more.set()
        self._more = asyncio.Event()

    def response(self, number: str, first: Sequence[Mapping[str, Any]] = ()) -> Response:
        """A stream of its events for one more client, after the events in ``first``."""
        self._n_clients += 1

        async def make() -> Response:
            return as_stream(self._follow(first), {"X-Pjlocal-Answer": number})

        return AnswerResponse(self._leave, make)

    async def _follow(self, first: Sequence[Mapping[str, Any]]) -> AsyncIterator[bytes]:
        """Yield all its events, and comments while there are none."""
        for event in first:
            yield as_event(event)
        n = 0
        while True:
            more = self._more
            while n < len(self._events):
                yield self._events[n]
                n += 1
            if self._writing.done():
                return
            try:
                await asyncio.wait_for(more.wait(), ALIVE_S if self._events else _PROGRESS_S)
            except asyncio.TimeoutError:
                yield f": {self.answers.progress}\n\n".encode()

    def _leave(self) -> None:
        self._n_clients -= 1
        if self._timer:
            self._timer.cancel()
        if self._patience and self.question and self.question.session.id is not None:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._check_followed)
        else:
            self._check_followed()

    def _check_followed(self) -> None:
        if not self._n_clients:
            self._writing.cancel()


def answer_routes(
    service: Service, names: Names, defaults: AnswerRequest, model: Mapping[str, Any], saved_as: ModelName
) -> list[Route]:
    """The routes of `/api/model`, `/api/check` and `/api/answers`.

    Args:
        defaults, model, saved_as: see `create_app`.
    """
    numbers = count(1)
    being_written: dict[str, _BeingWritten] = {}
    accepting = asyncio.Lock()  # held from the check of a chat's last turn until the new turn is in `being_written`

    async def model_facts(request: Request) -> Response:
        named = {"name": names.model, "lasting_name": saved_as.lasting, "version": __version__}
        return JsonResponse(named | dict(model))

    async def check(request: Request) -> Response:
        body = validated(_ToCheck, await read_body(request))
        try:
            answers = Answers(service, [Job(parse_request(body.request))])
            answers.submit()
        except Exception as error:
            return refusal(error, in_flags=True)
        return AnswerResponse(answers.cancel, lambda: _checked(answers))

    async def answer(request: Request) -> Response:
        body = validated(_Body, await read_body(request, _MOST_BODY), most_values=None)
        if body.request is not None and body.settings is not None:
            raise Wrong("request and settings exclude each other: give one")
        if (body.messages is None) == (body.chat is None):
            raise Wrong("give either messages or chat")
        if body.alternatives and body.chat:
            raise Wrong("alternatives need messages; those of a chat are at /api/chats/{id}/turns/{turn}/tokens/{n}")
        in_flags = body.request is not None
        number = str(next(numbers))
        try:
            if body.chat is None:
                begin(number, body, _outside(body))
            else:
                async with accepting:
                    begin(number, body, *await _in_chat(body, body.chat))
        except Exception as error:
            return refusal(error, in_flags=in_flags)
        return being_written[number].response(number)

    def begin(number: str, body: _Body, answers: Answers, question: _Accepted | None = None) -> None:
        answers.submit()
        patience = _REJOIN_S if body.chat and body.chat.lasts else 0.0
        end = partial(being_written.pop, number, None)
        in_flags = body.request is not None
        being_written[number] = _BeingWritten(answers, question, patience, end, in_flags=in_flags)

    async def follow(request: Request) -> Response:
        chat = number_of(request, "id")
        for number, written in being_written.items():
            if (question := written.question) and question.session.id == chat:
                return written.response(number, [{"asked": question.described()}])
        return Response(status_code=204)

    def _outside(body: _Body) -> Answers:
        """Answer messages outside a saved chat."""
        assert body.messages is not None
        request = _request(body, defaults)
        system, messages = parse_conversation([_as_message(message) for message in body.messages])
        job = Job(
            request.with_system(system) if system else request,
            messages,
            n_alternatives=body.alternatives or 0,
            shortens=body.shortens,
            first=body.first,
            reports_warnings=body.request is not None,
            reuses=body.request is None or len(messages) > 1,  # without reuse, the same bytes as from `pjlocal run`
        )
        return Answers(service, [job])

    async def _in_chat(body: _Body, chat: _InChat) -> tuple[Answers, _Accepted | None]:
        """Answer the next question of a saved chat."""
        _check_rests(chat, [question for written in being_written.values() if (question := written.question)])
        session = Session() if chat.id is None else await open_chat(chat.id)
        replaced = _replaced(session, chat)
        before = [turn for turn in session.turns if turn is not replaced]
        request = _request(body, _as_gone_on(defaults, session))
        seed = turn_seed(request, replaced, keep=chat.keep)
        turn = _turn(chat, replaced)
        job = Job(
            request.with_group(request.generation.replace(seed=seed)),
            as_messages(before, turn),
            shortens=True,
            first=body.first,
            reports_warnings=body.request is not None,
        )
        if not chat.keep and replaced is None:
            return Answers(service, [job]), None
        session.title = session.title or title_of(chat.question)
        job.saved = SavedTurn(session, turn, replaced, saved_as, request.generation.seed, chat.keep)
        return Answers(service, [job]), _Accepted(session, turn, replaced, request) if chat.keep else None

    def _request(body: _Body, base: AnswerRequest) -> AnswerRequest:
        if body.request is not None:
            request = parse_request(body.request)
            refuse_removed(body.request)
            return request
        if unknown := [*{*body.unset}.difference(KEYS)]:
            raise Wrong(f"unset names an unknown setting: {unknown[0]!r}")
        return base.unset(body.unset).override(check_overrides(body.settings or {}, model["context_limit"], base))

    async def alternatives(request: Request) -> Response:
        """The alternatives to a token of a saved answer."""
        number, turn_id, position = (number_of(request, name) for name in ("id", "turn", "position"))
        if not position and request.path_params["position"] != "0":
            raise NotFound("a token's number is a whole number")
        session = await open_chat(number)
        place = find_turn(session, turn_id)
        history, turn = session.turns[:place], session.turns[place]
        written = written_under(defaults, turn)
        begun = turn.begun_until(position)
        job = Job(written, as_messages(history, begun), n_alternatives=N_ALTERNATIVES, shortens=True)
        answers = Answers(service, [job])

        async def respond() -> Response:
            await answers.finish()
            found = [asdict(each) for each in answers.choices[0].tokens[0].alternatives]
            return JsonResponse({"token": turn.events[position].as_dict(), "alternatives": found})

        return AnswerResponse(answers.cancel, respond)

    async def attach(request: Request) -> Response:
        """A text file, as it is put before a question."""
        name = request.query_params.get("name", "") or "the file"
        attachment = parse_attachment(name, name, await read_body(request, MOST_FILE + 1), MOST_FILE)
        answers = Answers(service, [Job(defaults, text=attachment.text)])
        answers.submit()

        async def respond() -> Response:
            try:
                _, counted = await answers.next()
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
            assert isinstance(counted, Checked)
            head = with_attachments([attachment], "")
            return JsonResponse({"name": attachment.name, "size": attachment.size(counted.n_tokens), "head": head})

        return AnswerResponse(answers.cancel, respond)

    async def turn_dial(request: Request) -> Response:
        body = validated(_Dial, await read_body(request))
        settings = body.settings | {"draft_prefer": [body.preference]}
        base = _as_gone_on(defaults, Session() if body.chat is None else await open_chat(body.chat))
        under = base.override(check_overrides(settings, model["context_limit"], base))
        changed = adjust(under, body.preference, STEP if body.more else -STEP).views[0]
        return JsonResponse({"preference": changed[0] if changed else ""})

    async def stop(request: Request) -> Response:
        written = being_written.get(request.path_params["number"])
        if written is None:
            raise NotFound("no answer with this number is being written")
        written.answers.stop()
        return Response(status_code=204)

    return [
        Route("/api/model", model_facts),
        Route("/api/check", check, methods=["POST"]),
        Route("/api/files", attach, methods=["POST"]),
        Route("/api/dials", turn_dial, methods=["POST"]),
        Route("/api/answers", answer, methods=["POST"]),
        Route("/api/answers/{number}/stop", stop, methods=["POST"]),
        Route("/api/chats/{id}/answer", follow),
        Route("/api/chats/{id}/turns/{turn}/tokens/{position}", alternatives),
    ]


async def _checked(answers: Answers) -> Response:
    """The verdict on a request, as a status.  If it takes long, because the model is loaded, as JSON after white space:
    null, or an error as in a stream."""
    verdict = await answers.wait(answers.next(), _VERDICT_S)
    if not verdict.done():
        return StreamingResponse(_report(verdict), media_type="application/json")
    try:
        verdict.result()
    except Exception as error:
        return refusal(error, in_flags=True)
    return Response(status_code=204)


async def _report(verdict: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    async for _ in until_done(verdict, _PROGRESS_S):
        yield b" "
    try:
        verdict.result()
        yield b"null"
    except Exception as error:
        yield json.dumps(_error(error, in_flags=True)).encode()


def _error(error: Exception, *, in_flags: bool) -> dict[str, Any]:
    status = error.exit_status if isinstance(error, PjlocalError) else 1
    facts = described(error, in_flags=in_flags)[1]["error"]
    return {"error": facts.pop("message"), "status": status, **facts}


def _as_events(news: News, begun: Sequence[TokenEvent]) -> list[dict[str, Any]]:
    if isinstance(news, Started):
        return [{"head": asdict(news), **({"begun": as_events(begun)} if begun else {})}]
    if isinstance(news, Result):
        return [{"result": news.whole()}]
    assert not isinstance(news, Checked | Exception)
    return [
        {
            "event": as_events([token.event])[0],
            "statistics": asdict(token.statistics),
            **({"alternatives": [*map(asdict, token.alternatives)]} if token.alternatives else {}),
        }
        for token in news
    ]


def _as_message(message: _Message) -> Message:
    role = "system" if message.role == "developer" else message.role
    return Message(role, message.content, tuple(message.tokens))


def _as_gone_on(defaults: AnswerRequest, session: Session) -> AnswerRequest:
    """The settings of a chat without mode and strength.

    The page sends these two with every question; if it sends none, they follow from the preferences."""
    return defaults.restore(session.settings).with_model_defaults({}).replace(mode=None, strength=None)


def _replaced(session: Session, chat: _InChat) -> Turn | None:
    """The turn to replace, which must be the last one; later turns would not fit another answer.

    Raises:
        GoneOn: the client has not seen the last turn.
    """
    last = session.turns[-1] if session.turns else None
    if chat.keep and chat.after is not None and chat.after != (last.id if last else 0):
        raise GoneOn(GONE_ON)
    if chat.replacing is None:
        return None
    if last is None or last.id != chat.replacing:
        raise GoneOn("only the last turn can be replaced, and the chat has a newer one: load the chat again")
    return last


def _turn(chat: _InChat, replaced: Turn | None) -> Turn:
    """Make the turn to answer, with the tokens that begin its answer."""
    if not chat.continues and not chat.takes:
        return Turn(chat.question)
    if replaced is None or not replaced.text:
        raise Wrong(f"chat.{'takes' if chat.takes else 'continues'} needs chat.replacing: a turn with an answer")
    if chat.takes:
        return replaced.taking(chat.takes.position, chat.takes.text, chat.takes.token)
    return replaced.continued()


def _check_rests(chat: _InChat, accepted: Collection[_Accepted]) -> None:
    """Refuse a question in a chat in which another answer is being written.

    Raises:
        GoneOn: the client has not seen the other question.
        Wrong: the client has seen it.
    """
    if not chat.keep or (chat.after is None and chat.replacing is None):
        return
    for other in accepted:
        if other.session.id is None or other.session.id != chat.id or other.is_over:
            continue
        if other.turn.id is None or other.turn.id not in (chat.after, chat.replacing):
            raise GoneOn("another question is being answered in this chat: load the chat again")
        raise Wrong("the last answer is still being written, in another window: wait for its end, or stop it there")
