"""What two preferences cost: judge mode against everything it could be compared with, measured in one process.

The contenders take turns, repeated, so that what else the machine does falls on all of them; ratios are taken within
each turn and their median is reported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from math import isnan, nan
from statistics import median
from typing import Any

from llama_cpp import llama_cpp as lib

from ..decoding.judge import Round, Uniforms, judge_token, propose
from ..engine.context import Context
from ..engine.filters import FilterChain
from ..engine.interrupt import Interrupt, Interrupted
from ..engine.machine import physical_cores, resident_bytes
from ..engine.model import Model
from ..engine.views import FixedLayout, ModelViews
from ..errors import UsageError
from ..events import TokenEvent
from ..persona import PersonaJudge
from ..prompting.prompt import Message
from ..screen.display import BlameDisplay
from ..settings import Engine, Generation, Sampling
from ..stream import TextStream

LAYOUTS: tuple[FixedLayout, ...] = ("contexts", "batched")

BARE = "bare llama_decode loop, one prompt"
LIMIT = "limit: two views decoded, nothing else ({})"
LIBRARY = "llama-cpp-python chat completion"
LIBRARY_ALL_THREADS = "llama-cpp-python, told to use all threads"
REFERENCE = "Algorithm 1 as written"
JUDGE = "judge mode ({})"
LOOKAHEAD = "judge mode ({}), looking {} tokens ahead"


@dataclass(frozen=True)
class Workload:
    """What every contender does."""

    prompt: str
    prefer: tuple[str, ...]
    n_tokens: int
    repeats: int
    lookahead: int  # tokens, in contenders of their own; 0: none
    sampling: Sampling
    engine: Engine


@dataclass
class Report:
    """Tokens a second of every contender, a turn each; and what else was measured.  Times in seconds."""

    measured_on: dict[str, Any]
    runs: dict[str, list[float]] = field(default_factory=dict)
    share_outside: list[float] = field(default_factory=list)
    time_to_first_token_s: float = 0.0
    peak_memory_bytes: int | None = None
    prefill: dict[str, list[float]] = field(default_factory=dict)
    per_call_us: dict[str, float] = field(default_factory=dict)

    def speeds(self, name: str) -> tuple[float, float, float] | None:
        """Least, median and most; None where llama-cpp-python's answers ended before they could be timed."""
        timed = _timed_runs(self.runs[name])
        return (min(timed), median(timed), max(timed)) if timed else None

    @property
    def layout(self) -> FixedLayout:
        """The layout in which two views decode fastest here."""
        return max(LAYOUTS, key=lambda layout: median(self.runs[LIMIT.format(layout)]))

    def ratio(self, name: str) -> float | None:
        """Judge mode's speed in the fastest layout by that of another contender: the median over the turns."""
        judge = self.runs[JUDGE.format(self.layout)]
        ratios = _timed_runs([a / b for a, b in zip(judge, self.runs[name], strict=True)])
        return median(ratios) if ratios else None

    @property
    def ratios(self) -> dict[str, float | None]:
        """The last is None for a model whose memory cannot be trimmed, as Algorithm 1 must."""
        return {
            "judge_vs_limit": self.ratio(LIMIT.format(self.layout)),
            "judge_vs_bare": self.ratio(BARE),
            "judge_vs_llama_cpp_python": self.ratio(LIBRARY),
            "judge_vs_llama_cpp_python_all_threads": self.ratio(
                LIBRARY_ALL_THREADS if LIBRARY_ALL_THREADS in self.runs else LIBRARY
            ),
            "judge_vs_reference": self.ratio(REFERENCE) if REFERENCE in self.runs else None,
        }

    @property
    def lookahead_speedup(self) -> dict[str, float]:
        """Judge mode's speed with look-ahead by its speed without, in each layout: the median over the turns."""
        ahead = self.measured_on["lookahead"]
        pairs = {layout: (LOOKAHEAD.format(layout, ahead), JUDGE.format(layout)) for layout in LAYOUTS}
        return {
            layout: median(a / b for a, b in zip(self.runs[with_it], self.runs[without], strict=True))
            for layout, (with_it, without) in pairs.items()
            if with_it in self.runs
        }

    @property
    def prefill_ratio(self) -> float:
        """Both views' prompts read together, by two single prompts one after the other with all threads."""
        return median(a / b for a, b in zip(self.prefill["both"], self.prefill["two_single"], strict=True))

    def as_dict(self) -> dict[str, Any]:
        return {
            "tokens_per_second": {
                name: dict(zip(("least", "median", "most"), self.speeds(name) or (None,) * 3, strict=True))
                | {"runs": [None if isnan(run) else run for run in runs]}
                for name, runs in self.runs.items()
            },
            "fastest_layout": self.layout,
            **self.ratios,
            "lookahead_speedup": self.lookahead_speedup,
            "share_outside_llama_decode": median(self.share_outside),
            "time_to_first_token_s": self.time_to_first_token_s,
            "prefill_both_vs_two_single": self.prefill_ratio,
            "peak_memory_bytes": self.peak_memory_bytes,
            "per_call_us": self.per_call_us,
            "measured_on": self.measured_on,
        }


