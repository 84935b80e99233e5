"""Threads for llama.cpp: one for each lane after the first, and a temporary one for long jobs."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from queue import SimpleQueue

from .backend import check_process
from .interrupt import Interrupt


def in_thread(
    job: Callable[[], None], interrupt: Interrupt, starting: AbstractContextManager[None] = nullcontext()
) -> None:
    """Run a long job in a thread of its own, while this thread waits on a lock, which Ctrl-C interrupts.

    The thread ends with the job, and its OpenMP threads end with it.  If OpenMP has more threads than cores, they sleep
    instead of spin while they wait for each other, hundreds of times a token.  With the idle threads of a finished
    prompt, SmolLM2 took 11 to 15 ms a token instead of 8 (two cores).

    Args:
        interrupt: stops the job if this thread stops waiting, as after KeyboardInterrupt.
        starting: a context manager around the start of the thread.

    Raises:
        BaseException: the exception that the job raised.
        ModelError: llama.cpp cannot be used in this process.
    """
    check_process()
    guard = threading.Lock()
    ended = threading.Event()
    errors: list[BaseException] = []
    begun = given_up = False

    def run() -> None:
        nonlocal begun
        with guard:
            if given_up:
                return
            begun = True
        _run(job, ended, errors)

    thread = threading.Thread(target=run, daemon=True, name="pjlocal-read")
    try:
        with starting:
            thread.start()
        ended.wait()  # not `join`, which after Ctrl-C takes a running thread for ended (Python 3.11)
    except BaseException:  # a thread that starts after this returns immediately
        with interrupt.stopping():
            with guard:
                given_up = True
            if begun:
                _wait_for(ended)
        raise
    thread.join()
    if errors:
        raise errors.pop()  # its traceback refers to this frame


def _wait_for(ended: threading.Event) -> None:
    """Wait, even if Ctrl-C is pressed several times."""
    while not ended.is_set():
        with suppress(KeyboardInterrupt):
            ended.wait()


def _run_jobs(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it would keep alive the lanes, whose collection ends this thread


def _run(job: Callable[[], None], ended: threading.Event, errors: list[BaseException]) -> None:
    try:
        job()
    except BaseException as error:
        errors.append(error)
    finally:
        ended.set()


class Worker:
    """A thread that runs one job at a time."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended = threading.Event()
        self._errors: list[BaseException] = []  # the error of the last job, at most one
        self._busy = False
        # The thread has no reference to the worker, and ends when the worker is garbage collected.
        self._thread = threading.Thread(target=_run_jobs, args=(self._jobs,), daemon=True, name="pjlocal-decode")
        self._thread.start()
        end = weakref.finalize(self, self._jobs.put, None)
        end.atexit = False

    def submit(self, job: Callable[[], None]) -> None:
        run = partial(_run, job, self._ended, self._errors)
        self._ended.clear()
        self._busy = True  # call nothing before the next line: after Ctrl-C, `wait` would wait for a job without end
        self._jobs.put(run)

    def wait(self) -> None:
        """Wait for the current job, if any, and raise its error."""
        if self._busy:
            check_process()  # without its thread, the job never ends
            self._ended.wait()
            self._busy = False
            if self._errors:
                raise self._errors.pop()

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
