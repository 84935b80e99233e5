"""What an answer is made of: token events, counts and times, and the result.  Plain data for every front end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from . import settings

if TYPE_CHECKING:  # it brings NumPy, which who only shows events can do without
    from .decoding.judge import Decision, Kind

FinishReason = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True, slots=True)
class RejectedToken:
    """The drafted token in whose place a resampled one stands: its probabilities under the judge (p) and draft (q)."""

    id: int
    text: str
    p: float
    q: float


N_ALTERNATIVES = 8  # of each view


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that may come next, with its probability in each view by the view's name, before any filter."""

    id: int
    text: str
    p: dict[str, float]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One emitted token.  The events' texts joined are what the model wrote: its thinking, and then the answer.

    ``thought`` marks the tokens of the model's thinking, its marks and the white space behind them included.  Their
    text spells control tokens too; `prompting.thinking` takes the marks away.

    p and q are the emitted token's probabilities under the judge and the draft, after each view's filters; for a
    resampled token ``accept_probability`` is that of the ``rejected`` one.  ``draft`` is the view that drafted in
    this round, ``judge`` the one that judged, where it was one alone; an accepted token was written by the first, a
    resampled or bonus token by the other.  ``pushes`` says by name how far each preference moved the token's
    log-probability (nats), where a neutral view tells.  A ``given`` token, which begins the answer or was
    edited, is not the model's.
    """

    position: int
    id: int
    text: str
    kind: Kind | Literal["given"]
    round: int
    draft: str | None
    p: float
    q: float | None
    accept_probability: float | None
    rejected: RejectedToken | None = None
    judge: str | None = None
    pushes: dict[str, float] = field(default_factory=dict)
    thought: bool = False

    @classmethod
    def given(cls, position: int, text: str, token: int = 0, thought: bool = False) -> TokenEvent:
        """Text of an answer that the model did not write; the token 0 stands for any."""
        return cls(position, token, text, "given", 0, None, 1.0, None, None, thought=thought)

    @property
    def writer(self) -> str | None:
        """The view whose choice the token is; None where it is that of one view alone, or of all."""
        return self.draft if self.kind == "accepted" else self.judge

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenEvent:
        """The event that `as_dict` wrote, or that an older version did, when one of two views drafted and the other
        judged."""
        rejected, draft = values["rejected"], values["draft"]
        judge = draft and ("b" if draft == "a" else "a")
        return cls(**{"judge": judge} | values | {"rejected": rejected and RejectedToken(**rejected)})


def pushes_text(pushes: Mapping[str, float]) -> str:
    """Pushes in a few words: ``a +0.31 b -0.12``."""
    return " ".join(f"{name} {nats:+.2f}" for name, nats in pushes.items())


@dataclass
class Statistics:
    """Counts and times of one answer; times in seconds."""

    prompt_tokens: list[int] = field(default_factory=list)
    completion_tokens: int = 0  # of the thinking and the answer
    thinking_tokens: int = 0
    accepted: int = 0
    resampled: int = 0
    rounds: int = 0
    load_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    pushed: dict[str, float] = field(default_factory=dict)  # the pushes of the answer's tokens, summed up

    @property
    def answer_tokens(self) -> int:
        return self.completion_tokens - self.thinking_tokens

    @property
    def mean_pushes(self) -> dict[str, float]:
        """How far each preference has moved the answer, in nats a token; empty where no neutral view tells."""
        return {name: total / self.answer_tokens for name, total in self.pushed.items()}

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted tokens among those the judge was asked about; None where nothing was judged."""
        judged = self.accepted + self.resampled
        return self.accepted / judged if judged else None

    @property
    def mean_accepted_run(self) -> float | None:
        """Accepted tokens a round."""
        return self.accepted / self.rounds if self.rounds else None

    @property
    def tokens_per_second(self) -> float | None:
        return self.completion_tokens / self.decode_s if self.decode_s > 0 else None

    def count(self, decision: Decision) -> None:
        self.completion_tokens += 1
        if decision.kind == "plain":
            return
        self.accepted += decision.kind == "accepted"
        self.resampled += decision.kind == "resampled"
        self.rounds = decision.round + 1

    def count_settled(self, pushes: Mapping[str, float], thought: bool) -> None:
        """Count a token of which it is known whether it is thought."""
        self.thinking_tokens += thought
        for name, push in pushes.items() if not thought else ():
            self.pushed[name] = self.pushed.get(name, 0.0) + push


