"""An answer being written: turns decisions into token events with text, counts and times."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from math import exp

from .decoding.guess import Lookahead
from .decoding.judge import Decision, Uniforms
from .decoding.schedule import Observer, Policies, Policy, Rows, Rules, algorithm1, lockstep
from .engine.engine import Engine
from .engine.filters import parse_stop_tokens
from .engine.interrupt import running_s
from .engine.lanes import Needs
from .engine.log_probs import most
from .engine.model import Model
from .engine.policies import Forced, Row
from .engine.slot import Slot
from .errors import UsageError
from .events import N_ALTERNATIVES, Alternative, FinishReason, RejectedToken, Result, Statistics, TokenEvent
from .policy_maker import make_policies
from .prompting.plan import Plan
from .prompting.rendering import DIALOGUE_SPACE, DIALOGUE_STOPS
from .prompting.thinking import END_OF_PROMPT, MARKS, Marks, Thinking, ThinkingPhase, opened_by, split
from .settings import FORMS, VIEW_LETTERS, FixedLayout, Mode, random_seed
from .stream import TextStream

_POLL_S = 1e-3  # between two checks whether another thread has stopped


@dataclass(frozen=True)
class Rewrite:
    """The two passes of mode rewrite: Aligner (arXiv 2402.02416) with a model that follows instructions.

    engine: the engine of the correcting model, if it is not the answering model.
    correct: plans the correction from the first answer's text and tokens.
    n_ctx: the most tokens that a view of the correction may hold.
    """

    engine: Engine | None
    correct: Callable[[str, tuple[int, ...]], Plan]
    n_ctx: int


class Answer(ABC):
    """An answer being written.  Iterate over its token events, then read `result`.

    A `PersonaJudge` writes one answer at a time: starting another ends this one.

    Args:
        engine: the engine that writes the answer.
        observer: called with each decision.
    """

    def __init__(
        self, engine: Engine, plan: Plan, seed: int, statistics: Statistics, observer: Observer | None
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.seed = seed
        self.statistics = statistics
        self.observer = observer
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        #: The token events of the first answer in mode rewrite.
        self.drafted: list[TokenEvent] = []
        self.layout: FixedLayout | None = None  # of its views; None for a single view
        self.n_held = 0  # prompt tokens that the KV caches contained already
        #: Called with a text about the work before the first event.
        self.on_progress: Callable[[str], object] = lambda text: None
        self._thread: threading.Thread | None = None  # the thread that iterates

    @property
    @abstractmethod
    def parts(self) -> Sequence[SingleAnswer]:
        """The answers that the engine writes for it."""

    @property
    @abstractmethod
    def result(self) -> Result:
        """The answer so far; the whole answer once the events are exhausted."""

    @property
    def progress(self) -> str:
        """A text about the work before the first event; empty without any."""
        return ""

    @abstractmethod
    def publish(self, events: list[TokenEvent]) -> list[TokenEvent]:
        """Turn the parts' events of one step into the events for the caller."""

    @abstractmethod
    def interrupt(self) -> None:
        """End it as interrupted."""

    def _choose_engine(self) -> Engine:
        """The engine that writes it next; the second pass of mode rewrite may have another one."""
        return self.engine

    def __iter__(self) -> Iterator[TokenEvent]:
        return self._events

    @cached_property
    def _events(self) -> Generator[TokenEvent]:
        return self._run()  # made on first use, because it refers to this object; a server never iterates

    def close(self) -> None:
        """End the answer.

        Raises:
            UsageError: another thread is writing it.
        """
        thread = self._thread
        if thread and thread.is_alive() and thread is not threading.current_thread():
            raise UsageError("a PersonaJudge writes one answer at a time, and another thread is writing one")
        self._events.close()

    def end(self) -> None:
        """End the answer and wait for the thread that writes it.  Set its `Interrupt` first."""
        while True:
            try:
                self._events.close()
                return
            except ValueError:  # its thread is running the generator
                if self._thread is threading.current_thread():
                    raise
                time.sleep(_POLL_S)

    @property
    def mode(self) -> Mode:
        return self.plan.roles.mode

    @property
    def labels(self) -> dict[str, list[str]]:
        """The preferences of each view, as text."""
        return self.plan.roles.labels

    @property
    def pushing(self) -> tuple[str, ...]:
        """The names of the preferences whose pushes its events contain; empty without a neutral view."""
        roles = self.plan.roles
        return () if roles.neutral is None else tuple(roles.weights)

    @property
    def n_given(self) -> int:
        """The number of tokens that the request gives.  Events of generated tokens are numbered from there."""
        return len(self.plan.given)

    @property
    def is_done(self) -> bool:
        """True if the answer has ended."""
        return self.error is not None or self.finish_reason is not None

    def _run(self) -> Generator[TokenEvent]:
        self._thread = threading.current_thread()  # before it is the engine's writer, which another thread may close
        judge = self.engine
        try:
            with judge.writing(self):  # also while another engine writes it: a judge writes one answer at a time
                while not self.is_done:
                    engine = self._choose_engine()
                    with nullcontext() if engine is judge else engine.writing(self):
                        engine.submit(self)
                        try:
                            while engine.is_writing(self):
                                for _, events in engine.step():
                                    yield from events
                        finally:
                            engine.cancel(self)
        finally:
            self._thread = None
        if self.error:
            raise self.error


