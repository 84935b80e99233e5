"""Where the views live changes the speed and nothing else; and what each way costs, in counts rather than times."""

from __future__ import annotations

import json
import subprocess
import sys
from math import nan
from pathlib import Path

import pytest
from test_answers import PROMPTS

from pjlocal import Engine, PersonaJudge, Sampling
from pjlocal.bench.measure import measure
from pjlocal.bench.report import JUDGE, LIMIT, Report, Workload
from pjlocal.decoding.guess import Lookahead, PromptLookup
from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.engine.views import ModelViews, fastest_layout
from pjlocal.errors import UsageError

LAYOUTS = ["contexts", "batched"]
REPETITIVE = "Repeat the words tick tock again and again: tick tock tick tock tick tock tick tock tick tock"


def tokens(judge: PersonaJudge, prompts: list[str] = PROMPTS, **changes) -> list[list[int]]:
    return [[e.id for e in judge.stream(p, **{"seed": i, "max_tokens": 16} | changes)] for i, p in enumerate(prompts)]


def test_the_same_seed_gives_the_same_text_in_every_layout(smollm2: Path, vivid_and_creative: PersonaJudge) -> None:
    """Over 20 prompts. Batches of different shapes round differently, so a flip is possible; none was seen here."""
    with PersonaJudge(smollm2, prefer=["vivid", "creative"], engine=Engine(layout="batched")) as batched:
        assert tokens(batched) == tokens(vivid_and_creative)
        few = PROMPTS[:3]
        assert tokens(batched, few, schedule="reference") == tokens(vivid_and_creative, few)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_look_ahead_never_changes_the_text_and_saves_passes_where_the_answer_repeats(
    smollm2, monkeypatch, layout: str
) -> None:
    """Here it always guesses, whatever that costs on this machine."""
    monkeypatch.setattr(Lookahead, "_best_width", lambda self, most: most)
    sampling = Sampling(temperature=0.2)
    with PersonaJudge(smollm2, prefer=["vivid", "creative"], sampling=sampling, engine=Engine(layout=layout)) as judge:

        def run(lookahead: int) -> tuple[list[int], int]:
            views = judge.pool.views(2, 256)
            before = views.n_decodes
            ids = [e.id for e in judge.stream(REPETITIVE, seed=1, max_tokens=64, ignore_end=True, lookahead=lookahead)]
            return ids, judge.pool.views(2, 256).n_decodes - before

        (expected, plain), (guessed, fewer) = run(0), run(7)
        assert guessed == expected
        assert fewer < plain / 2
        few = PROMPTS[:3]
        assert tokens(judge, few, lookahead=7) == tokens(judge, few)


# Counts, not times: what a token costs.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lockstep_costs_one_pass_and_one_token_a_view(tiny, layout: str) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=Engine(layout=layout)) as judge:
        n = 60
        answer = judge.stream("Hello", seed=1, max_tokens=n, ignore_end=True)
        list(answer)
        views = judge.pool.views(2, 1)
        prompt = sum(answer.statistics.prompt_tokens)
        assert views.n_fed == prompt + 2 * (n - 1), "the last token is not read: nothing follows it"
        passes_a_token = 2 if layout == "contexts" else 1
        assert views.n_decodes == passes_a_token * (2 + n - 1), (
            "two for the prompt: all but its last token, and that one"
        )


def test_the_reference_schedule_reads_more_than_it_emits(tiny) -> None:
    """Algorithm 1 drafts behind rejections: here it reads at least a tenth more of the answer than lockstep."""
    fed = {}
    for schedule in ("lockstep", "reference"):
        with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"]) as judge:
            answer = judge.stream("Hello", seed=1, max_tokens=100, ignore_end=True, schedule=schedule)
            list(answer)
            fed[schedule] = judge.pool.views(2, 1).n_fed - sum(answer.statistics.prompt_tokens)
    assert fed["lockstep"] == 2 * 99
    assert fed["reference"] > 1.1 * fed["lockstep"]


def test_one_view_reads_one_token_a_token(tiny) -> None:
    with PersonaJudge(tiny("llama")) as judge:
        answer = judge.stream("Hello", seed=1, max_tokens=40, ignore_end=True)
        list(answer)
        assert judge.pool.views(1, 1).n_fed == answer.statistics.prompt_tokens[0] + 39


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_that_was_read_is_not_read_again(tiny, layout: str) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=Engine(layout=layout)) as judge:
        first = judge("Hello there", seed=1, max_tokens=20)
        before = judge.pool.views(2, 1).n_fed
        assert judge("Hello there", seed=1, max_tokens=20).text == first.text
        again = judge.pool.views(2, 1).n_fed - before
        assert again == 2 * first.statistics.completion_tokens, "each view's last prompt token, and the answer"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
