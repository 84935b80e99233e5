"""One answer being written: decisions become token events, counted, timed and settled as text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from random import SystemRandom
from typing import Protocol

from .decoding.guess import Lookahead
from .decoding.judge import Decision, Uniforms
from .decoding.schedule import Rows, Rules, Voice, Voices, algorithm1, lockstep
from .engine.adapters import Adapters
from .engine.constraint import make_constraint
from .engine.filters import FilterChain
from .engine.interrupt import Interrupt, Interrupted, running_s
from .engine.model import Model
from .engine.pool import Writer
from .engine.seats import Seat
from .engine.views import ModelViews
from .engine.voices import Alone, Best, Combined, Floor, Meter, Reader, Weight, heard
from .errors import UsageError
from .events import FinishReason, RejectedToken, Result, Statistics, TokenEvent
from .prompting.plan import Plan
from .settings import PANEL_NAMES, FixedLayout, Mode
from .stream import TextStream

_LOOK_S = 1e-3  # between two looks at whether another thread has stopped


#: See `Answer`.
Witness = Callable[[Voice, Rows, Decision], None]


class Pool(Protocol):
    """Where an answer's views live: a `ViewPool` of its own, or a `Seat` among others."""

    model: Model
    interrupt: Interrupt
    context_limit: int

    def views(
        self,
        n_views: int,
        n_ctx: int,
        prompts: Sequence[Sequence[int]],
        adapters: Sequence[Adapters],
        n_rows: int,
    ) -> ModelViews | Seat:
        """Views with room for ``n_ctx`` tokens each, which will begin with these prompts, read with these adapters, and
        be fed at most ``n_rows`` at a time."""

    def writing(self, writer: Writer) -> AbstractContextManager[None]:
        """While this one is iterated over."""


