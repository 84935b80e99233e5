"""In mode both an answer does not repeat itself: DRY penalizes it, unless the user has chosen a penalty or a form."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import tiny_models

from pjlocal import PersonaJudge, Sampling
from pjlocal.engine.filters import FilterChain, against_repetition
from pjlocal.engine.policies import Row, Steered, Weight

#: One token is always the most probable.
CIRCLE = {"logit_bias": ("217=60",), "temperature": 0.0, "max_tokens": 60, "ignore_end": True}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tiny_models.write_llama(tmp_path_factory.mktemp("repetition") / "tiny.gguf")
    with PersonaJudge(path, prefer=["vivid", "creative"], **CIRCLE) as judge:
        yield judge


def ids(judge: PersonaJudge, **changes: Any) -> list[int]:
    return [event.id for event in judge.stream("Why?", **changes)]


def longest_run(tokens: list[int]) -> int:
    return max(len([*run]) for _, run in groupby(tokens))


def test_an_answer_in_mode_both_does_not_repeat_itself(tiny: PersonaJudge) -> None:
    assert longest_run(ids(tiny, dry_multiplier=0.0)) == 60
    assert 6 < longest_run(ids(tiny)) < 20, "up to six tokens are free, and the penalty grows from there"
    assert longest_run(ids(tiny, mode="judge")) == 60, "the paper's rule has no penalty"


@pytest.mark.parametrize("chosen", [{"repeat_penalty": 1.01}, {"presence_penalty": 0.01}, {"frequency_penalty": -0.01}])
def test_a_penalty_of_the_user_takes_its_place(tiny: PersonaJudge, chosen: dict[str, float]) -> None:
    assert ids(tiny, **chosen) == ids(tiny, dry_multiplier=0.0, **chosen)
    sampling = Sampling(**chosen)
    assert against_repetition(sampling) is sampling


def test_the_users_length_takes_the_place_of_six_tokens(tiny: PersonaJudge) -> None:
    assert longest_run(ids(tiny, dry_allowed_length=12)) > longest_run(ids(tiny)) > 6


@pytest.mark.parametrize("form", [{"regex": "(ab){50}"}, {"grammar": 'root ::= "ab"{50}'}])
def test_a_form_may_repeat_itself(tiny: PersonaJudge, form: dict[str, str]) -> None:
    assert tiny("Why?", max_tokens=400, **form).text == "ab" * 50


@pytest.mark.parametrize("schedule", ["lockstep", "reference"])
def test_both_schedules_and_the_look_ahead_give_the_same_text(tiny: PersonaJudge, schedule: str) -> None:
    assert ids(tiny, schedule=schedule) == ids(tiny) == ids(tiny, lookahead=8)


def test_a_token_of_which_every_view_is_sure_is_not_repeated_either(tiny: PersonaJudge) -> None:
    logits = np.random.default_rng(1).standard_normal(tiny.model.n_vocab).astype(np.float32)
    logits[50] = 30.0
    row = Row(logits)
    sampling = against_repetition(Sampling())
    chain = FilterChain(tiny.model, sampling, [], (0,), counted=Begins(0))
    weights = [Weight(0, None), Weight(1, None)]
    policy = Steered(weights, 2, None, (0, 1), 0.1, chain, None)
    assert policy(lambda view: row).ids.tolist() == [50]
    for _ in range(20):
        policy.accept(50)
    assert 50 not in policy(lambda view: row).ids


@dataclass
class Begins:
    start: int | None
    openings: tuple[int, ...] = ()


def test_what_stands_before_the_answer_is_not_counted(tiny: PersonaJudge) -> None:
    """Neither the question nor the thinking: an answer may quote both."""
    row = np.zeros(tiny.model.n_vocab, np.float32)
    said = [*range(20, 40)]

    def probability(start: int | None, prompt: list[int], begun: list[int], accepted: list[int]) -> float:
        chain = FilterChain(
            tiny.model, against_repetition(Sampling(temperature=1.0, top_k=0, top_p=1.0)), prompt, (0,),
            counted=Begins(start),
        )  # fmt: skip
        chain.begin(begun, begun)
        for token in accepted:
            chain.accept(token)
        return chain(chain.shorten(row)).prob(39) * len(row)

    again = [*said, *said[:-1]]
    assert probability(0, [], [], again) < 1e-6
    assert probability(0, [], said, said[:-1]) < 1e-6, "the answer's given beginning counts"
    assert probability(20, [], [], again) == pytest.approx(1, rel=1e-4)
    assert probability(None, [], [], again) == pytest.approx(1, rel=1e-4)
    assert probability(0, said, [], said[:-1]) == pytest.approx(1, rel=1e-4)
    assert probability(0, [], [], [*said[-7:], *said[-7:-1]]) == pytest.approx(1 / np.e**0.8, rel=0.01), "six in a row"
    assert probability(0, [], [], [*said[-6:], *said[-6:-1]]) == pytest.approx(1, rel=1e-4), "five in a row are free"
