"""The checks of the installation.  A failed check does not stop the next one."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from ..config.config import Config, config_path, load_checked, load_config
from ..errors import PjlocalError, byte_size, explain
from ..folders import user_folder
from ..settings import Engine, Generation
from .hardware import Card, cards

if TYPE_CHECKING:
    from ..engine.devices import Device

State = Literal["ok", "note", "broken"]
_TEST_TOKENS = 10
_HOMELESS = "no home folder is known: set HOME"


@dataclass(frozen=True)
class Finding:
    """The result of a check: its subject, its state, a text for the user, and facts for scripts."""

    what: str
    state: State
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


def findings(model: str | None) -> Iterator[Finding]:
    """Yield the findings of all checks.

    Args:
        model: the model of the self-test; by default that of the configuration.
    """
    config = Config()
    for what, check in _CHECKS.items():
        yield from _run_check(what, check)
    with suppress(PjlocalError):  # reported among the findings
        config = load_config()
    if _is_llama_cpp_loaded():
        yield from _run_check("self-test", lambda: _self_test(model or config.model, Engine(**config.engine)))


def _run_check(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # any error is a finding
        yield Finding(what, "broken", explain(error)[0])


def _is_llama_cpp_loaded() -> bool:
    """True if llama.cpp's library can be loaded.  If not, `_llama_cpp` reports the reason."""
    try:
        import llama_cpp  # noqa: F401
    except Exception:  # such as a library that is missing, or older than its Python package
        return False
    return True


def _llama_cpp() -> Iterator[Finding]:
    from ..engine import devices

    parts = devices.backends()
    features = devices.features()
    yield Finding("llama.cpp", "ok", f"{devices.build()}; back ends: {', '.join(parts)}", {"backends": parts})
    yield Finding("CPU", "ok", f"in use: {', '.join(features) or 'nothing special'}", {"features": features})


def _machine() -> Iterator[Finding]:
    from ..engine.machine import cores, memory

    for what, limit, text in (
        ("cores", cores(), "{} in use (--threads gives another number)"),
        ("memory", memory(), "{} free"),
    ):
        amount = byte_size(limit.amount) if what == "memory" else limit.amount
        source = ": the limit of this container (cgroup)" if limit.in_container else ""
        yield Finding(what, "ok", text.format(amount) + source, asdict(limit))


def _devices() -> Iterator[Finding]:
    if not _is_llama_cpp_loaded():
        for card in cards()[:1]:
            text = f"the machine has {card.name}. To install llama.cpp for it: {card.reinstall}"
            yield Finding("GPU", "note", text, {"cards": [card.name], "used": [], "reinstall": card.reinstall})
        return
    from ..engine import devices

    found = devices.devices()
    for device in found:
        text = f"{device.description.strip() or device.kind}: {device.kind}"
        if device.kind != "CPU":  # for which ggml reports all memory as free
            text += f", {byte_size(device.free)} of {byte_size(device.total)} free"
        yield Finding(device.name, "ok", text, asdict(device))
    yield gpu_finding(cards(), [device for device in found if device.is_gpu], devices.backends())


def gpu_finding(present: list[Card], used: list[Device], backends: list[str]) -> Finding:
    """Report which graphics cards are used, and how to use the fastest one if it is not.

    Args:
        present: the cards of the machine, the one with the fastest back end first.
        used: the GPUs that llama.cpp uses.
        backends: the back ends of llama.cpp, with and without a device.
    """
    facts: dict[str, Any] = {"cards": [card.name for card in present], "used": [device.name for device in used]}
    if not present and not used:
        return Finding("GPU", "ok", "no graphics card that llama.cpp can use: it runs on the CPU", facts)
    in_use = f"llama.cpp uses {', '.join(facts['used'])}"
    unused = [card for card in present if not card.is_among(used)]
    if not unused or present[0] not in unused:
        more = f" and not {', '.join(card.name for card in unused)}" if unused else ""
        return Finding("GPU", "ok", in_use + more, facts)
    card, head = present[0], f"{in_use}, but " if used else ""
    if card.backend in backends:
        text = (
            f"{head}this llama.cpp has the back end {card.backend} and finds no device for it. The machine has "
            f"{card.name}: install its driver"
        )
        return Finding("GPU", "note", text, facts)
    return Finding(
        "GPU",
        "note",
        f"{head}this llama.cpp was built without support for {card.name}. To use the card: {card.reinstall}",
        {**facts, "reinstall": card.reinstall},
    )


