"""The routes for answers as streams of token events, for the page and for `pjlocal run` and `chat`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..prompting.conversation import check_begin, parse_conversation
from ..prompting.prompt import Message
from ..request import KEYS
from ..request import Request as AnswerRequest
from ..sessions.asking import as_messages, turn_seed, written_under
from ..sessions.faults import GONE_ON
from ..sessions.session import Session, Turn, refuse_removed, title_of
from .auth import refusal
from .bodies import Exact, Object, Whole, Wrong, check_overrides, parse_request, validated
from .chats import chat_changed, chat_defaults, find_turn, number_of, open_chat
from .following import FollowedAnswer
from .jobs import Job, ModelName, SavedTurn
from .replies import JsonResponse
from .service import Service
from .streaming import AnswerResponse, Answers, read_body

_REJOIN_S = 10.0  # seconds that an answer continues without a client, for example while its page is reloaded
_MOST_BODY = 16 << 20  # bytes; a conversation contains the tokens of its answers


class _Message(Exact):
    role: Literal["system", "user", "assistant"]
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
    alternatives: the answer is a single token; send the most probable tokens of each view with it.
    """

    request: Object | None = None
    settings: Object | None = None
    unset: list[str] = Field(default=[], max_length=len(KEYS))
    messages: Annotated[list[_Message] | None, Field(min_length=1, fail_fast=True)] = None
    chat: _InChat | None = None
    first: Annotated[Whole, Field(ge=0)] = 0
    shortens: bool = False
    alternatives: bool = False


