"""Persona-judge's rule for one token (arXiv 2504.12663, Algorithm 1): draft, judge, resample.

Two views of one language model read the same text under two preference prefixes.  In a round one of them, the
*draft*, proposes tokens t ~ q; the other, the *judge*, has the distribution p.  The rule, in the paper's letters:

    accept t with probability min(1, p(t) / q(t))
    on the first rejection emit t' ~ norm(max(0, p - q)) and end the round
    when all λ drafted tokens are accepted emit a bonus token t' ~ p and end the round

Then the roles swap (``judge`` mode) or stay (``base`` mode).  Here q and p are the distributions after each view's own
filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["accepted", "resampled", "bonus", "plain"]
Strategy = Literal["sample", "greedy"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Probabilities of the tokens that survived a view's filters.

    ids: int32 [n], strictly ascending.  In a fixed order, a draw seldom changes when rounding changes a probability.
    probs: float64 [n], positive, summing to one.
    """

    ids: NDArray[np.int32]
    probs: NDArray[np.float64]

    def prob(self, token: int) -> float:
        """The probability of ``token``; 0.0 if the filters dropped it."""
        i = int(self.ids.searchsorted(token))
        return float(self.probs[i]) if i < len(self.ids) and self.ids[i] == token else 0.0

    def sample(self, u: float) -> int:
        """Draw a token by inverting the cumulative distribution at ``u`` in [0, 1)."""
        cumulative = self.probs.cumsum()
        i = int(cumulative.searchsorted(u * cumulative[-1], side="right"))
        return int(self.ids[min(i, len(self.ids) - 1)])

    def argmax(self) -> int:
        """The most probable token (the one with the lowest id among equals)."""
        return int(self.ids[self.probs.argmax()])


class Rejected(NamedTuple):
    """A drafted token that the judge rejected, with its probabilities under the judge (p) and the draft (q)."""

    token: int
    p: float
    q: float


@dataclass(frozen=True, slots=True)
class Decision:
    """One emitted token, and the reason for it.

    draft and judge are the numbers of the preferences in these roles; None for a plain token.
    p and q are the probabilities of the emitted token under the judge and the draft.  A bonus token was not drafted,
    and a plain token was not judged: their ``q`` and ``accept_probability`` are None.  ``pushes`` are the changes of
    the token's log-probability by each preference, compared with the neutral view, where it is ``neutral``.
    """

    position: int
    token: int
    kind: Kind
    round: int
    draft: int | None
    judge: int | None
    p: float
    q: float | None = None
    accept_probability: float | None = None
    rejected: Rejected | None = None
    pushes: tuple[float, ...] = ()
    neutral: float = 0.0


def accept_probability(p: float, q: float) -> float:
    """min(1, p(t) / q(t)) for a drafted token t, so that q(t) > 0."""
    return min(1.0, p / q)


def residual(p: Distribution, q: Distribution) -> Distribution:
    """norm(max(0, p - q)): the tokens that are more probable under the judge than under the draft.

    Returns p if no token is (p equals q up to rounding).
    """
    nearest = np.minimum(q.ids.searchsorted(p.ids), len(q.ids) - 1)
    q_probs = np.where(q.ids[nearest] == p.ids, q.probs[nearest], 0.0)
    excess = p.probs - q_probs
    keep = excess > 0.0
    if not keep.any():
        return p
    excess = excess[keep]
    return Distribution(p.ids[keep], excess / excess.sum())


class Uniforms:
    """Random numbers by position: row i belongs to the i-th emitted token.

    A row is (draft's draw, acceptance, resample or bonus), float64 in [0, 1).  A schedule that looks ahead does not use
    up the numbers of later positions, so every schedule emits the same text for one seed.  Python's `random` guarantees
    the same numbers in every version; NumPy does not.
    """

    def __init__(self, seed: int | tuple[int, ...], columns: int = 3) -> None:
        self._random = Random(str(seed)).random
        self._columns = range(columns)
        self._rows: list[list[float]] = []

    def __getitem__(self, position: int) -> list[float]:
        while position >= len(self._rows):
            self._rows.append([self._random() for _ in self._columns])
        return self._rows[position]


@dataclass(slots=True)
class Round:
    """The roles of a round, and its progress.

    ``swap`` distinguishes judge mode (True: Persona-judge) from base mode (False: Persona-judge-Base).  With more than
    two preferences, each drafts in its turn, and the next one judges.
    """

    lam: int
    swap: bool
    n_preferences: int = 2
    number: int = 0
    accepted: int = 0

    @property
    def draft(self) -> int:
        return self.number % self.n_preferences if self.swap else 0

    @property
    def judge(self) -> int:
        return (self.draft + 1) % self.n_preferences

    @property
    def bonus_due(self) -> bool:
        """True if all λ drafted tokens of the round were accepted."""
        return self.accepted == self.lam

    def advance(self, kind: Kind) -> None:
        if kind == "accepted":
            self.accepted += 1
        else:
            self.number += 1
            self.accepted = 0


def propose(q: Distribution, u: float, strategy: Strategy) -> int:
    """The draft's token: t ~ q, or its most probable token under the greedy strategy."""
    return q.argmax() if strategy == "greedy" else q.sample(u)


def judge_token(position: int, round: Round, t: int, p: Distribution, q: Distribution, u: list[float]) -> Decision:
    """Accept the drafted token t with probability min(1, p(t)/q(t)), else emit t' ~ norm(max(0, p - q))."""
    p_t, q_t = p.prob(t), q.prob(t)
    accept = accept_probability(p_t, q_t)
    if u[1] < accept:
        return Decision(position, t, "accepted", round.number, round.draft, round.judge, p_t, q_t, accept)
    t_new = residual(p, q).sample(u[2])
    return Decision(
        position, t_new, "resampled", round.number, round.draft, round.judge,
        p.prob(t_new), q.prob(t_new), accept, Rejected(t, p_t, q_t),
    )  # fmt: skip


def bonus_token(position: int, round: Round, p: Distribution, u: list[float]) -> Decision:
    """The judge's own token after λ accepted ones: t' ~ p_{λ+1}."""
    t = p.sample(u[2])
    return Decision(position, t, "bonus", round.number, round.draft, round.judge, p.prob(t))


def plain_token(position: int, p: Distribution, u: list[float], strategy: Strategy) -> Decision:
    """The token of a single view: ordinary decoding."""
    t = propose(p, u[0], strategy)
    return Decision(position, t, "plain", 0, None, None, p.prob(t))
