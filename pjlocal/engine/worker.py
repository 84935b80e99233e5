"""Threads that decode: one for each view beside the first, and a passing one for what takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from .interrupt import Interrupt


def apart(job: Callable[[], None], interrupt: Interrupt) -> None:
    """Run a job that takes long in a thread of its own, while this one waits on a lock, where Ctrl-C reaches it.

    The thread ends with the job, and so do those that OpenMP gave it.  As long as OpenMP has more threads than there
    are cores, all of them sleep where they wait for each other, which is hundreds of times a token: beside the idle
    threads of one that had read a prompt, SmolLM2 took 11 to 15 ms a token instead of 8 (two cores).

    Args:
        interrupt: ends the job where this thread is told to go on, as by KeyboardInterrupt.

    Raises:
        BaseException: what the job raised.
    """
    errors: SimpleQueue[BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            job()
        except BaseException as error:
            errors.put(error)
        else:
            errors.put(None)

    thread = threading.Thread(target=run, daemon=True, name="pjlocal-read")
    try:
        thread.start()
        error = errors.get()
    except BaseException:
        with interrupt.stopping():
            if thread.is_alive():
                thread.join()
        raise
    thread.join()
    if error is not None:
        raise error


class Worker:
    """A thread that runs one job at a time."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()
        self._busy = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="pjlocal-decode")
        self._thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:
                self._results.put(error)
            else:
                self._results.put(None)

    def submit(self, job: Callable[[], None]) -> None:
        self._busy = True
        self._jobs.put(job)

    def wait(self) -> None:
        """Wait for the job under way, if any, and raise what it raised."""
        if self._busy:
            error = self._results.get()
            self._busy = False
            if error is not None:
                raise error

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