class SingleAnswer(Answer):
    """An answer that is written once.

    Args:
        load_s: seconds that loading the model took.
        rewrite: write a first answer before the first event, and correct it.  The events and `result` are those of
            the correction; `drafted` and `Result.draft` are the first answer.  `plan` is that of the pass being
            written.  A first answer that is stopped or empty is not corrected.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        load_s: float,
        observer: Observer | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        seed = plan.request.generation.seed
        statistics = Statistics(load_s=0.0 if rewrite else load_s)
        super().__init__(engine, plan, random_seed() if seed is None else seed, statistics, observer)
        self.begins_again = False
        self._load_s = load_s
        self._rewrite = rewrite
        self._draft: Result | None = None
        self._started = 0.0  # the start time of the prompts, then of the first token
        self._prepare()

    @property
    def parts(self) -> Sequence[SingleAnswer]:
        return (self,)

    def publish(self, events: list[TokenEvent]) -> list[TokenEvent]:
        return events

    def _prepare(self) -> None:
        """Reset the state to the beginning of the plan."""
        plan = self.plan
        self.emitted: list[TokenEvent] = []  # all its events so far
        self._undecided: list[Decision] = []  # not yet known to be thought or answer
        self._beginning: list[tuple[int, bool]] = []  # tokens that begin the answer, and whether each is thought
        self._thoughts: TextStream[Decision] = TextStream()
        self._stream: TextStream[Decision] = TextStream()
        self._decisions: Iterator[Decision] = iter(())
        self._stop_tokens: set[int] = set()
        self._phase: ThinkingPhase
        generation, prompts = plan.request.generation, plan.prompts
        longest = max(map(len, prompts))
        # Not methods: in a reference cycle with `_decisions`, llama.cpp's samplers would be freed only by Python's
        # garbage collector.
        is_end = self.engine.model.is_end
        self._ends_generation: Callable[[int], bool] = _is_never_end if generation.ignore_end else is_end
        self._is_end: Callable[[int], bool] = _is_never_end
        self.limit = min(generation.most_tokens, self.engine.lanes.context_limit - longest)  # of its tokens
        #: The resources that it needs of the engine.
        self.needs = Needs(longest + self.limit, plan.roles.adapters, self._n_rows(), plan.shares_prefix)

    @property
    def n_ctx(self) -> int:
        """The most tokens that a view may hold, in either pass of mode rewrite."""
        return max(self.needs.n_ctx, self._rewrite.n_ctx if self._rewrite else 0)

    @property
    def result(self) -> Result:
        thinking, text = split(self.emitted)
        return Result(
            text=text,
            thinking=thinking,
            model=self.engine.model.name,
            mode=self.plan.roles.mode,
            preferences=self.plan.roles.preferences,
            lam=self.plan.request.generation.lam,
            seed=self.seed,
            finish_reason=self.finish_reason or "interrupted",
            statistics=self.statistics,
            strengths=self.plan.roles.strengths,
            offload=self.engine.model.offload.as_dict(),
            layout=self.layout,
            adapters=[each.as_dict() for each in self.plan.roles.adapters] if any(self.plan.roles.adapters) else [],
            draft=self._draft,
        )

    # The engine calls these.

    def begin(self, slot: Slot) -> None:
        """Start reading the prompts."""
        self.begins_again = False
        self._started = running_s()
        generation, prompts = self.plan.request.generation, self.plan.prompts
        model, begun = self.engine.model, self.plan.beginning
        if self.plan.is_dialogue:
            head, before = "" if begun else DIALOGUE_SPACE, model.text(begun)
            self._stream = TextStream([*generation.stop, *DIALOGUE_STOPS], head, before[len(before.rstrip("\n")) :])
        else:
            self._stream = TextStream(generation.stop)
        self._stop_tokens = parse_stop_tokens(model, generation)
        self.statistics.prompt_tokens = [len(prompt) for prompt in prompts]
        self.layout = slot.layout
        if self._drafts_ahead and self.engine.model.recurrent:
            raise UsageError(
                "this model's KV cache cannot be rolled back, as --schedule reference requires: use --schedule "
                "lockstep, which gives the same text"
            )
        self._phase = self._make_phase()
        policies = self._policies()
        slot.reduce = Row
        swap = self.plan.roles.mode != "base"
        ends_generation, stop_tokens, thinking = self._ends_generation, self._stop_tokens, self._phase.thinking

        def is_end(token: int) -> bool:
            """True if the answer ends with this token.  A stop token does not end the thinking."""
            return ends_generation(token) or (token in stop_tokens and not thinking.is_thought)

        self._is_end = is_end
        rules = Rules(generation.lam, swap, generation.decoding, self.limit, is_end, self._phase)
        uniforms = Uniforms(self.seed)
        if self._drafts_ahead:
            self._decisions = algorithm1(slot, prompts, policies, rules, uniforms)
        else:
            self._decisions = lockstep(slot, prompts, policies, rules, uniforms, self._guesser(slot))

    def decide(self) -> list[TokenEvent]:
        """Decide one token, and return the events whose text is final now.  The last token sets ``finish_reason``."""
        decision = next(self._decisions, None)
        if decision is None:
            self.finish_reason = "length"
            return []
        self._count(decision)
        self._undecided.append(decision)
        is_thought = self._phase.thinking.is_thought
        events = self._given_events() if self.statistics.completion_tokens == 1 else []
        events += [] if is_thought is None else self._settle(is_thought)
        if self._is_end(decision.token) or self._stream.stopped:
            self.finish_reason = "stop"
        elif self.statistics.completion_tokens >= min(self.limit, self._phase.limit):
            self.finish_reason = "length"
        return self._visible(events)

    def _given_events(self) -> list[TokenEvent]:
        """The events of the tokens from the request's ``begin``."""
        stream: TextStream[tuple[int, bool]] = TextStream(head=DIALOGUE_SPACE if self.plan.is_dialogue else "")
        piece = self.engine.model.piece
        given = self._beginning[: self.n_given]
        settled = [item for each in given for item in stream.push(each, piece(each[0], special=each[1]))]
        settled += stream.finish()
        events = [TokenEvent.given(n, text, token, thought) for n, ((token, thought), text) in enumerate(settled)]
        self.emitted += events
        return events

    def interrupt(self) -> None:
        """End the answer as interrupted."""
        self.finish_reason = "interrupted"

    def finish(self, slot: Slot) -> list[TokenEvent]:
        """The events that were held back until the last token.

        Raises:
            UsageError, ModelError: the first answer of mode rewrite cannot be corrected.
        """
        self.n_held += slot.n_held
        events = self._visible(self.release())
        if self._rewrite and not self._draft:
            self._begin_correction(self._rewrite)
        return events

    def release(self) -> list[TokenEvent]:
        """The events of the tokens that are held back, as if the answer ended here."""
        events = self._settle(thought=False)
        return [*events, *(self.event(*item, thought=False) for item in self._stream.finish())]

    def _settle(self, thought: bool) -> list[TokenEvent]:
        """The events of the undecided tokens, which are now known to be thinking or answer.

        Stop strings end an answer, but not the thinking.
        """
        decisions, self._undecided = self._undecided, []
        if thought:
            pairs = [pair for each in decisions for pair in self._thoughts.push(each, self._piece(each, thought))]
            return [self.event(*pair, thought) for pair in pairs]
        events = [self.event(*pair, thought=True) for pair in self._thoughts.finish()]
        for each in decisions:
            piece = b"" if self._stream.stopped else self._piece(each, thought)
            events += [self.event(*pair, thought) for pair in self._stream.push(each, piece)]
        return events

    def _make_phase(self) -> ThinkingPhase:
        """The state of the thinking after the given beginning of the answer."""
        model, request, ends_generation = self.engine.model, self.plan.request, self._ends_generation
        beginning, prompt = self.plan.beginning, self.plan.prompts[0]
        may_think = self.plan.may_think
        opened = opened_by(model.text(prompt[: len(prompt) - len(beginning)][-END_OF_PROMPT:])) if may_think else None
        thinking = Thinking(opened, may_begin=may_think)
        flags = thinking.accept_all(model.piece(token, special=True) for token in beginning)
        self._beginning = [*zip(beginning, flags, strict=True)]
        thinking.n_tokens = 0
        constraint = next(filter(None, (getattr(request.sampling, form) for form in FORMS)), None)
        return ThinkingPhase(
            thinking,
            spell=lambda token: b"" if ends_generation(token) else model.piece(token, special=True),
            split=lambda text: model.tokenize(text, special=True, continues=True),
            force=Forced,
            most=request.generation.think_tokens,
            most_answer=request.generation.max_tokens,
            openings=self._openings(constraint, opened) if constraint else (),
            is_constrained=constraint is not None,
        )

    def _openings(self, constraint: str, opened: Marks | None) -> set[int]:
        """The tokens with which an answer under a constraint may begin to think, unless the prompt has ``opened`` the
        thinking."""
        plan, model = self.plan, self.engine.model
        if opened or plan.beginning or not plan.may_think or plan.request.prompting.think == "off":
            return set()
        spelled = constraint.replace("\\", "")  # without the escapes of an expression
        first = [model.tokenize(marks.open, special=True)[0] for marks in MARKS if marks.open not in spelled]
        return {token for token in first if model.is_cut_out(token) and f"<[{token}]>" not in constraint}

    def _piece(self, decision: Decision, thought: bool) -> bytes:
        """The bytes that a token adds to the text.  In the thinking, control tokens are spelled out."""
        token, model = decision.token, self.engine.model
        if self._ends_generation(token) or (token in self._stop_tokens and not thought):
            return b""
        return model.piece(token, special=thought and not model.is_end(token))

    def _visible(self, events: list[TokenEvent]) -> list[TokenEvent]:
        """The events to return to the caller: none of a first answer, which will be corrected."""
        if self._rewrite and not self._draft:
            self.drafted += events
            return []
        return events

    def _begin_correction(self, rewrite: Rewrite) -> None:
        draft = self.result
        self._draft = draft
        self.emitted, self.statistics = [], Statistics(load_s=self._load_s)
        if self.error or draft.finish_reason == "interrupted" or not draft.text.strip():
            return
        self.plan = rewrite.correct(draft.text, tuple(event.id for event in self.drafted if not event.thought))
        self.engine = rewrite.engine or self.engine
        self.finish_reason = None
        self.begins_again = True
        self._prepare()

    def _count(self, decision: Decision) -> None:
        now = running_s()
        if not self.statistics.completion_tokens:
            self.statistics.prefill_s = now - self._started
            self._started = now
        self.statistics.count(decision)
        self.statistics.decode_s = now - self._started

    @property
    def _drafts_ahead(self) -> bool:
        """True if Algorithm 1 writes it, which needs two preferences that take turns."""
        return self.plan.request.generation.schedule == "reference" and self.plan.roles.n_speakers > 1

    def _n_rows(self) -> int:
        """The most tokens that a view decodes at once with logits after each.

        Algorithm 1 decodes a draft and the token before it; lockstep decodes one token and the guess after it.
        """
        generation = self.plan.request.generation
        return 1 + (generation.lam if self._drafts_ahead else generation.lookahead)

    def _policies(self) -> Policies:
        """The policies that propose and decide."""
        beginning = [token for token, thought in self._beginning if not thought]
        return make_policies(
            self.engine.model,
            self.plan,
            self.seed,
            phase=self._phase,
            beginning=beginning,
            spelled=self._spelled(beginning),
            stop_tokens=self._stop_tokens,
            observer=self.observer,
        )

    def _spelled(self, beginning: list[int]) -> list[int]:
        """The beginning of the answer for a constraint: without the space that a vocabulary, a template or a plain
        dialogue puts before the text."""
        last, model = self.plan.conversation[-1], self.engine.model
        is_answer = last.role == "assistant"
        given = last.content if is_answer else self.plan.request.prompting.begin
        text = model.text(beginning)
        is_as_written = is_answer and last.tokens and not self.plan.is_dialogue
        if is_as_written or given[:1].isspace() or not text.startswith(" "):
            return beginning
        return model.tokenize(text[1:], special=False, continues=True)

    def _guesser(self, slot: Slot) -> Lookahead | None:
        most = min(self.plan.request.generation.lookahead, slot.most_rows - 1)
        if most < 1:
            return None
        return Lookahead(max(self.plan.prompts, key=len), most, lambda: slot.prefill_s_per_token)

    def event(self, decision: Decision, text: str, thought: bool) -> TokenEvent:
        """Make the event of a decision with its text, and count it in the statistics."""
        rejected = decision.rejected
        judge = None if self.plan.roles.mode == "both" else decision.judge  # all preferences together
        model = self.engine.model
        pushes = dict(zip(self.plan.roles.weights, decision.pushes, strict=False))
        self.statistics.count_final(pushes, decision.neutral, thought)
        event = TokenEvent(
            position=self.n_given + decision.position,
            id=decision.token,
            text=text,
            kind=decision.kind,
            round=decision.round,
            draft=None if decision.draft is None else VIEW_LETTERS[decision.draft],
            p=decision.p,
            q=decision.q,
            accept_probability=decision.accept_probability,
            rejected=rejected and RejectedToken(rejected.token, model.text([rejected.token]), rejected.p, rejected.q),
            judge=None if judge is None else VIEW_LETTERS[judge],
            pushes=pushes,
            thought=thought,
        )
        self.emitted.append(event)
        return event


def _is_never_end(token: int) -> bool:
    return False


class ViewTokens:
    """An `Observer` that stores the most probable tokens of every view at the last decision, before any filter.

    Args:
        names: the names of all views.
    """

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        self._model = model
        self._names = names
        #: Those of any view, the most probable first.
        self.alternatives: list[Alternative] = []

    def __call__(self, judge: Policy, rows: Rows, decision: Decision) -> None:
        views = [rows(view) for view in range(len(self._names))]
        ids = {int(token) for each in views for token in most(each.logits, N_ALTERNATIVES)}
        alternatives = [Alternative(token, self._model.piece(token).decode(errors="ignore"), {}) for token in ids]
        for each in alternatives:
            for name, row in zip(self._names, views, strict=True):
                each.p[name] = exp(float(row.logits[each.id]) - row.log_z)
        self.alternatives = sorted(alternatives, key=lambda each: (-max(each.p.values()), each.id))
