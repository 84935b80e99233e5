"""What an answer is made of: token events, counts and times, and the result.  Plain data for every front end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from . import settings
from .decoding.judge import Decision, Kind

VIEW_NAMES = "ab"

FinishReason = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True, slots=True)
class RejectedToken:
    """The drafted token in whose place a resampled one stands: its probabilities under the judge (p) and draft (q)."""

    id: int
    text: str
    p: float
    q: float


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One emitted token.  The events' texts joined are the answer.

    p and q are the emitted token's probabilities under the judge and the draft, after each view's filters; for a
    resampled token ``accept_probability`` is that of the ``rejected`` one.  ``draft`` is the view that drafted in
    this round; an accepted token was written by it, a resampled or bonus token by the other.
    """

    position: int
    id: int
    text: str
    kind: Kind
    round: int
    draft: Literal["a", "b"] | None
    p: float
    q: float | None
    accept_probability: float | None
    rejected: RejectedToken | None = None

    @property
    def writer(self) -> Literal["a", "b"] | None:
        """The view whose choice the token is."""
        if self.draft is None or self.kind == "accepted":
            return self.draft
        return "b" if self.draft == "a" else "a"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenEvent:
        """The event that `as_dict` wrote."""
        rejected = values["rejected"]
        return cls(**values | {"rejected": rejected and RejectedToken(**rejected)})


@dataclass
class Statistics:
    """Counts and times of one answer; times in seconds."""

    prompt_tokens: list[int] = field(default_factory=list)
    completion_tokens: int = 0
    accepted: int = 0
    resampled: int = 0
    rounds: int = 0
    load_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0

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


@dataclass(frozen=True)
class Result:
    """A finished answer."""

    text: str
    model: str
    mode: settings.Mode
    preferences: dict[str, list[str]]
    lam: int
    seed: int
    finish_reason: FinishReason
    statistics: Statistics

    def as_dict(self) -> dict[str, Any]:
        """What ``pjlocal run --json`` prints."""
        s = self.statistics
        return {
            "text": self.text,
            "model": self.model,
            "mode": self.mode,
            "preferences": self.preferences,
            "lambda": self.lam,
            "seed": self.seed,
            "finish_reason": self.finish_reason,
            "usage": {"prompt_tokens": s.prompt_tokens, "completion_tokens": s.completion_tokens},
            "acceptance_rate": s.acceptance_rate,
            "rounds": s.rounds,
            "timings": {
                "load_s": s.load_s,
                "prefill_s": s.prefill_s,
                "decode_s": s.decode_s,
                "tokens_per_second": s.tokens_per_second,
            },
        }