def test_a_batch_of_one_still_holds_a_token_of_every_view(tiny, layout: str, kind: str) -> None:
    with PersonaJudge(tiny(kind), prefer=["vivid", "creative"], engine=Engine(layout=layout, n_batch=1)) as judge:
        assert len(tokens(judge, ["Hello"], ignore_end=True)[0]) == 16


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "sliding_window", "recurrent"])
def test_a_long_prompt_is_read_in_pieces(tiny, layout: str, kind: str) -> None:
    """In pieces of 16 as in one: the logits agree."""
    found = []
    prompts = [[5 + i % 90 for i in range(n)] for n in (100, 37)]
    with PersonaJudge(tiny(kind)) as judge:
        for n_batch in (16, 512):
            views = ModelViews(judge.model, Engine(n_batch=n_batch), 2, 256, layout, Interrupt())
            views.start(prompts)
            found.append([views.logits(view).copy() for view in range(2)])
            assert views.cached == prompts
            views.close()
    for a, b in zip(*found, strict=True):
        assert abs(a - b).max() < 1e-2


def test_auto_measures_and_picks_a_layout_and_starts_from_the_batch_with_a_gpu(tiny, monkeypatch) -> None:
    from pjlocal.engine import views as module

    made = []

    class Spy(ModelViews):
        def __init__(self, model, engine, n_views, n_ctx, layout, interrupt) -> None:
            made.append(layout)
            super().__init__(model, engine, n_views, n_ctx, layout, interrupt)

    monkeypatch.setattr(module, "ModelViews", Spy)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=Engine(layout="auto")) as judge:
        assert len(judge("Hello", seed=1, max_tokens=8).text) > 0
        assert made == ["contexts", "batched"]
        made.clear()
        monkeypatch.setattr(module.lib, "llama_supports_gpu_offload", lambda: True)
        assert fastest_layout(judge.model, Engine(), 2, Interrupt()) in LAYOUTS
        assert made == ["batched", "contexts"]


def test_lambda_that_cannot_be_judged_in_one_batch_is_refused_by_the_reference(tiny) -> None:
    with (
        PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=Engine(n_batch=8)) as judge,
        pytest.raises(UsageError, match="--batch 8 is too small"),
    ):
        judge("Hello", lam=20, schedule="reference", seed=1)


# Guessing.


def test_prompt_look_up_finds_what_followed_last_time() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 9, 2, 3])
    assert lookup.guess(2) == [4, 9]
    lookup.accept(4)
    assert lookup.guess(3) == [9, 2, 3]
    assert lookup.guess(6) == [9, 2, 3, 4, 9, 2], "and where that reaches the end of the text, goes round once more"
    lookup.accept(7)
    assert lookup.guess(3) == []


class Machine:
    """A machine on which a step of each width takes its own time; runs a guesser over a known text."""

    def __init__(self, seconds: dict[int, float], token_cost: float) -> None:
        self.now, self.seconds, self.token_cost = 0.0, seconds, token_cost

    def run(self, prompt: list[int], text: list[int], lookahead: int) -> float:
        """Seconds that the text takes."""
        self.now = 0.0
        guesser = Lookahead(prompt, lookahead, lambda: self.token_cost, clock=lambda: self.now) if lookahead else None
        i = 0
        while i < len(text):
            if guesser:
                guesser.accept(text[i])
            ahead = guesser.guess() if guesser else []
            self.now += self.seconds[1 + len(ahead)]
            i += 1
            for token in ahead:
                if i < len(text) and token == text[i]:
                    guesser.accept(token)
                    i += 1
                else:
                    break
        return self.now


CHEAP = Machine({1: 4.2, 4: 12.0, 8: 18.7}, 1.35)  # ms, SmolLM2 Q4_0 on the 2-core machine
DEAR = Machine({1: 5.8, 4: 24.2, 8: 42.3}, 4.1)  # ms, Q4_1


def test_guessing_pays_on_a_copy_where_a_wide_batch_is_cheap() -> None:
    source = [i * 37 % 1009 for i in range(300)]
    assert CHEAP.run(source, source, 0) > 1.3 * CHEAP.run(source, source, 7)


def test_guessing_never_costs_more_than_3_percent() -> None:
    import random

    rng = random.Random(1)
    words = [rng.randrange(40) for _ in range(400)]  # n-grams recur, and what follows is chance
    half = [x for i in range(40) for x in (1, 2, 3, rng.choice([4, 5]), rng.choice([6, 7]))]
    source = [i * 37 % 1009 for i in range(300)]
    for machine in (CHEAP, DEAR):
        for prompt, text in ((words[:200], words[200:]), ([], half), (source, source), (source[:100], source[50:])):
            assert machine.run(prompt, text, 7) <= 1.03 * machine.run(prompt, text, 0)


# The benchmark.


