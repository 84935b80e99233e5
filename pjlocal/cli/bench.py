"""``pjlocal bench``: the cost of two preferences on this machine."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import Annotated, Any

import typer

from ..engine.interrupt import Interrupt, on_sigint
from ..errors import UsageError, byte_size
from ..prompting.preferences import split_strength
from ..screen.console import make_console, say
from ..settings import Engine, Generation, Sampling, flag
from ..visible import visible
from .options import ModelOption, PreferOption, takes_settings

_COMMON = ("temperature", "top_k", "top_p", "min_p")  # filters that all contenders have
_PREFER = ["vivid", "creative"]
_PROMPT = "Write a long story about a lighthouse keeper and the sea."


@takes_settings()
def bench(
    prompt: Annotated[str, typer.Argument(help="The prompt. Choose one with a long answer.")] = _PROMPT,
    model: ModelOption = None,
    prefer: PreferOption = _PREFER,
    n_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=8, help="Tokens of each run.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each contender.")] = 7,
    lookahead: Annotated[
        int,
        typer.Option(
            min=0, help="Also measure judge mode with this --lookahead. Choose a prompt whose answer repeats itself."
        ),
    ] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Three runs of at most 48 tokens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    sampling: Sampling,
    engine: Engine,
    given: frozenset[str],
) -> None:
    uncommon = {f.name: f for f in fields(Sampling) if f.name not in _COMMON}
    if refused := [flag(f) for name, f in uncommon.items() if name in given]:
        raise UsageError(f"bench supports only temperature, top-k, top-p and min-p: leave out {refused[0]}")
    # The config file's filters are for answers, not for the benchmark.
    sampling = sampling.replace(**{name: f.default for name, f in uncommon.items()})
    prefer = prefer if "prefer" in given else _PREFER
    if len(prefer) < 2:
        raise UsageError("bench compares two views: give at least two preferences")
    if any(split_strength(wish)[1] for wish in prefer):
        raise UsageError("bench compares preferences without strengths: leave the strengths out")
    Generation(lookahead=lookahead)  # checks it before the model is loaded
    if quick:
        n_tokens, repeats = min(n_tokens, 48), min(repeats, 3)
    interrupt = Interrupt()
    from rich.progress import TimeElapsedColumn

    from ..screen.progress import progress_bars

    with on_sigint(interrupt), progress_bars(TimeElapsedColumn()) as bars:

        def progress(what: str, done: float) -> None:
            bars(what, done, bar="all")
            if done and not sys.stderr.isatty():  # no bar is shown
                say(f"{100 * done:.0f} %: {what}")

        progress("importing", 0.0)
        from ..bench.measure import measure
        from ..bench.report import Workload
        from ..gguf.locate import find_model

        work = Workload(prompt, tuple(prefer), n_tokens, repeats, lookahead, sampling, engine)
        report = measure(find_model(model), work, interrupt, progress)
    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        _print(report)


def _print(report: Any) -> None:
    from rich.table import Table

    console = make_console(sys.stdout)
    on = report.measured_on
    table = Table(
        "", "tokens/s", "least to most", "judge mode / this", title=visible(f"{on['model']}: {on['description']}")
    )
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for name in report.runs:
        if speeds := report.speeds(name):
            least, median, most = speeds
            table.add_row(name, f"{median:.1f}", f"{least:.1f} to {most:.1f}", f"{report.ratio(name):.2f}")
        else:
            table.add_row(name, "-", "too short to time", "-")
    console.print(table)
    d = report.as_dict()
    calls = ", ".join(f"{name} {us:.0f} µs" for name, us in report.per_call_us.items())
    ahead = ", ".join(f"{times:.2f} ({layout})" for layout, times in d["lookahead_speedup"].items())
    peak = report.peak_memory_bytes
    for line in (
        f"fastest layout: {report.layout}; ratios are medians within {on['repeats']} turns of {on['tokens']} tokens",
        "" if on["can_truncate"] else "no Algorithm 1: this model's KV cache cannot be truncated",
        f"judge mode with look-ahead / without: {ahead}" if ahead else "",
        f"outside llama_decode: {d['share_outside_llama_decode']:.1%} of a step (contexts); {calls}",
        f"a step in mode both / in mode judge: {d['judge_vs_both']:.2f}, "
        f"{d['share_outside_llama_decode_both']:.1%} of it outside llama_decode",
        f"time to first token: {report.time_to_first_token_s:.2f} s; both prompts together / one after the other: "
        f"{report.prefill_ratio:.2f}",
        f"peak memory: {byte_size(peak)}, of which weights {byte_size(on['model_bytes'])}" if peak else "",
        f"threads {on['threads']} (llama-cpp-python's default: {on['llama_cpp_python_threads']}), layers offloaded "
        f"{on['layers_offloaded']} of {on['layers']}, llama-cpp-python {on['llama_cpp_python']}, {on['build']}",
    ):
        if line:
            console.print(line, soft_wrap=True)
