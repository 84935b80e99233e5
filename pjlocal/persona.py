"""The Python API: a model, two preferences, and answers as streams of token events.

from pjlocal import PersonaJudge
with PersonaJudge(prefer=["vivid", "creative"]) as judge:
    print(judge("Got any creative ideas for a 10 year old's birthday?").text)
"""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from . import settings
from .answer import Answer, Rewrite, SingleAnswer, ViewTokens
from .best import BestAnswer
from .decoding.schedule import Observer
from .engine.constraint import check_constraint, make_constraint
from .engine.engine import Engine, Submission
from .engine.filters import FilterChain, parse_stop_tokens
from .engine.interrupt import Interrupt, Interrupted
from .engine.lanes import Capacity
from .engine.machine import threads_in_words
from .engine.model import Model
from .engine.offload import placement
from .errors import ModelError, PjlocalError, TooLong, UsageError, plural
from .events import Alternative, Result, TokenEvent
from .gguf.adapter import check_adapters
from .gguf.header import read_header
from .gguf.locate import find_model
from .gguf.memory import padded_context
from .gguf.sampling import model_defaults_in_words, recommended
from .prompting.conversation import Prompt, check_begin, parse_conversation
from .prompting.jinja import TemplateProcess
from .prompting.plan import (
    EVERYTHING,
    Plan,
    Roles,
    expected_views,
    in_mode,
    make_roles,
    resolve_mode,
    unused,
    with_beginning,
)
from .prompting.preferences import correction, prefix
from .prompting.prompt import ChatTemplate, Message
from .prompting.tools import Tools
from .request import GROUPS, Request, changed, make_views, parse_views

#: One text or several; or two lists of them, one for each view.
Preferences = str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Iterable[str | os.PathLike[str]]] | None

_MOST_PER_TOKEN = 256  # characters; no tokenizer is expected to have longer tokens

_by_keywords = settings.by_keywords(
    *GROUPS.values(),
    settings.Engine,
    also={"--prefer": "prefer", "--draft-prefer": "draft_prefer", "--judge-prefer": "judge_prefer"},
)


