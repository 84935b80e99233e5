"""The combination of several views: the formulas against plain arithmetic, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from scipy.spatial.distance import jensenshannon

from pjlocal.decoding import combine

RNG = np.random.default_rng(3)


def log_probs(n: int = 50) -> np.ndarray:
    return special.log_softmax(3 * RNG.standard_normal(n))


def probs(logits: np.ndarray) -> np.ndarray:
    return special.softmax(logits)


@pytest.mark.parametrize("strengths", [(1.0, 1.0), (1.5, 0.5), (2.0, -1.0), (0.3, 0.7), (10.0, -10.0)])
def test_push_adds_up_how_far_each_view_moves_the_neutral_one(strengths: tuple[float, float]) -> None:
    n, a, b = (log_probs() for _ in range(3))
    expected = [n[i] + strengths[0] * (a[i] - n[i]) + strengths[1] * (b[i] - n[i]) for i in range(len(n))]
    assert np.allclose(combine.push(n, [a, b], strengths), expected)


def test_one_view_at_strength_1_is_that_view_and_at_0_the_neutral_one() -> None:
    n, a = log_probs(), log_probs()
    assert np.allclose(combine.push(n, [a], [1.0]), a)
    assert np.allclose(combine.push(n, [a], [0.0]), n)


def test_the_inputs_stay_as_they_are() -> None:
    n, a, b = (log_probs() for _ in range(3))
    before = [x.copy() for x in (n, a, b)]
    combine.push(n, [a, b], [1.5, 0.5])
    assert all((x == y).all() for x, y in zip((n, a, b), before, strict=True))


@pytest.mark.parametrize("floor", [1e-6, 0.05, 0.1, 0.999])
def test_the_floor_keeps_tokens_above_a_share_of_the_best_and_at_least_one(floor: float) -> None:
    for _ in range(200):
        logits = (20 * RNG.standard_normal(300)).astype(np.float32)
        p = probs(logits.astype(np.float64))
        ids = combine.plausible(logits, floor)
        clear = np.abs(np.log(p / p.max()) - np.log(floor)) > 1e-4
        assert set(ids) & set(np.flatnonzero(clear)) == set(np.flatnonzero((p >= floor * p.max()) & clear))
        assert p.argmax() in ids and (np.diff(ids) > 0).all()


def test_a_union_is_ascending_and_without_repetition() -> None:
    for n in (1, 2, 3):
        lists = [np.unique(RNG.integers(0, 30, size=10)) for _ in range(n)]
        assert combine.union(lists).tolist() == sorted(set(np.concatenate(lists).tolist()))


def test_the_normalizer_makes_log_probabilities() -> None:
    logits = (50 * RNG.standard_normal(1000)).astype(np.float32)
    assert combine.log_normalizer(logits) == pytest.approx(special.logsumexp(logits.astype(np.float64)), abs=1e-5)


def test_the_divergence_is_jensen_shannon() -> None:
    for _ in range(50):
        v, n = log_probs(8), log_probs(8)
        assert combine.divergence(v, n) == pytest.approx(jensenshannon(np.exp(v), np.exp(n), base=2) ** 2, abs=1e-9)
    assert combine.divergence(v, v) == 0.0
    assert combine.divergence(np.array([0.0, -1e4]), np.array([-1e4, 0.0])) == pytest.approx(1.0)
