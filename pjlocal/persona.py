"""The Python API: a model, two preferences, and answers as streams of token events.

from pjlocal import PersonaJudge
with PersonaJudge(prefer=["vivid", "creative"]) as judge:
    print(judge("Got any creative ideas for a 10 year old's birthday?").text)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

from . import settings
from .decoding.guess import Lookahead
from .decoding.judge import Decision, Uniforms
from .decoding.schedule import Rules, algorithm1, lockstep
from .engine.context import check_memory, context_limit
from .engine.filters import FilterChain
from .engine.interrupt import Interrupt, Interrupted
from .engine.model import Model
from .engine.views import FixedLayout, ModelViews, fastest_layout
from .errors import ModelError, UsageError
from .events import VIEW_NAMES, FinishReason, RejectedToken, Result, Statistics, TokenEvent
from .gguf.locate import find_model
from .prompting import preferences
from .prompting.prompt import ChatTemplate, Message
from .stream import TextStream

log = logging.getLogger("pjlocal")

_MOST_PER_TOKEN = 256  # characters; longer tokens than that are not to be expected


@dataclass(frozen=True)
class Plan:
    """A request made concrete: the mode, each view's preferences, and each view's prompt tokens."""

    mode: settings.Mode
    preferences: list[list[str]]
    prompts: list[list[int]]
    stops: tuple[str, ...]


class Answer:
    """One answer being written: iterate over its token events, then look at `result`.

    A judge writes one answer at a time: when another begins, this one ends.
    """

    def __init__(self, judge: PersonaJudge, plan: Plan, generation: settings.Generation) -> None:
        self.seed = SystemRandom().getrandbits(63) if generation.seed is None else generation.seed
        self.statistics = Statistics(load_s=judge.load_s)
        self.finish_reason: FinishReason | None = None
        self.plan = plan
        self._judge = judge
        self._generation = generation
        self._texts: list[str] = []
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

    @property
    def result(self) -> Result:
        """The answer so far; once the events are exhausted, the whole of it."""
        names = self.plan.preferences
        return Result(
            text="".join(self._texts),
            model=self._judge.model.name,
            mode=self.plan.mode,
            preferences={VIEW_NAMES[i]: names[i] if i < len(names) else [] for i in range(2)},
            lam=self._generation.lam,
            seed=self.seed,
            finish_reason=self.finish_reason or "interrupted",
            statistics=self.statistics,
        )

    def _run(self) -> Generator[TokenEvent]:
        stream: TextStream[Decision] = TextStream([*self._generation.stop, *self.plan.stops])
        with self._judge.writing(self):
            self._thread = threading.get_ident()
            try:
                yield from self._settled(stream)
            except Interrupted:
                self.finish_reason = "interrupted"
            for decision, text in stream.finish():
                yield self.event(decision, text)

    def _settled(self, stream: TextStream[Decision]) -> Iterator[TokenEvent]:
        model = self._judge.model
        started = time.perf_counter()
        first = True
        for decision in self._decisions():
            now = time.perf_counter()
            if first:
                self.statistics.prefill_s = now - started
                started = now
                first = False
            self.statistics.count(decision)
            self.statistics.decode_s = now - started
            ended = self._is_end(decision.token)
            for settled, text in stream.push(decision, b"" if ended else model.piece(decision.token)):
                yield self.event(settled, text)
            if ended or stream.stopped:
                self.finish_reason = "stop"
                return
            if self._judge.interrupt.is_set():
                raise Interrupted
        self.finish_reason = "length"

    def _decisions(self) -> Iterator[Decision]:
        judge, prompts, generation = self._judge, self.plan.prompts, self._generation
        self.statistics.prompt_tokens = [len(prompt) for prompt in prompts]
        limit = min(generation.max_tokens, judge.context_limit - max(map(len, prompts)))
        views = judge.views(len(prompts), max(map(len, prompts)) + limit)
        if generation.schedule == "reference" and len(prompts) > 1 and not views.trimmable:
            raise UsageError(
                "--schedule reference rolls its KV caches back, and this model's memory cannot be trimmed: "
                "use --schedule lockstep, which gives the same text"
            )
        # Freed with the last reference: what was fed last may still be read when nobody asks for more.
        filters = [
            FilterChain(judge.model, judge.sampling, prompt, (self.seed, 1 + view))
            for view, prompt in enumerate(prompts)
        ]
        views.reduce = lambda view, row, logits: filters[view].early(row, logits)
        rules = Rules(generation.lam, self.plan.mode == "judge", generation.decoding, limit, self._is_end)
        uniforms = Uniforms(self.seed)
        if generation.schedule == "reference":
            yield from algorithm1(views, prompts, filters, rules, uniforms)
        else:
            yield from lockstep(views, prompts, filters, rules, uniforms, self._guesser(views))

    def _guesser(self, views: ModelViews) -> Lookahead | None:
        most = self._generation.lookahead
        if not most or not views.trimmable:
            return None
        return Lookahead(
            max(self.plan.prompts, key=len), min(most, views.most_rows - 1), lambda: views.prefill_s_per_token
        )

    def _is_end(self, token: int) -> bool:
        return not self._generation.ignore_end and self._judge.model.is_end(token)

    def event(self, decision: Decision, text: str) -> TokenEvent:
        """A decision with its text, as front ends see it."""
        self._texts.append(text)
        rejected = decision.rejected
        model = self._judge.model
        return TokenEvent(
            position=decision.position,
            id=decision.token,
            text=text,
            kind=decision.kind,
            round=decision.round,
            draft=None if decision.draft is None else VIEW_NAMES[decision.draft],  # type: ignore[arg-type]
            p=decision.p,
            q=decision.q,
            accept_probability=decision.accept_probability,
            rejected=rejected and RejectedToken(rejected.token, model.text([rejected.token]), rejected.p, rejected.q),
        )


class PersonaJudge:
    """A local model that answers under two preferences.

    Args:
        model: a GGUF path, a file name in a models folder, or ``smollm2`` (the default); or a `Model` already loaded,
            which then stays open when this is closed.
        prefer: preferences dealt to the two views in turn: presets, free text or ``@file``.
        draft_prefer, judge_prefer: preferences of view a, which drafts first, and of view b; instead of ``prefer``.

    Raises:
        UsageError: preferences that cannot be used.
        ModelError: a model that cannot be used.
    """

    def __init__(
        self,
        model: Model | str | Path | None = None,
        prefer: Sequence[str] | str = (),
        *,
        draft_prefer: Sequence[str] = (),
        judge_prefer: Sequence[str] = (),
        prompting: settings.Prompting = settings.Prompting(),
        sampling: settings.Sampling = settings.Sampling(),
        generation: settings.Generation = settings.Generation(),
        engine: settings.Engine = settings.Engine(),
        interrupt: Interrupt | None = None,
    ) -> None:
        if prefer and (draft_prefer or judge_prefer):
            raise UsageError(
                "--prefer deals the preferences out; --draft-prefer and --judge-prefer place them: use one"
            )
        if isinstance(prefer, str):
            prefer = [prefer]
        self.prefer(preferences.deal(prefer) if prefer else [draft_prefer, judge_prefer])
        self.prompting = prompting
        self.sampling = sampling
        self.generation = generation
        self.engine = engine
        self.interrupt = interrupt or Interrupt()
        self.mode(generation)  # refuse what cannot be before the model is loaded
        self._views: dict[int, ModelViews] = {}  # by their number: modes of one view leave the caches of two alone
        self._layout: FixedLayout | None = None
        self._writing: Answer | None = None
        self._closed = False
        started = time.perf_counter()
        self._borrowed = isinstance(model, Model)
        if isinstance(model, Model):
            self.model = model
        else:
            path = model if isinstance(model, Path) else find_model(model)
            self.model = Model(path, engine.n_gpu_layers, interrupt=self.interrupt, verbose=engine.verbose)
        self.template = ChatTemplate(self.model)
        self.load_s = time.perf_counter() - started

    def __enter__(self) -> PersonaJudge:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the answer being written, free the contexts, then the model."""
        self._closed = True
        if self._writing:
            self._writing.close()
        for views in self._views.values():
            views.close()
        self._views.clear()
        if not self._borrowed:
            self.model.close()

    @contextmanager
    def writing(self, answer: Answer) -> Iterator[None]:
        """While this answer is written.  One that was left unfinished ends: both would write into the same caches.

        Raises:
            UsageError: the judge is closed, or another thread is writing.
        """
        self._check_open()
        if self._writing:
            self._writing.close()
        self._writing = answer
        try:
            yield
        finally:
            self._writing = None

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this PersonaJudge is closed: make another")

    def __call__(self, prompt: str | Sequence[Message], **changes: Any) -> Result:
        """The whole answer to a prompt; keyword arguments change the generation settings for this answer."""
        answer = self.stream(prompt, **changes)
        for _ in answer:
            pass
        return answer.result

    def prefer(self, views: Sequence[Sequence[str]]) -> None:
        """Give view a and view b their preferences, from the next answer on.

        Raises:
            UsageError: a preference that cannot be used; those in force stay.
        """
        prefixes = [preferences.prefix(names) for names in views]
        self.preferences = [list(names) for names in views]
        self._prefixes = prefixes

    def check(self, sampling: settings.Sampling) -> None:
        """Refuse filters that this model cannot have.

        Raises:
            UsageError: a grammar, schema or logit bias that cannot be understood.
        """
        FilterChain(self.model, sampling, (), (0,)).close()

    def stream(self, prompt: str | Sequence[Message], **changes: Any) -> Answer:
        """The answer to a prompt, or to a conversation that ends with a user message, token by token."""
        generation: settings.Generation = self.generation.replace(**changes)
        return self.answer(self.plan(prompt, generation), generation)

    def answer(self, plan: Plan, generation: settings.Generation) -> Answer:
        """The answer that was planned, token by token."""
        return Answer(self, plan, generation)

    def mode(self, generation: settings.Generation) -> settings.Mode:
        """The mode in force: judge with preferences and plain without, unless one was asked for."""
        some = any(self.preferences)
        mode = generation.mode or ("judge" if some else "plain")
        if mode != "plain" and not some:
            raise UsageError(f"mode {mode} needs a preference, as in: -p vivid -p creative")
        return mode

    def prefixes(self, generation: settings.Generation) -> list[str]:
        """The preference prefix of each view that the mode has."""
        mode = self.mode(generation)
        if mode == "plain":
            return [""]
        if mode == "prompt":
            return ["\n".join(prefix for prefix in self._prefixes if prefix)]
        return self._prefixes

    def plan(self, prompt: str | Sequence[Message], generation: settings.Generation) -> Plan:
        """Each view's prompt tokens.

        Raises:
            UsageError: an empty prompt, or one that leaves no room for an answer.
        """
        conversation = [Message("user", prompt)] if isinstance(prompt, str) else prompt
        return self.planned(self.prompts(conversation, generation), generation)

    def planned(self, prompts: list[list[int]], generation: settings.Generation) -> Plan:
        """The plan for prompts that `prompts` made.

        Raises:
            UsageError: they leave no room for an answer.
        """
        limit = self.context_limit
        n_tokens = max(map(len, prompts))
        if n_tokens >= limit:
            raise UsageError(
                f"the prompt is too long: {n_tokens} tokens, and a context of {limit} has room for {limit - 1} and "
                f"an answer. Shorten it by {n_tokens - limit + 1} tokens, or give a larger --ctx"
            )
        if self.mode(generation) == "base" and not self.preferences[1]:
            log.warning("base mode writes as view b alone would, and view b has no preference: use --judge-prefer")
        return Plan(self.mode(generation), self.preferences, prompts, self.template.stops)

    def prompts(self, conversation: Sequence[Message], generation: settings.Generation) -> list[list[int]]:
        """Each view's prompt tokens, be they more than fit.

        Raises:
            UsageError: nothing is said, or so much that it cannot fit, and only splitting it into tokens would take
                long.
        """
        self._check_open()
        if not conversation or not conversation[-1].content.strip():
            raise UsageError('the prompt is empty: say something, as in pjlocal run -p vivid "Tell me a story"')
        limit, length = self.context_limit, len(conversation[-1].content)
        if length > _MOST_PER_TOKEN * limit:
            raise UsageError(
                f"the prompt is far too long: {length:,} characters, where a context of {limit:,} tokens has room for "
                f"about {4 * limit:,}. Shorten it, or give a larger --ctx"
            )
        with self.interrupt.at_once():
            return [self.template.tokens(conversation, prefix, self.prompting) for prefix in self.prefixes(generation)]

    @property
    def context_limit(self) -> int:
        """Tokens that a view may hold."""
        return context_limit(self.model, self.engine)

    def views(self, n_views: int, n_ctx: int) -> ModelViews:
        """Views with room for ``n_ctx`` tokens each.

        Those in use are kept when they are large enough.  Else they make room for twice as many tokens, and keep what
        they have read: a conversation that grows is not read again.
        """
        views = self.views_in_use(n_views)
        if views and views.n_ctx >= n_ctx:
            return views
        most = max(self.context_limit, n_ctx)
        n_ctx = min(-(-max(n_ctx, 2 * views.n_ctx if views else 0) // 256) * 256, most)
        check_memory(self.model, self.engine, n_views, n_ctx)
        states = views.state() if views else []
        if views:
            del self._views[n_views]
            views.close()
        self._views[n_views] = ModelViews(self.model, self.engine, n_views, n_ctx, self._find_layout(), self.interrupt)
        self._views[n_views].restore(states)
        return self._views[n_views]

    def views_in_use(self, n_views: int) -> ModelViews | None:
        """The views of that number, where an answer has needed them; done with what it fed last."""
        views = self._views.get(n_views)
        if views:
            with suppress(Interrupted, ModelError):  # of an answer that was left or stopped
                views.wait()
        return views

    def _find_layout(self) -> FixedLayout:
        """The layout asked for; ``auto`` measures on the loaded model once."""
        if self._layout is None:
            wanted = self.engine.layout
            self._layout = fastest_layout(self.model, self.engine, 2, self.interrupt) if wanted == "auto" else wanted
        return self._layout