class PersonaJudge:
    """A local model that answers under two preferences.

    Settings can also be given by name: ``PersonaJudge(temperature=0, n_ctx=2048)``.

    Args:
        model: a name for `gguf.locate.find_model`: a GGUF path, a model's name or its beginning, ``org/repo``, or
            ``smollm2`` (the default); or a loaded `Model`, whose weights are freed when all its users are closed.
        prefer: one preference or several (presets, free text or ``@file``), assigned to the two views in turn; or two
            lists, the preferences of view a and of view b.
        draft_prefer, judge_prefer: preferences of view a, which drafts first, and of view b; instead of ``prefer``.
        request: all settings of an answer at once, instead of the preferences and the three groups.

    Raises:
        UsageError: preferences, a setting, a schema, an expression or a Lark grammar cannot be used.
        ModelError: the model cannot be used.
        TypeError: an argument is unknown or has a wrong type.
    """

    @_by_keywords
    def __init__(
        self,
        model: Model | str | os.PathLike[str] | None = None,
        prefer: Preferences = (),
        *,
        draft_prefer: Preferences = (),
        judge_prefer: Preferences = (),
        prompting: settings.Prompting = settings.Prompting(),
        sampling: settings.Sampling = settings.Sampling(),
        generation: settings.Generation = settings.Generation(),
        request: Request | None = None,
        engine: settings.Engine = settings.Engine(),
        interrupt: Interrupt | None = None,
        **changes: Any,
    ) -> None:
        if request is None:
            changes = {"views": make_views(prefer, draft_prefer, judge_prefer), **changes}
            request = Request(generation=generation, sampling=sampling, prompting=prompting)
        elif any((prefer, draft_prefer, judge_prefer, *map(changed, (prompting, sampling, generation)))):
            raise TypeError(
                "a request has its own preferences and settings: leave prefer, draft_prefer, judge_prefer, prompting, "
                "sampling and generation out"
            )
        of_engine = {f.name for f in dataclasses.fields(settings.Engine)} & changes.keys()
        engine = engine.replace(**{name: changes.pop(name) for name in of_engine})
        request = request.replace(**changes)
        self.request = request
        self.engine = engine
        self.interrupt = interrupt or Interrupt()
        self._aligner_file: tuple[str, Path] | None = None  # the last lookup: name and path
        self._file: Path | None = None  # of the model, once known
        self._fitting: tuple[tuple[str, str], ...] = ()  # the adapters checked last
        self.roles(request)  # refuse an impossible request before loading the model
        check_constraint(request.sampling)
        self._aligner: tuple[Path, PersonaJudge] | None = None  # its file, and the judge on it
        started = time.perf_counter()
        loaded = model if isinstance(model, Model) else None
        self._file = loaded.path if loaded else _path_of(model)
        self.check_files(request)
        self._open(loaded or self._file, expected_views(request))
        #: The engine that writes the answers.
        self.decoder = Engine(self.model, engine, self.interrupt)
        self._together: tuple[Capacity, Engine] | None = None  # the engine for several answers to one prompt
        self.load_s = time.perf_counter() - started

    def _open(self, model: Model | Path, n_views: int) -> None:
        """Load the model, unless it is given, and make its template."""
        process = TemplateProcess()  # it starts while the model loads
        with ExitStack() as undo, ExitStack() as on_failure:
            on_failure.callback(process.close)
            if isinstance(model, Model):
                self.model = model
                undo.callback(model.lifetime.hold(self))
            else:
                self.model = Model(model, self.engine, self.interrupt, n_views=n_views)
                undo.callback(self.model.close)
            self.request = self.with_model_defaults(self.request)
            self.template = ChatTemplate(self.model, process)
            undo.callback(self.template.close)
            on_failure.pop_all()
            self._closing = undo.pop_all()

    def __enter__(self) -> PersonaJudge:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the answer being written and free the contexts.  Callable from any thread.

        The model is freed too, unless other judges use it."""
        self.decoder.close()
        if self._together:
            self._together[1].close()
        if self._aligner:
            self._aligner[1].close()
        self._closing.close()

    @_by_keywords
    def __call__(self, prompt: Prompt, **changes: Any) -> Result:
        """Return the whole answer to a prompt.  Arguments and errors are those of `stream`."""
        answer = self.stream(prompt, **changes)
        for _ in answer:
            pass
        return answer.result

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "prefer":  # assigning to it would hide the method
            self.prefer(value)
        else:
            super().__setattr__(name, value)

    @property
    def preferences(self) -> list[list[str]]:
        """The preferences of view a and of view b; `prefer` changes them."""
        return [list(preferences) for preferences in self.request.views]

    @_by_keywords
    def prefer(self, prefer: Preferences) -> None:
        """Set the preferences from the next answer on; see the class's ``prefer``.

        Raises:
            UsageError: a preference cannot be used; the current ones stay.
            TypeError: a preference is not a text.
        """
        views = parse_views(prefer)
        for preferences in views:
            prefix(preferences)
        self.request = self.request.replace(views=views)

    def check(self, request: Request) -> None:
        """Refuse settings that cannot be used with this model.

        Raises:
            UsageError: a grammar, schema, expression, logit bias or stop token cannot be used.
        """
        self.decoder.check_open()
        sampling = request.sampling
        parse_stop_tokens(self.model, request.generation)
        check_constraint(sampling)
        FilterChain(self.model, sampling, (), (0,), make_constraint(self.model, sampling))

    def check_files(self, request: Request) -> None:
        """Refuse adapters that are broken, or made for another model.

        Raises:
            ModelError: an adapter cannot be used; the message has the reason.
        """
        named = request.generation.adapters()
        if self._file is None or named == self._fitting:
            return
        check_adapters(request.generation, read_header(self._file))
        self._fitting = named

    @_by_keywords
    def stream(self, prompt: Prompt, **changes: Any) -> Answer:
        """Answer a text, or a conversation that ends with the user's message.  The answer yields its token events.

        Args:
            changes: settings for this answer alone, by name: ``temperature=0, max_tokens=50``; and preferences, as in
                ``prefer=["concise"]``.

        Raises:
            UsageError: the prompt or a setting cannot be used.
            TypeError: a setting is unknown, or the prompt has a wrong type.
        """
        return self.answer(self.plan(prompt, **changes))

    @_by_keywords
    def plan(self, prompt: Prompt, **changes: Any) -> Plan:
        """Plan the answer to a prompt, for `write`.  Arguments and errors are those of `stream`."""
        system, conversation = parse_conversation(prompt)
        request = self.request.replace(**changes)
        check_begin(changes.get("begin", ""), conversation[-1].role == "assistant")
        if "defaults" in changes:
            request = self.with_model_defaults(request)
        if {*settings.FORMS} & changes.keys():
            check_constraint(request.sampling)
        return self.plan_request(conversation, request.with_system(system) if system else request)

    def answer(
        self,
        plan: Plan,
        engine: Engine | None = None,
        observe: Callable[[], Observer | None] = lambda: None,
    ) -> Answer:
        """Make the answer of a plan, which yields its token events.

        Args:
            engine: the engine that writes it, on this model; by default this judge's own.
            observe: makes the observer of an answer's decisions.

        Raises:
            UsageError: in mode rewrite, there is no room for two answers.
            ModelError: in mode rewrite, the correcting model cannot be used.
        """
        self.decoder.check_open()
        plan, rewrite = self._rewrite(plan) if plan.roles.mode == "rewrite" else (plan, None)
        parts = [
            SingleAnswer(engine or self.decoder, replace(plan, request=request), self.load_s, observe(), rewrite)
            for request in map(plan.request.nth, range(plan.roles.n_answers))
        ]
        if len(parts) == 1:
            return parts[0]
        # Answers that cannot share a context are written one after the other.
        make = partial(self._engine_for, parts) if engine is None and _can_share(plan) else None
        return BestAnswer(engine or self.decoder, parts, make)

    def _engine_for(self, parts: Sequence[SingleAnswer]) -> Engine:
        """An engine that writes several answers at once, kept for the next ones.

        The one that it replaces is closed: no other answer may be in progress.

        Raises:
            ModelError: there is too little memory.
        """
        capacity = _capacity(parts, len(parts))
        if self._together:
            had, engine = self._together
            fits = had.n_ctx >= capacity.n_ctx and replace(had, n_ctx=capacity.n_ctx) == capacity
            if fits and not engine.closed:
                return engine
            engine.close()
            if had.n_ctx < capacity.n_ctx:  # a growing conversation
                capacity = replace(capacity, n_ctx=max(capacity.n_ctx, min(2 * had.n_ctx, self.context_limit)))
            self._together = None
        try:
            self._together = capacity, self._make_engine(capacity)
        except ModelError as error:
            raise ModelError(f"{error} (or a smaller --best)") from None
        return self._together[1]

    def _make_engine(self, capacity: Capacity) -> Engine:
        # Many answers are written 5 to 15 % faster in one wide batch than in two lanes (8 answers, two cores).
        settings = self.engine.replace(layout="batched") if self.engine.layout == "auto" else self.engine
        return Engine(self.model, settings, self.interrupt, capacity)

    def next_tokens(self, plan: Plan) -> list[Alternative]:
        """The most probable tokens of each view after the plan's prompts.

        Raises:
            Interrupted: on request.
        """
        plan, view_tokens = self.plan_next_token(plan)
        answer = self.answer(plan, observe=lambda: view_tokens)
        for _ in answer:
            pass
        if answer.finish_reason == "interrupted":
            raise Interrupted
        return view_tokens.alternatives

    def plan_next_token(self, plan: Plan) -> tuple[Plan, ViewTokens]:
        """Reduce a plan to a single token.

        Returns:
            The new plan, and the observer that will have the most probable tokens of each view.

        Raises:
            UsageError: mode rewrite, in which an answer has two prompts.
        """
        if plan.roles.mode == "rewrite":
            raise UsageError("mode rewrite does not list alternatives: use another mode")
        request = plan.request.replace(max_tokens=1, think_tokens=None, lookahead=0, schedule="lockstep")
        plan = replace(plan, request=request, roles=replace(plan.roles, n_answers=1))
        return plan, ViewTokens(self.model, plan.roles.view_names)

    @_by_keywords
    def answers(self, prompts: Iterable[Prompt], parallel: int = 8, **changes: Any) -> Iterator[tuple[int, TokenEvent]]:
        """Answer several prompts side by side, and yield events with the numbers of their prompts.

        All prompts are planned before the first one is answered.  `Interrupt` and closing the judge end all answers
        without an error; to get each answer's finish reason, use `write`.

        Args:
            parallel: the number of answers written at once.
            changes: see `stream`.

        Raises:
            UsageError, TypeError: see `stream`.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list: give [prompt] for a single one")
        if type(parallel) is not int or parallel < 1:
            raise UsageError(f"parallel must be a whole number of at least 1 (not {parallel!r})")
        plans = [self.plan(prompt, **changes) for prompt in prompts]
        return ((number, event) for number, _, events in self.write(plans, parallel) for event in events)

    def write(
        self, plans: Sequence[Plan], parallel: int, *, keep_errors: bool = False
    ) -> Iterator[tuple[int, Answer, list[TokenEvent]]]:
        """Write the answers of plans, ``parallel`` at once.

        Answers that cannot share a context (adapters, another correcting model, the schedule ``reference``) are written
        one at a time, after the others.

        Args:
            keep_errors: whether an answer that fails only gets its ``answer.error`` set, while the others continue.

        Yields:
            The plan's number, the answer, and its new events.  ``answer.is_done`` is True with the last ones.

        Raises:
            UsageError, ModelError: an answer failed, and the others ended.
        """
        shared = {n: plan for n, plan in enumerate(plans) if parallel > 1 and _can_share(plan)}
        together = {n: self.answer(plan, self.decoder) for n, plan in shared.items()}
        one_by_one = [number for number in range(len(plans)) if number not in together]
        if together:
            yield from self._write_together(together, parallel, keep_errors)
        for number in one_by_one:
            if self.decoder.closed:
                return
            answer = self.answer(plans[number])
            last = []
            try:
                for event in answer:
                    if answer.is_done:
                        last.append(event)
                    else:
                        yield number, answer, [event]
            except PjlocalError:
                if not keep_errors or not answer.error:
                    raise
            yield number, answer, last

    def _write_together(
        self, answers: dict[int, Answer], parallel: int, keep_errors: bool
    ) -> Iterator[tuple[int, Answer, list[TokenEvent]]]:
        capacity = _capacity([part for answer in answers.values() for part in answer.parts], parallel)
        with closing(self._make_engine(capacity)) as engine:
            in_flight: dict[Submission, tuple[int, Answer]] = {}
            while not (self.decoder.closed or engine.closed):
                for number in [*islice(answers, max(0, parallel - engine.n_waiting))]:
                    answer = answers.pop(number)
                    in_flight[answer] = number, answer
                    answer.engine = engine
                    engine.submit(answer)
                if engine.is_idle:
                    return
                for writing, events in engine.step():
                    number, answer = in_flight[writing]
                    if answer.error and not keep_errors:
                        raise answer.error
                    if answer.is_done:
                        del in_flight[answer]
                    yield number, answer, events

    def room(self, request: Request, n_tokens: int) -> int:
        """The most prompt tokens that leave room for an answer of ``n_tokens``.

        In mode rewrite, they leave room for two answers and the instruction to correct the first."""
        if resolve_mode(request) != "rewrite":
            return self.context_limit - n_tokens
        corrector = self._corrector(request)
        plain = _plain(request, with_adapters=False)
        overhead = len(corrector._correction([Message("user", "-")], request, plain, "-", ()).prompts[0])
        return min(self.context_limit, corrector.context_limit) - 2 * n_tokens - overhead

    def _rewrite(self, plan: Plan) -> tuple[Plan, Rewrite]:
        """The plan of the first answer of mode rewrite, and its correction.

        Raises:
            UsageError: there is no room for two answers.
        """
        request = plan.request
        corrector = self._corrector(request)
        plain = _plain(request, with_adapters=corrector is self)  # adapters fit one model only

        def correct(text: str, tokens: Sequence[int]) -> Plan:
            corrected = corrector._correction(plan.conversation, request, plain, text, tokens)
            return replace(corrected, request=request, roles=replace(plan.roles, adapters=corrected.roles.adapters))

        limit = min(self.context_limit, corrector.context_limit)
        n_prompt, generation = len(correct("-", ()).prompts[0]), request.generation
        room = limit - n_prompt
        if room < 2:
            raise UsageError("the context has no room for an answer and its correction: give a larger --ctx")
        n_first = min(generation.max_tokens, room // 2)  # without the thinking, which the correction does not read
        draft = replace(plan, request=request.replace(max_tokens=n_first))
        n_ctx = min(limit, n_prompt + n_first + generation.most_tokens)
        return draft, Rewrite(None if corrector is self else corrector.decoder, correct, n_ctx)

    def _corrector(self, request: Request) -> PersonaJudge:
        """The judge on the correcting model, loaded on first use."""
        aligner = request.generation.aligner
        if aligner is None:
            return self
        path = self._find_aligner(aligner)
        if self._aligner is None or self._aligner[0] != path:
            if self._aligner:
                self._aligner = None
                gc.collect()  # frees its model before the next one is loaded, unless an answer still needs it
            self._aligner = (path, PersonaJudge(path, engine=self.engine, interrupt=self.interrupt))
        return self._aligner[1]

    def _find_aligner(self, name: str) -> Path:
        """The file of the aligner, cached, because an evaluation needs it thousands of times."""
        if self._aligner_file is None or self._aligner_file[0] != name:
            path = find_model(name)
            read_header(path)
            self._aligner_file = name, path
        return self._aligner_file[1]

    def _correction(
        self, conversation: Sequence[Message], request: Request, plain: Request, text: str, tokens: Sequence[int]
    ) -> Plan:
        """The plan of the correction of an answer that was written under ``request``."""
        instructions = correction([*chain.from_iterable(request.views)], request.generation.avoid)
        return self.plan_request(
            [*conversation, Message("assistant", text, tuple(tokens)), Message("user", instructions)], plain
        )

    def roles(self, request: Request) -> Roles:
        """The views of the request's mode, with their prefixes and weights.

        Raises:
            UsageError: see `prompting.plan.make_roles`.
            ModelError: an adapter does not fit; in mode rewrite, the aligner does not exist.
        """
        roles = make_roles(request)
        self.check_files(request)
        if roles.mode == "rewrite" and request.generation.aligner is not None:
            self._find_aligner(request.generation.aligner)
        return roles

    def plan_request(self, prompt: str | Sequence[Message], request: Request) -> Plan:
        """Plan the answer to a prompt under a request, whatever the settings of this judge are.

        Raises:
            UsageError: the prompt is empty, or leaves no room for an answer.
        """
        conversation = [Message("user", prompt)] if isinstance(prompt, str) else prompt
        roles = self.roles(request)
        return self.plan_prompts(conversation, self.prompts(conversation, request, roles), request, roles)

    def prompts(
        self, conversation: Sequence[Message], request: Request, roles: Roles, tools: Tools = Tools()
    ) -> list[list[int]]:
        """The prompt tokens of each view, even if they do not fit into the context.

        Raises:
            UsageError: the prompt is empty.
            TooLong: the prompt is so long that tokenizing it would take too long.
            ModelError: the template refuses the conversation.
        """
        self.decoder.check_open()
        question = next((message for message in reversed(conversation) if message.role != "assistant"), None)
        if not question or not (question.content.strip() or question.role == "tool"):
            raise UsageError('the prompt is empty: give one, as in pjlocal run -p vivid "Tell me a story"')
        length, limit = len(question.content), self.context_limit
        if length > _MOST_PER_TOKEN * limit:
            raise TooLong(
                f"the prompt is far too long: {length:,} characters, and a context of {limit:,} tokens holds about "
                f"{4 * limit:,}. Shorten it, or give a larger --ctx"
            )
        with self.interrupt.at_once():
            turns = with_beginning(conversation, request.prompting)
            if tools.opening and turns[-1].role == "assistant":
                raise UsageError("an answer that must be a call cannot have a beginning: leave it out")
            return [self.template.tokens(turns, prefix, request.prompting, tools) for prefix in roles.prefixes]

    def plan_prompts(
        self, conversation: Sequence[Message], prompts: list[list[int]], request: Request, roles: Roles
    ) -> Plan:
        """The plan for the result of `prompts`.  Warns about settings that have no effect.

        Raises:
            TooLong: the prompts leave no room for an answer.
            UsageError: mode rewrite cannot continue an answer.
        """
        if roles.mode == "rewrite" and conversation[-1].role == "assistant":
            raise UsageError("mode rewrite corrects a whole answer and cannot continue one: use --mode both")
        template, limit, n_tokens = self.template, self.context_limit, max(map(len, prompts))
        if n_tokens >= limit:
            more = n_tokens - limit + 1
            raise TooLong(
                f"the prompt is too long: {n_tokens} tokens, and a context of {limit} has room for {limit - 1} and "
                f"an answer. Shorten it by {more} {plural(more, 'token')}, or give a larger --ctx"
            )
        if 0 < self.model.n_ctx_train < n_tokens:
            template.warn_once(
                f"the model was trained with at most {self.model.n_ctx_train} tokens: it can lose the thread of longer "
                "prompts"
            )
        for warning in unused(request, roles, EVERYTHING):
            template.warn_once(warning)
        shares_prefix = request.prompting.placement == "question"
        n_beginning = template.n_beginning(with_beginning(conversation, request.prompting), request.prompting)
        return Plan(request, roles, conversation, prompts, template.is_dialogue, shares_prefix, n_beginning=n_beginning)

    @cached_property
    def recommended(self) -> dict[str, Any]:
        """The sampling settings recommended in the model's file, by field of `settings.Sampling`."""
        return recommended(self.model.header.metadata.get, self.model.path)

    def with_model_defaults(self, request: Request) -> Request:
        """See `Request.with_model_defaults`."""
        return request.with_model_defaults(self.recommended)

    @property
    def followed_sampling(self) -> str:
        """The sampling settings that come from the model's file, as text."""
        return model_defaults_in_words(self.request.sampling, self.recommended)

    @property
    def layouts(self) -> dict[int, settings.FixedLayout]:
        """The layouts in use, by the number of views."""
        return self.decoder.lanes.layouts

    @property
    def placed(self) -> str:
        """The devices of the model's layers, as text, and the number of threads if a container limits it."""
        return ", ".join(filter(None, (placement(self.model.offload), threads_in_words(self.engine.n_threads))))

    @property
    def context_limit(self) -> int:
        """The most tokens of a view."""
        return self.decoder.lanes.context_limit


def _path_of(model: Any) -> Path:
    """The path of a model's file, from its name or path; see `PersonaJudge`."""
    if isinstance(model, os.PathLike):
        return Path(model)
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model must be a name or a path, not {type(model).__name__}")
    return find_model(model)


def _capacity(answers: Sequence[SingleAnswer], parallel: int) -> Capacity:
    """Room for the answers, ``parallel`` at once."""
    n_views, n_rows = (max(getattr(each.needs, name) for each in answers) for name in ("n_views", "n_rows"))
    n_ctx = padded_context(max(answer.n_ctx for answer in answers))
    return Capacity(min(parallel, len(answers)), n_views, n_ctx, n_rows, prompt_piece=None, worth_copying=16)


def _can_share(plan: Plan) -> bool:
    """True if the answer can be written in contexts that others use."""
    generation = plan.request.generation
    return generation.schedule != "reference" and not generation.aligner and not any(plan.roles.adapters)


def _plain(request: Request, with_adapters: bool) -> Request:
    return in_mode(request if with_adapters else request.with_group(settings.Generation()), "plain")
