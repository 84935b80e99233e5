"""The numbers of the tables from records: by hand, in any order, and with missing records."""

from __future__ import annotations

import random
from functools import partial

import evaluated
import pytest
from evaluated import make_answer

from pjlocal.errors import UsageError
from pjlocal.evaluation.compare import Metric, Results, compare, compare_folders, direction
from pjlocal.evaluation.records import AnswerRecord, Verdict
from pjlocal.evaluation.suite import Objectives, Suite, System

PAIR = Objectives("pair", ("vivid", "creative"))


def suite(*systems: str, objectives: tuple[Objectives, ...] = (PAIR,)) -> Suite:
    return Suite("s", "S", objectives, tuple(map(System, systems)), baseline="prompt")


def answer(system: str, prompt: int, seed: int = 0, text: str = "x" * 20, **changes) -> AnswerRecord:
    values = {"prompt_id": f"p{prompt:02}", "objectives": "pair", "tokens": 10, "prefill_s": 0.5, "decode_s": 2.0}
    values |= {"n_at_once": 1}
    return make_answer(text, system=system, prompt=f"Prompt {prompt}?", seed=seed, **values | changes)


score = partial(evaluated.score, by="")
verdict = partial(evaluated.verdict, by="j")


ONE, TWO, TIE = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)


def judged(mine: AnswerRecord, other: AnswerRecord, shown_first, shown_second, **names) -> list[Verdict]:
    """The judge's verdicts where ``mine`` is shown first, and where it is shown second."""
    return [verdict(mine, other, *shown_first, **names), verdict(other, mine, *shown_second, **names)]


def test_a_systems_means_are_over_prompts_with_seeds_averaged_first() -> None:
    answers = [answer("prompt", 1), answer("prompt", 1, seed=1), answer("prompt", 2, decode_s=4.0)]
    values = [1.0, 3.0, 10.0]
    found = compare(
        Results(suite("prompt"), answers, [score(a, "words", v) for a, v in zip(answers, values, strict=True)])
    )
    (row,) = found.systems
    assert (row.answers, row.prompts, found.prompts) == (3, 2, 2)
    assert row.means[Metric("words")].value == (2 + 10) / 2, "not 14 / 3"
    assert row.means[Metric("tokens")].value == 10
    assert row.tokens_per_s.value == pytest.approx(20 / 6) and row.seconds.value == pytest.approx((2.5 + 4.5) / 2)
    assert found.differences == () and found.wins == ()


def test_least_is_the_least_mean_reward_and_not_the_mean_of_the_least() -> None:
    answers = [answer("prompt", i) for i in (1, 2)]
    rewards = [
        *(score(a, "reward:vivid", v, by="m") for a, v in zip(answers, (0.0, 1.0), strict=True)),
        *(score(a, "reward:creative", v, by="m") for a, v in zip(answers, (2.0, 0.2), strict=True)),
        *(score(a, "reward:vivid", 7.0, by="other") for a in answers),
    ]
    means = compare(Results(suite("prompt"), answers, rewards)).systems[0].means
    assert means[Metric("least", "m")].value == 0.5
    assert Metric("least", "other") not in means, "one preference alone has no lesser one"
    assert list(means)[:3] == [Metric("least", "m"), Metric("reward:creative", "m"), Metric("reward:vivid", "m")]


def test_least_counts_only_answers_with_all_rewards() -> None:
    answers = [answer("prompt", i) for i in (1, 2, 3)]
    rewards = [score(answers[0], f"reward:{name}", i, by="m") for i, name in enumerate(("a", "b", "c"), 1)]
    rewards += [score(answers[1], f"reward:{name}", -9, by="m") for name in ("a", "b")]
    means = compare(Results(suite("prompt"), answers, rewards)).systems[0].means
    assert (means[Metric("least", "m")].value, means[Metric("least", "m")].n) == (1, 1)
    assert means[Metric("reward:a", "m")].n == 2


def test_the_share_of_checks_counts_only_known_results() -> None:
    answers = [answer("prompt", i) for i in (1, 2)]
    found = [score(answers[0], "check:a", 1), score(answers[0], "check:b", 0), score(answers[0], "check:all", 0)]
    found.append(score(answers[1], "check:a", 1))
    means = compare(Results(suite("prompt"), answers, found)).systems[0].means
    assert means[Metric("checks")].value == 0.75 and means[Metric("check:b")].n == 1


