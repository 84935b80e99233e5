"""Threads for what llama.cpp does: one for each view beside the first, and a passing one for what takes long."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from queue import SimpleQueue

from .backend import check_process
from .interrupt import Interrupt


def apart(
    job: Callable[[], None], interrupt: Interrupt, starting: AbstractContextManager[None] = nullcontext()
) -> None:
    """Run a job that takes long in a thread of its own, while this one waits on a lock, where Ctrl-C reaches it.

    The thread ends with the job, and so do those that OpenMP gave it.  As long as OpenMP has more threads than there
    are cores, all of them sleep where they wait for each other, which is hundreds of times a token: beside the idle
    threads of one that had read a prompt, SmolLM2 took 11 to 15 ms a token instead of 8 (two cores).

    Args:
        interrupt: ends the job where this thread is told to go on, as by KeyboardInterrupt.
        starting: the thread is started in it.

    Raises:
        BaseException: what the job raised.
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
        ended.wait()  # and no join, which Ctrl-C makes take a thread for ended (Python 3.11)
    except BaseException:  # maybe before the thread has come to run, which then does nothing
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
    """However often Ctrl-C is pressed meanwhile."""
    while not ended.is_set():
        with suppress(KeyboardInterrupt):
            ended.wait()


def _run_jobs(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it has the views, which end this thread when they are collected


def _run(job: Callable[[], None], ended: threading.Event, errors: list[BaseException]) -> None:
    """Run a job; what it raises goes into ``errors``."""
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
        self._errors: list[BaseException] = []  # of the last job: one at most
        self._busy = False
        # The thread does not know the worker, and ends when that is garbage collected.
        self._thread = threading.Thread(target=_run_jobs, args=(self._jobs,), daemon=True, name="pjlocal-decode")
        self._thread.start()
        end = weakref.finalize(self, self._jobs.put, None)
        end.atexit = False

    def submit(self, job: Callable[[], None]) -> None:
        run = partial(_run, job, self._ended, self._errors)
        self._ended.clear()
        self._busy = True  # no call between this and the next: Ctrl-C would leave a job to wait for that never came
        self._jobs.put(run)

    def wait(self) -> None:
        """Wait for the job under way, if any, and raise what it raised."""
        if self._busy:
            check_process()  # without its thread, the job never ends
            self._ended.wait()
            self._busy = False
            if self._errors:
                raise self._errors.pop()

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
