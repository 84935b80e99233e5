"""The benchmark compares like with like, reports what it says, and can be interrupted."""

from __future__ import annotations

import json
from math import nan

import pytest
from commandline import configure

from pjlocal import Engine, Sampling
from pjlocal.bench.measure import measure
from pjlocal.bench.report import JUDGE, LIMIT, Report, Workload
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.engine.slot import Slot
from pjlocal.errors import ModelError

LAYOUTS = ["contexts", "batched"]


# The benchmark.


@pytest.mark.slow
def test_bench_refuses_unfair_comparisons(pjlocal, tiny) -> None:
    for arguments, says in (
        (("-n", "5000"), "the context has room for"),
        (("--repeat-penalty", "1.1"), "leave out --repeat-penalty"),
        (("--lookahead", "32"), "--lookahead must be at most 31"),
        (("-p", "vivid:2", "-p", "creative"), "leave the strengths out"),
    ):
        result = pjlocal("bench", "-m", tiny("llama"), *arguments)
        *steps, message = result.stderr.splitlines()
        assert result.returncode == 2 and says in message and len(steps) <= 2, "importing, and loading the model"


@pytest.mark.slow
def test_bench_leaves_out_settings_of_the_config_file_that_it_does_not_support(pjlocal, tiny, environment) -> None:
    configure(environment, 'prefer = ["concise:2"]\n[sampling]\nrepeat_penalty = 1.1\nregex = "a+"\n')
    result = pjlocal("bench", "-m", tiny("llama"), "-n", "8", "--repeats", "1", "--json")
    assert result.returncode == 0, result.stderr
    refused = pjlocal("bench", "-m", tiny("llama"), "--repeat-penalty", "1.2")
    assert refused.returncode == 2 and "leave out --repeat-penalty" in refused.stderr


WORK = Workload(
    "Hello", ("vivid", "creative"), n_tokens=8, repeats=1, lookahead=7, sampling=Sampling(), engine=Engine()
)


@pytest.mark.slow
def test_bench_can_be_interrupted_at_every_step(tiny) -> None:
    seen: list[str] = []
    measure(tiny("llama"), WORK, Interrupt(), lambda what, done: seen.append(what))
    for n in range(1, len(seen) - 1):
        interrupt = Interrupt()
        left = iter(range(n))
        with pytest.raises(Interrupted):
            measure(
                tiny("llama"), WORK, interrupt, lambda *_, i=interrupt, left=left: next(left, None) is None and i.set()
            )


def test_bench_reports_that_llama_cpp_python_cannot_load_the_model(tiny, monkeypatch) -> None:
    def refuse(*args: object, **settings: object) -> None:
        raise ValueError("Failed to load model from file: x.gguf")

    monkeypatch.setattr("llama_cpp.Llama", refuse)
    with pytest.raises(
        ModelError, match=r"cannot load the model a second time: Failed to load .* Is there enough memory\?"
    ):
        measure(tiny("llama"), WORK, Interrupt(), lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["warming up: Algorithm 1 as written", "judge mode (contexts)"])
def test_ctrl_c_before_the_first_token_ends_bench(tiny, monkeypatch, where: str) -> None:
    interrupt = Interrupt()

    def start(self, prompts) -> None:
        interrupt.set()
        raise Interrupted

    def progress(what: str, done: float) -> None:
        if what == where:
            monkeypatch.setattr(Slot, "start", start)

    with pytest.raises(Interrupted):
        measure(tiny("llama"), WORK, interrupt, progress)


def test_an_answer_too_short_to_time_gives_nan() -> None:
    runs = {name: [1.0, 2.0] for name in (JUDGE.format("contexts"), *map(LIMIT.format, LAYOUTS))}
    report = Report({}, runs | {"short": [nan, nan], "once": [nan, 4.0]})
    assert report.speeds("short") is report.ratio("short") is None
    assert report.speeds("once") == (4.0, 4.0, 4.0) and report.ratio("once") == 0.5


@pytest.mark.slow
def test_bench_reports_what_it_says(pjlocal, tiny) -> None:
    result = pjlocal("bench", "-m", tiny("llama"), "-n", "16", "--repeats", "2", "--json")
    assert result.returncode == 0, result.stderr
    steps = result.stderr.splitlines()
    assert steps[0].startswith("pjlocal: 5 %: limit: two views decoded") and steps[-1] == "pjlocal: 100 %: done"
    assert len([step for step in steps if step.endswith("reading prompts")]) == 2, "one in each turn"
    report = json.loads(result.stdout)
    same_threads = report["measured_on"]["threads"] == report["measured_on"]["llama_cpp_python_threads"]
    both = [name for name in report["tokens_per_second"] if name.startswith("mode both")]
    assert len(report["tokens_per_second"]) == 8 - same_threads + len(both) and both
    for speed in report["tokens_per_second"].values():
        assert len(speed["runs"]) == 2 and 0 < speed["least"] <= speed["median"] <= speed["most"]
    for name in ("judge_vs_limit", "judge_vs_bare", "judge_vs_llama_cpp_python", "judge_vs_reference"):
        assert report[name] > 0
    assert 0 < report["share_outside_llama_decode"] < 1 and 0 < report["share_outside_llama_decode_both"] < 1
    assert report["judge_vs_both"] > 0
    assert report["time_to_first_token_s"] > 0 and report["peak_memory_bytes"] > 1e7
    assert report["measured_on"]["tokens"] == 16 and report["measured_on"]["layers_offloaded"] == 0
    assert set(report["per_call_us"]) == {"shorten, a view", "filter, a view", "decide", "detokenize and event"}
    assert report["lookahead_speedup"] == {}
    once = ("--repeats", "1", "--lookahead", "7")
    recurrent = json.loads(pjlocal("bench", "-m", tiny("recurrent"), "-n", "8", *once, "--json").stdout)
    assert recurrent["judge_vs_reference"] is None and recurrent["judge_vs_bare"] > 0
    assert set(recurrent["lookahead_speedup"]) == {"contexts", "batched"}
    ahead = json.loads(pjlocal("bench", "-m", tiny("llama"), "-n", "16", *once, "--json").stdout)
    assert set(ahead["lookahead_speedup"]) == {"contexts", "batched"}
    table = pjlocal("bench", "-m", tiny("llama"), "-n", "16", *once).stdout
    assert "Algorithm 1 as written" in table and "judge mode (batched)" in table
    assert "tokens ahead" in table and "judge mode with look-ahead / without" in table