class AnswerRoutes:
    """The routes of `/api/answers`, and of the answers in saved chats.

    Args:
        defaults, saved_as: see `create_app`.
        n_ctx: the tokens of the model's context.
    """

    def __init__(self, service: Service, defaults: AnswerRequest, n_ctx: int, saved_as: ModelName) -> None:
        self._service = service
        self._defaults = defaults
        self._n_ctx = n_ctx
        self._saved_as = saved_as
        self._numbers = count(1)
        self._being_written: dict[str, FollowedAnswer] = {}
        self._accepting = asyncio.Lock()  # held from the check of a chat's last turn until the next is being written

    def routes(self) -> list[Route]:
        return [
            Route("/api/answers", self.answer, methods=["POST"]),
            Route("/api/answers/{number}/stop", self.stop, methods=["POST"]),
            Route("/api/chats/{id}/answer", self.follow),
            Route("/api/chats/{id}/turns/{turn}/tokens/{position}", self.alternatives),
        ]

    async def answer(self, request: Request) -> Response:
        body = validated(_Body, await read_body(request, _MOST_BODY), most_values=None)
        if body.request is not None and body.settings is not None:
            raise Wrong("request and settings exclude each other: give one")
        if (body.messages is None) == (body.chat is None):
            raise Wrong("give either messages or chat")
        if body.alternatives and body.chat:
            raise Wrong("alternatives need messages; those of a chat are at /api/chats/{id}/turns/{turn}/tokens/{n}")
        number = str(next(self._numbers))
        try:
            if body.chat is None:
                self._begin(number, body, self._outside(body))
            else:
                async with self._accepting:
                    self._begin(number, body, await self._in_chat(body, body.chat))
        except Exception as error:
            return refusal(error, in_flags=body.request is not None)
        return self._being_written[number].response(number)

    def _begin(self, number: str, body: _Body, job: Job) -> None:
        patience = _REJOIN_S if body.chat and body.chat.lasts else 0.0
        end = partial(self._being_written.pop, number, None)
        in_flags = body.request is not None
        self._being_written[number] = FollowedAnswer(self._service, job, patience, end, in_flags=in_flags)

    async def follow(self, request: Request) -> Response:
        chat = number_of(request, "id")
        for number, written in self._being_written.items():
            if (question := written.question) and question.session.id == chat:
                return written.response(number, [{"asked": written.described()}])
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        written = self._being_written.get(request.path_params["number"])
        if written is None:
            raise Wrong("no answer with this number is being written", status=404)
        written.answers.stop()
        return Response(status_code=204)

    def _outside(self, body: _Body) -> Job:
        """The answer to messages outside a saved chat."""
        assert body.messages is not None
        request = self._request(body, self._defaults)
        sent = [Message(message.role, message.content, tuple(message.tokens)) for message in body.messages]
        system, messages = parse_conversation(sent)
        check_begin((body.settings or {}).get("begin", ""), messages[-1].role == "assistant")
        return Job(
            request.with_system(system) if system else request,
            messages,
            lists_alternatives=body.alternatives,
            shortens=body.shortens,
            first=body.first,
            reuses=body.request is None or len(messages) > 1,  # without reuse, the same bytes as from `pjlocal run`
        )

    async def _in_chat(self, body: _Body, chat: _InChat) -> Job:
        """The answer to the next question of a saved chat."""
        _check_not_writing(chat, self._being_written.values())
        check_begin((body.settings or {}).get("begin", ""), chat.continues or chat.takes is not None)
        session = Session() if chat.id is None else await open_chat(chat.id)
        replaced = _replaced(session, chat)
        before = [turn for turn in session.turns if turn is not replaced]
        request = self._request(body, chat_defaults(self._defaults, session))
        seed = turn_seed(request, replaced, keep=chat.keep)
        turn = _turn(chat, replaced)
        job = Job(
            request.with_group(request.generation.replace(seed=seed)),
            as_messages(before, turn),
            shortens=True,
            first=body.first,
        )
        if chat.keep or replaced:
            session.title = session.title or title_of(chat.question)
            job.saved = SavedTurn(session, turn, replaced, self._saved_as, request.generation.seed, chat.keep)
        return job

    def _request(self, body: _Body, base: AnswerRequest) -> AnswerRequest:
        if body.request is not None:
            request = parse_request(body.request)
            refuse_removed(body.request)
            return request
        if unknown := [*{*body.unset}.difference(KEYS)]:
            raise Wrong(f"unset names an unknown setting: {unknown[0]!r}")
        return base.unset(body.unset).override(check_overrides(body.settings or {}, self._n_ctx, base))

    async def alternatives(self, request: Request) -> Response:
        """The alternatives to a token of a saved answer."""
        number, turn_id, position = (number_of(request, name) for name in ("id", "turn", "position"))
        if not position and request.path_params["position"] != "0":
            raise Wrong("a token's number is a whole number", status=404)
        session = await open_chat(number)
        place = find_turn(session, turn_id)
        history, turn = session.turns[:place], session.turns[place]
        written = written_under(self._defaults, turn)
        begun = turn.begun_until(position)
        job = Job(written, as_messages(history, begun), lists_alternatives=True, shortens=True)
        answers = Answers(self._service, [job])

        async def respond() -> Response:
            await answers.finish()
            found = [asdict(each) for each in answers.choices[0].tokens[0].alternatives]
            return JsonResponse({"token": turn.events[position].as_dict(), "alternatives": found})

        return AnswerResponse(answers.cancel, respond)


def _replaced(session: Session, chat: _InChat) -> Turn | None:
    """The turn to replace, which must be the last one; later turns would not fit another answer.

    Raises:
        Wrong: the chat has a newer turn than the client knows.
    """
    last = session.turns[-1] if session.turns else None
    if chat.keep and chat.after is not None and chat.after != (last.id if last else 0):
        raise chat_changed(GONE_ON)
    if chat.replacing is None:
        return None
    if last is None or last.id != chat.replacing:
        raise chat_changed("only the last turn can be replaced, and the chat has a newer one: load the chat again")
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


def _check_not_writing(chat: _InChat, answers: Iterable[FollowedAnswer]) -> None:
    """Refuse a question in a chat in which another answer is being written.

    Raises:
        Wrong: another question is being answered, with a code if the client does not know it.
    """
    if not chat.keep or (chat.after is None and chat.replacing is None):
        return
    for other in filter(None, (answer.question for answer in answers)):
        if other.session.id is None or other.session.id != chat.id or other.turn.finish_reason is not None:
            continue
        if other.turn.id is None or other.turn.id not in (chat.after, chat.replacing):
            raise chat_changed("another question is being answered in this chat: load the chat again")
        raise Wrong("the last answer is still being written, in another window: wait for its end, or stop it there")
