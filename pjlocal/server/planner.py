"""The thread that plans answers: a template or a long text takes its time, and other answers go on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from ..errors import PjlocalError

_T = TypeVar("_T")


class Planner:
    """Does what it is given, one after the other, until it is ended."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pjlocal-plan")

    def start(self) -> None:
        self._thread.start()

    def submit(self, make: Callable[[], _T], take: Callable[[_T | Exception], None]) -> None:
        """Make it when its turn has come; ``take`` is called in this thread with it, or with what went wrong."""

        def job() -> None:
            made: _T | Exception
            try:
                made = make()
            except Exception as error:
                made = error
            except BaseException as error:  # which would end the thread, and have all others wait for ever
                made = PjlocalError(f"planning ended: {error!r}")
            take(made)

        self._jobs.put(job)

    def wait(self) -> None:
        """Wait until all that was given is done."""
        done = threading.Event()
        self._jobs.put(done.set)
        done.wait()

    def end(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while job := self._jobs.get():
            job()
