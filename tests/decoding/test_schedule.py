"""The algorithm itself, on small random distributions: no model is needed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from toy_views import ToyViews

from pjlocal.decoding.judge import Distribution, Round, Uniforms, judge_token, propose, residual
from pjlocal.decoding.schedule import Policies, Rules, algorithm1, lockstep


def random_distribution(rng: np.random.Generator, n_vocab: int, keep: float = 1.0) -> Distribution:
    ids = np.flatnonzero(rng.random(n_vocab) < keep).astype(np.int32)
    if not len(ids):
        ids = rng.integers(n_vocab, size=1).astype(np.int32)
    return Distribution(ids, rng.dirichlet(np.full(len(ids), 0.5)) + 0.0)


class RandomViews(ToyViews):
    """Views whose next-token distribution is a fixed random function of everything they have read."""

    def __init__(self, seed: int, n_vocab: int, keep: float, agree: bool = False) -> None:
        super().__init__()
        self.seed, self.n_vocab, self.keep, self.agree = seed, n_vocab, keep, agree

    def row(self, view: int, index: int, read: Sequence[int]) -> tuple[int, ...]:
        return tuple(read)

    def distribution(self, read: tuple[int, ...]) -> Distribution:
        if self.agree:  # both views say the same: every drafted token is accepted
            read = read[read.index(103) :]
        return random_distribution(np.random.default_rng([self.seed, *read]), self.n_vocab, self.keep)


class CountingPolicy:
    """A policy with state, which must accept every emitted token and no other."""

    def __init__(self, toy: RandomViews, view: int, told: tuple[int, ...] = ()) -> None:
        self.toy, self.views, self.told = toy, (view,), told

    def __call__(self, rows) -> Distribution:
        logits = rows(self.views[0])
        assert self.told == logits[len(logits) - len(self.told) :]
        assert logits[len(logits) - len(self.told) - 1] == 103, "the end of the prompt"
        return self.toy.distribution(logits)

    def accept(self, token: int) -> None:
        self.told += (token,)

    def clone(self) -> CountingPolicy:
        return CountingPolicy(self.toy, self.views[0], self.told)


class BlendingPolicy(CountingPolicy):
    """A policy that needs several views: the mean of their distributions."""

    def __init__(self, toy: RandomViews, views: Sequence[int], told: tuple[int, ...] = ()) -> None:
        super().__init__(toy, views[0], told)
        self.views = tuple(views)

    def __call__(self, rows) -> Distribution:
        mean = np.zeros(self.toy.n_vocab)
        for view in self.views:
            one = self.toy.distribution(rows(view))
            mean[one.ids] += one.probs / len(self.views)
        ids = np.flatnonzero(mean).astype(np.int32)
        return Distribution(ids, mean[ids])

    def clone(self) -> BlendingPolicy:
        return BlendingPolicy(self.toy, self.views, self.told)


#: The phase of an answer without a thought.
ROUNDS = SimpleNamespace(policy=None, limit=sys.maxsize, may_change=False, accept=lambda token: None)

PROMPTS = ([100, 101, 103], [102, 103])
MORE_PROMPTS = (*PROMPTS, [104, 105, 106, 103], [107, 103])


def run(
    schedule, seed: int, lam: int, *, swap=True, strategy="sample", limit=12, keep=1.0, end=None, agree=False, **extra
):
    views = RandomViews(seed, n_vocab=6, keep=keep, agree=agree)
    policies = [CountingPolicy(views, 0), CountingPolicy(views, 1)]
    rules = Rules(lam, swap, strategy, limit, lambda token: token == end, ROUNDS)
    return list(schedule(views, PROMPTS, Policies(policies, policies), rules, Uniforms(seed), **extra))


@pytest.mark.slow
@pytest.mark.parametrize("lam", range(1, 9))
@pytest.mark.parametrize("swap", [True, False])
def test_lockstep_equals_algorithm_1_token_for_token(lam: int, swap: bool) -> None:
    """Over thousands of random cases, with filters that leave disjoint supports, ends of text and both strategies."""
    kinds = set()
    for seed in range(200):
        options = {
            "swap": swap,
            "strategy": ("sample", "greedy")[seed % 2],
            "keep": (1.0, 0.5, 0.2)[seed % 3],
            "end": (None, 0)[seed % 5 == 0],
            "limit": 1 + seed % 17,
            "agree": seed % 7 == 0,
        }
        expected = run(algorithm1, seed, lam, **options)
        assert run(lockstep, seed, lam, **options) == expected
        kinds |= {decision.kind for decision in expected}
    assert kinds == {"accepted", "resampled", "bonus"}


class Sure:
    """A policy that gives one token the probability 1."""

    views = ()

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, rows) -> Distribution:
        return Distribution(np.array([self.token]), np.array([1.0]))

    def accept(self, token: int) -> None:
        raise AssertionError("it has nothing to learn")

    def clone(self) -> Sure:
        raise AssertionError("no draft is made with it")


class Thought:
    """A thought that begins with token 1, where that comes first, and ends with token 2; after five tokens it is ended
    by tokens 3 and 2.  It is no part of what the answer may have at most.

    policy: decides what is thought; None leaves it to the rounds.
    """

    def __init__(self, policy: CountingPolicy | None, most: int) -> None:
        self._policy = policy
        self._most = most
        self.text: list[int] = []
        self.n_thought: int | None = None  # tokens, once the thought has ended

    @property
    def policy(self):
        if self.n_thought is None and len(self.text) >= 5:
            return Sure((3, 2)[len(self.text) - 5])
        return self._policy if self.may_change and self.text else None

    @property
    def may_change(self) -> bool:
        return self.n_thought is None

    @property
    def limit(self) -> int:
        return 10**6 if self.n_thought is None else self.n_thought + self._most

    def accept(self, token: int) -> None:
        self.text.append(token)
        if self._policy:
            self._policy.accept(token)
        if self.n_thought is None and (token == 2 or self.text[0] != 1):
            self.n_thought = len(self.text) if self.text[0] == 1 else 0


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("lam", [1, 2, 4, 7])
def test_schedules_agree_with_thinking_outside_the_rounds(alone: bool, lam: int) -> None:
    ends, lengths = set(), set()
    for seed in range(300):
        most = 1 + seed % 9
        texts = []
        for schedule in (algorithm1, lockstep):
            toy = RandomViews(seed, n_vocab=6, keep=(1.0, 0.5)[seed % 2], agree=seed % 7 == 0)
            policies = [CountingPolicy(toy, 0), CountingPolicy(toy, 1)]
            phase = Thought(CountingPolicy(toy, 2) if alone else None, most)
            rules = Rules(lam, True, ("sample", "greedy")[seed % 3 == 0], 40, lambda token: token == 0, phase)
            prompts = [*PROMPTS, [108, 103]]
            texts.append(list(schedule(toy, prompts, Policies(policies, policies), rules, Uniforms(seed))))
        assert texts[0] == texts[1]
        tokens = [decision.token for decision in texts[0]]
        if tokens[0] == 1 and 2 in tokens:
            end = tokens.index(2)
            outside = [decision.kind == "plain" for decision in texts[0]]
            forced = [False] * 5 + [True] * 2 if end == 6 else [False] * (end + 1)
            assert outside[: end + 1] == ([False] + [True] * end if alone else forced)
            assert not any(outside[end + 1 :])
            ends.add(end)
            lengths.add(len(tokens) - end - 1 - most)
    assert ends == {1, 2, 3, 4, 6} and max(lengths) == 0, "however it ends, the answer has its length"


def policies_of(toy: RandomViews, kind: str) -> Policies:
    """The policies over four views: three in turn; three with one judge of all; two, each with a neutral view."""
    if kind == "judge":
        policies = [CountingPolicy(toy, view) for view in range(3)]
        return Policies(policies, policies)
    if kind == "both":
        return Policies([CountingPolicy(toy, view) for view in range(3)], [BlendingPolicy(toy, range(4))] * 3)
    policies = [BlendingPolicy(toy, [0, 3]), BlendingPolicy(toy, [1, 3])]
    return Policies(policies, policies)


@pytest.mark.parametrize("kind", ["judge", "both", "sharpened"])
@pytest.mark.parametrize("lam", [1, 2, 4, 7])
def test_lockstep_equals_algorithm_1_with_three_views_and_combined_policies(kind: str, lam: int) -> None:
    """Over a thousand random cases, with disjoint supports, ends of text and both strategies."""
    kinds = set()
    for seed in range(100):
        rules = Rules(
            lam, seed % 4 > 0, ("sample", "greedy")[seed % 2], 1 + seed % 17, lambda token: token == seed % 9, ROUNDS
        )
        texts = []
        for schedule in (algorithm1, lockstep):
            toy = RandomViews(seed, n_vocab=6, keep=(1.0, 0.5, 0.2)[seed % 3], agree=seed % 7 == 0)
            texts.append(list(schedule(toy, MORE_PROMPTS, policies_of(toy, kind), rules, Uniforms(seed))))
        assert texts[0] == texts[1]
        kinds |= {decision.kind for decision in texts[0]}
    assert kinds == {"accepted", "resampled", "bonus"}


def test_each_of_three_views_drafts_in_turn_and_the_next_one_judges() -> None:
    round = Round(lam=2, swap=True, n_preferences=3)
    turns = []
    for _ in range(6):
        turns.append((round.draft, round.judge))
        round.advance("resampled")
    assert turns == [(0, 1), (1, 2), (2, 0)] * 2


@pytest.mark.parametrize("width", [1, 3, 7])
def test_a_guess_never_changes_the_text(width: int) -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        expected = run(lockstep, seed, 4, keep=0.4)
        right = [decision.token for decision in expected]

        class SometimesRight:
            n = 0

            def accept(self, token: int) -> None:
                self.n += 1

            def guess(self) -> list[int]:
                if rng.random() < 0.5:
                    return right[self.n : self.n + width]
                return rng.integers(6, size=width).tolist()

        assert run(lockstep, seed, 4, keep=0.4, guesser=SometimesRight()) == expected


def test_roles_swap_every_round_and_stay_in_base_mode() -> None:
    for swap in (True, False):
        for decision in run(lockstep, 1, 2, swap=swap, limit=40):
            assert decision.draft == (decision.round % 2 if swap else 0)


def test_a_round_ends_after_a_resampled_or_a_bonus_token_and_only_then() -> None:
    lam = 3
    decisions = run(lockstep, 3, lam, limit=200, keep=0.7)
    for _, group in itertools.groupby(decisions[:-1], key=lambda d: d.round):
        *accepted, last = list(group)
        if last.position == decisions[-2].position:
            continue
        assert all(d.kind == "accepted" for d in accepted)
        assert last.kind == ("bonus" if len(accepted) == lam else "resampled")


FALSE_ALARM_RATE = 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_base_mode_emits_exactly_the_judges_distribution(keep: float) -> None:
    """The paper's theorem, as a chi-square test over 100,000 draws (false-alarm rate one in a million a case)."""
    rng = np.random.default_rng(7)
    for _ in range(3):
        p, q = (random_distribution(rng, 12, keep) for _ in range(2))
        u = np.random.default_rng(11).random((100_000, 3))
        round = Round(lam=4, swap=False)
        tokens = np.array([judge_token(0, round, propose(q, row[0], "sample"), p, q, row).token for row in u.tolist()])
        counts = np.bincount(tokens, minlength=12)
        assert counts[p.ids].sum() == len(u), "a token outside the judge's support was emitted"
        expected = p.probs / p.probs.sum() * len(u)
        big = expected >= 5
        observed = np.append(counts[p.ids][big], counts[p.ids][~big].sum())
        expected = np.append(expected[big], expected[~big].sum())
        keep_cells = expected > 0
        if keep_cells.sum() > 1:
            assert stats.chisquare(observed[keep_cells], expected[keep_cells]).pvalue > FALSE_ALARM_RATE


