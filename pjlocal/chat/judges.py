"""The judges of a chat: on a model loaded in this process, or on the model of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..answer import Answer
from ..client import RemoteAnswer, Server, ServerError, WarningLog, find_server, why_no_server
from ..engine.interrupt import Interrupt, Interrupted
from ..errors import ModelError
from ..events import Alternative, Started
from ..gguf.adapter import check_adapters
from ..gguf.header import read_header
from ..gguf.locate import find_model
from ..gguf.ollama import shown_name
from ..persona import PersonaJudge
from ..prompting.plan import Roles, make_roles
from ..prompting.prompt import NO_THINK_SWITCH
from ..request import Request
from ..sessions.asking import as_messages, fitted, turn_seed, written_under
from ..sessions.session import Session, Turn
from ..settings import Engine, FixedLayout, random_seed


@dataclass(frozen=True)
class StartedAnswer:
    """An answer whose writing was started.

    request, roles: its settings and its views.
    first: the first turn of its prompt; not known before a server begins to write the answer.
    """

    answer: Answer | RemoteAnswer
    request: Request
    roles: Roles
    first: int = 0


def make_judge(
    model: str | None, *, finds: bool, engine: Engine, interrupt: Interrupt, request: Request = Request()
) -> Judge:
    """Make the judge of a chat.  If ``finds`` is set and a resident server with this model can write the answers, it
    uses that server; otherwise the model is loaded in this process.

    Raises:
        UsageError, ModelError: as `PersonaJudge`.
    """
    if finds and not why_no_server(request):
        try:
            path = find_model(model)
        except ModelError:  # loading the model reports it, after other errors
            path = None
        server = path and find_server(path, engine, interrupt)
        if path and server:
            try:
                return RemoteJudge(server, request, path)
            except ServerError:
                pass
    return LocalJudge(model, request=request, engine=engine, interrupt=interrupt)


class LocalJudge(PersonaJudge):
    """A judge on a model loaded in this process."""

    server = None

    def begin(
        self, session: Session, turn: Turn, request: Request, replacing: Turn | None, keep: bool
    ) -> StartedAnswer:
        """Start the answer to a turn's question after the turns of a session.  If the turn contains an answer already,
        continue that answer.

        Args:
            replacing: the turn that is asked again or replaced.
            keep: replace that turn by the answer; else the answer is only a draft to compare with it.

        Raises:
            UsageError: the question cannot be answered.
        """
        request = request.replace(seed=turn_seed(request, replacing, keep=keep))
        history = [other for other in session.turns if other is not replacing]
        plan, first = fitted(self, self.roles(request), as_messages(history, turn), request, _first(history))
        return StartedAnswer(self.answer(plan), plan.request, plan.roles, first)

    def alternatives(self, history: Sequence[Turn], turn: Turn) -> list[Alternative]:
        """The tokens that the views find most probable behind the beginning of a turn's answer.

        Raises:
            UsageError: the turn's settings cannot be used with this model.
        """
        request = written_under(self.request, turn)
        plan, _ = fitted(self, self.roles(request), as_messages(history, turn), request, turn.first)
        return self.next_tokens(plan)

    def n_tokens(self, text: str) -> int:
        """The number of tokens of a text."""
        return len(self.model.tokenize(text, special=False))

    def think_notice(self) -> str:
        """The warning for a model without a switch for thinking; empty if it has one."""
        if self.template.has_think_switch:
            return ""
        self.template.warned.add(NO_THINK_SWITCH)
        return NO_THINK_SWITCH


def _first(history: list[Turn]) -> int:
    """The number of turns that earlier prompts left out."""
    return history[-1].first if history else 0


@dataclass(frozen=True)
class _Facts:
    """The file name and llama.cpp's description of a model."""

    name: str
    description: str


