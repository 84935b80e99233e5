"""Intervals with the right coverage, tests compared with SciPy and known values, and the reliability of judges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pjlocal.evaluation import statistics


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_interval_is_scipys_and_the_same_every_time() -> None:
    values = rng().exponential(1, 60)
    found = statistics.mean(values)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=rng(1)).confidence_interval
    assert found == statistics.mean(values)
    assert found.value == pytest.approx(values.mean()) and found.n == 60 and not found.note
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.02), pytest.approx(expected.high, abs=0.02))


def test_a_difference_is_paired_by_prompt() -> None:
    hard = rng(1).normal(0, 10, 60)  # prompts differ far more than systems do
    mine, other = hard + 1 + rng(2).normal(0, 0.5, 60), hard
    found = statistics.difference(mine, other)
    assert found.value == pytest.approx(1, abs=0.3) and 0 < found.low < found.value < found.high
    assert found == statistics.mean(mine - other)
    assert statistics.swap_test(mine, other) == 1 / (statistics.SWAPS + 1)
    assert statistics.swap_test(mine, other[::-1]) > 0.05, "unpaired, it would be lost among the prompts"


def test_the_smallest_of_several_means_is_reported_and_compared() -> None:
    mine, other = np.array([[3.0, 5, 4], [1, 2, 0]]), np.array([[0.0, 1, 2], [5, 5, 5]])
    assert statistics.mean(mine).value == 1
    assert statistics.difference(mine, other).value == pytest.approx(0)
    lifted = rng(3).normal(1, 0.1, (2, 40))
    found = statistics.difference(lifted, lifted - [[0.5], [0.9]])
    assert found.value == pytest.approx(0.9, abs=0.1) and found.low > 0
    assert statistics.swap_test(lifted, lifted - [[0.5], [0.9]]) < 0.001


def test_a_ratio_is_of_the_sums_over_the_same_prompts() -> None:
    seconds = rng(4).uniform(1, 5, 50)
    found = statistics.ratio(20 * seconds, seconds)
    assert found.value == pytest.approx(20) and found.low == pytest.approx(20) and found.high == pytest.approx(20)
    tokens = 20 * seconds + rng(5).normal(0, 1, 50)
    paired, unpaired = statistics.ratio(tokens, seconds), statistics.ratio(tokens, seconds[::-1])
    assert paired.value == unpaired.value == pytest.approx(tokens.sum() / seconds.sum())
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 10
    nothing = statistics.ratio(seconds, 0 * seconds)
    assert np.isnan(nothing.value) and nothing.low is None and nothing.note


@pytest.mark.parametrize(
    ("values", "low", "high", "note"),
    [
        ([2.0], None, None, "fewer than 3 prompts"),
        ([100.0, 100.0], None, None, "fewer than 3 prompts"),
        ([1.0] * 60, 1.0, 1.0, "all prompts have the same value"),
    ],
)
def test_a_missing_interval_has_a_reason(values: list[float], low, high, note: str) -> None:
    found = statistics.mean(np.array(values))
    assert (found.low, found.high) == (low, high) and found.note.startswith(note)


def test_the_percentile_interval_replaces_a_failed_bca_and_says_so(monkeypatch) -> None:
    values = np.array([0.0] * 59 + [1.0])
    whole = statistics.mean(values)
    assert whole.low is not None and whole.high is not None and whole.low <= 1 / 60 <= whole.high
    bootstrap = statistics._bootstrap
    degenerate = (float("nan"), float("nan"))
    monkeypatch.setattr(statistics, "_bootstrap", lambda *a: degenerate if a[-1] == "BCa" else bootstrap(*a))
    found = statistics.mean(values)
    assert found.note.startswith("percentile interval") and found.low == 0.0 and found.high > 1 / 60


def test_answers_to_one_prompt_are_averaged_before_anything_else() -> None:
    seeds = [("b", [1.0]), ("a", [0.0]), ("b", [0.0]), ("a", [1.0]), ("b", [2.0])]
    found = statistics.by_unit(seeds)
    assert list(found) == ["a", "b"] and found["a"] == [0.5] and found["b"] == [1.0]
    assert str(statistics.by_unit(seeds[::-1])) == str(found)


@pytest.mark.parametrize("n", [5, 8, 12])
def test_the_swap_test_is_scipys_permutation_test(n: int) -> None:
    mine, other = rng(n).normal(0.4, 1, n), rng(n + 1).normal(0, 1, n)
    expected = stats.permutation_test(
        (mine, other), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert statistics.swap_test(mine, other) == pytest.approx(expected.pvalue)


def test_the_swap_test_of_a_check_is_the_sign_test() -> None:
    wins, losses = 30, 12
    gaps = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 18)
    assert statistics.swap_test(gaps, 0 * gaps) == pytest.approx(statistics.sign_test(wins, losses), rel=0.2)
    few = np.array([1.0] * 7 + [-1.0] + [0.0] * 4)
    assert statistics.swap_test(few, 0 * few) == pytest.approx(statistics.sign_test(7, 1))
    assert statistics.swap_test(0 * gaps, 0 * gaps) == 1.0


def test_holms_correction_has_its_known_values() -> None:
    """Worked by hand: 0.005 * 4, 0.01 * 3, then 0.03 * 2, and 0.04 * 1 which may not fall below its forerunner."""
    found = statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert statistics.holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert statistics.holm({"a": 0.02}) == {"a": 0.02} and statistics.holm({}) == {}


@pytest.mark.parametrize(
    ("n", "rate"), [(5, None), (6, 1.0), (50, 0.66), (100, 0.61), (200, 0.575), (500, 0.546), (0, None)]
)
def test_the_smallest_win_rate_that_n_prompts_can_tell_from_chance(n: int, rate: float | None) -> None:
    assert statistics.smallest_significant(n) == (None if rate is None else pytest.approx(rate))


@pytest.mark.parametrize("n", [20, 50, 200])
def test_a_win_rate_is_detected_with_the_stated_power(n: int) -> None:
    """Over 4,000 evaluations: 80 %, plus or minus 0.63 % (one standard error)."""
    rate = statistics.smallest_detectable(n)
    assert rate is not None and rate > statistics.smallest_significant(n)  # type: ignore[operator]
    p_of = [statistics.sign_test(wins, n - wins) for wins in range(n + 1)]
    wins, count = np.unique(rng(n).binomial(n, rate, 4_000), return_counts=True)
    assert abs(sum(c for w, c in zip(wins, count, strict=True) if p_of[w] <= 0.05) / 4_000 - 0.8) < 4 * 0.0063
    assert statistics.smallest_detectable(5) is None


def test_ties_are_half_wins_and_not_evidence() -> None:
    outcomes = np.array([1.0] * 6 + [0.5] * 3 + [0.0] + [0.75] * 2)
    found = statistics.win_rate(outcomes, np.zeros(12))
    assert (found.wins, found.ties, found.losses) == (8, 3, 1)
    assert found.rate.value == pytest.approx(9 / 12) and found.rate.n == 12
    assert found.p == statistics.sign_test(8, 1)
    nothing = statistics.win_rate(np.full(20, 0.5), np.zeros(20))
    assert nothing.rate.value == 0.5 and nothing.p == 1.0 and nothing.rate.note


def test_a_win_that_length_alone_explains_is_none_at_equal_length() -> None:
    longer = rng(9).normal(40, 100, 200)  # mostly longer, and the judge likes that
    outcomes = (rng(10).random(200) < 1 / (1 + np.exp(-3 * np.tanh(longer / longer.std())))) * 1.0
    found = statistics.win_rate(outcomes, longer)
    assert found.rate.value > 0.58 and found.rate.low > 0.5
    even = found.length_controlled
    assert even.low < 0.5 < even.high and abs(even.value - 0.5) < 0.1


def test_the_length_controlled_win_rate_is_a_logistic_regressions() -> None:
    """Against SciPy's minimizer on the same loss, in any units of length, with soft outcomes."""
    from scipy.optimize import minimize

    longer, outcomes = rng(11).normal(5, 20, 60), rng(12).integers(0, 5, 60) / 4
    x = np.tanh(longer / longer.std())

    def loss(ab):
        z = ab[0] + ab[1] * x
        return np.sum(np.logaddexp(0, z) - outcomes * z) + statistics._RIDGE / 2 * (ab @ ab)

    a = minimize(loss, np.zeros(2), tol=1e-12).x[0]
    found = statistics.length_controlled(outcomes, longer)
    assert found.value == pytest.approx(1 / (1 + np.exp(-a)), abs=1e-5)
    assert statistics.length_controlled(outcomes, 7 * longer).value == pytest.approx(found.value, abs=1e-12)


