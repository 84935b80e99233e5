"""The candidates of several views, and their distributions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import special
from toy_views import ToyViews

from pjlocal import Answer, Engine, Generation, Message, PersonaJudge, Sampling
from pjlocal.decoding.combine import divergence
from pjlocal.engine.lanes import needs
from pjlocal.events import TokenEvent
from pjlocal.prompting.plan import make_roles
from pjlocal.request import deal

LAYOUTS = ["contexts", "batched"]


def steps(judge: PersonaJudge, answer, n_views: int) -> list[list[np.ndarray]]:
    """Each view's log-probabilities before each token of an answer, which is read again."""
    found = []
    ids = [event.id for event in answer]
    with judge.decoder.direct(needs(n_views, 256)) as slot:
        slot.start(answer.plan.prompts)
        for token in ids:
            found.append([special.log_softmax(slot.logits(view).astype(np.float64)) for view in range(n_views)])
            slot.feed([token])
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
def test_a_correction_runs_on_every_architecture_and_a_seed_fixes_its_text(tiny, layout, kind: str) -> None:
    with PersonaJudge(tiny(kind), prefer=["vivid", "formal"], engine=Engine(layout=layout)) as judge:
        texts = [judge("Hello", mode="rewrite", seed=seed, max_tokens=12, ignore_end=True).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


# Both schedules, whatever is combined.


_PROMPT = 2  # tokens of every prompt


class RandomSlot(ToyViews):
    """A slot whose logits are a fixed random function of what its views have read; the more alike, the more they
    agree."""

    layout = "contexts"
    most_rows = 64
    n_held = 0
    prefill_s_per_token = None

    def __init__(self, seed: int, n_vocab: int, apart: float) -> None:
        super().__init__()
        self.seed, self.n_vocab, self.apart = seed, n_vocab, apart
        self.reduce: Any = None

    def row(self, view: int, index: int, read: Sequence[int]) -> Any:
        text = read[_PROMPT:]
        common, own = (np.random.default_rng([self.seed, *text, *more]) for more in ((), (10_000 + view,)))
        logits = 3 * common.standard_normal(self.n_vocab, np.float32)
        return self.reduce(logits + np.float32(self.apart) * own.standard_normal(self.n_vocab, np.float32))


def written(answer: Answer, slot: Any) -> list[TokenEvent]:
    """The events of an answer that is written in a slot."""
    answer.begin(slot)
    events = []
    while not answer.is_done:
        events += answer.decide()
    return events + answer.finish(slot)


def any_generation(rng: random.Random) -> tuple[list[list[str]], dict[str, Any]]:
    """Preferences and settings of any kind that may be had together."""
    mode = rng.choice(["judge", "judge", "base", "both", "both"])
    strengths = ["", ":0", ":-2", ":0.5", ":1", ":1.5", ":4", ":10", ":auto"]
    n = min(rng.choice([1, 2, 2, 3, 4]), 2 if mode == "base" else 4)  # base has two views that speak
    wishes = [wish + rng.choice(strengths) for wish in rng.sample(["vivid", "formal", "simple", "concise"], n)]
    settings: dict[str, Any] = {
        "mode": mode,
        "floor": rng.choice([0.0, 0.05, 0.1, 0.5, 0.999]),
        "avoid": tuple(rng.sample(["humorous:2", "friendly"], rng.choice([0, 0, 1, 2]))),
        "lam": rng.randint(1, 7),
        "decoding": rng.choice(["sample", "greedy"]),
        "max_tokens": rng.randint(1, 14),
        "seed": rng.randint(0, 10**6),
    }
    return deal(wishes), settings


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [1, 3, 20, 0])
@pytest.mark.parametrize("block", range(3))
def test_the_schedules_agree_for_all_combinations(tiny, top_k: int, block: int) -> None:
    """Over a thousand random cases: strengths of every sign, floors that leave one token or all, supports that have
    nothing in common (so few of the tokens are let pass), what is avoided, and up to four views."""
    rng = random.Random(100 * top_k + block)
    kinds: set[str] = set()
    with PersonaJudge(tiny("llama"), prefer=["vivid"], sampling=Sampling(top_k=top_k, top_p=0.95)) as judge:
        for case in range(100):
            preferences, settings = any_generation(rng)
            request = judge.request.with_group(Generation(**settings)).replace(views=preferences)
            roles = make_roles(request)
            prompts = [[5, 6 + view] for view in range(len(roles.prefixes))]
            apart = rng.choice([0.0, 0.3, 1.0, 4.0])
            texts = []
            for schedule in ("lockstep", "reference"):
                slot = RandomSlot(case, judge.model.n_vocab, apart)
                answer = judge.answer(
                    judge.plan_prompts([Message("user", "Hi")], prompts, request.replace(schedule=schedule), roles)
                )
                events = written(answer, slot)
                texts.append([(e.id, e.kind, e.draft, e.judge, e.p, e.q, e.pushes) for e in events])
            assert texts[0] == texts[1], (preferences, settings)
            kinds |= {text[1] for text in texts[0]}
    assert kinds == {"accepted", "resampled", "bonus"}


