"""Objects of C or of the system that several Python objects use: freed once, when the last user has let go."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from ..errors import UsageError


class Lifetime:
    """Counts the users of an object and frees it with the last.  Callable from any thread.

    At the end of the process nothing is freed: other threads may still be using it.

    Args:
        name: of the object, for the error of a late user.
        free: frees the object; called once.
    """

    def __init__(self, name: str, free: Callable[[], None]) -> None:
        self._name = name
        self._free = free
        self._n_users = 0
        self._lock = threading.RLock()  # a user may be garbage collected by the thread that holds it
        self.is_over = False

    def check(self) -> None:
        """Raises UsageError where the object is freed."""
        if self.is_over:
            raise UsageError(f"{self._name} is closed: make another")

    def acquire(self) -> None:
        """Count one user more, who calls `release` once.  Raises UsageError where the object is freed."""
        with self._lock:
            self.check()
            self._n_users += 1

    def release(self) -> None:
        with self._lock:
            self._n_users -= 1
            if not self._n_users:
                self.is_over = True
                self._free()

    def hold(self, user: object) -> weakref.finalize[[], object]:
        """Count a user until the returned function is called, or the user is garbage collected."""
        self.acquire()
        let_go = weakref.finalize(user, self.release)
        let_go.atexit = False
        return let_go
