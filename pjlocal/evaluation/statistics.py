"""Statistics over a sample of prompts: intervals, tests, win rates, and the reliability of a judge.

Prompts are the units.  Several answers to one prompt (seeds, orders of a judge) are first averaged within the prompt,
because they are not independent and would make every interval too narrow.  Arrays over n prompts are float64 [n], or
[k, n] for k numbers per prompt.  Random numbers have fixed seeds, so the same data give the same results.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..errors import extra

Array = NDArray[np.float64]

LEVEL = 0.95
LEAST = 3  # prompts for an interval: a bootstrap of two only returns their values
SIGNIFICANT = 0.05
RESAMPLES = 4_999  # of a bootstrap: 5 ms for 60 prompts; another seed moves an end by 4 % of a standard error
RESAMPLED_FITS = 1_999  # of the bootstrap of a regression: 20 ms for 60 prompts
SWAPS = 9_999  # of a swap test: 0.4 ms for 60 prompts
SEED = 0
UNFIT = 0.4  # a judge with a higher flip rate is unfit; the median of 27 published judges is 0.45


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    n: the number of prompts.
    low, high: the ends of the interval; None if it cannot be computed.
    note: the reason why there is no interval, or not the usual one (BCa); otherwise empty.
    """

    value: float
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""


def by_unit(values: Iterable[tuple[str, Sequence[float]]]) -> dict[str, Array]:
    """The mean numbers [k] of the answers to each prompt, by prompt.

    Args:
        values: the prompt and the k numbers of each answer, in any order.
    """
    found: dict[str, list[tuple[float, ...]]] = {}
    for unit, value in values:
        found.setdefault(unit, []).append(tuple(value))
    return {unit: np.mean(sorted(found[unit]), axis=0, dtype=np.float64) for unit in sorted(found)}


def mean(values: Array) -> Estimate:
    """The mean of one number per prompt [n]; for several numbers [k, n], the least of their means."""
    return _estimate(tuple(np.atleast_2d(values)), _least)


def difference(mine: Array, other: Array) -> Estimate:
    """The difference of two means over the same prompts [n], or of the least means of several numbers [k, n].

    Simulated coverage of the 95 % interval for skewed (exponential) differences: 92 % with 20 prompts, 94 % with 60,
    95 % with 200; for normal ones 92, 95 and 94 %.
    """
    mine, other = np.atleast_2d(mine), np.atleast_2d(other)
    if len(mine) == 1:
        return mean(mine - other)
    return _estimate((*mine, *other), _gap)


def ratio(above: Array, below: Array) -> Estimate:
    """The ratio of two sums over the same prompts, such as tokens per second."""
    if not below.sum() > 0:
        return Estimate(float("nan"), len(below), note="the divisor is 0")
    return _estimate((above, below), _ratio)


def _ratio(above: Array, below: Array, axis: int = -1) -> Array:
    return np.asarray(above.sum(axis) / below.sum(axis))


def _least(*rows: Array, axis: int = -1) -> Array:
    return np.asarray(np.min([row.mean(axis) for row in rows], axis=0))


def _gap(*rows: Array, axis: int = -1) -> Array:
    half = len(rows) // 2
    return _least(*rows[:half], axis=axis) - _least(*rows[half:], axis=axis)


def _estimate(rows: tuple[Array, ...], statistic: Callable[..., Array], resamples: int = RESAMPLES) -> Estimate:
    """A statistic with SciPy's BCa bootstrap interval over prompts; the rows are resampled together."""
    n = len(rows[0])
    value = float(statistic(*rows))
    if n < LEAST:
        return Estimate(value, n, note=f"fewer than {LEAST} prompts give no interval")
    if all(np.ptp(row) == 0 for row in rows):
        return Estimate(value, n, value, value, "all prompts have the same value")
    low, high = _bootstrap(rows, statistic, resamples, "BCa")
    if np.isfinite(low) and np.isfinite(high):
        return Estimate(value, n, low, high)
    low, high = _bootstrap(rows, statistic, resamples, "percentile")
    if np.isfinite(low) and np.isfinite(high):
        return Estimate(value, n, low, high, "percentile interval: too few prompts differ for BCa")
    return Estimate(value, n, note="the bootstrap gives no interval")


