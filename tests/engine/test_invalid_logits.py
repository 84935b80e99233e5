"""A model with NaN or infinite logits gives an error message, and other answers continue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pjlocal import Engine, PersonaJudge, Sampling
from pjlocal.engine.engine import Engine as LiveEngine
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.lanes import Capacity
from pjlocal.engine.model import Model
from pjlocal.engine.scoring import TextReader
from pjlocal.errors import ModelError

MESSAGE = "the model computes invalid logits"
KINDS = ["not_numbers", "one_not_a_number", "infinite"]
ENGINE = Engine(n_threads=1)
WAYS: list[dict[str, Any]] = [
    *({"mode": mode} for mode in ("plain", "prompt", "judge", "base", "both", "rewrite")),
    {"mode": "judge", "strength": "2"},
    {"mode": "judge", "avoid": ("formal",)},
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
def test_every_mode_and_schedule_reports_invalid_logits(broken: Model, way: dict[str, Any]) -> None:
    with (
        PersonaJudge(broken, prefer=["vivid", "creative"], engine=ENGINE) as judge,
        pytest.raises(ModelError) as caught,
    ):
        judge("hello", max_tokens=5, **way)
    assert MESSAGE in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_every_filter_and_layout_reports_invalid_logits(broken: Model, filters: dict[str, Any]) -> None:
    for layout, mode in (("contexts", "both"), ("batched", "judge")):
        engine, sampling = Engine(n_threads=1, layout=layout), Sampling(**filters)  # type: ignore[arg-type]
        judge = PersonaJudge(broken, prefer=["vivid", "creative"], engine=engine, sampling=sampling)
        with judge, pytest.raises(ModelError, match=MESSAGE):
            judge("hello", mode=mode, max_tokens=5)


@pytest.mark.filterwarnings("error")
def test_scoring_reports_invalid_logits(broken: Model) -> None:
    with closing(TextReader(broken, ENGINE, Interrupt())) as reader, pytest.raises(ModelError, match=MESSAGE):
        list(reader.read([[1, 300, 301], [1, 300, 302]], [2, 2]))


@pytest.mark.parametrize("layout", ["contexts", "batched"])
@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("n", [1, 100])
def test_invalid_logits_do_not_affect_the_next_answer(
    tiny: Callable[[str], Path], layout: Any, flash: Any, n: int
) -> None:
    """The logits are invalid only after one word, which other texts do not contain."""
    engine = Engine(n_threads=1, layout=layout, flash_attn=flash)
    how: dict[str, Any] = {"mode": "both", "seed": 2, "max_tokens": 20, "ignore_end": True}
    texts = []
    for first in ("Q" * n, ""):
        with PersonaJudge(tiny("broken_word"), prefer=["vivid", "creative"], engine=engine) as judge:
            if first:
                with pytest.raises(ModelError, match=MESSAGE):
                    judge(first, **how)
            texts.append([judge("hello " * 20, **how).text, judge("good bye", **how).text])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("layout", ["contexts", "batched"])
@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("n", [1, 100])
def test_other_answers_continue_after_invalid_logits(
    tiny: Callable[[str], Path], layout: Any, flash: Any, n: int
) -> None:
    engine = Engine(n_threads=2 if layout == "contexts" else 1, layout=layout, flash_attn=flash, n_batch=32)
    for mode in ("judge", "both"):
        how: dict[str, Any] = {"mode": mode, "seed": 1, "max_tokens": 20, "ignore_end": True}
        questions = ("hello", "Q" * n, "good bye " * 9)
        with PersonaJudge(tiny("broken_word"), prefer=["vivid", "creative"], engine=engine) as judge:
            alone = [judge(question, **how).text for question in (questions[0], questions[2])]
            capacity = Capacity(6 // 2, 2, 512)
            with closing(LiveEngine(judge.model, engine, judge.interrupt, capacity)) as writer:
                for _ in range(2):
                    wanted = [judge.answer(judge.plan(question, **how), writer) for question in questions]
                    for answer in wanted:
                        writer.submit(answer)
                    while not writer.is_idle:
                        writer.step()
                    assert MESSAGE in str(wanted[1].error)
                    assert [wanted[0].error, wanted[2].error] == [None, None]
                    assert [wanted[0].result.text, wanted[2].result.text] == alone


def test_a_chat_continues_after_invalid_logits(pjlocal: Any, tiny: Callable[[str], Path]) -> None:
    result = pjlocal(
        "chat", "-m", tiny("broken_word"), "-p", "vivid", "-p", "creative", "--threads", "1", "--mode", "both",
        "-n", "5", "--ignore-end", "--seed", "1", stdin="hello Q\nhello\n",
    )  # fmt: skip
    failed, cut_off = result.stderr.splitlines()
    assert result.returncode == 1 and MESSAGE in failed and "cut off after 5 tokens" in cut_off
    assert result.stdout.strip()