def test_the_length_controlled_win_rate_stays_finite_if_length_predicts_every_winner() -> None:
    longer = rng(13).normal(0, 50, 60)
    found = statistics.length_controlled((longer > 0) * 1.0, longer)
    assert 0 < found.low < 0.5 < found.high < 1
    assert statistics.length_controlled(np.ones(60), longer).value == 1.0, "whoever wins all wins at equal length too"
    assert statistics.length_controlled((longer > 0) * 1.0, np.zeros(60)) == statistics.mean((longer > 0) * 1.0)
    same = statistics.length_controlled((longer > 0) * 1.0, np.full(60, 30.0))
    assert np.isnan(same.value) and same.note == "all differences in length are equal"


def test_a_judge_that_holds_to_its_word_turns_over_none_and_ties_are_not_decisive() -> None:
    found = statistics.steadiness([(1.0, 1.0)] * 6 + [(0.0, 0.0)] * 2 + [(0.5, 1.0)] * 5 + [(0.5, 0.5)] * 7)
    assert (found.pairs, found.decisive, found.flipped) == (20, 8, 0) and found.flip_rate == 0.0 and not found.unfit
    assert statistics.steadiness([(0.5, 0.5)]).flip_rate is None and not statistics.steadiness([]).unfit
    assert not statistics.steadiness([(1.0, 0.0)] * 4 + [(1.0, 1.0)] * 6).unfit, "40 % is borne"
    assert statistics.steadiness([(1.0, 0.0)] * 41 + [(1.0, 1.0)] * 59).unfit