def test_differences_are_paired_by_prompt_and_corrected_over_systems() -> None:
    rng = random.Random(0)
    answers, scores = [], []
    for i in range(30):
        hard = rng.gauss(0, 10)
        for system, shift in (("prompt", 0.0), ("judge", 0.5), ("base", 0.0), ("both", 1.0)):
            answers.append(answer(system, i))
            scores.append(score(answers[-1], "fluency", hard + shift + rng.gauss(0, 0.5), by="m"))
    found = compare(Results(suite("prompt", "judge", "base", "both"), answers, scores))
    rows = {row.system: row for row in found.differences if row.metric == Metric("fluency", "m")}
    assert list(rows) == ["judge", "base", "both"] and {row.baseline for row in rows.values()} == {"prompt"}
    assert rows["both"].estimate.value == pytest.approx(1, abs=0.4) and rows["both"].estimate.low > 0
    assert not rows["both"].within_noise and rows["base"].within_noise
    assert rows["both"].p_holm == pytest.approx(3 * rows["both"].p), "the smallest of three"


def test_a_difference_ignores_prompts_that_one_system_lacks() -> None:
    answers = [answer("prompt", 1), answer("prompt", 2), answer("both", 2), answer("both", 3)]
    found = compare(Results(suite("prompt", "both"), answers, [score(a, "words", i) for i, a in enumerate(answers)]))
    (row,) = [row for row in found.differences if row.metric == Metric("words")]
    assert row.estimate.n == 1 and row.estimate.value == 1 and row.p == 1.0 and row.within_noise
    apart = [answer("prompt", 1), answer("both", 2)]
    assert compare(Results(suite("prompt", "both"), apart)).differences == ()


def test_a_win_counts_in_both_orders_and_ties_as_halves() -> None:
    pairs = [(answer("both", i), answer("prompt", i)) for i in range(4)]
    verdicts = [
        *judged(*pairs[0], ONE, TWO),  # wins in both orders
        *judged(*pairs[1], ONE, TIE),  # 0.75
        *judged(*pairs[2], ONE, ONE),  # the judge names the first place: 0.5
        *judged(*pairs[3], TWO, ONE),  # loses in both
    ]
    found = compare(Results(suite("prompt", "both"), [a for p in pairs for a in p], (), verdicts))
    (row,), steadiness = found.wins, found.judges["j"]
    assert (row.objectives, row.system, row.against, row.aspect, row.by) == ("pair", "both", "prompt", "vivid", "j")
    assert row.result.rate.value == (1 + 0.75 + 0.5 + 0) / 4
    assert (row.result.wins, row.result.ties, row.result.losses) == (2, 1, 1)
    assert (steadiness.pairs, steadiness.decisive, steadiness.flipped) == (4, 3, 1)
    assert row.within_noise and row.incomplete == 0


def test_a_judge_that_always_says_1_prefers_no_system_and_is_unfit() -> None:
    pairs = [(answer("both", i, text="y" * i), answer("prompt", i)) for i in range(40)]
    verdicts = [v for pair in pairs for v in judged(*pair, ONE, ONE)]
    found = compare(Results(suite("prompt", "both"), [a for p in pairs for a in p], (), verdicts))
    (row,) = found.wins
    assert row.result.rate.value == row.result.length_controlled.value == 0.5
    assert row.result.ties == 40 and row.result.p == 1.0
    assert found.judges["j"].flip_rate == 1.0 and found.judges["j"].unfit


def test_equally_probable_verdicts_are_ties() -> None:
    pair = answer("both", 1), answer("prompt", 1)
    verdicts = judged(*pair, (0.4, 0.4, 0.2), (0.2, 0.4, 0.4))
    found = compare(Results(suite("prompt", "both"), pair, (), verdicts))
    (row,), steadiness = found.wins, found.judges["j"]
    assert row.result.rate.value == 0.5 and steadiness.decisive == 0 and steadiness.flip_rate is None


def test_a_comparison_in_one_order_alone_does_not_count() -> None:
    pairs = [(answer("both", i), answer("prompt", i)) for i in range(3)]
    verdicts = [*judged(*pairs[0], ONE, TWO), verdict(*pairs[1], *ONE)]
    (row,) = compare(Results(suite("prompt", "both"), [a for p in pairs for a in p], (), verdicts)).wins
    assert row.result.rate.n == 1 and row.incomplete == 1
    assert compare(Results(suite("prompt", "both"), pairs[1], (), verdicts[2:3])).wins == ()


def test_several_seeds_of_a_prompt_count_as_one() -> None:
    pairs = [(answer("both", 1, seed), answer("prompt", 1, seed)) for seed in range(3)]
    verdicts = [
        v for pair, said in zip(pairs, (ONE, ONE, TWO), strict=True) for v in judged(*pair, said, said[1::-1] + TIE[:1])
    ]
    found = compare(Results(suite("prompt", "both"), [a for p in pairs for a in p], (), verdicts))
    (row,) = found.wins
    assert row.result.rate.n == 1 and row.result.rate.value == pytest.approx(2 / 3) and found.judges["j"].pairs == 3


