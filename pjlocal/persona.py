"""The Python API: a model, two preferences, and answers as streams of token events.

from pjlocal import PersonaJudge
with PersonaJudge(prefer=["vivid", "creative"]) as judge:
    print(judge("Got any creative ideas for a 10 year old's birthday?").text)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from itertools import chain
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
from .gguf.adapter import check_adapters
from .gguf.header import read_header
from .gguf.locate import find_model
from .gguf.sampling import described, followed, left, recommended
from .prompting import preferences
from .prompting.jinja import TemplateProcess
from .prompting.plan import Cast, Plan, in_mode, make_cast, make_plan, mode_in_force, write_prompts
from .prompting.prompt import ChatTemplate, Message
from .rewriting import Rewriting


class PersonaJudge:
    """A local model that answers under two preferences.

    Args:
        model: what `gguf.locate.find_model` understands: a GGUF path, a name or how it begins, ``org/repo``, or
            ``smollm2`` (the default); or a `Model` already loaded, which then stays open when this is closed.
        prefer: preferences dealt to the two views in turn: presets, free text or ``@file``.
        draft_prefer, judge_prefer: preferences of view a, which drafts first, and of view b; instead of ``prefer``.
        own_sampling: the fields of ``sampling`` that stay as they are where its ``defaults`` are the model's; when not
            given, those that are not as pjlocal has them.
        template: of a `Model` already loaded, where several share it; it then stays open when this is closed.

    Raises:
        UsageError: preferences, a schema, an expression or a Lark grammar that cannot be used.
        ModelError: a model that cannot be used.
    """

    served = False  # whether a server writes the answers: see `server.served`

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
        own_sampling: Collection[str] | None = None,
        template: ChatTemplate | None = None,
    ) -> None:
        if isinstance(prefer, str):
            prefer = [prefer]
        self.prefer(preferences.placed(prefer, draft_prefer, judge_prefer))
        self.prompting = prompting
        self.sampling = sampling
        self.generation = generation
        self.engine = engine
        self.interrupt = interrupt or Interrupt()
        self._aligner_file: tuple[str, Path] | None = None  # by the name that was looked up last
        self._file: Path | None = None  # of the model, once it is known
        self._fitting: tuple[tuple[str, str], ...] = ()  # the adapters that were found to fit it
        cast = self.cast(generation)  # refuse what cannot be before the model is loaded
        check_constraint(sampling)
        self._aligner: tuple[Path, PersonaJudge] | None = None  # its file, and the one that answers with it
        started = time.perf_counter()
        self._borrowed = isinstance(model, Model)
        path = model if isinstance(model, Model | Path) else find_model(model)
        self._file = path.file if isinstance(path, Model) else path
        self.check_adapters(generation)
        self._borrowed_template = template is not None
        process = None if template else TemplateProcess()  # which starts while the model is loaded
        with ExitStack() as undo:
            if process:
                undo.callback(process.close)
            if isinstance(path, Model):
                self.model = path
            else:
                self.model = Model(path, engine, self.interrupt, n_views=max(2, len(cast.prefixes)))
                undo.callback(self.model.close)
            self.sampling = followed(sampling, self.recommended, own_sampling)
            self.template = template or ChatTemplate(self.model, process)
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
        if self._aligner:
            self._aligner[1].close()
        if not self._borrowed_template:
            self.template.close()
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

    def check_adapters(self, generation: settings.Generation) -> None:
        """Refuse adapters that are broken, or made for another model.

        Raises:
            ModelError: a line that says which, and why.
        """
        named = generation.adapters()
        if self._file is None or named == self._fitting:
            return
        check_adapters(generation, read_header(self._file))
        self._fitting = named

    def stream(self, prompt: str | Sequence[Message], **changes: Any) -> Answer:
        """The answer to a prompt, or to a conversation that ends with a user message, token by token."""
        generation: settings.Generation = self.generation.replace(**changes)
        return self.answer(self.plan(prompt, generation), generation)

    def answer(self, plan: Plan, generation: settings.Generation) -> Answer:
        """The answer that was planned, token by token.

        Raises:
            UsageError: in mode rewrite, there is no room for two answers.
            ModelError: in mode rewrite, a model that cannot correct one.
        """
        if plan.cast.mode == "rewrite":
            return self._rewriting(plan, generation)
        return Answer(self.pool, plan, generation, self.sampling, self.load_s)

    def room(self, generation: settings.Generation, n_tokens: int) -> int:
        """The longest prompt that has room behind it for an answer of so many tokens; in mode rewrite, for two of them
        and for asking for the second."""
        if self.mode(generation) != "rewrite":
            return self.context_limit - n_tokens
        corrector, asked = self._corrector(generation), self._asked(generation)
        plain = settings.Generation(mode="plain")
        overhead = len(corrector._correction([Message("user", "-")], asked, plain, "-", ()).prompts[0])
        return min(self.context_limit, corrector.context_limit) - 2 * n_tokens - overhead

    def _rewriting(self, plan: Plan, generation: settings.Generation) -> Answer:
        first, correct = self.in_two(plan, generation)
        draft = Answer(self.pool, plan, first, self.sampling, 0.0)
        pool = self._corrector(generation).pool
        return Rewriting(draft, pool, generation, self.sampling, self.load_s, correct)

    def in_two(
        self, plan: Plan, generation: settings.Generation
    ) -> tuple[settings.Generation, Callable[[str, tuple[int, ...]], Plan]]:
        """In mode rewrite, what the first answer is written under, and what plans its correction from its text and its
        tokens.

        Raises:
            UsageError: there is no room for two answers.
        """
        corrector = self._corrector(generation)
        plain = in_mode(generation, "plain")
        if corrector is not self:  # for whose model its adapters are not made
            plain = settings.Generation(mode="plain")
        correct = partial(corrector._correction, plan.conversation, self._asked(generation), plain)
        room = min(self.context_limit, corrector.context_limit) - len(correct("-", ()).prompts[0])
        if room < 2:
            raise UsageError("the context has no room for an answer and its correction: give a larger --ctx")
        return generation.replace(max_tokens=min(generation.max_tokens, room // 2)), correct

    def _asked(self, generation: settings.Generation) -> str:
        return preferences.correction([*chain.from_iterable(self.preferences)], generation.avoid)

    def _corrector(self, generation: settings.Generation) -> PersonaJudge:
        """Who answers with the model that corrects; it is loaded when it is first needed."""
        if generation.aligner is None:
            return self
        path = self._find_aligner(generation.aligner)
        if self._aligner is None or self._aligner[0] != path:
            if self._aligner:
                self._aligner[1].close()
                self._aligner = None
            self._aligner = (path, PersonaJudge(path, engine=self.engine, interrupt=self.interrupt))
        self._aligner[1].prompting = self.prompting
        return self._aligner[1]

    def _find_aligner(self, name: str) -> Path:
        """The file of that name, looked for and into once: an answer asks several times, an evaluation thousands."""
        if self._aligner_file is None or self._aligner_file[0] != name:
            path = find_model(name)
            read_header(path)
            self._aligner_file = name, path
        return self._aligner_file[1]

    def _correction(
        self, conversation: Sequence[Message], asked: str, plain: settings.Generation, text: str, tokens: Sequence[int]
    ) -> Plan:
        """The plan of a plain answer to being asked to correct one."""
        said = [*conversation, Message("assistant", text, tuple(tokens)), Message("user", asked)]
        return self.plan(said, plain)

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
        """Who takes part.

        Raises:
            UsageError: what `prompting.plan.make_cast` refuses.
            ModelError: an adapter that does not fit; in mode rewrite, there is no such aligner.
        """
        cast = make_cast(generation, self.preferences)
        self.check_adapters(generation)
        if cast.mode == "rewrite" and generation.aligner is not None:
            self._find_aligner(generation.aligner)
        return cast

    def plan(self, prompt: str | Sequence[Message], generation: settings.Generation) -> Plan:
        """Each view's prompt tokens.

        Raises:
            UsageError: an empty prompt, or one that leaves no room for an answer.
        """
        conversation = [Message("user", prompt)] if isinstance(prompt, str) else prompt
        return self.planned(conversation, self.prompts(conversation, generation), generation)

    def prompts(self, conversation: Sequence[Message], generation: settings.Generation) -> list[list[int]]:
        """Each view's prompt tokens, be they more than fit.  Raises what `prompting.plan.write_prompts` does."""
        self.pool.check_open()
        prefixes = self.prefixes(generation)
        return write_prompts(self.template, conversation, prefixes, self.prompting, self.context_limit, self.interrupt)

    def planned(
        self, conversation: Sequence[Message], prompts: list[list[int]], generation: settings.Generation
    ) -> Plan:
        """The plan for prompts that `prompts` made of a conversation.

        Raises:
            UsageError: they leave no room for an answer.
        """
        cast = self.cast(generation)
        limit = self.context_limit
        return make_plan(generation, cast, conversation, prompts, self.prompting, self.template, limit)

    @cached_property
    def recommended(self) -> dict[str, Any]:
        """The filters that the model's file names, by field of `settings.Sampling`."""
        return recommended(self.model.metadata)

    def settled(self, sampling: settings.Sampling) -> settings.Sampling:
        """The filters after a change of ``defaults``, or of the model."""
        return followed(left(sampling, self.recommended), self.recommended)

    @property
    def followed_sampling(self) -> str:
        """The filters in force that are the model's own, in words."""
        if self.sampling.defaults != "model":
            return ""
        said = self.recommended
        return described({name: said[name] for name in said if getattr(self.sampling, name) == said[name]}) or "none"

    @property
    def living(self) -> dict[int, settings.FixedLayout]:
        """Where the views live that are in use, by how many they are."""
        return self.pool.living

    @property
    def context_limit(self) -> int:
        """Tokens that a view may hold."""
        return self.pool.context_limit
