"""A thread that decodes one view while another decodes the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


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
