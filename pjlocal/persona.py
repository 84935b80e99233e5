"""The Python API: a model, two preferences, and answers as streams of token events.

from pjlocal import PersonaJudge
with PersonaJudge(prefer=["vivid", "creative"]) as judge:
    print(judge("Got any creative ideas for a 10 year old's birthday?").text)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import settings
from .answer import Answer
from .engine.constraint import check_constraint, make_constraint
from .engine.filters import FilterChain
from .engine.interrupt import Interrupt
from .engine.model import Model
from .engine.pool import ViewPool
from .errors import UsageError
from .events import Result
from .gguf.locate import find_model
from .prompting import preferences
from .prompting.jinja import TemplateProcess
from .prompting.plan import Cast, Plan, make_cast, make_plan, mode_in_force, write_prompts
from .prompting.prompt import ChatTemplate, Message


class PersonaJudge:
    """A local model that answers under two preferences.

    Args:
        model: a GGUF path, a file name in a models folder, or ``smollm2`` (the default); or a `Model` already loaded,
            which then stays open when this is closed.
        prefer: preferences dealt to the two views in turn: presets, free text or ``@file``.
        draft_prefer, judge_prefer: preferences of view a, which drafts first, and of view b; instead of ``prefer``.

    Raises:
        UsageError: preferences, a schema, an expression or a Lark grammar that cannot be used.
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
        self.cast(generation)  # refuse what cannot be before the model is loaded
        check_constraint(sampling)
        started = time.perf_counter()
        self._borrowed = isinstance(model, Model)
        path = model if isinstance(model, Model | Path) else find_model(model)
        self._writer = TemplateProcess()  # which starts while the model is loaded
        with ExitStack() as undo:
            undo.callback(self._writer.close)
            if isinstance(path, Model):
                self.model = path
            else:
                self.model = Model(path, engine, self.interrupt)
                undo.callback(self.model.close)
            self.template = ChatTemplate(self.model, self._writer)
            undo.pop_all()
        self.pool = ViewPool(self.model, engine, self.interrupt)
        self.load_s = time.perf_counter() - started

    def __enter__(self) -> PersonaJudge:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the answer being written, free the contexts, then the model."""
        self.pool.close()
        self._writer.close()
        if not self._borrowed:
            self.model.close()

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
        for names in views:
            preferences.prefix(names)
        self.preferences = [list(names) for names in views]

    def check(self, sampling: settings.Sampling) -> None:
        """Refuse filters that this model cannot have.

        Raises:
            UsageError: a grammar, schema, expression or logit bias that cannot be understood or honoured.
        """
        check_constraint(sampling)
        FilterChain(self.model, sampling, (), (0,), make_constraint(self.model, sampling)).close()

    def stream(self, prompt: str | Sequence[Message], **changes: Any) -> Answer:
        """The answer to a prompt, or to a conversation that ends with a user message, token by token."""
        generation: settings.Generation = self.generation.replace(**changes)
        return self.answer(self.plan(prompt, generation), generation)

    def answer(self, plan: Plan, generation: settings.Generation) -> Answer:
        """The answer that was planned, token by token."""
        return Answer(self.pool, plan, generation, self.sampling, self.load_s)

    def mode(self, generation: settings.Generation) -> settings.Mode:
        """The mode in force: judge with preferences and plain without, unless one was asked for.

        Raises:
            UsageError: the mode needs a preference, and there is none.
        """
        return mode_in_force(generation, self.preferences)

    def prefixes(self, generation: settings.Generation) -> list[str]:
        """The preference prefix of each view that the mode has."""
        return self.cast(generation).prefixes

    def cast(self, generation: settings.Generation) -> Cast:
        """Who takes part.  Raises what `prompting.plan.make_cast` does."""
        return make_cast(generation, self.preferences)

    def plan(self, prompt: str | Sequence[Message], generation: settings.Generation) -> Plan:
        """Each view's prompt tokens.

        Raises:
            UsageError: an empty prompt, or one that leaves no room for an answer.
        """
        conversation = [Message("user", prompt)] if isinstance(prompt, str) else prompt
        return self.planned(self.prompts(conversation, generation), generation)

    def prompts(self, conversation: Sequence[Message], generation: settings.Generation) -> list[list[int]]:
        """Each view's prompt tokens, be they more than fit.  Raises what `prompting.plan.write_prompts` does."""
        self.pool.check_open()
        prefixes = self.prefixes(generation)
        return write_prompts(self.template, conversation, prefixes, self.prompting, self.context_limit, self.interrupt)

    def planned(self, prompts: list[list[int]], generation: settings.Generation) -> Plan:
        """The plan for prompts that `prompts` made.

        Raises:
            UsageError: they leave no room for an answer.
        """
        cast = self.cast(generation)
        return make_plan(cast, prompts, self.prompting, self.template, self.context_limit)

    @property
    def context_limit(self) -> int:
        """Tokens that a view may hold."""
        return self.pool.context_limit
