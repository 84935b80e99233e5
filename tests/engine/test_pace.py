"""The number of prompt tokens that a device reads at a time, so that Ctrl-C is felt within a second."""

from __future__ import annotations

import pytest

from pjlocal import Engine, PersonaJudge
from pjlocal.engine import model
from pjlocal.engine.pace import Pace
from pjlocal.gguf.offload import Offload


def read(pace: Pace, tokens_per_second: float, times: int = 1) -> list[int]:
    """The sizes of reads on a device of this speed."""
    sizes = []
    for _ in range(times):
        sizes.append(pace.n)
        pace.learn(pace.n, pace.n / tokens_per_second)
    return sizes


def test_a_fast_device_reads_whole_batches_from_the_third_read_on() -> None:
    assert read(Pace(512), 2000, 5) == [64, 64, 512, 512, 512]
    assert read(Pace(32), 2000, 3) == [32, 32, 32]
    assert read(Pace(2048), 1e9, 3) == [64, 64, 2048]


@pytest.mark.parametrize(("speed", "n"), [(700, 256), (150, 64), (100, 32), (1, 16)])
def test_a_slow_device_reads_so_many_tokens_as_it_computes_in_half_a_second(speed: float, n: int) -> None:
    assert read(Pace(512), speed, 6)[2:] == [n] * 4


def test_the_first_read_of_each_size_is_not_timed_because_kernels_are_compiled() -> None:
    pace = Pace(512)
    pace.learn(64, 30.0)
    read(pace, 2000)
    pace.learn(512, 30.0)
    assert read(pace, 2000, 2) == [512, 512]


def test_a_device_that_becomes_slow_reads_fewer_tokens_and_the_end_of_a_prompt_counts_for_nothing() -> None:
    pace = Pace(512)
    read(pace, 2000, 5)
    pace.learn(3, 5.0)
    assert pace.n == 512
    read(pace, 600)
    assert pace.n == 512, "0.9 s"
    read(pace, 400)
    assert pace.n == 128


@pytest.mark.parametrize("layout", ["batched", "contexts"])
def test_only_a_device_has_a_pace_and_the_text_is_that_of_the_cpu(tiny, monkeypatch, layout: str) -> None:
    prompt = "the cat sees the dog " * 8
    options = {"prefer": ["vivid", "creative"], "max_tokens": 8, "seed": 1, "engine": Engine(layout=layout)}
    with PersonaJudge(tiny("llama"), **options) as judge:
        alone = judge(prompt)
        assert judge.decoder._pace is None
    monkeypatch.setattr(model, "choose_offload", lambda *_: Offload(3, 3, devices=("CUDA0",)))
    with PersonaJudge(tiny("llama"), **options) as judge:
        steps = []
        real = judge.decoder._read_piece
        monkeypatch.setattr(judge.decoder, "_read_piece", lambda *args: steps.append(real(*args)) or steps[-1])
        assert judge(prompt).text == alone.text
        assert steps[:2] == [64, 64]
