"""Combine several views' distributions of the next token.

v_1 ... v_k are views under preferences, j is the joint view under all of them, and n is the neutral view, the
same conversation without a preference.  Each is an array [m] of log-probabilities of the same m tokens.  s_i are
strengths.  The results are unnormalised logits:

    n + Σ s_i (v_i - n)                     each preference pushes away from neutral, and the pushes add up
    n + m (j - n) + Σ (s_i - m) (v_i - n)   the same, but the joint view has the part m that all strengths share

The first is the formula of context steering (arXiv 2405.01768), classifier-free guidance (2306.17806), contrastive
decoding and DExperts.  A strength below zero pushes away from a preference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LogProbs = NDArray[Any]  # float32 or float64


def push(n: LogProbs, views: Sequence[LogProbs], strengths: Sequence[float]) -> LogProbs:
    """n + Σ s_i (v_i - n)."""
    combined: LogProbs = (1.0 - sum(strengths)) * n
    for v, s in zip(views, strengths, strict=True):
        combined += s * v
    return combined


def plausible(logits: NDArray[np.float32], floor: float) -> NDArray[np.intp]:
    """Ascending ids [m] of the tokens that are at least ``floor`` (above 0, at most 1) times as probable as the most
    probable token, which is always among them."""
    ids: NDArray[np.intp] = np.flatnonzero(logits >= logits.max() + np.float32(np.log(floor)))
    return ids


def union(ids: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """The union of several ascending lists, ascending and without repetitions."""
    if len(ids) == 1:
        return ids[0]
    merged: NDArray[np.intp] = np.sort(np.concatenate(ids))
    first: NDArray[np.bool_] = np.append(True, merged[1:] != merged[:-1])
    return merged[first]


def log_normalizer(logits: NDArray[np.float32]) -> float:
    """log Σ exp of [n_vocab] logits.  Subtract it from logits to get log-probabilities."""
    best = logits.max()
    return float(best) + float(np.log(np.exp(logits - best).sum(dtype=np.float64)))


def divergence(v: LogProbs, n: LogProbs) -> float:
    """The Jensen-Shannon divergence of two views in bits (0 to 1), from log-probabilities [m] of m tokens.

    The rest of the probability counts as one more token.
    """
    p, q = (_with_rest(np.exp(x)) for x in (v, n))
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.nansum(p * np.log2(p / m)) + np.nansum(q * np.log2(q / m))
    return min(max(float(terms) / 2, 0.0), 1.0)


def _with_rest(p: LogProbs) -> LogProbs:
    return np.append(p, max(0.0, 1.0 - float(p.sum())))