class Answer:
    """One answer being written: iterate over its token events, then look at `result`.

    A judge writes one answer at a time: when another begins, this one ends.

    Args:
        pool: where its views live.
        load_s: seconds that loading the model took.
        witness: gets each decision, the voice that made it, and what the views knew then, which is gone afterwards.
    """

    def __init__(self, pool: Pool, plan: Plan, load_s: float, witness: Witness | None = None) -> None:
        seed = plan.request.generation.seed
        self.seed = SystemRandom().getrandbits(63) if seed is None else seed
        self.statistics = Statistics(load_s=load_s)
        self.finish_reason: FinishReason | None = None
        self.plan = plan
        #: The token events of a first answer that this one corrects.
        self.drafted: list[TokenEvent] = []
        self._pool = pool
        self._generation = plan.request.generation
        self._witness = witness
        self._texts: list[str] = []
        self._stream: TextStream[Decision] = TextStream()
        self._decisions: Iterator[Decision] = iter(())
        self._limit = 0  # tokens that it may have
        self.layout: FixedLayout | None = None  # of its views, where there are several
        self._started = 0.0  # when its prompts, then its first token, came
        self._thread: int | None = None  # that began to iterate
        self._events = self._run()

    def __iter__(self) -> Iterator[TokenEvent]:
        return self._events

    def close(self) -> None:
        """Write no more of it.

        Raises:
            UsageError: another thread is writing it.
        """
        if self._thread not in (None, threading.get_ident()):
            raise UsageError("a PersonaJudge writes one answer at a time, and another thread is writing one")
        self._events.close()

    def end(self) -> None:
        """Write no more of it, whichever thread writes it; waits for that one to stop, which `Interrupt` tells it."""
        while True:
            try:
                self._events.close()
                return
            except ValueError:  # its thread is at work on it
                if self._thread == threading.get_ident():
                    raise
                time.sleep(_LOOK_S)

    @property
    def mode(self) -> Mode:
        return self.plan.roles.mode

    @property
    def labels(self) -> dict[str, list[str]]:
        """The views' preferences in words."""
        return self.plan.roles.labels

    @property
    def pushing(self) -> tuple[str, ...]:
        """The names of the preferences whose pushes its events tell; none without a neutral view."""
        roles = self.plan.roles
        return () if roles.neutral is None else tuple(roles.weights)

    @property
    def result(self) -> Result:
        """The answer so far; once the events are exhausted, the whole of it."""
        return Result(
            text="".join(self._texts),
            model=self._pool.model.name,
            mode=self.plan.roles.mode,
            preferences=self.plan.roles.preferences,
            lam=self._generation.lam,
            seed=self.seed,
            finish_reason=self.finish_reason or "interrupted",
            statistics=self.statistics,
            strengths={name: "auto" if w.auto else w.strength for name, w in self.plan.roles.weights.items()},
            offload=self._pool.model.offload.as_dict(),
            layout=self.layout,
            adapters=[each.as_dict() for each in self.plan.roles.adapters] if any(self.plan.roles.adapters) else [],
        )

    def _run(self) -> Generator[TokenEvent]:
        with self._pool.writing(self):
            self._thread = threading.get_ident()
            try:
                self.begin()
                while self.finish_reason is None:
                    yield from self.decide()
                    if self.finish_reason is None and self._pool.interrupt.is_set():
                        raise Interrupted
            except Interrupted:
                self.finish_reason = "interrupted"
            yield from self.finish()

    # The steps of it, for who writes several at once.

    def begin(self) -> None:
        """Read the prompts from now on."""
        self._started = running_s()
        self._stream = TextStream([*self._generation.stop, *self.plan.stops])
        self._decisions = self._decide()

    def decide(self) -> list[TokenEvent]:
        """One more token, and what it settles; ``finish_reason`` is set when it was the last."""
        decision = next(self._decisions, None)
        if decision is None:
            self.finish_reason = "length"
            return []
        self._count(decision)
        ended = self._is_end(decision.token)
        piece = b"" if ended else self._pool.model.piece(decision.token)
        settled = [self.event(*item) for item in self._stream.push(decision, piece)]
        if ended or self._stream.stopped:
            self.finish_reason = "stop"
        elif self.statistics.completion_tokens == self._limit:
            self.finish_reason = "length"
        return settled

    def finish(self) -> list[TokenEvent]:
        """What was still held back when the last token had come."""
        return [self.event(*item) for item in self._stream.finish()]

    def _count(self, decision: Decision) -> None:
        now = running_s()
        if not self.statistics.completion_tokens:
            self.statistics.prefill_s = now - self._started
            self._started = now
        self.statistics.count(decision)
        for name, push in zip(self.plan.roles.weights, decision.pushes, strict=False):
            self.statistics.pushed[name] = self.statistics.pushed.get(name, 0.0) + push
        self.statistics.decode_s = now - self._started

    def _decide(self) -> Iterator[Decision]:
        pool, prompts, generation = self._pool, self.plan.prompts, self._generation
        self.statistics.prompt_tokens = [len(prompt) for prompt in prompts]
        self._limit = min(generation.max_tokens, pool.context_limit - max(map(len, prompts)))
        n_ctx = max(map(len, prompts)) + self._limit
        views = pool.views(len(prompts), n_ctx, prompts, self.plan.roles.adapters, self._n_rows())
        if generation.schedule == "reference" and len(prompts) > 1 and not views.trimmable:
            raise UsageError(
                "--schedule reference rolls its KV caches back, and this model's memory cannot be trimmed: "
                "use --schedule lockstep, which gives the same text"
            )
        self.layout = views.layout if len(prompts) > 1 else None
        voices = self._voices()
        if witness := self._witness:
            voices = replace(voices, witness=lambda rows, decision: witness(voices.judge(decision), rows, decision))
        # Freed with the last reference: what was fed last may still be read when nobody asks for more.
        views.shares_trunk = self.plan.shares_trunk
        metered = range(len(prompts)) if voices.meter else ()
        views.reduce = Reader([*voices.drafts, *voices.judges], metered)  # type: ignore[list-item]
        swap = self.plan.roles.mode != "base"
        rules = Rules(generation.lam, swap, generation.decoding, self._limit, self._is_end)
        uniforms = Uniforms(self.seed)
        if generation.schedule == "reference":
            return algorithm1(views, prompts, voices, rules, uniforms)
        return lockstep(views, prompts, voices, rules, uniforms, self._guesser(views))

    def _n_rows(self) -> int:
        """Tokens that a view is fed at a time with the logits behind each: in Algorithm 1 the token before a draft, and
        the draft; else one, and what is guessed behind it."""
        generation = self._generation
        if generation.schedule == "reference" and len(self.plan.prompts) > 1:
            return generation.lam + 1
        return 1 + generation.lookahead

    def _voices(self) -> Voices:
        """Who proposes and who decides.

        In mode both the judge is all preferences at once, whoever drafts.  In mode args they are the one voice, and
        choose from what the neutral view proposes.  Else each preference speaks for itself, pushed away from neutral
        where it has another strength than 1.
        """
        roles, generation = self.plan.roles, self._generation
        weights = list(roles.weights.values())
        avoided = [weight for weight in weights if weight.view >= roles.n_speakers]
        model, sampling = self._pool.model, self.plan.request.sampling
        constraint = make_constraint(model, sampling)

        def chain(view: int, number: int) -> FilterChain:
            return FilterChain(model, sampling, self.plan.prompts[view], (self.seed, 1 + number), constraint)

        def alone(view: int) -> Alone:
            return Alone(view, chain(view, view))

        def combined(weights: Sequence[Weight], view: int, number: int) -> Combined:
            floor = Floor(heard(weights, roles.neutral), generation.floor) if generation.floor else None
            return Combined(weights, roles.neutral, generation.rule, floor, chain(view, number))

        def own(view: int) -> Alone | Combined:
            pushing = [weight for weight in weights if weight.view == view] + avoided
            if all(weight.is_as_it_is for weight in pushing):
                return alone(view)
            return combined(pushing, view, view)

        meter = None if roles.neutral is None else Meter(weights, roles.neutral)
        speakers = range(roles.n_speakers)
        if roles.mode == "args" and roles.neutral is not None:
            best = Best(roles.neutral, sampling.top_k, model.n_vocab) if sampling.top_k else None
            search = Combined(weights, roles.neutral, "push", best, chain(0, 0))
            return Voices([search], [search], meter)
        if roles.mode == "both":
            judge = combined(weights, 0, roles.n_speakers)
            return Voices([alone(view) for view in speakers], [judge for _ in speakers], meter)
        voices = [own(view) for view in speakers]
        return Voices(voices, voices, meter)

    def _guesser(self, views: ModelViews | Seat) -> Lookahead | None:
        most = min(self._generation.lookahead, views.most_rows - 1)
        if most < 1 or not views.rewinds:
            return None
        return Lookahead(max(self.plan.prompts, key=len), most, lambda: views.prefill_s_per_token)

    def _is_end(self, token: int) -> bool:
        return not self._generation.ignore_end and self._pool.model.is_end(token)

    def event(self, decision: Decision, text: str) -> TokenEvent:
        """A decision with its text, as front ends see it."""
        self._texts.append(text)
        rejected = decision.rejected
        model = self._pool.model
        return TokenEvent(
            position=decision.position,
            id=decision.token,
            text=text,
            kind=decision.kind,
            round=decision.round,
            draft=None if decision.draft is None else PANEL_NAMES[decision.draft],
            p=decision.p,
            q=decision.q,
            accept_probability=decision.accept_probability,
            rejected=rejected and RejectedToken(rejected.token, model.text([rejected.token]), rejected.p, rejected.q),
            judge=self._judge_of(decision),
            pushes=dict(zip(self.plan.roles.weights, decision.pushes, strict=False)),
        )

    def _judge_of(self, decision: Decision) -> str | None:
        if decision.draft is None or self.plan.roles.mode == "both":
            return None
        return PANEL_NAMES[(decision.draft + 1) % self.plan.roles.n_speakers]
