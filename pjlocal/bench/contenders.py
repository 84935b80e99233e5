"""The contenders of the benchmark: judge mode in each layout, and alternatives to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from math import nan
from typing import Any

from llama_cpp import llama_cpp as lib

from ..engine.context import Context
from ..engine.engine import Engine
from ..engine.interrupt import Interrupt
from ..engine.lanes import needs
from ..engine.machine import cores
from ..engine.model import Model
from ..engine.slot import Slot
from ..errors import ModelError, UsageError
from ..gguf.memory import padded_context
from ..persona import PersonaJudge
from ..prompting.prompt import Message
from ..screen.blame import blame
from ..screen.tint import TintedDisplay
from ..settings import DEFAULT_VIEWS, LAYOUTS, FixedLayout
from .report import (
    BARE,
    BOTH,
    JUDGE,
    LIBRARY,
    LIBRARY_ALL_THREADS,
    LIMIT,
    LOOKAHEAD,
    REFERENCE,
    Report,
    Workload,
)


def make_contenders(
    model: Model,
    judges: dict[FixedLayout, PersonaJudge],
    work: Workload,
    prompts: tuple[list[int], list[list[int]]],
    report: Report,
    stack: ExitStack,
    interrupt: Interrupt,
) -> Iterator[tuple[str, Callable[[int], float]]]:
    """Yield each contender's name, and a function that takes a seed and returns tokens per second."""
    one_prompt, two_prompts = prompts
    bare = Context(model, work.engine, _room(one_prompt, work), 1, threads(work), interrupt)
    stack.callback(bare.close)
    yield BARE, lambda seed: _bare(bare, one_prompt, work, seed)

    for layout in LAYOUTS:
        engine = stack.enter_context(closing(Engine(model, work.engine.replace(layout=layout), interrupt)))
        slot = stack.enter_context(engine.direct(needs(2, _room(max(two_prompts, key=len), work))))
        yield LIMIT.format(layout), lambda seed, slot=slot: _limit(slot, two_prompts, work)  # type: ignore[misc]

    n_ctx = _room(one_prompt, work)
    yield LIBRARY, _library(model, judges["contexts"], work, stack, n_ctx, None)
    if threads(work) != library_threads():
        yield LIBRARY_ALL_THREADS, _library(model, judges["contexts"], work, stack, n_ctx, threads(work))

    def judged(name: str, layout: FixedLayout, **changes: Any) -> tuple[str, Callable[[int], float]]:
        def run(seed: int) -> float:
            speed, outside = _judge(judges[layout], work, seed, **changes)
            report.share_outside.setdefault(name, []).append(outside)
            return speed

        return name, run

    if not model.recurrent:
        yield judged(REFERENCE, "contexts", schedule="reference")
    for layout in LAYOUTS:
        yield judged(JUDGE.format(layout), layout)
    for layout in LAYOUTS:
        if judges[layout].decoder.lanes.layout(DEFAULT_VIEWS) == layout:  # on few cores they are always one batch
            yield judged(BOTH.format(layout), layout, mode="both")
    for layout in LAYOUTS if work.lookahead else ():
        yield judged(LOOKAHEAD.format(layout, work.lookahead), layout, lookahead=work.lookahead)


def make_prompts(judge: PersonaJudge, work: Workload) -> tuple[list[int], list[list[int]]]:
    """The tokens of one prompt with all preferences, and of each view's prompt.

    Raises:
        UsageError: the prompts leave too little room for the workload.
    """
    (one,) = judge.plan_request(work.prompt, judge.request.replace(mode="prompt")).prompts
    two = judge.plan_request(work.prompt, judge.request).prompts
    room = judge.context_limit - max(map(len, [one, *two]))
    if work.n_tokens > room:
        raise UsageError(f"the context has room for {room} tokens: give a smaller --max-tokens or a larger --ctx")
    return one, two


def _room(prompt: Sequence[int], work: Workload) -> int:
    return padded_context(len(prompt) + work.n_tokens + 1)


def threads(work: Workload) -> int:
    return work.engine.n_threads or cores().amount


def _bare(context: Context, prompt: Sequence[int], work: Workload, seed: int) -> float:
    """Measure a minimal loop: llama.cpp decodes one token and samples the next with its own chain."""
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
    context.truncate(0, 0)
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


def _limit(slot: Slot, prompts: Sequence[Sequence[int]], work: Workload) -> float:
    slot.start(prompts)
    slot.logits(0)
    token = prompts[0][-1]
    started = time.perf_counter()
    for _ in range(work.n_tokens - 1):
        slot.feed([token])
        slot.logits(0)
    return (work.n_tokens - 1) / (time.perf_counter() - started)


_FEWEST_TIMED = 4  # tokens; llama-cpp-python's answers may be short, because it stops at their end


def library_threads() -> int:
    """The default number of threads of llama-cpp-python."""
    return max((os.cpu_count() or 1) // 2, 1)


def _library(
    model: Model, judge: PersonaJudge, work: Workload, stack: ExitStack, n_ctx: int, n_threads: int | None
) -> Callable[[int], float]:
    """The usual alternative: llama-cpp-python, with both preferences in the system message."""
    from llama_cpp import Llama

    s = work.sampling
    try:
        llama = Llama(
            os.fspath(model.file),
            n_ctx=n_ctx,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            n_gpu_layers=model.offload.n_gpu_layers,
            use_mmap=work.engine.mmap,
            verbose=False,
        )
    except ValueError as error:
        raise ModelError(
            f"llama-cpp-python, which bench compares with, cannot load the model a second time: {error}. Is there "
            "enough memory? Use a smaller model, or free memory"
        ) from None
    stack.callback(llama.close)
    request = judge.request.replace(mode="prompt")
    system = judge.template.messages(
        [Message("user", work.prompt)], judge.roles(request).prefixes[0], request.prompting
    )
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
    """Measure an answer from prompt to screen, by default in judge mode.  Rich shows it on a null terminal.

    Returns:
        Tokens per second, and the share of the time outside llama_decode.
    """
    from rich.console import Console

    answer = judge.stream(work.prompt, seed=seed, **changes)
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, highlight=False, markup=False)
        events = iter(answer)
        with TintedDisplay(console, blame(answer.result.preferences, None)) as display:
            for event in islice(events, 1):
                display.show(event)
            started, decode_s = time.perf_counter(), judge.decoder.lanes.decode_s
            n = 0
            for event in events:
                display.show(event)
                n += 1
            elapsed = time.perf_counter() - started
    return n / elapsed, 1 - (judge.decoder.lanes.decode_s - decode_s) / elapsed


_PREFILL_TOKENS = 256


def read_prompts(model: Model, work: Workload, report: Report, interrupt: Interrupt) -> None:
    """Measure the time to read a prompt in two views together, and twice in one view with all threads."""
    token = lib.llama_vocab_nl(model.vocab)
    prompt = [max(int(token), 0)] * _PREFILL_TOKENS
    settings = work.engine.replace(layout="contexts")
    for name, n_views, times in (("both", 2, 1), ("two_single", 1, 2)):
        elapsed = 0.0
        with (
            closing(Engine(model, settings, interrupt)) as engine,
            engine.direct(needs(n_views, _PREFILL_TOKENS)) as slot,
        ):
            for _ in range(times):
                started = time.perf_counter()
                slot.start([prompt] * n_views)
                slot.logits(0)
                elapsed += time.perf_counter() - started
                slot.rewind(len(prompt))
        report.prefill.setdefault(name, []).append(elapsed)
