"""The model in memory, and what is made on it: a plan of what is asked, and the answer on its seat."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decoding.judge import Decision
from ..decoding.schedule import Rows, Voice
from ..engine.context import context_limit
from ..engine.engine import Engine
from ..engine.interrupt import Interrupt
from ..engine.lanes import Capacity
from ..engine.model import Model
from ..engine.voices import Alone, Combined
from ..errors import ModelError, UsageError
from ..events import Result, TokenEvent
from ..persona import PersonaJudge
from ..prompting.plan import Plan
from ..prompting.prompt import ChatTemplate, Message
from ..request import Request
from ..sessions.asking import fitted
from ..settings import Engine as EngineSettings
from .near import About, Head, Step
from .overrides import check_servable

_VIEWS = 2  # that an answer takes, mostly

IMPOSSIBLE = -9999.0  # as OpenAI writes the logarithm of 0, which JSON cannot

_MOST_PER_TOKEN = 32  # characters; where the whole prompt has more than these a token, only counting would take long


@dataclass(frozen=True)
class LogProbs:
    """How probable a token was to the one who decided, before any filter.

    piece: its bytes.
    top: bytes and log-probability of the most probable tokens, the best first.
    """

    piece: bytes
    log_prob: float
    top: Sequence[tuple[bytes, float]]


@dataclass(frozen=True)
class Token:
    """A token's event; and its probabilities, where somebody asked for them and it did not end the answer."""

    event: TokenEvent
    log_probs: LogProbs | None = None


@dataclass(frozen=True)
class Planned:
    """An answer that is ready to be written.

    judge: planned it, and makes the answer.
    n_left_out: exchanges that the prompt has no room for.
    """

    plan: Plan
    judge: PersonaJudge
    n_left_out: int = 0


class Resident:
    """A model with its chat template, and a context for several answers.

    Args:
        parallel: answers of two views that are written at once.
        lookahead: the most tokens that an answer may guess ahead; a request that asks for more gets these.

    Raises:
        ModelError: a model that cannot be used, or too little memory for so many answers.
        Interrupted: on request.
    """

    def __init__(
        self, path: Path, engine: EngineSettings, parallel: int, interrupt: Interrupt, lookahead: int = 0
    ) -> None:
        self._engine = engine
        self._interrupt = interrupt
        with ExitStack() as undo:
            self.model = Model(path, engine, interrupt)
            undo.callback(self.model.close)
            self._template = ChatTemplate(self.model)
            undo.callback(self._template.close)
            self.n_ctx = context_limit(self.model, engine)
            try:
                self.engine = Engine(
                    self.model, engine, interrupt, Capacity(parallel, _VIEWS, self.n_ctx, 1 + lookahead)
                )
            except ModelError as error:
                raise ModelError(f"{error} (or a smaller --parallel)") from None
            undo.callback(self.engine.close)
            self._closing = undo.pop_all()

    def close(self) -> None:
        self._closing.close()

    @property
    def about(self) -> About:
        return About(self.n_ctx, self.model.description, asdict(self.model.offload))

    def planned(self, request: Request, said: Sequence[Message] | str, shortens: bool = False) -> Planned:
        """The answer to a conversation, or to a text that is to go on.

        Args:
            shortens: the oldest exchanges are left out where not all has room in the context.

        Raises:
            UsageError: what cannot be asked of this model, or has no room in the context.
            ModelError: the chat template refuses the conversation.
            Interrupted: on request.
        """
        n_left_out = 0
        if shortens and not isinstance(said, str):
            n_left_out = self._n_too_long(said)
            said = said[2 * n_left_out :]
        self._check_length(request, said)
        check_servable(request.generation)
        judge = self._judge(request, self._interrupt)  # which has nothing of its own that would have to be closed
        request = judge.request = judge.request.replace(schedule="lockstep")  # any schedule gives the same text
        judge.check(request.sampling)
        self.engine.lanes.check_room(len(judge.roles(request).prefixes))
        if isinstance(said, str):
            plan = self._raw(judge, said)
        elif shortens:
            plan, first_read = fitted(judge, said, request)
            n_left_out += first_read
        else:
            plan = judge.plan(said, request)
        if plan.roles.mode == "rewrite" and isinstance(said, str):
            raise UsageError("mode rewrite corrects an answer: ask /v1/chat/completions for one")
        return Planned(plan, judge, n_left_out)

    def single(self, request: Request, said: Sequence[Message] | str, talk: Talk) -> Single:
        """An answer apart from all others, on what the talk has read so far.  Raises what `planned` does."""
        judge = talk.judge
        if judge is None:
            judge = talk.judge = self._judge(request, talk.interrupt)
        else:
            judge.prefer(request.views)
            judge.request = judge.with_model_defaults(request)
        warnings: list[str] = []
        self._template.listener = warnings.append
        try:
            return Single(judge, said, warnings)
        finally:
            self._template.listener = None

    def _judge(self, request: Request, interrupt: Interrupt) -> PersonaJudge:
        return PersonaJudge(
            self.model, request=request, engine=self._engine, interrupt=interrupt, template=self._template
        )

    def _n_too_long(self, conversation: Sequence[Message]) -> int:
        """How many of the oldest exchanges cannot fit, however few tokens they have: they are not even counted."""
        lengths = [len(message.content) for message in conversation]
        left, first = sum(lengths), 0
        while 2 * first + 1 < len(lengths) and left > _MOST_PER_TOKEN * self.n_ctx:
            left -= lengths[2 * first] + lengths[2 * first + 1]
            first += 1
        return first

    def _check_length(self, request: Request, said: Sequence[Message] | str) -> None:
        length = len(said) if isinstance(said, str) else sum(len(message.content) for message in said)
        length += len(request.prompting.system)
        if length > _MOST_PER_TOKEN * self.n_ctx:
            raise UsageError(
                f"the prompt is far too long: {length:,} characters, and the context has room for {self.n_ctx:,} tokens"
            )

    def _raw(self, judge: PersonaJudge, text: str) -> Plan:
        """A text that is to go on: no template is around it; a preference stands above it."""
        if not text:
            raise UsageError("the prompt is empty: give the text that is to go on")
        request = judge.request
        roles = judge.roles(request)
        heads = ["\n\n".join(filter(None, (request.prompting.system, prefix))) for prefix in roles.prefixes]
        prompts = [self._tokens(f"{head}\n\n{text}" if head else text) for head in heads]
        plan = judge.planned([Message("user", text)], prompts, request, roles)
        return replace(plan, stops=(), shares_trunk=False)

    def _tokens(self, text: str) -> list[int]:
        """Who writes the whole prompt may write control tokens into it, as those for filling in the middle."""
        tokens, bos = self.model.tokenize(text, special=True), self.model.bos
        return tokens if bos is None or tokens[:1] == [bos] else [bos, *tokens]


