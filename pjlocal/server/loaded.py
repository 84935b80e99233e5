"""Load a model for a `service.Service`, and plan its answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..decoding.schedule import Observer
from ..engine.engine import Engine
from ..engine.interrupt import Interrupt
from ..engine.lanes import Capacity
from ..engine.log_probs import TokenLogProbs
from ..engine.model import Model
from ..errors import ModelError, TooLong, UsageError
from ..persona import PersonaJudge
from ..prompting.plan import Plan, Roles
from ..prompting.prompt import Message
from ..request import Request, changed
from ..sessions.asking import fitted, n_exchanges
from ..settings import DEFAULT_VIEWS, Generation
from ..settings import Engine as EngineSettings
from .jobs import Job, PreparedRequest, Raw

_MOST_PER_TOKEN = 32  # characters; a prompt with more for each token of the context is refused without tokenizing

_ADVICE = "Shorten it, or start the server with a larger --ctx"


def check_servable(generation: Generation) -> None:
    """Refuse settings that are impossible when answers share one model and its contexts.

    Raises:
        UsageError: the request has one of them.
    """
    if generation.aligner is not None:
        raise UsageError("the server has one model: leave --aligner out")
    for name, _ in generation.adapters():
        raise UsageError(
            "a LoRA adapter or control vector changes a whole context, which all of the server's answers share: leave "
            f"--{name.replace('_', '-')} out"
        )


class LoadedModel:
    """A model with its chat template, and an engine for several answers.

    Args:
        interrupt: stops loading, and preparing requests.
        stop: stops the engine.
        parallel: the number of answers of ``n_views`` views written at once.
        lookahead: the most tokens that an answer may guess ahead; higher requests are lowered to it.

    Raises:
        ModelError: the model cannot be used, or there is too little memory for ``parallel`` answers.
        Interrupted: on request.
    """

    def __init__(
        self,
        path: Path,
        settings: EngineSettings,
        parallel: int,
        interrupt: Interrupt,
        stop: Interrupt,
        lookahead: int = 0,
        n_views: int = DEFAULT_VIEWS,
    ) -> None:
        with ExitStack() as undo:
            self.model = Model(path, settings, interrupt, n_views=n_views)
            undo.callback(self.model.close)
            #: Used to plan answers; its own engine makes no contexts.
            self.judge = PersonaJudge(self.model, engine=settings, interrupt=interrupt)
            undo.callback(self.judge.close)
            self._template = self.judge.template
            self.n_ctx = self.judge.context_limit
            try:
                capacity = Capacity(parallel, n_views, self.n_ctx, 1 + lookahead)
                self.engine = Engine(self.model, settings, stop, capacity)
            except ModelError as error:
                raise ModelError(f"{error} (or a smaller --parallel)") from None
            undo.callback(self.engine.close)
            self._closing = undo.pop_all()

    def close(self) -> None:
        self._closing.close()

    def describe(self) -> dict[str, Any]:
        """Facts about the model, for JSON."""
        return {
            "context_limit": self.n_ctx,
            "description": self.model.description,
            "placed": self.judge.placed,
            "recommended": self.judge.recommended,
        }

    def check(self, job: Job) -> Request:
        """Return the resolved settings of a job.

        Raises:
            UsageError: its answer cannot be written.
        """
        check_servable(job.request.generation)
        request = self.judge.with_model_defaults(job.request)
        self.judge.check(request)
        self.check_room(job.roles)
        return request

    def check_room(self, roles: Roles) -> None:
        """Refuse an answer with too many views.  Callable from any thread.  Raises NoRoom."""
        self.engine.lanes.check_room(len(roles.prefixes))

    def count(self, text: str) -> int:
        """The number of tokens of a text.

        Raises:
            UsageError: the context has no room for it.
        """
        n = len(self.model.tokenize(text, special=False)) if len(text) <= _MOST_PER_TOKEN * self.n_ctx else self.n_ctx
        if n >= self.n_ctx:
            raise UsageError(f"the text is too long: the context has room for {self.n_ctx:,} tokens. {_ADVICE}")
        return n

    def prepare(self, job: Job) -> PreparedRequest:
        """Plan the answer of a job.

        Raises:
            UsageError: the model cannot write it, or the context has no room.
            ModelError: the chat template refuses the conversation.
            Interrupted: on request.
        """
        warnings: list[str] = []
        self._template.listener = warnings.append
        try:
            assert job.prompt is not None
            prompt, first = job.prompt, job.first
            if not isinstance(prompt, Raw):
                first += self._n_too_long(job, prompt[2 * first :]) if job.shortens else 0
                prompt = prompt[2 * first :]
            self._check_length(job, prompt)
            in_force, roles = self.check(job), job.roles
            request = in_force.replace(schedule="lockstep")  # any schedule gives the same text
            if isinstance(prompt, Raw):
                plan = self._plan_raw(prompt, request, roles)
            elif job.shortens:
                plan, n_left_out = fitted(self.judge, roles, prompt, request)
                first += n_left_out
            else:
                prompts = self.judge.prompts(prompt, request, roles, job.tools)
                plan = self.judge.plan_prompts(prompt, prompts, request, roles)
                if job.tools.opening:  # the answer continues a call, which cannot contain a thought
                    plan = replace(plan, may_think=False)
            view_tokens = None
            if job.lists_alternatives:
                plan, view_tokens = self.judge.plan_next_token(plan)

            def observe() -> Observer | None:
                if job.top is None:
                    return view_tokens
                return TokenLogProbs(self.model, job.top, request.generation.ignore_end)

            answer = self.judge.answer(plan, self.engine, observe)
        finally:
            self._template.listener = None
        first_part = answer.parts[0]  # others copy what it has read
        first_part.needs = replace(first_part.needs, reuses=job.reuses)
        # The template warns again for each view.
        return PreparedRequest(answer, in_force, first, [*dict.fromkeys(warnings)])

    def _n_too_long(self, job: Job, conversation: Sequence[Message]) -> int:
        """The number of the oldest exchanges that cannot fit, judged by their characters, without tokenizing them."""
        left, first = _n_characters(job, conversation), 0
        while first < n_exchanges(conversation) and left > _MOST_PER_TOKEN * self.n_ctx:
            left -= sum(map(_n_characters_of, conversation[2 * first : 2 * first + 2]))
            first += 1
        return first

    def _check_length(self, job: Job, prompt: Sequence[Message] | Raw) -> None:
        length = _n_characters(job, prompt)
        if length > _MOST_PER_TOKEN * self.n_ctx:
            raise TooLong(
                f"the prompt is far too long: {length:,} characters, and the context has room for {self.n_ctx:,} "
                f"tokens. {_ADVICE}"
            )

    def _plan_raw(self, raw: Raw, request: Request, roles: Roles) -> Plan:
        """The plan of a text to continue, without a template.  The preference is put above the text."""
        if not raw.text and not raw.tokens:
            raise UsageError("the prompt is empty: give the text to continue")
        if not all(0 <= token < self.model.n_vocab for token in raw.tokens):
            raise UsageError(f"the prompt's tokens must be those of the model: 0 to {self.model.n_vocab - 1}")
        if roles.mode == "rewrite":
            raise UsageError("mode rewrite needs a conversation: use /v1/chat/completions")
        idle = (changed(request.prompting) - {"system"}) | (changed(request.generation) & {"think_tokens"})
        idle &= request.explicit
        for name in sorted(idle - (set() if request.has_preferences else {"placement"})):
            self._template.warn_once(f"{name} has no effect on a text to continue, which has no chat template")
        request = request.with_group(request.prompting.replace(begin=""))
        heads = ["\n\n".join(filter(None, (request.prompting.system, prefix))) for prefix in roles.prefixes]
        texts = [f"{head}\n\n{raw.text}" if head else raw.text for head in heads]
        # A text may contain control tokens, such as those for filling in the middle.
        read = [self.model.with_bos(self.model.tokenize(text, special=True)) if text else [] for text in texts]
        prompts = [[*tokens, *raw.tokens] for tokens in read]
        plan = self.judge.plan_prompts([Message("user", raw.text)], prompts, request, roles)
        return replace(plan, is_dialogue=False, shares_prefix=False, may_think=False)


def _n_characters(job: Job, prompt: Sequence[Message] | Raw) -> int:
    """The number of characters of a prompt with the texts of the job's settings."""
    prompting = job.request.prompting
    others = *job.request.preferences, prompting.system, prompting.begin, str(job.tools.offered)
    n_of_prompt = len(prompt.text) if isinstance(prompt, Raw) else sum(map(_n_characters_of, prompt))
    return n_of_prompt + sum(map(len, others))


def _n_characters_of(message: Message) -> int:
    return len(message.content) + len(str(message.others or ""))