def _timed_runs(runs: Sequence[float]) -> list[float]:
    """Those that could be timed."""
    return [run for run in runs if not isnan(run)]


def measure(
    path: Any, work: Workload, interrupt: Interrupt, progress: Callable[[str, float], None] = lambda what, done: None
) -> Report:
    """Run every contender in turn.

    Args:
        progress: told what is measured now, and which share is done.

    Raises:
        Interrupted: by Ctrl-C.
        UsageError: the context has no room for that many tokens.
    """

    def step(what: str, done: float) -> None:
        if interrupt.is_set():  # an answer that is interrupted just ends
            raise Interrupted
        progress(what, done)

    with ExitStack() as stack:
        step("loading the model", 0.0)
        model = Model(path, work.engine.n_gpu_layers, interrupt=interrupt, verbose=work.engine.verbose)
        stack.callback(model.close)
        report = Report(_measured_on(model, work))
        generation = Generation(max_tokens=work.n_tokens, ignore_end=True)
        judges = {
            layout: stack.enter_context(
                PersonaJudge(
                    model,
                    work.prefer,
                    sampling=work.sampling,
                    generation=generation,
                    engine=work.engine.replace(layout=layout),
                    interrupt=interrupt,
                )
            )
            for layout in LAYOUTS
        }
        prompts = _prompts(judges["contexts"], work)
        first = judges["contexts"].stream(work.prompt, seed=0)
        for _ in first:
            pass
        report.time_to_first_token_s = first.statistics.prefill_s
        report.peak_memory_bytes = resident_bytes(peak=True)

        contenders = dict(_contenders(model, judges, work, prompts, report, stack, interrupt))
        for name, contender in contenders.items():
            step(f"warming up: {name}", 0.0)
            contender(0)
        report.share_outside.clear()
        n_steps = work.repeats * (len(contenders) + 1)
        order = list(contenders.items())
        for turn in range(work.repeats):
            for i, (name, run) in enumerate(order):
                step(name, (turn * (len(contenders) + 1) + i) / n_steps)
                report.runs.setdefault(name, []).append(run(turn + 1))
            order.reverse()  # there and back, so that nobody always runs behind the same one
            step("reading prompts", ((turn + 1) * (len(contenders) + 1) - 1) / n_steps)
            _prefill(model, work, report, interrupt)
        report.per_call_us = per_call_us(judges["contexts"], work.prompt)
        step("done", 1.0)
        return report


def _contenders(
    model: Model,
    judges: dict[FixedLayout, PersonaJudge],
    work: Workload,
    prompts: tuple[list[int], list[list[int]]],
    report: Report,
    stack: ExitStack,
    interrupt: Interrupt,
) -> Iterator[tuple[str, Callable[[int], float]]]:
    """Each contender: a function from the seed to tokens a second."""
    one_prompt, two_prompts = prompts
    bare = Context(model, work.engine, _room(one_prompt, work), 1, _threads(work), interrupt)
    stack.callback(bare.close)
    yield BARE, lambda seed: _bare(bare, one_prompt, work, seed)

    for layout in LAYOUTS:
        views = ModelViews(model, work.engine, 2, _room(max(two_prompts, key=len), work), layout, interrupt)
        stack.callback(views.close)
        yield LIMIT.format(layout), lambda seed, views=views: _limit(views, two_prompts, work)  # type: ignore[misc]

    n_ctx = _room(one_prompt, work)
    yield LIBRARY, _library(model, judges["contexts"], work, stack, n_ctx, None)
    if _threads(work) != _library_threads():
        yield LIBRARY_ALL_THREADS, _library(model, judges["contexts"], work, stack, n_ctx, _threads(work))
    if model.trimmable:
        yield REFERENCE, lambda seed: _judge(judges["contexts"], work, seed, schedule="reference")[0]
    for layout in LAYOUTS:

        def run(seed: int, layout: FixedLayout = layout) -> float:
            speed, outside = _judge(judges[layout], work, seed)
            if layout == "contexts":
                report.share_outside.append(outside)
            return speed

        yield JUDGE.format(layout), run
    if work.lookahead and model.trimmable:
        for layout in LAYOUTS:

            def ahead(seed: int, layout: FixedLayout = layout) -> float:
                return _judge(judges[layout], work, seed, lookahead=work.lookahead)[0]

            yield LOOKAHEAD.format(layout, work.lookahead), ahead


