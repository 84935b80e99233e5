"""Which layout decodes faster here: measured once, and remembered in the user's cache folder.

Layouts round differently, so what is remembered also keeps the text: the same command gives the same, run after run.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from hashlib import sha256
from math import isfinite
from pathlib import Path

import llama_cpp

from ..errors import OutputError
from ..folders import cache_folder
from ..settings import LAYOUTS, Engine, FixedLayout
from ..textfile import write_text
from .interrupt import Interrupt
from .machine import physical_cores
from .model import Model
from .views import ModelViews

log = logging.getLogger("pjlocal")

#: Below it a step takes less than a millisecond in either layout.
_TOO_SMALL_TO_MEASURE = 16 << 20  # bytes of weights

_TRIAL_SECONDS = 0.12
_TRIAL_STEPS = 2, 12  # least and most
_MOST_REMEMBERED = 1000

Remembered = dict[str, dict[FixedLayout, float]]  # milliseconds a step of each layout, by what they were measured with


def fastest_layout(model: Model, engine: Engine, n_views: int, interrupt: Interrupt) -> FixedLayout:
    """The layout in which a step of so many views took less time when that was measured first."""
    if model.size_bytes < _TOO_SMALL_TO_MEASURE:
        return "contexts"
    key, remembered = measured_with(model, engine, n_views), _remembered()
    if key not in remembered:
        times = _measure(model, engine, n_views, interrupt)
        log.debug("a step of %d views: %s", n_views, ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items()))
        remember({key: times})
    else:
        times = remembered[key]
    return min(times, key=lambda layout: times[layout])


def measured_with(model: Model, engine: Engine, n_views: int) -> str:
    """A name of all that changes how long a step takes: the model file, the threads and the build among them."""
    threads = engine.n_threads or physical_cores(), physical_cores()
    settings = engine.cache_type_k, engine.cache_type_v, engine.flash_attn, engine.mmap
    build = llama_cpp.__version__, llama_cpp.llama_print_system_info().decode()
    what = json.dumps([model.fingerprint, n_views, threads, settings, build])
    return f"{model.name}, {n_views} views, {sha256(what.encode()).hexdigest()[:16]}"


def _measure(model: Model, engine: Engine, n_views: int, interrupt: Interrupt) -> dict[FixedLayout, float]:
    """Decode a few tokens in each layout, in turn: milliseconds a step.  Takes a fraction of a second, or six steps."""
    times: dict[FixedLayout, float] = {}
    for layout in LAYOUTS:
        views = ModelViews(model, engine, n_views, 64, layout, interrupt)
        try:
            steps: list[float] = []
            started = time.perf_counter()
            while len(steps) < _TRIAL_STEPS[0] + 1 or (
                len(steps) < _TRIAL_STEPS[1] and time.perf_counter() - started < _TRIAL_SECONDS
            ):
                at = time.perf_counter()
                views.feed([0])
                views.wait()
                steps.append(1000 * (time.perf_counter() - at))
            times[layout] = min(steps[1:])  # the first step also builds the graph; others may keep the machine busy
        finally:
            views.close()
    return times


def _file() -> Path | None:
    folder = cache_folder()
    return folder / "layouts.json" if folder else None


def _remembered() -> Remembered:
    """What was measured; nothing where that cannot be read."""
    path = _file()
    try:
        if path is None or not path.is_file():  # a pipe would be waited for
            return {}
        said = json.loads(path.read_bytes())
        return {str(key): _times(value) for key, value in said.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}


def _times(value: dict[str, float]) -> dict[FixedLayout, float]:
    times = {layout: float(value[layout]) for layout in LAYOUTS}
    if not all(map(isfinite, times.values())):
        raise ValueError
    return times


def remember(measured: Remembered) -> None:
    """Add to what is remembered.  Without a folder, or on a full disk, the next process measures again."""
    path = _file()
    if path is None:
        return
    latest = [*(_remembered() | measured).items()][-_MOST_REMEMBERED:]
    with suppress(OutputError):
        write_text(path, json.dumps(dict(latest), indent=1) + "\n")
