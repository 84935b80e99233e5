"""A model whose logits are not numbers gets one line; nothing else breaks with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import one_line

from pjlocal import Engine, Generation, PersonaJudge, Sampling
from pjlocal.answer import Answer
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model
from pjlocal.engine.packed import PackedReader
from pjlocal.engine.seats import Seat, SharedContext
from pjlocal.errors import ModelError
from pjlocal.scheduler import Job, Scheduler, write_all

SAID = "the model's logits are not numbers: the file"
KINDS = ["not_numbers", "one_not_a_number", "infinite"]
ENGINE = Engine(n_threads=1)
WAYS: list[dict[str, Any]] = [
    *({"mode": mode} for mode in ("plain", "prompt", "judge", "base", "both", "args", "rewrite")),
    {"mode": "judge", "strength": "2"},
    {"mode": "judge", "avoid": ("formal",)},
    {"mode": "both", "rule": "mixture"},
    {"mode": "both", "floor": 0.0},
    {"mode": "both", "lookahead": 7},
    {"mode": "judge", "schedule": "reference"},
    {"mode": "both", "schedule": "reference"},
    {"mode": "judge", "decoding": "greedy"},
]
FILTERS = [
    {"temperature": 0.0},
    {"top_k": 0},
    {"top_k": 0, "top_p": 1.0, "typical_p": 0.5},
    {"repeat_penalty": 1.5},
    {"regex": "[a-z]+"},
    {"xtc_probability": 1.0},
]


@pytest.fixture(scope="module", params=KINDS)
def broken(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Iterator[Model]:
    model = Model(tiny(request.param), ENGINE, Interrupt())
    yield model
    model.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_mode_and_schedule_says_so(broken: Model, way: dict[str, Any]) -> None:
    with PersonaJudge(broken, prefer=["vivid", "creative"], engine=ENGINE) as judge, pytest.raises(ModelError) as said:
        judge("hello", max_tokens=5, **way)
    assert SAID in str(said.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_every_filter_and_layout_says_so(broken: Model, filters: dict[str, Any]) -> None:
    for layout, mode in (("contexts", "both"), ("batched", "judge")):
        engine, sampling = Engine(n_threads=1, layout=layout), Sampling(**filters)  # type: ignore[arg-type]
        judge = PersonaJudge(broken, prefer=["vivid", "creative"], engine=engine, sampling=sampling)
        with judge, pytest.raises(ModelError, match=SAID):
            judge("hello", mode=mode, max_tokens=5)


@pytest.mark.filterwarnings("error")
def test_scoring_says_so(broken: Model) -> None:
    with PackedReader(broken, ENGINE, Interrupt()) as reader, pytest.raises(ModelError, match=SAID):
        list(reader.read([[1, 300, 301], [1, 300, 302]], [2, 2]))


@pytest.mark.parametrize("layout", ["contexts", "batched"])
@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("n", [1, 100])
def test_the_next_answer_is_as_if_there_had_been_none(
    tiny: Callable[[str], Path], layout: Any, flash: Any, n: int
) -> None:
    """Where what broke is in the text, which other texts have not."""
    engine = Engine(n_threads=1, layout=layout, flash_attn=flash)
    how: dict[str, Any] = {"mode": "both", "seed": 1, "max_tokens": 20, "ignore_end": True}
    texts = []
    for first in ("Q" * n, ""):
        with PersonaJudge(tiny("broken_word"), prefer=["vivid", "creative"], engine=engine) as judge:
            if first:
                with pytest.raises(ModelError, match=SAID):
                    judge(first, **how)
            texts.append([judge("hello " * 20, **how).text, judge("good bye", **how).text])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("n", [1, 100])
def test_answers_beside_it_go_on(tiny: Callable[[str], Path], flash: Any, n: int) -> None:
    engine = Engine(n_threads=1, flash_attn=flash, n_batch=32)
    generation = Generation(mode="both", seed=1, max_tokens=20, ignore_end=True)
    with PersonaJudge(tiny("broken_word"), prefer=["vivid", "creative"], engine=engine) as judge:

        def job(question: str) -> Job:
            plan = judge.plan(question, judge.request.with_group(generation))
            made: Callable[[Seat], Answer] = lambda seat: Answer(seat, plan, 0.0)  # noqa: E731
            return Job(len(plan.prompts), made)

        alone = [judge(question, **generation.as_dict()).text for question in ("hello", "good bye " * 9)]
        shared = SharedContext(judge.model, engine, 6, 512, judge.interrupt)
        try:
            wanted = [job("hello"), job("Q" * n), job("good bye " * 9)]
            for _ in write_all(Scheduler(shared), wanted, ahead=3):
                pass
        finally:
            shared.close()
    assert SAID in str(wanted[1].error)
    assert [one.answer.result.text for one in (wanted[0], wanted[2]) if one.answer] == alone


@pytest.mark.slow
def test_the_command_ends_with_one_line(pjlocal: Any, tiny: Callable[[str], Path]) -> None:
    model = tiny("not_numbers")
    for options in (("--strength", "2"), ("--mode", "both")):
        result = pjlocal("run", "-m", model, "-p", "vivid", "-p", "creative", "--threads", "1", *options, "hello")
        assert result.returncode == 1 and not result.stdout.strip()
        assert SAID in one_line(result.stderr)


def test_a_chat_goes_on(pjlocal: Any, tiny: Callable[[str], Path]) -> None:
    result = pjlocal(
        "chat", "-m", tiny("broken_word"), "-p", "vivid", "-p", "creative", "--threads", "1", "--mode", "both",
        "-n", "5", "--ignore-end", "--seed", "1", stdin="hello Q\nhello\n",
    )  # fmt: skip
    failed, cut_off = result.stderr.splitlines()
    assert result.returncode == 1 and SAID in failed and "cut off after 5 tokens" in cut_off
    assert result.stdout.strip()