@dataclass(frozen=True)
class Result:
    """A finished answer.

    text: the answer alone.
    thinking: what the model thought before it, without the marks around it; empty where it did not think.
    """

    text: str
    model: str
    mode: settings.Mode
    preferences: dict[str, list[str]]
    lam: int
    seed: int
    finish_reason: FinishReason
    statistics: Statistics
    #: By name, of each preference that speaks or is avoided (below zero): a number, or ``auto``.
    strengths: dict[str, float | str] = field(default_factory=dict)
    #: Of each view, as ``prompt_tokens``: scales by file of its LoRA adapters and control vectors; empty without any.
    adapters: list[dict[str, Any]] = field(default_factory=list)
    #: Which of the model's layers were on devices other than the CPU (`gguf.fit.Offload`).
    offload: dict[str, Any] = field(default_factory=dict)
    #: Where its views lived (``--layout``); None of a single one.
    layout: settings.FixedLayout | None = None
    #: The first answer, which this one corrects, in mode rewrite.
    draft: Result | None = None
    thinking: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What ``pjlocal run --json`` prints."""
        s = self.statistics
        draft = self.draft and self.draft.as_dict()
        return {
            "text": self.text,
            "thinking": self.thinking,
            "model": self.model,
            "mode": self.mode,
            "preferences": self.preferences,
            "strengths": self.strengths,
            "adapters": self.adapters,
            "offload": self.offload,
            "layout": self.layout,
            "lambda": self.lam,
            "seed": self.seed,
            "finish_reason": self.finish_reason,
            "usage": {
                "prompt_tokens": s.prompt_tokens,
                "completion_tokens": s.completion_tokens,
                "thinking_tokens": s.thinking_tokens,
            },
            "acceptance_rate": s.acceptance_rate,
            "rounds": s.rounds,
            "pushes": s.mean_pushes,
            "timings": {
                "load_s": s.load_s,
                "prefill_s": s.prefill_s,
                "decode_s": s.decode_s,
                "tokens_per_second": s.tokens_per_second,
            },
            "draft": draft and {key: draft[key] for key in ("text", "model", "finish_reason", "usage", "timings")},
        }

    def whole(self) -> dict[str, Any]:
        """Every field, for `from_whole` in another process."""
        return asdict(self)

    @classmethod
    def from_whole(cls, values: dict[str, Any]) -> Result:
        """The result that `whole` told of."""
        draft = values["draft"]
        statistics = Statistics(**values["statistics"])
        return cls(**values | {"statistics": statistics, "draft": draft and cls.from_whole(draft)})


@dataclass(frozen=True)
class Started:
    """The facts about an answer that are known when its first token comes, as a server tells them.

    labels: the views' preferences in words; ``preferences`` are as the request names them.
    pushing: see `answer.Answer`.
    followed_sampling, placed: the filters that are the model's own, and where its layers are, in words.
    warnings: lines for the user.
    first: the turn that the prompt begins with; older ones had no room.
    request: the settings in force, the filters of the model's file among them, as `Request.as_dict` writes them.
    chat, turn: the rows of a turn that the server saves.
    drafted: the first answer of mode rewrite.
    model: the name of the model's file.
    """

    mode: settings.Mode
    labels: Mapping[str, list[str]] = field(default_factory=dict)
    pushing: Sequence[str] = ()
    preferences: Mapping[str, list[str]] = field(default_factory=dict)
    seed: int | None = None
    followed_sampling: str = ""
    placed: str = ""
    warnings: Sequence[str] = ()
    first: int = 0
    layout: settings.FixedLayout | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    chat: int | None = None
    turn: int | None = None
    drafted: Sequence[TokenEvent] = ()
    model: str = ""