def _bootstrap(
    rows: tuple[Array, ...], statistic: Callable[..., Array], resamples: int, method: str
) -> tuple[float, float]:
    with extra("eval"):
        from scipy import stats
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # for degenerate data, the caller checks the result
        interval = stats.bootstrap(
            rows,
            statistic,
            n_resamples=resamples,
            confidence_level=LEVEL,
            method=method,
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def swap_test(mine: Array, other: Array) -> float:
    """The two-sided p-value of a paired permutation test of no difference.

    It is the share of random swaps (of the two values of each prompt, with probability 1/2) whose difference is at
    least as large.  All swaps are computed for up to 13 prompts, 9,999 random ones otherwise.  For differences of -1, 0
    and 1 it is the sign test.  With [k, n] numbers it tests the difference of the least means.
    """
    mine, other = np.atleast_2d(mine), np.atleast_2d(other)
    n = mine.shape[1]
    swaps, exact = _swaps(n)
    moved = swaps @ (mine - other).T / n  # [swaps, k]: the change of each mean
    gaps = (mine.mean(1) - moved).min(1) - (other.mean(1) + moved).min(1)
    gap = mine.mean(1).min() - other.mean(1).min()
    slack = 1e-9 * max(1.0, float(np.abs(mine - other).max()))  # for rounding errors of equal sums
    as_large = int((np.abs(gaps) >= abs(gap) - slack).sum())
    return as_large / len(swaps) if exact else (as_large + 1) / (len(swaps) + 1)


@lru_cache(maxsize=4)
def _swaps(n: int) -> tuple[Array, bool]:
    """The swaps [ways, n], with 1.0 for a swapped prompt and 0.0 for others, and whether these are all swaps."""
    if 2**n <= SWAPS:
        return np.array(list(product((0.0, 1.0), repeat=n))), True
    return np.random.default_rng(SEED).integers(0, 2, (SWAPS, n)).astype(np.float64), False


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction of the p-values of several comparisons, which limits the probability of any false alarm."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for i, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        highest = max(highest, min(1.0, p_values[name] * (len(p_values) - i)))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p-value of the hypothesis that wins and losses are equally probable.  Ties are not counted."""
    with extra("eval"):
        from scipy import stats
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def smallest_significant(n: int) -> float | None:
    """The smallest win rate over ``n`` prompts without ties that is significant (sign test, 5 %); None if none is."""
    for wins in range(n // 2 + 1, n + 1):
        if sign_test(wins, n - wins) <= SIGNIFICANT:
            return wins / n
    return None


def smallest_detectable(n: int) -> float | None:
    """The smallest true win rate that becomes significant over ``n`` prompts without ties four times out of five; None
    if there is none."""
    significant = smallest_significant(n)
    if significant is None:
        return None
    with extra("eval"):
        from scipy import optimize, stats
    wins = round(significant * n)

    def missing(rate: float) -> float:
        return float(stats.binom.sf(wins - 1, n, rate) + stats.binom.cdf(n - wins, n, rate)) - 0.8

    return float(optimize.brentq(missing, 0.5, 1.0))


@dataclass(frozen=True)
class WinRate:
    """The win rate over prompts.

    rate: the mean outcome, with 0.5 for ties.
    length_controlled: an estimate of the rate for answers of equal length.
    wins, ties, losses: the numbers of prompts; a win in one order and a loss in the other is a tie.
    p: the p-value of the sign test.
    """

    rate: Estimate
    length_controlled: Estimate
    wins: int
    ties: int
    losses: int
    p: float


def win_rate(outcomes: Array, longer: Array) -> WinRate:
    """The win rate for each prompt's outcome [n]: 1 for a win, 0 for a loss, 0.5 for a tie, or a value between.

    Args:
        longer: the length of the answer minus that of the other one, for each prompt [n].
    """
    wins, losses = int((outcomes > 0.5).sum()), int((outcomes < 0.5).sum())
    ties = len(outcomes) - wins - losses
    p = sign_test(wins, losses)
    return WinRate(mean(outcomes), length_controlled(outcomes, longer), wins, ties, losses, p)


def length_controlled(outcomes: Array, longer: Array) -> Estimate:
    """The win rate at equal length, as in AlpacaEval 2 (arXiv 2404.04475): sigmoid(a) of the logistic regression

        P(win) = sigmoid(a + b * tanh(d / sd(d))),  d the difference of the lengths.

    AlpacaEval's term for the difficulty of each prompt needs other systems' answers, and is left out.
    """
    if not longer.any() or np.ptp(outcomes) == 0:
        return mean(outcomes)  # there is nothing to explain
    if (spread := float(longer.std())) == 0:
        return Estimate(float("nan"), len(longer), note="all differences in length are equal")
    return _estimate((outcomes, np.tanh(longer / spread)), _at_equal_length, RESAMPLED_FITS)


#: The weight of the regression's ridge penalty (a² + b²) / 2.  It keeps a and b finite if length alone predicts every
#: winner, as may happen in a resample; otherwise it changes the rate by less than 0.1 %.
_RIDGE = 0.01
_STEPS = 30  # of Newton's method; 8 are enough unless the data are separable


def _at_equal_length(outcomes: Array, scaled: Array, axis: int = -1) -> Array:
    """sigmoid(a) of the regression along the last axis, by Newton's method for many samples at once."""
    a = np.zeros(np.broadcast_shapes(outcomes.shape[:-1], scaled.shape[:-1]))
    b = np.zeros_like(a)
    for _ in range(_STEPS):
        p = _sigmoid(a[..., None] + b[..., None] * scaled)
        error, weight = p - outcomes, p * (1 - p)
        slope_a, slope_b = error.sum(-1) + _RIDGE * a, (error * scaled).sum(-1) + _RIDGE * b
        aa, ab, bb = weight.sum(-1) + _RIDGE, (weight * scaled).sum(-1), (weight * scaled**2).sum(-1) + _RIDGE
        determinant = aa * bb - ab * ab
        step_a = (bb * slope_a - ab * slope_b) / determinant
        step_b = (aa * slope_b - ab * slope_a) / determinant
        a, b = a - np.clip(step_a, -2, 2), b - np.clip(step_b, -2, 2)
        if max(np.abs(step_a).max(), np.abs(step_b).max()) < 1e-9:
            break
    return _sigmoid(a)


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2))


@dataclass(frozen=True)
class Steadiness:
    """The stability of a judge's verdicts when the two answers change places.

    pairs: the number of comparisons that were judged in both orders.
    decisive: the number of these without a tie in either order.
    flipped: the number of decisive ones in which the order changed the winner.
    """

    pairs: int
    decisive: int
    flipped: int

    @property
    def flip_rate(self) -> float | None:
        """The share of decisive verdicts that change with the order; None without decisive verdicts."""
        return self.flipped / self.decisive if self.decisive else None

    @property
    def unfit(self) -> bool:
        return self.flip_rate is not None and self.flip_rate > UNFIT


def steadiness(pairs: Sequence[tuple[float, float]]) -> Steadiness:
    """The stability of a judge, from one answer's outcome in both orders of each comparison: 1 for a win, 0 for a loss,
    0.5 for a tie."""
    decisive = [(one, two) for one, two in pairs if one != 0.5 and two != 0.5]
    return Steadiness(len(pairs), len(decisive), sum(one != two for one, two in decisive))
