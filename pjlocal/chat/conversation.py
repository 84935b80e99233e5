"""A conversation with a judge: asking, undoing, regenerating and comparing, independent of a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, get_args

from ..answer import Answer
from ..client import RemoteAnswer, ServerError, ServerGone
from ..errors import UsageError
from ..events import Alternative, TokenEvent
from ..gguf.adapter import check_adapters
from ..gguf.header import read_header
from ..gguf.locate import find_model, lasting_name, lasting_name_if_found
from ..prompting.plan import by_view, in_mode, make_roles, resolve_mode
from ..request import Overrides, Request, deal
from ..sessions.asking import turn_settings
from ..sessions.recorder import Recorder, Recording
from ..sessions.session import Session, Turn
from ..settings import VIEW_NAMES, Mode, in_chat_words
from .judges import Judge, StartedAnswer

log = logging.getLogger("pjlocal")


@dataclass(frozen=True)
class Progress:
    """The values of a status line; see `Conversation.progress`.

    used: the tokens in the context; None where no answer has counted them yet, as in a saved chat that is opened, or
        after an undo.
    pushes: empty if the preferences have changed since.
    """

    used: int | None
    limit: int
    drafts: str | None = None
    judges: str | None = None
    acceptance_rate: float | None = None
    tokens_per_second: float | None = None
    pushes: Mapping[str, float] = field(default_factory=dict)


class Conversation:
    """A chat: a judge, a session and the recorder that saves its turns.

    Args:
        judge: closed with the conversation.
        model: the model by its lasting name.
        say: shows a line to the user.
        load: makes a judge on a model by name, with the chat's engine settings; if its second argument is False, the
            model is loaded in this process.
    """

    def __init__(
        self,
        judge: Judge,
        session: Session,
        recorder: Recorder,
        model: str | None,
        say: Callable[[str], None],
        load: Callable[[str | None, bool], Judge],
    ) -> None:
        self.judge = judge
        self.recorder = recorder
        self.model = model
        self.load = load
        self._say = say
        self._take_up(session)
        self._answer: Answer | RemoteAnswer | None = None  # the last one that is kept, or is being written
        self._alternatives: tuple[Turn, int, list[Alternative]] | None = None  # of a turn and a position, the last ones

    def close(self) -> None:
        try:
            self.recorder.close()
        finally:
            self.judge.close()

    @property
    def last(self) -> Turn:
        """The last turn.

        Raises:
            UsageError: there is none.
        """
        if not self.session.turns:
            raise UsageError("this chat has no questions yet")
        return self.session.turns[-1]

    # Questions and answers.

    def ask(self, question: str, replacing: Turn | None = None) -> Writing:
        """The answer to a question, after all turns or in the place of a turn.

        Raises:
            UsageError: the question cannot be answered; nothing has changed then.
        """
        return self._write(Turn(question), self.judge.request, replacing)

    def _write(self, turn: Turn, request: Request, replacing: Turn | None) -> Writing:
        self.recorder.check_seen()
        return Writing(self, turn, self._begin(turn, request, replacing), replacing)

    def _begin(self, turn: Turn, request: Request, replacing: Turn | None, keep: bool = True) -> StartedAnswer:
        """Start an answer.  If the server does not write it, load the model in this process."""
        try:
            return self.judge.begin(self.session, turn, request, replacing, keep)
        except ServerError as error:
            server = self.judge.server
            if server is None or not server.is_resident:
                raise
            judge = self.load(self.model, False)
            judge.request = self.judge.request
            log.warning("the model is loaded here: %s", error)
            self.judge.close()
            self.judge = judge
        return self.judge.begin(self.session, turn, request, replacing, keep)

    def begin_turn(self, turn: Turn, started: StartedAnswer, replacing: Turn | None, *, keep: bool) -> None:
        """Note the facts about a turn when its answer starts, and report turns that no longer fit."""
        history = [other for other in self.session.turns if other is not replacing]
        before = replacing or (history[-1] if history else None)
        answer = started.answer
        by_server = answer.started if isinstance(answer, RemoteAnswer) else None
        turn.first = by_server.first if by_server else started.first
        if keep and turn.first > (before.first if before else 0):
            self._say(
                f"the context of {self.judge.context_limit} tokens is full: the model no longer sees the oldest "
                f"{'exchange' if turn.first == 1 else f'{turn.first} exchanges'}. The chat keeps them"
            )
        turn.settings = turn_settings(
            self.settings(), started.request, started.roles, self.judge.model.name, answer.seed or 0
        )
        if by_server and by_server.chat is not None:
            self.session.id, turn.id = by_server.chat, by_server.turn

    def regenerate(self) -> Writing:
        """Ask the last question again, with another seed."""
        return self.ask(self.last.question, replacing=self.last)

    def continue_answer(self, max_tokens: int | None = None) -> Writing:
        """Continue the last answer, in a turn that replaces the last one.

        Args:
            max_tokens: the most new tokens; None for the setting.

        Raises:
            UsageError: there is no answer, or none that can be continued; nothing has changed then.
        """
        last = self.last
        if not last.text:
            raise UsageError("the last answer is empty: /regen asks again")
        request = self.judge.request
        if max_tokens is not None:
            request = request.replace(max_tokens=max_tokens)
        return self._write(last.continued(), request, last)

    def alternatives(self, position: int) -> list[Alternative]:
        """The tokens that the views find most probable in the place of a token of the last answer.

        Raises:
            UsageError: there is no such token.
        """
        turn = self.last
        known = self._alternatives
        if known is None or known[0] is not turn or known[1] != position:
            begun = turn.begun_until(position)
            known = self._alternatives = (turn, position, self.judge.alternatives(self.session.turns[:-1], begun))
        return known[2]

    def take(self, position: int, text: str, token: int = 0) -> Writing:
        """Continue the last answer from a token on, with another token or a text in its place."""
        last = self.last
        return self._write(last.taking(position, text, token), self.judge.request, last)

    def edit_answer(self, answer: str) -> None:
        """Give the last turn another answer.

        Raises:
            UsageError: it does not fit into the context, or the chat was continued elsewhere.
        """
        self.recorder.check_seen()
        n, limit = self.judge.n_tokens(answer) or 0, self.judge.context_limit  # a server does not count it
        if n >= limit:
            raise UsageError(f"the answer is too long: {n:,} tokens, and the context has room for {limit:,}")
        last = self.last
        self.recorder.replace(last.edited(answer), last)

    def undo(self) -> Turn:
        """Undo the last turn.

        Raises:
            UsageError: there is none, or the chat was continued elsewhere.
        """
        self.recorder.check_seen()
        turn = self.last
        self.recorder.undo(turn)
        self.session.turns.remove(turn)
        self._answer = None
        return turn

    def switch(self, draft: Turn) -> None:
        """Put another draft of the last turn in force."""
        self.recorder.check_seen()
        self.recorder.switch(draft)

    def fork(self, n_turns: int) -> None:
        """Continue in a new session that begins with a copy of the first turns; this one stays unchanged."""
        self.recorder.catch_up()
        self.session = self.recorder.fork(n_turns)
        self._answer = None

    def compare(self) -> Iterator[Writing]:
        """Answers to the last question in every mode, with the same seed and history.  Each is saved as a draft.

        Modes that are impossible with the current preferences are left out, with a message.

        Raises:
            UsageError: there is no question, or the chat was continued elsewhere.
        """
        self.recorder.check_seen()
        last = self.last
        modes: list[Mode] = list(get_args(Mode)) if self.judge.request.has_preferences else ["plain"]
        for mode in modes:
            request = in_mode(self.judge.request.as_defaults(), mode)
            if resolve_mode(request) != mode:  # an adapter is no preference in it
                self._say(f"mode {mode} is left out: it needs a preference in words")
                continue
            request = request.with_group(request.generation.replace(best=1))
            turn = Turn(last.question)
            try:
                started = self._begin(turn, request, last, keep=False)
            except UsageError as error:
                reason = str(error).removesuffix(", or use --mode both")  # that mode is compared too
                self._say(in_chat_words(f"mode {mode} is left out: {reason}"))
                continue
            yield Writing(self, turn, started, last, keep=False)

    def progress(self) -> Progress:
        """The progress of the current or the last answer."""
        limit = self.judge.context_limit
        if self._answer is None:
            return Progress(None if self.session.turns else 0, limit)
        s = self._answer.statistics
        used = max(s.prompt_tokens, default=0) + s.completion_tokens
        turn = self.session.turns[-1] if self.session.turns else Turn("")
        drafts, judges = (turn.events[-1].draft, turn.events[-1].judge) if turn.events else (None, None)
        pushes = s.mean_pushes if self._is_in_force(turn.settings) else {}
        return Progress(used, limit, drafts, judges, s.acceptance_rate, s.tokens_per_second, pushes)

    def _is_in_force(self, settings: Mapping[str, Any]) -> bool:
        """True if a turn was answered with the mode and the preferences of the next turn."""
        request = self.judge.request
        mode = resolve_mode(request if request.has_preferences else request.as_defaults())
        avoided = [*settings.get("generation", {}).get("avoid", ())]
        known = settings.get("mode"), settings.get("preferences"), avoided
        return known == (mode, self.views, [*request.generation.avoid])

    # Settings.

    @property
    def views(self) -> dict[str, list[str]]:
        """The preferences by the name of their view."""
        return by_view(self.judge.request)

    def prefer(self, views: Sequence[Sequence[str]]) -> None:
        """Give view a and view b their preferences.

        Raises:
            UsageError: they cannot be used with the current settings; the current ones stay.
        """
        self.put_in_force(self.judge.request.replace(views=views))

    def swap(self) -> None:
        """Exchange the preferences and adapters of two views; reverse the preferences of more views."""
        request, views = self.judge.request, [*self.views.values()][::-1]
        if len(views) == len(VIEW_NAMES):
            return self.put_in_force(request.swap().replace(views=views))
        wishes = [*chain.from_iterable(views)]
        dealt = request.replace(views=deal(wishes))
        # Dealt preferences may have equal strengths in each view, and would share two views.
        stay_apart = request.views[1] and len(by_view(dealt)) == len(views)
        self.prefer(dealt.views if stay_apart else [wishes, []])

    def put_in_force(self, request: Request, *, needs_preferences: bool = False) -> None:
        """Use this request for the next answers.  Without preferences, settings that need some are kept for later.

        Args:
            needs_preferences: refuse such settings instead.

        Raises:
            UsageError: the request cannot be used; nothing has changed then.
            ModelError: the same for an adapter, or another file.
        """
        judge = self.judge
        if request.has_preferences or needs_preferences:
            make_roles(request)
        if not request.has_preferences:
            request = request.as_defaults()
        judge.check_files(request)
        judge.request = request

    def apply_persona(self, persona: Overrides) -> None:
        """Apply the settings of a persona; others stay.

        Raises:
            UsageError: they cannot be used with the current settings; nothing has changed then.
            ModelError: the same for an adapter.
        """
        request = self.judge.request.override(persona).with_model_defaults(self.judge.recommended)
        self.judge.check(request)
        self.put_in_force(request)

    def switch_model(self, name: str) -> None:
        """Continue with another model.  If it cannot be loaded, the current one stays.

        Raises:
            ModelError: the model cannot be loaded, or the current adapters do not fit it.
        """
        check_adapters(self.judge.request.generation, read_header(find_model(name)))
        name = lasting_name(name)
        old, before = self.judge, self.model
        old.close()  # both may not fit
        try:
            self.judge = self.load(name, True)
        except BaseException:
            with old.interrupt.ignored():
                self.judge = self.load(before, True)
            raise
        else:
            self.model = name
            for turn in self.session.turns:
                turn.first = 0  # its context may have room for all of them
        finally:
            self.judge.request = old.request.with_model_defaults(self.judge.recommended)
            self._answer = self._alternatives = None

    def open(self, session: Session) -> None:
        """Continue another session with its settings, and with the current model.

        Raises:
            UsageError, ModelError: see `put_in_force`; nothing has changed then.
        """
        self.recorder.catch_up()
        request = self.judge.request.restore(session.settings)
        self.put_in_force(request.with_model_defaults(self.judge.recommended))
        self._take_up(session)
        self._answer = None
        saved = session.settings.get("model")
        if saved and lasting_name_if_found(saved) != self.model:
            server = self.judge.server
            advice = f": /model {saved} loads that" if server is None or server.is_resident else ""
            self._say(f"the chat continues with {self.model}, and was saved with {saved}{advice}")

    def _take_up(self, session: Session) -> None:
        self.recorder.session = self.session = session
        if session.notice:
            self._say(session.notice)

    def settings(self) -> dict[str, Any]:
        """The settings of the next turn."""
        request = self.judge.request
        if request.generation.aligner:
            request = request.replace(aligner=lasting_name_if_found(request.generation.aligner))
        return {"model": self.model, **request.as_dict()}


class Writing:
    """An answer being written and recorded: iterate over its token events.

    Args:
        replacing, keep: see `Recording`.
    """

    def __init__(
        self,
        conversation: Conversation,
        turn: Turn,
        started: StartedAnswer,
        replacing: Turn | None,
        *,
        keep: bool = True,
    ) -> None:
        self.turn = turn
        self.answer = started.answer
        self._keep = keep
        self._started = started
        self._conversation = conversation
        self._replacing = replacing

    def __iter__(self) -> Generator[TokenEvent, None, None]:
        conversation, turn = self._conversation, self.turn
        if isinstance(self.answer, RemoteAnswer):
            self.answer.wait()  # nothing has changed if this fails
        conversation.begin_turn(turn, self._started, self._replacing, keep=self._keep)
        recording = Recording(conversation.recorder, turn, self._replacing, keep=self._keep)
        recording.begin(conversation.settings())
        before = conversation._answer
        if self._keep:
            conversation._answer = self.answer
        try:
            yield from list(turn.events)  # of an answer that is continued
            for event in self.answer:
                yield recording.add(event)
        except ServerGone as gone:
            raise ServerGone(f"{str(gone).partition(':')[0]}: /regen asks again") from None
        finally:
            self.answer.close()
            if not turn.events:
                conversation._answer = before
            recording.finish(self.answer.result)
