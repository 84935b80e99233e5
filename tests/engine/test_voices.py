"""Which tokens several views choose from, and what they make of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from pjlocal import Engine, PersonaJudge, Sampling
from pjlocal.engine.voices import Best

LAYOUTS = ["contexts", "batched"]


@pytest.mark.parametrize("n_vocab", [300, 49_152, 152_000])
@pytest.mark.parametrize("k", [1, 20, 64, 65, 1000])
def test_the_k_most_probable_tokens_are_exactly_those(n_vocab: int, k: int) -> None:
    rng = np.random.default_rng(5)
    best = Best(0, k, n_vocab)
    for _ in range(5):
        logits = rng.permutation(n_vocab).astype(np.float32)
        ids = best(logits)
        assert ids.tolist() == sorted(np.argsort(-logits)[:k].tolist())
    few = logits[:50]
    assert best(few).tolist() == sorted(np.argsort(-few)[:k].tolist()), "of those that a constraint lets come"


def steps(judge: PersonaJudge, answer, n_views: int) -> list[list[np.ndarray]]:
    """Each view's log-probabilities before each token of an answer, read by a judge of its own."""
    found = []
    ids = [event.id for event in answer]
    views = judge.pool.views(n_views, 256)
    views.reduce = lambda view, row, logits: logits.copy()
    views.start(answer.plan.prompts)
    for token in ids:
        found.append([special.log_softmax(views.logits(view).astype(np.float64)) for view in range(n_views)])
        views.feed([token])
    return found


@pytest.mark.parametrize("strength", ["0.7", "1.5", "4"])
def test_args_takes_the_best_of_the_neutral_views_candidates_by_their_implicit_reward(tiny, strength: str) -> None:
    """At temperature 0, step by step: argmax of n + w Σ (v_i - n) among the k most probable tokens of n."""
    k = 5
    sampling = Sampling(temperature=0, top_k=k, top_p=1)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=sampling) as judge:
        answer = judge.stream("Hello", mode="args", strength=strength, max_tokens=30, ignore_end=True, seed=1)
        events = list(answer)
        assert {event.kind for event in events} == {"plain"} and events[0].judge is None
        changed = 0
        answer_again = judge.stream("Hello", mode="args", strength=strength, max_tokens=30, ignore_end=True, seed=1)
        for event, (a, b, n) in zip(events, steps(judge, answer_again, 3), strict=True):
            candidates = np.argsort(-n)[:k]
            score = n + float(strength) * ((a - n) + (b - n))
            assert event.id == candidates[score[candidates].argmax()]
            assert event.pushes["a"] == pytest.approx(float(strength) * (a - n)[event.id], abs=1e-3)
            changed += event.id != n.argmax()
        assert changed


def test_args_at_strength_0_is_the_plain_text(tiny) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"]) as judge:
        options = {"seed": 1, "max_tokens": 30, "ignore_end": True}
        assert judge("Hello", mode="args", strength="0", **options).text == judge("Hello", mode="plain", **options).text


@pytest.mark.parametrize(
    "sampling",
    [Sampling(regex="[ab ]{20}"), Sampling(grammar='root ::= "zz" [a-c]+'), Sampling(top_k=0), Sampling(top_k=300)],
)
def test_args_knows_constraints_and_every_width_of_search(tiny, sampling: Sampling) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "formal"], sampling=sampling) as judge:
        text = judge("Hello", mode="args", seed=1, max_tokens=12, ignore_end=sampling.regex is None).text
    if sampling.regex:
        assert set(text) <= set("ab ")
    if sampling.grammar:
        assert text.startswith("zz") and set(text[2:]) <= set("abc")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["args", "rewrite"])
@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
def test_the_baselines_run_on_every_architecture_and_a_seed_fixes_their_text(tiny, layout, mode, kind: str) -> None:
    with PersonaJudge(tiny(kind), prefer=["vivid", "formal"], engine=Engine(layout=layout)) as judge:
        texts = [judge("Hello", mode=mode, seed=seed, max_tokens=12, ignore_end=True).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