@dataclass(eq=False)
class Talk:
    """What is kept for who comes by the socket, from one answer to the next: contexts, and what they have read.

    interrupt: stops the answer under way, from any thread.
    judge: made for the first answer, and anew where the model has left the memory meanwhile.
    n_planning: its answers that are being planned; the judge is in use by that thread.
    left: nobody is there any more.
    """

    interrupt: Interrupt = field(default_factory=Interrupt)
    judge: PersonaJudge | None = None
    n_planning: int = 0
    left: bool = False

    def close(self) -> None:
        """Free the contexts."""
        if self.judge:
            self.judge.close()
            self.judge = None


class Single:
    """An answer on contexts of its own: the same as `pjlocal run` and `pjlocal chat` write, byte for byte where the
    server writes nothing else meanwhile.

    Args:
        warnings: are filled while it is planned.

    Raises:
        UsageError, ModelError: what `PersonaJudge.stream` raises.
    """

    def __init__(self, judge: PersonaJudge, said: Sequence[Message] | str, warnings: Sequence[str]) -> None:
        self._judge = judge
        self._warnings = warnings
        self._answer = judge.stream(said)
        self._lanes = judge.decoder.lanes
        self._before = self._lanes.n_fed, self._lanes.n_decodes
        judge.decoder.submit(self._answer)

    def close(self) -> None:
        """Write no more of it."""
        self._judge.decoder.cancel(self._answer)

    def step(self, *, others_wait: bool) -> list[Step]:
        """Write one more token, or read a piece of a prompt; the new events.

        Args:
            others_wait: whether other answers wait for this step.

        Raises:
            UsageError, ModelError: the answer cannot be written.
        """
        stepped = self._judge.decoder.step(others_wait=others_wait)
        so_far = asdict(self._answer.statistics)
        if self._answer.error:
            raise self._answer.error
        return [Step(event, so_far) for _, events in stepped for event in events]

    @property
    def is_done(self) -> bool:
        return self._answer.is_done

    @property
    def has_begun(self) -> bool:
        """Whether the first token is decided."""
        return self._answer.statistics.completion_tokens > 0

    @property
    def head(self) -> Head:
        answer, judge = self._answer, self._judge
        warnings = list(dict.fromkeys(self._warnings))  # the template warns again for each view
        return Head(answer.mode, answer.labels, answer.pushing, judge.followed_sampling, judge.placed, warnings)

    @property
    def result(self) -> Result:
        return self._answer.result

    @property
    def work(self) -> tuple[int, int]:
        """Tokens fed, and batches read."""
        return self._lanes.n_fed - self._before[0], self._lanes.n_decodes - self._before[1]


class TokenLogProbs:
    """Remembers how probable each token was to the voice that decided, before any filter: an `answer.Witness`.

    Args:
        top: alternatives to tell for each token.
        ignore_end: whether end tokens are tokens like any other; else nothing is remembered of them.
    """

    def __init__(self, model: Model, top: int, ignore_end: bool) -> None:
        self._model = model
        self._top = top
        self._ignore_end = ignore_end
        self._seen: dict[int, LogProbs] = {}  # by position, until `take`

    def __call__(self, judge: Voice, rows: Rows, decision: Decision) -> None:
        assert isinstance(judge, Alone | Combined)
        if self._model.is_end(decision.token) and not self._ignore_end:
            return
        known, log_probs = judge.unfiltered(rows)
        ids = np.arange(len(log_probs)) if known is None else known
        at = int(ids.searchsorted(decision.token))
        found = at < len(ids) and ids[at] == decision.token
        piece = self._model.piece
        self._seen[decision.position] = LogProbs(
            piece(decision.token),
            float(log_probs[at]) if found else IMPOSSIBLE,
            [(piece(int(ids[i])), float(log_probs[i])) for i in _most(log_probs, self._top)],
        )

    def take(self, events: Sequence[TokenEvent]) -> list[Token]:
        """The events with what is remembered of their tokens, which is forgotten then."""
        return [Token(event, self._seen.pop(event.position, None)) for event in events]


def _most(values: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Where the k greatest of [m] values stand, the greatest first."""
    if k < len(values):
        best = np.argpartition(values, -k)[len(values) - k :]
    else:
        best = np.arange(len(values))
    return best[np.argsort(-values[best], kind="stable")]
