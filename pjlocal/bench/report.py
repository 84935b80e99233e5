"""The workload and the results of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from statistics import median
from typing import Any

from ..settings import LAYOUTS, Engine, FixedLayout, Sampling

BARE = "bare llama_decode loop, one prompt"
LIMIT = "limit: two views decoded, nothing else ({})"
LIBRARY = "llama-cpp-python chat completion"
LIBRARY_ALL_THREADS = "llama-cpp-python with all threads"
REFERENCE = "Algorithm 1 as written"
JUDGE = "judge mode ({})"
BOTH = "mode both ({})"
LOOKAHEAD = "judge mode ({}), looking {} tokens ahead"


@dataclass(frozen=True)
class Workload:
    """The work of every contender."""

    prompt: str
    prefer: tuple[str, ...]
    n_tokens: int
    repeats: int
    lookahead: int  # tokens; above 0, contenders with look-ahead are measured too
    sampling: Sampling
    engine: Engine


@dataclass
class Report:
    """The tokens per second of every contender in each turn, and other measurements.  Times are in seconds."""

    measured_on: dict[str, Any]
    runs: dict[str, list[float]] = field(default_factory=dict)
    share_outside: dict[str, list[float]] = field(default_factory=dict)  # share of a step outside llama_decode
    time_to_first_token_s: float = 0.0
    peak_memory_bytes: int | None = None
    prefill: dict[str, list[float]] = field(default_factory=dict)
    per_call_us: dict[str, float] = field(default_factory=dict)

    def speeds(self, name: str) -> tuple[float, float, float] | None:
        """The least, median and greatest speed; None if all of llama-cpp-python's answers were too short to time."""
        timed = _timed_runs(self.runs[name])
        return (min(timed), median(timed), max(timed)) if timed else None

    @property
    def layout(self) -> FixedLayout:
        """The layout in which two views decode fastest."""
        return max(LAYOUTS, key=lambda layout: median(self.runs[LIMIT.format(layout)]))

    def ratio(self, name: str) -> float | None:
        """The speed of judge mode in the fastest layout divided by another contender's (median of the turns)."""
        judge = self.runs[JUDGE.format(self.layout)]
        ratios = _timed_runs([a / b for a, b in zip(judge, self.runs[name], strict=True)])
        return median(ratios) if ratios else None

    @property
    def both(self) -> str:
        """The contender in mode both in its fastest layout."""
        return max(
            (name for name in map(BOTH.format, LAYOUTS) if name in self.runs), key=lambda n: median(self.runs[n])
        )

    @property
    def lookahead_speedup(self) -> dict[str, float]:
        """The speed of judge mode with look-ahead divided by its speed without, in each layout (median of the
        turns)."""
        ahead = self.measured_on["lookahead"]
        pairs = {layout: (LOOKAHEAD.format(layout, ahead), JUDGE.format(layout)) for layout in LAYOUTS}
        return {
            layout: median(a / b for a, b in zip(self.runs[with_it], self.runs[without], strict=True))
            for layout, (with_it, without) in pairs.items()
            if with_it in self.runs
        }

    @property
    def prefill_ratio(self) -> float:
        """The time to read both views' prompts together divided by the time to read two prompts one after the other."""
        return median(a / b for a, b in zip(self.prefill["both"], self.prefill["two_single"], strict=True))

    def as_dict(self) -> dict[str, Any]:
        return {
            "tokens_per_second": {
                name: dict(zip(("least", "median", "most"), self.speeds(name) or (None,) * 3, strict=True))
                | {"runs": [None if isnan(run) else run for run in runs]}
                for name, runs in self.runs.items()
            },
            "fastest_layout": self.layout,
            "judge_vs_limit": self.ratio(LIMIT.format(self.layout)),
            "judge_vs_bare": self.ratio(BARE),
            "judge_vs_llama_cpp_python": self.ratio(LIBRARY),
            "judge_vs_llama_cpp_python_all_threads": self.ratio(
                LIBRARY_ALL_THREADS if LIBRARY_ALL_THREADS in self.runs else LIBRARY
            ),
            # Algorithm 1 needs a cache that can be truncated
            "judge_vs_reference": self.ratio(REFERENCE) if REFERENCE in self.runs else None,
            "judge_vs_both": self.ratio(self.both),
            "lookahead_speedup": self.lookahead_speedup,
            "share_outside_llama_decode": median(self.share_outside[JUDGE.format("contexts")]),
            "share_outside_llama_decode_both": median(self.share_outside[self.both]),
            "time_to_first_token_s": self.time_to_first_token_s,
            "prefill_both_vs_two_single": self.prefill_ratio,
            "peak_memory_bytes": self.peak_memory_bytes,
            "per_call_us": self.per_call_us,
            "measured_on": self.measured_on,
        }


def _timed_runs(runs: Sequence[float]) -> list[float]:
    return [run for run in runs if not isnan(run)]