class RemoteJudge:
    """A judge on the model of a server, with the part of a `LocalJudge` that a chat uses.

    Args:
        path: the model's file; None for a server that was named, which may be on another machine.
        saves: the server saves the session.

    Raises:
        UsageError: the request cannot be used.
        ServerError: the server does not answer; also from `begin` and `alternatives`.
    """

    def __init__(self, server: Server, request: Request, path: Path | None = None, *, saves: bool = False) -> None:
        self.server = server
        self.interrupt = server.interrupt
        self.saves = saves
        self._path = path
        about = server.model()
        self.model = _Facts(shown_name(path) if path else about["name"], about["description"])
        self.lasting_name: str = about["lasting_name"]
        self.context_limit: int = about["context_limit"]
        self.recommended: dict[str, Any] = about["recommended"]
        self.placed: str = about["placed"]
        self._layouts: dict[int, FixedLayout] = {}
        self._answer: RemoteAnswer | None = None  # the last one
        self._log_warnings = WarningLog()
        make_roles(request)
        server.check_can_write(request)
        self.request = request.with_model_defaults(self.recommended)
        server.check(self.request)

    def close(self) -> None:
        self._end_last()

    def _end_last(self) -> None:
        """End the last answer, and note its layout."""
        if self._answer:
            self._answer.close()
            if layout := self._answer.result.layout:
                self._layouts[len(self._answer.statistics.prompt_tokens)] = layout
            self._answer = None

    def begin(
        self, session: Session, turn: Turn, request: Request, replacing: Turn | None, keep: bool
    ) -> StartedAnswer:
        roles = make_roles(request)
        self._end_last()
        history = [other for other in session.turns if other is not replacing]
        if self.saves:
            last_id = session.turns[-1].id if session.turns else 0
            replaced = replacing and replacing.id
            chat = {"id": session.id, "question": turn.question, "after": last_id, "replacing": replaced, "keep": keep}
            chat |= _beginning(turn, replacing)
            answer = self.server.answer(request, chat=chat, first=_first(history))
        else:
            seed = turn_seed(request, replacing, keep=keep)
            request = request.replace(seed=random_seed() if seed is None else seed)
            answer = self._ask(request, history, turn, first=_first(history))
        answer.expected = roles.mode
        answer.on_started = self._note_started
        self._answer = answer
        return StartedAnswer(answer, request, roles)

    def alternatives(self, history: Sequence[Turn], turn: Turn) -> list[Alternative]:
        self._end_last()
        request = written_under(self.request, turn)
        answer = self._ask(request, history, turn, first=turn.first, alternatives=True)
        for _ in answer:
            pass
        if answer.finish_reason == "interrupted":
            raise Interrupted
        return answer.alternatives

    def _ask(self, request: Request, history: Sequence[Turn], turn: Turn, **body: Any) -> RemoteAnswer:
        """Request the answer to a turn after other turns, outside a saved chat."""
        messages = [
            {"role": message.role, "content": message.content, "tokens": list(message.tokens)}
            for message in as_messages(history, turn)
        ]
        return self.server.answer(request.without_model_defaults(), messages=messages, shortens=True, **body)

    def _note_started(self, started: Started) -> None:
        """Note the facts about a started answer, and log its new warnings."""
        self.placed = started.placed
        self._log_warnings(started)

    def check(self, request: Request) -> None:
        """Refuse filters and stop tokens that cannot be used with this model.  Raises UsageError."""
        checked = Request(sampling=request.sampling).replace(stop_token=request.generation.stop_token)
        try:
            self.server.check(checked.without_model_defaults())
        except ServerError:
            if self._path is None:
                raise
            # Else the next question reports it.

    def check_files(self, request: Request) -> None:
        """Refuse adapters that do not fit; all files if no model can be loaded here.

        Raises:
            UsageError, ModelError: has the reason.
        """
        if self._path is None:
            self.server.check_can_write(request)
        elif request.generation.adapters():
            check_adapters(request.generation, read_header(self._path))

    @property
    def layouts(self) -> Mapping[int, FixedLayout]:
        """The layouts of the answers so far, by the number of views."""
        self._end_last()
        return self._layouts

    def n_tokens(self, text: str) -> None:
        """Do nothing: the model is not loaded here."""

    def think_notice(self) -> str:
        return ""  # the next answer reports it


#: The judge of a chat.
Judge = LocalJudge | RemoteJudge


def _beginning(turn: Turn, replacing: Turn | None) -> dict[str, Any]:
    """The beginning of a turn's answer, in the server's format."""
    if not turn.events:
        return {}
    *_, last = turn.events
    if replacing is None or turn.continues(replacing):
        return {"continues": True}
    return {"takes": {"position": last.position, "text": last.text, "token": last.id}}