def test_systems_may_be_compared_with_others_than_the_baseline() -> None:
    three = [answer(name, 1) for name in ("prompt", "both", "judge")]
    verdicts = [*judged(three[2], three[1], ONE, TWO), *judged(three[0], three[2], ONE, TWO)]
    found = compare(Results(suite("prompt", "both", "judge"), three, (), verdicts)).wins
    assert {(row.system, row.against): row.result.rate.value for row in found} == {
        ("judge", "both"): 1.0,
        ("judge", "prompt"): 0.0,
    }


def whole(n: int, seeds: int = 1, shift: float = 0.5) -> Results:
    """An evaluation of five systems and two objectives."""
    rng = random.Random(1)
    systems = ("plain", "prompt", "base", "judge", "both")
    answers, scores, verdicts = [], [], []
    names = ("words", "distinct1", "repetition", "finished", "readability", "fluency", "prompting")
    for objectives in ("pair", "other"):
        for i in range(n):
            for seed in range(seeds):
                here = {s: answer(s, i, seed, text="x" * rng.randint(50, 500), objectives=objectives) for s in systems}
                answers += here.values()
                for system, one in here.items():
                    scores += [score(one, m, rng.gauss(shift * (system == "both"), 1)) for m in names]
                    scores += [score(one, f"reward:{p}", rng.gauss(0, 1), by="m") for p in ("vivid", "creative")]
                for system in ("base", "judge", "both"):
                    for aspect in ("vivid", "creative", "quality"):
                        said = rng.choices((ONE, TWO, TIE), k=2)
                        verdicts += judged(here[system], here["prompt"], *said, aspect=aspect)
    return Results(suite(*systems, objectives=(PAIR, Objectives("other", ("a b",)))), answers, scores, verdicts)


@pytest.mark.slow
def test_the_order_of_the_records_makes_no_difference() -> None:
    results = whole(12, seeds=3)
    shuffled = [
        random.Random(2).sample(list(of), len(of)) for of in (results.answers, results.scores, results.verdicts)
    ]
    assert repr(compare(Results(results.suite, *shuffled))) == repr(compare(results))


def test_two_evaluations_are_compared_over_the_prompts_that_both_have() -> None:
    def run(prompts: range, systems: tuple[str, ...], words: float, first_id: int) -> Results:
        answers = [
            answer(s, i, prompt_id=f"id{i + first_id}", seed=seed)
            for s in systems
            for i in prompts
            for seed in range(2)
        ]
        return Results(suite(*systems), answers, [score(a, "words", words + int(a.prompt[7:-1])) for a in answers])

    old, new = run(range(12), ("prompt", "base"), 100, 0), run(range(4, 20), ("prompt", "both"), 90, 50)
    found = compare_folders(old, new, "before")
    assert found.prompts == 8
    assert found.only_first == (("pair", "base"),) and found.only_second == (("pair", "both"),)
    (row,) = [row for row in found.differences if row.metric == Metric("words")]
    assert (row.system, row.baseline, row.estimate.n, row.estimate.value) == ("prompt", "before", 8, -10)
    assert not row.within_noise

    two = run(range(4), ("prompt", "both"), 90, 0)
    assert [*dict.fromkeys(row.system for row in compare_folders(two, two).differences)] == ["prompt", "both"]
    with pytest.raises(UsageError, match="no prompt in common"):
        compare_folders(old, run(range(20, 22), ("prompt",), 90, 0))
    with pytest.raises(UsageError, match="no system with the same objectives in common"):
        compare_folders(old, run(range(4, 6), ("both",), 90, 0))


def test_an_evaluation_that_has_hardly_begun_has_a_report_too() -> None:
    empty = compare(Results(suite("prompt", "both"), []))
    assert empty.systems == () and empty.prompts == 0 and empty.judges == {}
    no_baseline = compare(Results(suite("prompt", "both"), [answer("both", 1)]))
    assert len(no_baseline.systems) == 1 and no_baseline.differences == ()
    stopped = compare(Results(suite("prompt"), [answer("prompt", 1, tokens=0, decode_s=0.0)]))
    assert stopped.systems[0].tokens_per_s.note


def test_the_later_of_two_scores_counts_and_nan_does_not() -> None:
    one = answer("prompt", 1)
    scores = [score(one, "words", 1), score(one, "words", 2), score(one, "fluency", float("nan"), by="m")]
    means = compare(Results(suite("prompt"), [one], scores)).systems[0].means
    assert means[Metric("words")].value == 2 and Metric("fluency", "m") not in means


def test_more_is_better_only_for_some_metrics() -> None:
    assert direction(Metric("reward:vivid", "m")) == direction(Metric("check:all")) == 1
    assert direction(Metric("repetition")) == -1 and direction(Metric("words")) == 0
