"""llama.cpp started once, and what it says: silent unless asked, its last errors kept to explain a failure."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from llama_cpp import llama_cpp as lib

log = logging.getLogger("pjlocal")

_DEBUG, _ERROR = 1, 4  # GGML_LOG_LEVEL_*
_recent_errors: deque[str] = deque(maxlen=20)
_verbose = False


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """llama.cpp logs through here: silent unless asked, but its last errors are kept to explain a failure."""
    message = text.decode("utf-8", "replace")
    if level == _ERROR:
        _recent_errors.append(message.strip())
    if _verbose and level != _DEBUG:
        log.info(message.rstrip("\n"))


_backend_ready = False


def init_backend(verbose: bool | None = None) -> None:
    """Start llama.cpp's backends once and take over its log."""
    global _backend_ready, _verbose
    _verbose = _verbose if verbose is None else verbose
    lib.llama_log_set(_on_log, ctypes.c_void_p(0))
    if not _backend_ready:
        lib.llama_backend_init()
        _backend_ready = True


def forget_errors() -> None:
    _recent_errors.clear()


@dataclass
class Captured:
    """What C code wrote to standard error."""

    text: str = ""


@contextmanager
def captured_stderr() -> Iterator[Captured]:
    """Catch what llama.cpp's grammar parser prints to standard error past its own log; where no file can be made, as on
    a full disk, it is lost."""
    captured = Captured()
    with _temporary_file() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            captured.text = file.read().decode("utf-8", "replace").strip()


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")


def last_error() -> str:
    """What llama.cpp last complained about: the first message since `forget_errors`, which is the cause."""
    for message in _recent_errors:
        text = message.split(": ", 1)[-1] if message.startswith(("llama_", "gguf_", "ggml_")) else message
        text = text.removeprefix("error loading model: ").strip()
        if text:
            return text
    return ""


_RAN_OUT = re.compile(r"alloc|out of memory", re.IGNORECASE)


def ran_out_of_memory(reason: str) -> bool:
    """Whether that is what llama.cpp complained about."""
    return bool(_RAN_OUT.search(reason))