def test_bench_refuses_what_would_not_compare_like_with_like(pjlocal, tiny) -> None:
    for arguments, says in (
        (("-n", "5000"), "the context has room for"),
        (("--repeat-penalty", "1.1"), "leave out --repeat-penalty"),
        (("--lookahead", "32"), "--lookahead must be at most 31"),
    ):
        result = pjlocal("bench", "-m", tiny("llama"), *arguments)
        assert result.returncode == 2 and says in result.stderr and result.stderr.count("\n") == 1


WORK = Workload(
    "Hello", ("vivid", "creative"), n_tokens=8, repeats=1, lookahead=7, sampling=Sampling(), engine=Engine()
)


def test_bench_is_interrupted_at_any_of_its_steps(tiny) -> None:
    seen: list[str] = []
    measure(tiny("llama"), WORK, Interrupt(), lambda what, done: seen.append(what))
    for n in range(1, len(seen) - 1):
        interrupt = Interrupt()
        left = iter(range(n))
        with pytest.raises(Interrupted):
            measure(
                tiny("llama"), WORK, interrupt, lambda *_, i=interrupt, left=left: next(left, None) is None and i.set()
            )


@pytest.mark.parametrize("where", ["warming up: Algorithm 1 as written", "judge mode (contexts)"])
def test_ctrl_c_before_an_answers_first_token_ends_bench_as_anywhere_else(tiny, monkeypatch, where: str) -> None:
    interrupt = Interrupt()

    def start(self, prompts) -> None:
        interrupt.set()
        raise Interrupted

    def progress(what: str, done: float) -> None:
        if what == where:
            monkeypatch.setattr(ModelViews, "start", start)

    with pytest.raises(Interrupted):
        measure(tiny("llama"), WORK, interrupt, progress)


def test_an_answer_that_ends_too_early_to_be_timed_is_no_number() -> None:
    runs = {name: [1.0, 2.0] for name in (JUDGE.format("contexts"), *map(LIMIT.format, LAYOUTS))}
    report = Report({}, runs | {"short": [nan, nan], "once": [nan, 4.0]})
    assert report.speeds("short") is report.ratio("short") is None
    assert report.speeds("once") == (4.0, 4.0, 4.0) and report.ratio("once") == 0.5


def test_bench_reports_what_it_says(pjlocal, tiny) -> None:
    result = pjlocal("bench", "-m", tiny("llama"), "-n", "16", "--repeats", "2", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    same_threads = report["measured_on"]["threads"] == report["measured_on"]["llama_cpp_python_threads"]
    assert len(report["tokens_per_second"]) == 8 - same_threads
    for speed in report["tokens_per_second"].values():
        assert len(speed["runs"]) == 2 and 0 < speed["least"] <= speed["median"] <= speed["most"]
    for name in ("judge_vs_limit", "judge_vs_bare", "judge_vs_llama_cpp_python", "judge_vs_reference"):
        assert report[name] > 0
    assert 0 < report["share_outside_llama_decode"] < 1
    assert report["time_to_first_token_s"] > 0 and report["peak_memory_bytes"] > 1e7
    assert report["measured_on"]["tokens"] == 16 and report["measured_on"]["layers_offloaded"] == 0
    assert set(report["per_call_us"]) == {"shorten, a view", "filter, a view", "decide", "detokenize and event"}
    assert report["lookahead_speedup"] == {}
    once = ("--repeats", "1", "--lookahead", "7")
    recurrent = json.loads(pjlocal("bench", "-m", tiny("recurrent"), "-n", "8", *once, "--json").stdout)
    assert recurrent["judge_vs_reference"] is None and recurrent["judge_vs_bare"] > 0
    assert recurrent["lookahead_speedup"] == {}, "its memory cannot be trimmed"
    ahead = json.loads(pjlocal("bench", "-m", tiny("llama"), "-n", "16", *once, "--json").stdout)
    assert set(ahead["lookahead_speedup"]) == {"contexts", "batched"}
    table = pjlocal("bench", "-m", tiny("llama"), "-n", "16", *once).stdout
    assert "Algorithm 1 as written" in table and "judge mode (batched)" in table
    assert "tokens ahead" in table and "look-ahead makes judge mode faster by" in table


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_the_weights_once_two_caches_and_little_more_however_long_the_answer(smollm2: Path) -> None:
    code = """
from pjlocal import PersonaJudge
from pjlocal.engine.machine import resident_bytes
with PersonaJudge(prefer=["vivid", "creative"]) as judge:
    judge.pool.views(2, 512)  # room for both answers
    judge("Tell me a story", seed=1, max_tokens=8, ignore_end=True)
    short = resident_bytes()
    judge("Tell me a story", seed=1, max_tokens=300, ignore_end=True)
    print(judge.model.size_bytes, 2 * judge.model.kv_bytes(512, 2), short, resident_bytes(), resident_bytes(peak=True))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    weights, caches, short, long, peak = map(int, result.stdout.split())
    assert peak < weights + caches + 150e6
    assert long - short < 2e6