def _prompts(judge: PersonaJudge, work: Workload) -> tuple[list[int], list[list[int]]]:
    """The tokens of one prompt with all preferences, and of each view's.

    Raises:
        UsageError: they leave less room than the workload needs.
    """
    (one,) = judge.plan(work.prompt, Generation(mode="prompt")).prompts
    two = judge.plan(work.prompt, Generation(mode="judge")).prompts
    room = judge.context_limit - max(map(len, [one, *two]))
    if work.n_tokens > room:
        raise UsageError(f"the context has room for {room} tokens: give a smaller --max-tokens or a larger --ctx")
    return one, two


def _room(prompt: Sequence[int], work: Workload) -> int:
    return -(-(len(prompt) + work.n_tokens + 1) // 256) * 256


def _threads(work: Workload) -> int:
    return work.engine.n_threads or physical_cores()


def _bare(context: Context, prompt: Sequence[int], work: Workload, seed: int) -> float:
    """llama.cpp's own loop: decode one token, sample with its own chain."""
    s = work.sampling
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    if s.top_k:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(s.top_k))
    if s.top_p < 1:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(s.top_p, 1))
    if s.min_p:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_min_p(s.min_p, 1))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(s.temperature))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(seed))
    context.forget(0, 0)
    for i in range(0, len(prompt), context.n_batch):
        part = prompt[i : i + context.n_batch]
        context.decode(part, range(i, i + len(part)), [0] * len(part), 1)
    token = lib.llama_sampler_sample(chain, context.handle, -1)
    started = time.perf_counter()
    for i in range(work.n_tokens - 1):
        context.decode([token], [len(prompt) + i], [0], 1)
        token = lib.llama_sampler_sample(chain, context.handle, -1)
    elapsed = time.perf_counter() - started
    lib.llama_sampler_free(chain)
    return (work.n_tokens - 1) / elapsed


def _limit(views: ModelViews, prompts: Sequence[Sequence[int]], work: Workload) -> float:
    views.start(prompts)
    views.wait()
    token = prompts[0][-1]
    started = time.perf_counter()
    for _ in range(work.n_tokens - 1):
        views.feed([token])
        views.wait()
    return (work.n_tokens - 1) / (time.perf_counter() - started)


_FEWEST_TIMED = 4  # tokens; llama-cpp-python cannot be told to go on behind the end of its answer


def _library_threads() -> int:
    """What llama-cpp-python takes unless it is told otherwise."""
    return max((os.cpu_count() or 1) // 2, 1)


def _library(
    model: Model, judge: PersonaJudge, work: Workload, stack: ExitStack, n_ctx: int, n_threads: int | None
) -> Callable[[int], float]:
    """What a user would otherwise do: llama-cpp-python, both preferences in the system message."""
    from llama_cpp import Llama

    s = work.sampling
    llama = Llama(
        str(model.path),
        n_ctx=n_ctx,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        n_gpu_layers=work.engine.n_gpu_layers,
        verbose=False,
    )
    stack.callback(llama.close)
    generation = Generation(mode="prompt")
    system = judge.template.messages([Message("user", work.prompt)], judge.prefixes(generation)[0], judge.prompting)
    messages: Any = [{"role": m.role, "content": m.content} for m in system]

    def run(seed: int) -> float:
        stream: Any = llama.create_chat_completion(
            messages,
            stream=True,
            max_tokens=work.n_tokens,
            seed=seed,
            temperature=s.temperature,
            top_k=s.top_k,
            top_p=s.top_p,
            min_p=s.min_p,
            repeat_penalty=1.0,
        )
        seen = [
            (llama.n_tokens, time.perf_counter()) for chunk in stream if chunk["choices"][0]["delta"].get("content")
        ]
        if not seen:
            return nan
        (first, started), (last, ended) = seen[0], seen[-1]
        return (last - first) / (ended - started) if last - first >= _FEWEST_TIMED else nan

    return run


def _judge(judge: PersonaJudge, work: Workload, seed: int, **changes: Any) -> tuple[float, float]:
    """Judge mode from prompt to screen, shown by Rich on a terminal that goes nowhere.

    Returns tokens a second, and the share of the time that was spent outside llama_decode.
    """
    from rich.console import Console

    answer = judge.stream(work.prompt, seed=seed, **changes)
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, highlight=False, markup=False)
        events = iter(answer)
        with BlameDisplay(console, answer.result.preferences) as display:
            for event in islice(events, 1):
                display.show(event)
            views = judge.views(2, 1)
            started, decode_s = time.perf_counter(), views.decode_s
            n = 0
            for event in events:
                display.show(event)
                n += 1
            elapsed = time.perf_counter() - started
    return n / elapsed, 1 - (views.decode_s - decode_s) / elapsed


