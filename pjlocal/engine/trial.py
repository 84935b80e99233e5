"""A model whose header holds unusual values is loaded by another process first, which may crash.

The other process costs a start of Python (0.5 s with a small model) and computes on the CPU.  So it is only for headers
in which `gguf/check.py` finds unusual values, for files that fit in free memory, and once for each file: files that
loaded well are remembered in the user's cache folder.
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
from ..folders import cache_folder
from ..gguf.check import surprise
from ..gguf.header import Header
from .interrupt import Interrupt, Interrupted
from .machine import memory

_LEAST_S = 60  # more for a large file, which is read once
_BYTES_A_SECOND = 50 << 20
_KILLED = 9  # SIGKILL, which Windows does not have


def check_model(header: Header, interrupt: Interrupt, seconds: float | None = None) -> None:
    """Refuse a file on which llama.cpp would end the process.

    Args:
        seconds: how long the trial may take.

    Raises:
        ModelError: a line that says what is wrong with the file.
        Interrupted: while it was tried.
    """
    what = surprise(header)
    if not what or header.n_file_bytes > memory().amount or ((mark := _mark(header)) is not None and mark.exists()):
        return
    if seconds is None:
        seconds = max(_LEAST_S, header.n_file_bytes / _BYTES_A_SECOND)
    with interrupt.at_once():
        ended = _try(header.path, seconds)
    if interrupt.is_set():
        raise Interrupted
    if ended:
        raise ModelError(f"{header.path} cannot be used: llama.cpp {ended} on it, for {what}. Use another model file")
    if mark is not None:
        _remember(mark)


def _try(path: Path, seconds: float) -> str:
    """How the other process ended; empty where it went well, or llama.cpp itself refuses the file."""
    paths = [folder for folder in sys.path if folder]  # as here, whatever lies in the current folder
    start = f"import sys; sys.path[:] = {paths!r}; from pjlocal.engine.try_load import main; main()"
    command = [sys.executable, "-I", "-c", start, os.fspath(path.absolute())]
    env = os.environ | {"GGML_NO_BACKTRACE": "1"}
    try:
        status = subprocess.run(command, env=env, capture_output=True, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return f"does not come to an end within {seconds:.0f} s"
    except OSError:
        return ""  # no process can be had: all is as it would be without a trial
    if status >= 0 or status == -_KILLED:  # which the system does where memory runs out: it says nothing of the file
        return ""
    try:
        return f"ends with {signal.Signals(-status).name}"
    except ValueError:
        return f"ends with signal {-status}"


def _mark(header: Header) -> Path | None:
    """The file whose existence says that this model, as it is, has been tried with this llama.cpp."""
    folder = cache_folder()
    if folder is None:
        return None
    known = hashlib.blake2b(llama_cpp_version.encode(), digest_size=16)
    for part in header.parts:
        file = part.stat()
        known.update(f"{part.resolve()}\0{file.st_size}\0{file.st_mtime_ns}\0{file.st_ino}\n".encode())
    return folder / "tried" / known.hexdigest()


def _remember(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        pass  # it is tried again next time
