"""The benchmark.  The contenders take turns, so that other load on the machine affects all of them.

Ratios are computed within each turn, and their median is reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from timeit import repeat
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as lib

from ..decoding.judge import Round, Uniforms, judge_token, propose
from ..engine.filters import FilterChain
from ..engine.interrupt import Interrupt, Interrupted
from ..engine.lanes import needs
from ..engine.machine import resident_bytes
from ..engine.model import Model
from ..errors import UsageError
from ..events import TokenEvent
from ..persona import PersonaJudge
from ..settings import LAYOUTS, FixedLayout, Generation
from ..stream import TextStream
from .contenders import library_threads, make_contenders, make_prompts, read_prompts, threads
from .report import Report, Workload


def _check_name(path: Any) -> None:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"llama-cpp-python cannot open a file whose name is not UTF-8: make a link to {path} under another name"
        ) from None


def measure(path: Any, work: Workload, interrupt: Interrupt, progress: Callable[[str, float], None]) -> Report:
    """Measure all contenders.

    Args:
        progress: called with the name of the current measurement and the share done (0 to 1).

    Raises:
        Interrupted: Ctrl-C was pressed.
        UsageError: the context is too small for the workload, or llama-cpp-python cannot open the file's name.
    """

    def step(what: str, done: float) -> None:
        if interrupt.is_set():  # an interrupted answer ends without an error
            raise Interrupted
        progress(what, done)

    with ExitStack() as stack:
        step("loading the model", 0.0)
        _check_name(path)
        model = Model(path, work.engine, interrupt)
        stack.callback(model.close)
        report = Report(_measured_on(model, work))
        judges = _make_judges(model, work, stack, interrupt)
        prompts = make_prompts(judges["contexts"], work)
        first = judges["contexts"].stream(work.prompt, seed=0)
        for _ in first:
            pass
        report.time_to_first_token_s = first.statistics.prefill_s
        report.peak_memory_bytes = resident_bytes(peak=True)

        contenders = dict(make_contenders(model, judges, work, prompts, report, stack, interrupt))
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
            order.reverse()  # so that no contender always follows the same one
            step("reading prompts", ((turn + 1) * (len(contenders) + 1) - 1) / n_steps)
            read_prompts(model, work, report, interrupt)
        report.per_call_us = per_call_us(judges["contexts"], work.prompt)
        step("done", 1.0)
        return report


def _make_judges(
    model: Model, work: Workload, stack: ExitStack, interrupt: Interrupt
) -> dict[FixedLayout, PersonaJudge]:
    """A judge of each layout, which the stack closes."""
    generation = Generation(mode="judge", max_tokens=work.n_tokens, ignore_end=True)
    return {
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


def per_call_us(judge: PersonaJudge, prompt: str) -> dict[str, float]:
    """The microseconds of calls that are made for every token or view, on real logits (median of 200)."""
    prompts = judge.plan_request(prompt, judge.request).prompts
    with judge.decoder.direct(needs(2, max(map(len, prompts)) + 1)) as slot:
        slot.start(prompts)
        a, b = slot.logits(0).copy(), slot.logits(1).copy()
    chain = FilterChain(judge.model, judge.request.sampling, prompts[0], (0, 1))
    short_a, short_b = chain.shorten(a), chain.shorten(b)
    q, p = chain(short_a), chain(short_b)
    u = Uniforms(0)[0]
    decision = judge_token(0, Round(4, True), propose(q, u[0], "sample"), p, q, u)
    answer = judge.stream(prompt).parts[0]

    def event() -> list[TokenEvent]:
        stream: TextStream[Any] = TextStream()
        final = stream.push(decision, judge.model.piece(decision.token))
        return [answer.event(each, text, thought=False) for each, text in final]

    calls: dict[str, Callable[[], Any]] = {
        "shorten, a view": lambda: chain.shorten(a),
        "filter, a view": lambda: chain(short_a),
        "decide": lambda: judge_token(0, Round(4, True), propose(q, u[0], "sample"), p, q, u),
        "detokenize and event": event,
    }
    return {name: median(repeat(call, number=1, repeat=200)) * 1e6 for name, call in calls.items()}


def _measured_on(model: Model, work: Workload) -> dict[str, Any]:
    return {
        "model": model.name,
        "description": model.description,
        "model_bytes": model.size_bytes,
        "n_vocab": model.n_vocab,
        "tokens": work.n_tokens,
        "repeats": work.repeats,
        "lookahead": work.lookahead,
        "can_truncate": not model.recurrent,
        "threads": threads(work),
        "llama_cpp_python_threads": library_threads(),
        "layers_offloaded": model.offload.n_gpu_layers,
        "layers": model.offload.n_layers,
        "build": lib.llama_print_system_info().decode("utf-8", "replace").strip(),
        "llama_cpp_python": llama_cpp.__version__,
    }