@pytest.mark.slow
def test_base_mode_text_follows_the_judge_over_whole_rounds() -> None:
    """The second and third token too: 100,000 texts of three tokens against the product of the judge's own p."""
    n, n_vocab = 100_000, 3
    views = RandomViews(5, n_vocab, keep=1.0)
    tables = {}

    class Cached(CountingPolicy):
        def __call__(self, rows):
            logits = rows(self.views[0])
            if logits not in tables:
                tables[logits] = self.toy.distribution(logits)
            return tables[logits]

        def clone(self):
            return Cached(self.toy, self.views[0], self.told)

    counts: dict[tuple[int, ...], int] = {}
    for seed in range(n):
        rules = Rules(2, False, "sample", 3, lambda token: False, ROUNDS)
        policies = [Cached(views, 0), Cached(views, 1)]
        decisions = lockstep(views, PROMPTS, Policies(policies, policies), rules, Uniforms(seed))
        text = tuple(decision.token for decision in decisions)
        counts[text] = counts.get(text, 0) + 1
    judge_prompt = tuple(PROMPTS[1])
    observed, expected = [], []
    for text in itertools.product(range(n_vocab), repeat=3):
        mass = float(n)
        for i, token in enumerate(text):
            mass *= views.distribution(judge_prompt + text[:i]).prob(token)
        observed.append(counts.get(text, 0))
        expected.append(mass)
    big = np.array(expected) >= 5
    observed, expected = np.array(observed), np.array(expected)
    observed = np.append(observed[big], observed[~big].sum())
    expected = np.append(expected[big], expected[~big].sum())
    keep_cells = expected > 0
    p_value = stats.chisquare(observed[keep_cells], expected[keep_cells] * n / expected[keep_cells].sum()).pvalue
    assert p_value > FALSE_ALARM_RATE


def test_the_residual_is_p_where_rounding_leaves_nothing() -> None:
    p = Distribution(np.array([1, 5], np.int32), np.array([0.25, 0.75]))
    assert residual(p, p) is p


def test_the_residual_with_disjoint_supports_is_p() -> None:
    p = Distribution(np.array([1, 5], np.int32), np.array([0.25, 0.75]))
    q = Distribution(np.array([0, 2, 9], np.int32), np.array([0.2, 0.3, 0.5]))
    r = residual(p, q)
    assert r.ids.tolist() == [1, 5] and r.probs.tolist() == [0.25, 0.75]
    assert q.prob(1) == 0.0 and q.prob(9) == 0.5 and q.prob(10) == 0.0


def test_random_numbers_depend_on_seed_and_position_alone() -> None:
    a, b = Uniforms(42), Uniforms(42)
    late = a[500]
    assert [b[i] for i in range(501)][500] == late
    assert a[3] == b[3] != Uniforms(43)[3]
