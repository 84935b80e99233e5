"""Load a model with unusual values in its header in another process first, which may crash.

The other process has to start Python (0.5 s with a small model), and computes on the CPU.  It runs only if
`gguf/check.py` finds unusual values and the file fits in free memory.  The user's cache folder records files that
loaded, so that each is probed once.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from llama_cpp import __version__ as llama_cpp_version

from ..errors import ModelError
from ..folders import user_folder
from ..gguf.check import find_unusual
from ..gguf.header import Header
from .interrupt import Interrupt, Interrupted
from .machine import memory

_LEAST_S = 60  # more for a large file, which is read once
_BYTES_A_SECOND = 50 << 20
_KILLED = 9  # SIGKILL, which Windows does not have


def check_model(header: Header, interrupt: Interrupt) -> None:
    """Refuse a file on which llama.cpp would crash.

    Raises:
        ModelError: llama.cpp crashes on the file, or does not finish.
        Interrupted: a stop was requested during the probe.
    """
    unusual = find_unusual(header)
    if not unusual or header.n_file_bytes > memory().amount or ((mark := _mark(header)) is not None and mark.exists()):
        return
    with interrupt.at_once():
        ended = _try(header.path, seconds=max(_LEAST_S, header.n_file_bytes / _BYTES_A_SECOND))
    if interrupt.is_set():
        raise Interrupted
    if ended:
        raise ModelError(
            f"{header.path} cannot be used: llama.cpp {ended} on it, for {unusual}. Use another model file"
        )
    if mark is not None:
        _remember(mark)


def _try(path: Path, seconds: float) -> str:
    """A description of how the other process crashed; empty if it did not crash, even if llama.cpp refused the
    file."""
    paths = [folder for folder in sys.path if folder]  # without the current folder
    start = f"import sys; sys.path[:] = {paths!r}; from pjlocal.engine.probe_process import main; main()"
    command = [sys.executable, "-I", "-c", start, os.fspath(path.absolute())]
    env = os.environ | {"GGML_NO_BACKTRACE": "1"}
    try:
        status = subprocess.run(command, env=env, capture_output=True, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return f"does not finish within {seconds:.0f} s"
    except OSError:
        return ""  # no process can be started: load without a probe
    if status >= 0 or status == -_KILLED:  # the system kills a process for lack of memory: not the file's fault
        return ""
    try:
        return f"ends with {signal.Signals(-status).name}"
    except ValueError:
        return f"ends with signal {-status}"


def _mark(header: Header) -> Path | None:
    """The marker file that records a successful probe of this unchanged file with this llama.cpp."""
    folder = user_folder("cache")
    if folder is None:
        return None
    known = hashlib.blake2b(llama_cpp_version.encode(), digest_size=16)
    for part in header.parts:
        file = part.stat()
        known.update(os.fsencode(part.resolve()))
        known.update(f"\0{file.st_size}\0{file.st_mtime_ns}\0{file.st_ino}\n".encode())
    return folder / "tried" / known.hexdigest()


def _remember(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        pass  # the probe is repeated next time