_PREFILL_TOKENS = 256


def _prefill(model: Model, work: Workload, report: Report, interrupt: Interrupt) -> None:
    """Read a prompt in both views together, and in one view alone with all threads, twice."""
    token = lib.llama_vocab_nl(model.vocab)
    prompt = [max(int(token), 0)] * _PREFILL_TOKENS
    for name, n_views, times in (("both", 2, 1), ("two_single", 1, 2)):
        views = ModelViews(model, work.engine, n_views, _PREFILL_TOKENS, "contexts", interrupt)
        try:
            elapsed = 0.0
            for _ in range(times):
                started = time.perf_counter()
                views.start([prompt] * n_views)
                views.wait()
                elapsed += time.perf_counter() - started
                views.rewind(len(prompt))
            report.prefill.setdefault(name, []).append(elapsed)
        finally:
            views.close()


def per_call_us(judge: PersonaJudge, prompt: str) -> dict[str, float]:
    """Microseconds of each thing that is done once a token or view, on real logits: the median of 200 calls."""
    prompts = judge.plan(prompt, Generation(mode="judge")).prompts
    views = judge.views(2, max(map(len, prompts)) + 1)
    reduce, views.reduce = views.reduce, lambda view, row, logits: logits.copy()
    views.start(prompts)
    a, b = views.logits(0), views.logits(1)
    views.reduce = reduce
    chain = FilterChain(judge.model, judge.sampling, prompts[0], (0, 1))
    short_a, short_b = chain.shorten(a), chain.shorten(b)
    q, p = chain(short_a), chain(short_b)
    u = Uniforms(0)[0]
    decision = judge_token(0, Round(4, True), propose(q, u[0], "sample"), p, q, u)
    answer = judge.stream(prompt)

    def event() -> list[TokenEvent]:
        stream: TextStream[Any] = TextStream()
        return [answer.event(d, text) for d, text in stream.push(decision, judge.model.piece(decision.token))]

    calls: dict[str, Callable[[], Any]] = {
        "shorten, a view": lambda: chain.shorten(a),
        "filter, a view": lambda: chain(short_a),
        "decide": lambda: judge_token(0, Round(4, True), propose(q, u[0], "sample"), p, q, u),
        "detokenize and event": event,
    }
    times = {name: median(_timed(call) for _ in range(200)) * 1e6 for name, call in calls.items()}
    chain.close()
    return times


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _measured_on(model: Model, work: Workload) -> dict[str, Any]:
    n_layers = int(lib.llama_model_n_layer(model.handle)) + 1  # llama.cpp counts the output layer too
    wanted = work.engine.n_gpu_layers
    offloads = bool(lib.llama_supports_gpu_offload())
    return {
        "model": model.name,
        "description": model.description,
        "model_bytes": model.size_bytes,
        "n_vocab": model.n_vocab,
        "tokens": work.n_tokens,
        "repeats": work.repeats,
        "lookahead": work.lookahead,
        "trimmable": model.trimmable,
        "threads": _threads(work),
        "llama_cpp_python_threads": _library_threads(),
        "layers_offloaded": (n_layers if wanted < 0 else min(wanted, n_layers)) if offloads else 0,
        "layers": n_layers,
        "build": lib.llama_print_system_info().decode("utf-8", "replace").strip(),
        "llama_cpp_python": _library_version(),
    }


def _library_version() -> str:
    from importlib.metadata import version

    return version("llama-cpp-python")