@pytest.mark.parametrize(
    "mode",
    [{}, {"mode": "both"}, {"mode": "judge", "strength": "2"}, {"avoid": ("concise",)}],
    ids=str,
)
def test_a_positive_logit_bias_brings_a_token_in_that_no_view_finds_plausible(tiny, mode: dict[str, Any]) -> None:
    sampling = Sampling(logit_bias=("a=100",))
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=sampling) as judge:
        settings = {"max_tokens": 8, "seed": 1, "ignore_end": True, **mode}
        assert judge("Hello", **settings).text == "aaaaaaaa"
        assert "a" not in judge("Hello", regex="[b-z]{8}", **settings).text, "a constraint is stronger"


def test_mode_judge_is_the_papers_rule_on_the_logits_of_two_views(tiny) -> None:
    """Step by step: q is the draft's probability, p the judge's, and the roles swap every round."""
    sampling = Sampling(temperature=1, top_k=0, top_p=1)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=sampling, mode="judge", lam=2) as judge:
        settings = {"max_tokens": 40, "ignore_end": True, "seed": 1}
        events = list(judge.stream("Hello", **settings))
        for event, views in zip(events, steps(judge, judge.stream("Hello", **settings), 2), strict=True):
            draft = event.round % 2
            assert (event.draft, event.judge) == ("ab"[draft], "ba"[draft])
            assert event.p == pytest.approx(np.exp(views[1 - draft][event.id]), rel=1e-3) or event.kind == "resampled"
            if event.kind == "accepted":
                assert event.q == pytest.approx(np.exp(views[draft][event.id]), rel=1e-3)
                assert event.accept_probability == pytest.approx(min(1, event.p / event.q))
    assert {event.kind for event in events} == {"accepted", "resampled", "bonus"}


@pytest.mark.parametrize("strength", ["3", "0.5", "1e-9", "auto"])
@pytest.mark.parametrize("prefer", [["1 2 3", "4 5 6"], ["1 2 3"]], ids=len)  # no words that could be copied
def test_in_mode_both_the_view_with_all_preferences_replaces_them_up_to_strength_1(
    tiny, prefer: list[str], strength: str
) -> None:
    """n + m (j - n) + Σ (s - m) (v - n), which is n + s (v - n) with one preference; and - (v - n) for what is
    avoided."""
    sampling = Sampling(temperature=1, top_k=0, top_p=1, dry_multiplier=0)
    settings = {"strength": strength, "avoid": ("7 8 9",), "floor": 0, "max_tokens": 30, "ignore_end": True, "seed": 1}
    with PersonaJudge(tiny("llama"), prefer=prefer, sampling=sampling) as judge:
        answer = judge.stream("Hello", **settings)
        events, names = list(answer), answer.plan.roles.view_names
        for event, views in zip(events, steps(judge, judge.stream("Hello", **settings), len(names)), strict=True):
            named = dict(zip(names, views, strict=True))
            n = named["neutral"] if len(prefer) == 2 else named["b"]
            shared = 1.0 if strength == "auto" else min(1.0, float(strength))
            joint = named["joint"] if len(prefer) == 2 else named["a"]
            logits = n + shared * (joint - n) - (named["avoid 1"] - n)
            for v in (named[name] for name in "ab"[: len(prefer)]):
                s = 1.65 + divergence(v, n) / 2 if strength == "auto" else float(strength)
                logits = logits + (s - shared) * (v - n)
            assert event.kind == "resampled" or event.p == pytest.approx(special.softmax(logits)[event.id], rel=1e-3)
