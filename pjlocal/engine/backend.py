"""Start llama.cpp and receive its log, which is silent by default; the last errors are kept to explain a failure."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from llama_cpp import llama_cpp as lib

from ..errors import ModelError

log = logging.getLogger("pjlocal")

_DEBUG, _ERROR = 1, 4  # GGML_LOG_LEVEL_*
_verbose = False


class _Errors(threading.local):
    """The last errors of each thread: llama.cpp logs in the thread that called it."""

    def __init__(self) -> None:
        self.recent: deque[str] = deque(maxlen=20)


_errors = _Errors()


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Receive llama.cpp's log: show it on request, and keep the last errors to explain a failure."""
    message = text.decode("utf-8", "replace")
    if level == _ERROR:
        _errors.recent.append(message.strip())
    if _verbose and level != _DEBUG:
        log.info(message.rstrip("\n"))


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)  # type: ignore[untyped-decorator]
def _on_abort(message: bytes) -> None:
    """Print an error message.  llama.cpp aborts the process when this returns."""
    file, _, why = " ".join(message.decode("utf-8", "replace").split()).partition(": ")
    hint = "Is there enough memory? Use a smaller --ctx or a smaller model" if _NO_MEMORY.search(why) else _ANOTHER
    with suppress(OSError):
        os.write(2, f"pjlocal: llama.cpp aborted: {why} ({file.rpartition('/')[2]}). {hint}\n".encode())


_NO_MEMORY = re.compile(r"alloc|out of memory|!= NULL|!= nullptr|buffer", re.IGNORECASE)
_ANOTHER = "Use another model, or other options"


_backend_ready = False
_is_forked = False  # whether this process was forked from one that used llama.cpp


def init_backend(verbose: bool | None = None) -> None:
    """Start llama.cpp's backends once and receive its log.  Raises the errors of `check_process`."""
    global _backend_ready, _verbose
    check_process()
    _verbose = _verbose if verbose is None else verbose
    lib.llama_log_set(_on_log, ctypes.c_void_p(0))
    if not _backend_ready:
        lib.llama_backend_init()
        _backend_ready = True
        with suppress(AttributeError):  # an older ggml prints the message itself
            lib._lib.ggml_set_abort_callback(_on_abort)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


def check_process() -> None:
    """Refuse to compute in a process that was forked from one that used llama.cpp.

    os.fork ends the threads of llama.cpp and OpenMP, and waiting for them would never end.

    Raises:
        ModelError: this process was forked.
    """
    if _is_forked:
        raise ModelError(
            "llama.cpp does not work after os.fork, which ends its threads: start a new process (multiprocessing's "
            "start method 'spawn') and load the model there"
        )


def forget_errors() -> None:
    _errors.recent.clear()


_redirecting = threading.Lock()  # the whole process has one standard error


@contextmanager
def captured_stderr(is_own: Callable[[str], bool]) -> Iterator[list[str]]:
    """Capture the lines that llama.cpp's grammar parser prints to standard error instead of its log.  They are in the
    list after the body.

    They are lost if no temporary file can be made, as on a full disk.  Lines that other threads print meanwhile are
    written to standard error afterwards, except one whose write begins as the body ends.

    Args:
        is_own: returns True for a line of the parser.
    """
    captured: list[str] = []
    with _redirecting, _temporary_file() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            # Asking for the position waits for a thread in the middle of a write, unlike asking for the size.
            # Reading must not move it: a thread that is about to write would overwrite the beginning.
            printed = os.pread(file.fileno(), os.lseek(file.fileno(), 0, os.SEEK_CUR), 0)
            lines = printed.decode("utf-8", "replace").splitlines(keepends=True)
            captured += [line for line in lines if is_own(line)]
            if others := [line for line in lines if not is_own(line)]:
                with suppress(OSError):
                    os.write(2, "".join(others).encode())


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")


def last_error() -> str:
    """llama.cpp's first error in this thread since `forget_errors`; empty if none."""
    for message in _errors.recent:
        text = message.split(": ", 1)[-1] if message.startswith(("llama_", "gguf_", "ggml_")) else message
        text = text.removeprefix("error loading model: ").strip()
        if text:
            return text
    return ""


_RAN_OUT = re.compile(r"alloc|out of memory", re.IGNORECASE)


def ran_out_of_memory(reason: str) -> bool:
    """True if llama.cpp's error says that memory ran out."""
    return bool(_RAN_OUT.search(reason))


def device_ran_out_of_memory(reason: str) -> bool:
    """True if llama.cpp's error is a lack of a device's memory, and not of the process's."""
    return ran_out_of_memory(reason) and "CPU" not in reason and "mmap" not in reason
