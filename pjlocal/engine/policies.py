"""Policies: map the logits of one view, or of several combined, to the distribution of the next token."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decoding.combine import divergence, log_normalizer, plausible, push, union
from ..decoding.judge import Distribution
from ..decoding.schedule import Rows
from .context import Logits
from .echo import Echo
from .filters import Candidates, FilterChain, NothingLeft
from .shortlist import check_numbers

_LEAST = -1e4  # the least log-probability, because the difference of two infinities is NaN


class Row:
    """A view's logits of the next token, float32 [n_vocab].

    They are copied, because other answers may be decoded before a token is drawn from them.

    Raises:
        InvalidLogits: the logits contain NaN or infinity.
    """

    def __init__(self, logits: Logits) -> None:
        check_numbers(logits)
        self.logits = logits.copy()
        self.auto: float | None = None  # the view's strength ``auto`` for this token, once it is known

    @cached_property
    def log_z(self) -> float:
        """The log-normalizer of the logits."""
        return log_normalizer(self.logits)

    def log_probs(self, ids: NDArray[np.intp] | None, dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
        """Log-probabilities [m] of some tokens, or [n_vocab] of all, in ``dtype``."""
        logits = (self.logits if ids is None else self.logits[ids]).astype(dtype, copy=False)
        log_probs: NDArray[Any] = np.maximum(logits - dtype(self.log_z), dtype(_LEAST))
        return log_probs


@dataclass
class SingleView:
    """The policy of a single view: its logits through its filters."""

    view: int
    chain: FilterChain

    @property
    def views(self) -> tuple[int, ...]:
        return (self.view,)

    def __call__(self, rows: Rows) -> Distribution:
        return self.chain(rows(self.view).logits)

    def unfiltered(self, rows: Rows) -> tuple[NDArray[np.intp] | None, NDArray[Any]]:
        """Tokens (None for all) and their log-probabilities before any filter."""
        row = rows(self.view)
        return None, row.logits - np.float32(row.log_z)

    def accept(self, token: int) -> None:
        self.chain.accept(token)

    def clone(self) -> SingleView:
        return SingleView(self.view, self.chain.clone())


@dataclass(frozen=True)
class Forced:
    """A policy that gives one token the probability 1."""

    token: int
    views: Sequence[int] = ()

    def __call__(self, rows: Rows) -> Distribution:
        return Distribution(np.array([self.token], np.int32), np.ones(1))

    def unfiltered(self, rows: Rows) -> tuple[NDArray[np.intp] | None, NDArray[Any]]:
        """The token, and its log-probability."""
        return np.array([self.token], np.intp), np.zeros(1)

    def accept(self, token: int) -> None:
        pass

    def clone(self) -> Forced:
        return self


@dataclass(frozen=True)
class Weight:
    """The strength s of a view.

    None (``auto``) sets it for each token from the disagreement with the neutral view, as AdaCAD does (arXiv
    2409.07394): s = 1.65 + half the Jensen-Shannon divergence of their distributions (bits).
    """

    view: int
    strength: float | None

    @property
    def prefers(self) -> bool:
        """True if the view is preferred and not avoided; the joint view then has its preference."""
        return self.strength is None or self.strength > 0

    @property
    def is_identity(self) -> bool:
        """True if the combination is the view itself: n + 1 (v - n) = v."""
        return self.strength == 1


@dataclass
class Steered:
    """The policy of several views: combined at the candidates, then filtered.

    Args:
        neutral: the neutral view's number; None if all strengths are 1.
        joint: the number of the view with all preferences.  It replaces the others at the least of their strengths,
            at most 1.  None if there is no such view.
        pulling, floor: the candidates are the tokens that in at least one of these views, before any combination, are
            at least ``floor`` times as probable as the best token; all tokens if ``floor`` is 0.
        echo: limits the push on tokens that copy a preference; None without a neutral view.
    """

    weights: Sequence[Weight]
    neutral: int | None
    joint: int | None
    pulling: Sequence[int]
    floor: float
    chain: FilterChain
    echo: Echo | None

    @property
    def views(self) -> tuple[int, ...]:
        others = (view for view in (self.joint, self.neutral) if view is not None)
        return tuple(dict.fromkeys((*(weight.view for weight in self.weights), *others)))

    def __call__(self, rows: Rows) -> Distribution:
        ids = self._candidate_ids(rows)
        try:
            return self._filtered(ids, self._combined(rows, ids))
        except NothingLeft:  # a grammar forbids all candidates: use the mean of the single views
            if not self.floor:
                raise
            choosing = [rows(view) for view in self.pulling]
            return self._filtered(None, np.add.reduce([row.log_probs(None) for row in choosing]) / len(choosing))

    def unfiltered(self, rows: Rows) -> tuple[NDArray[np.intp] | None, NDArray[Any]]:
        """The candidates (None for all tokens) and their log-probabilities before any filter."""
        ids = self._candidate_ids(rows)
        logits = self._combined(rows, ids)
        return ids, logits - log_normalizer(logits)

    def _candidate_ids(self, rows: Rows) -> NDArray[np.intp] | None:
        """The ascending ids of the candidates; None for all tokens."""
        if not self.floor:
            return None
        choosing = [rows(view).logits for view in self.pulling]
        choose = partial(plausible, floor=self.floor)
        chosen = [self.chain.permitted(logits, choose) for logits in choosing]
        ids = union([*chosen, *self.chain.favoured()])
        repeated = self.chain.repeated(ids)
        if not repeated.size:
            return ids
        # Without them the views choose more, or a sure token would be repeated whatever its penalty.
        others = [self.chain.permitted(_without(logits, repeated), choose) for logits in choosing]
        return union([ids, *others])

    def _combined(self, rows: Rows, ids: NDArray[np.intp] | None) -> NDArray[Any]:
        log_probs = [rows(weight.view).log_probs(ids) for weight in self.weights]
        n = log_probs[0] if self.neutral is None else rows(self.neutral).log_probs(ids)
        for weight, v in zip(self.weights, log_probs, strict=True):
            limit_copies(v, n, ids, weight.view, self.echo)
        of_each = strengths_of(self.weights, self.neutral, rows)
        if self.joint is not None:
            joint = rows(self.joint).log_probs(ids)
            limit_copies(joint, n, ids, self.joint, self.echo)
            preferring = [weight.prefers for weight in self.weights]
            shared = min(1.0, *compress(of_each, preferring))
            of_each = [*(s - shared * prefers for s, prefers in zip(of_each, preferring, strict=True)), shared]
            log_probs.append(joint)
        return push(n, log_probs, of_each)

    def _filtered(self, ids: NDArray[np.intp] | None, logits: NDArray[Any]) -> Distribution:
        logits = logits.astype(np.float32, copy=False)
        return self.chain(self.chain.shorten(logits) if ids is None else Candidates(ids, logits))

    def accept(self, token: int) -> None:
        self.chain.accept(token)
        if self.echo:
            self.echo.accept(token)

    def clone(self) -> Steered:
        twin = copy.copy(self)
        twin.chain = self.chain.clone()
        twin.echo = self.echo and self.echo.clone()
        return twin


def _without(logits: Logits, ids: NDArray[np.intp]) -> Logits:
    left = logits.copy()
    left[ids] = -np.inf
    return left


def limit_copies(v: NDArray[Any], n: NDArray[Any], ids: NDArray[np.intp] | None, view: int, echo: Echo | None) -> None:
    """Remove the positive push on tokens that copy a preference of the view.

    Args:
        v, n: log-probabilities [m] of the tokens ``ids``, or of all, in the view and in the neutral view.
    """
    if echo and (copies := echo.copies(view)):
        at = copies if ids is None else np.isin(ids, copies)
        v[at] = np.minimum(v[at], n[at])


def pulling_views(weights: Sequence[Weight], neutral: int | None, joint: int | None = None) -> Sequence[int]:
    """The views that determine the plausible tokens: those that are preferred and the joint one, else the neutral
    one."""
    preferred = (weight.view for weight in weights if weight.prefers)
    return [view for view in (*preferred, joint) if view is not None] or ([] if neutral is None else [neutral])


_AUTO, _PER_BIT = 1.65, 0.5  # of ``auto``; the divergence at most tokens is almost 0
_MIN_SHARE = 1e-3  # a divergence ignores tokens below this share of the best token's probability


def strengths_of(weights: Sequence[Weight], neutral: int | None, rows: Rows) -> list[float]:
    """The strength of each weight at the next token."""
    n: Any = None if neutral is None else rows(neutral)
    return [_auto(rows(each.view), n) if each.strength is None else each.strength for each in weights]


def _auto(v: Row, n: Row) -> float:
    """The strength ``auto`` of a view, computed once per token, for all policies."""
    if v.auto is None:
        ids = union([plausible(row.logits, _MIN_SHARE) for row in (v, n)])
        v.auto = _AUTO + _PER_BIT * divergence(v.log_probs(ids), n.log_probs(ids))
    return v.auto


@dataclass(frozen=True)
class PushMeter:
    """The push of each preference on a token, s_i (v_i - n), and n, in nats of log-probability.

    echoes: the echo of the policy that pushes, by view; without one, a view has its own distribution.
    """

    weights: Sequence[Weight]
    neutral: int
    echoes: Mapping[int, Echo | None]

    def __call__(self, rows: Rows, token: int) -> tuple[tuple[float, ...], float]:
        ids = np.array([token])
        n = rows(self.neutral).log_probs(ids, np.float64)

        def of(weight: Weight, strength: float) -> float:
            v = rows(weight.view).log_probs(ids, np.float64)
            limit_copies(v, n, ids, weight.view, self.echoes.get(weight.view))
            return strength * float(v[0] - n[0])

        return tuple(map(of, self.weights, strengths_of(self.weights, self.neutral, rows))), float(n[0])
