"""The jobs of a `service.Service`, and the news of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..answer import Answer
from ..engine.log_probs import LogProbs
from ..errors import PjlocalError
from ..events import Alternative, Result, Started, Statistics, TokenEvent
from ..prompting.plan import Roles, make_roles
from ..prompting.prompt import Message
from ..prompting.tools import Tools
from ..request import Request
from ..sessions.recorder import Recording
from ..sessions.session import Session, Turn
from ..sessions.store import Store


class Busy(PjlocalError):
    """All places are taken, including those of waiting jobs."""


class Stopping(PjlocalError):
    """The service takes no more jobs, and ends the current ones."""


@dataclass(frozen=True)
class Token:
    """A token's event, the answer's statistics up to it, and its log-probabilities and alternatives if the job requests
    them."""

    event: TokenEvent
    statistics: Statistics
    log_probs: LogProbs | None = None
    alternatives: Sequence[Alternative] = ()


@dataclass(frozen=True)
class Checked:
    """The result of a check without an answer: the request can be written; or the text has this number of tokens."""

    n_tokens: int = 0


#: A job's events: `Started`, then tokens, then its result or an error.
News = Started | Sequence[Token] | Result | Checked | Exception


@dataclass(frozen=True)
class ModelName:
    """The model's names in saved chats: its lasting name, and the name of its file."""

    lasting: str
    file: str


@dataclass(frozen=True)
class SavedTurn:
    """A turn that is saved while it is answered.

    replacing: the turn of which this one is another draft.
    keep: whether this turn takes the other's place once it has an answer.
    seed: the session's setting; the job's request has the seed of this turn.
    """

    session: Session
    turn: Turn
    replacing: Turn | None
    model: ModelName
    seed: int | None
    keep: bool = True


@dataclass(frozen=True)
class Raw:
    """A text to continue, or its tokens, without a chat template."""

    text: str = ""
    tokens: Sequence[int] = ()


@dataclass(eq=False)
class Job:
    """An answer to write; or, without a prompt, a request to check or a text to count.

    text: the text whose tokens are counted.
    prompt: the conversation, or a text to continue.
    emit: called in the service's threads with each `News`; it must neither wait nor raise.
    top: the number of alternatives whose log-probabilities come with each token; None for no log-probabilities.
    lists_alternatives: send the most probable tokens of each view with the only token of the answer, without ``top``.
    shortens: leave out the oldest exchanges if not all fit.
    first: exchanges that are left out already.
    reuses: see `engine.slot.Needs`.
    tools: the functions that the answer may call.
    """

    request: Request
    prompt: Sequence[Message] | Raw | None = None
    emit: Callable[[News], None] = lambda news: None
    top: int | None = None
    lists_alternatives: bool = False
    shortens: bool = False
    first: int = 0
    reuses: bool = True
    tools: Tools = Tools()
    text: str = ""
    saved: SavedTurn | None = None
    arrived: float = field(default_factory=time.monotonic)
    prepared: PreparedRequest | None = None
    answer: Answer | None = None
    store: Store | None = None
    recording: Recording | None = None
    has_started: bool = False
    is_stopped: bool = False
    is_cancelled: bool = False

    @property
    def n_answers(self) -> int:
        """The number of answers to write, which is the number of places it takes."""
        return 1 if self.prompt is None or self.lists_alternatives else self.roles.n_answers

    @cached_property
    def roles(self) -> Roles:
        """The views of its answer.  Raises UsageError: the preferences exclude each other."""
        return make_roles(self.request)


@dataclass(frozen=True)
class PreparedRequest:
    """An answer that is ready to be written.

    request: the resolved settings.
    first: the first turn of the prompt.
    """

    answer: Answer
    request: Request
    first: int
    warnings: Sequence[str]