def _configuration() -> Iterator[Finding]:
    if user_folder("config") is None and "PJLOCAL_CONFIG" not in os.environ:
        yield Finding("configuration", "note", _HOMELESS)
        return
    path = config_path()
    load_checked()
    yield Finding("configuration", "ok", str(path) if path.exists() else f"no file (it would be {path})")


def _folders() -> Iterator[Finding]:
    for what, folder in (("data", user_folder("data")), ("cache", user_folder("cache"))):
        if folder is None:
            yield Finding(f"{what} folder", "note", _HOMELESS)
        elif trouble := _trouble_writing(folder):
            yield Finding(f"{what} folder", "note", trouble)
        else:
            yield Finding(f"{what} folder", "ok", f"{folder}{'' if folder.exists() else ' (made when it is needed)'}")


def _trouble_writing(folder: Path) -> str | None:
    """The reason why a folder cannot be written, or None.

    The test makes a folder in it, or in the nearest existing folder above.  Permissions are not enough: root has them
    in /proc, where nothing can be made.
    """
    there = next((above for above in (folder, *folder.parents) if os.path.exists(above)), folder)
    try:
        with TemporaryDirectory(prefix=".pjlocal-", dir=there):
            return None
    except OSError as error:
        cannot = "cannot be written" if there == folder else f"cannot be made in {there}"
        return f"{folder} {cannot} ({error.strerror or error}): pjlocal saves nothing there"


def _models() -> Iterator[Finding]:
    from ..gguf.locate import all_models
    from ..gguf.places import places

    by_owner = dict(Counter(model.owner for model in all_models()))
    there = [str(place.folder) for place in places() if place.folder.is_dir()]
    counts = ", ".join(f"{owner}: {n}" for owner, n in by_owner.items()) or "none"
    where = f"; searched in {', '.join(there)}" if there else ""
    yield Finding("models", "ok" if by_owner else "note", f"{counts}{where}", {"folders": there, "models": by_owner})


def _database() -> Iterator[Finding]:
    from ..sessions.database import store_path
    from ..sessions.store import Store

    if user_folder("data") is None and "PJLOCAL_DATABASE" not in os.environ:
        yield Finding("chats", "note", _HOMELESS)
        return
    path = store_path()
    if not path.exists():
        yield Finding("chats", "ok", f"no saved chats yet ({path})")
        return
    with Store(reading=True) as store:
        n = len(store.summaries())
        if trouble := store.unread or store.unwritable:
            yield Finding("chats", "note", str(trouble))
        else:
            yield Finding("chats", "ok", f"{n} in {path} ({byte_size(path.stat().st_size)})", {"chats": n})


def _self_test(model: str | None, engine: Engine) -> Iterator[Finding]:
    """Write ten tokens under two preferences."""
    from ..persona import PersonaJudge

    generation = Generation(max_tokens=_TEST_TOKENS, ignore_end=True, seed=1)
    started = time.perf_counter()
    with PersonaJudge(model, ["vivid", "creative"], engine=engine, generation=generation) as judge:
        result = judge("Why do cats purr?")
        took = time.perf_counter() - started
        text = (
            f"{judge.model.name} wrote {result.statistics.completion_tokens} tokens in {took:.1f} s, loading included"
        )
    yield Finding("self-test", "ok", text, {"model": judge.model.name, "seconds": round(took, 3)})


_CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "llama.cpp": _llama_cpp,
    "machine": _machine,
    "devices": _devices,
    "configuration": _configuration,
    "folders": _folders,
    "models": _models,
    "chats": _database,
}
