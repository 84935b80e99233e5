"""Reference counts for C or system objects with several Python users."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from ..errors import UsageError


class Lifetime:
    """A count of an object's users.  The last one to release it frees the object.  Callable from any thread.

    At the end of the process nothing is freed, because other threads may still be using the object.

    Args:
        name: the object's name, for the error that a user of a freed object gets.
        free: frees the object; it is called once.
    """

    def __init__(self, name: str, free: Callable[[], None]) -> None:
        self._name = name
        self._free = free
        self._n_users = 0
        self._lock = threading.RLock()  # the thread that holds the lock may garbage collect a user
        self.is_over = False

    def check(self) -> None:
        """Raise UsageError if the object is freed."""
        if self.is_over:
            raise UsageError(f"{self._name} is closed: make a new one")

    def acquire(self) -> None:
        """Count one more user, which must call `release` once.  Raises UsageError if the object is freed."""
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
        """Count a user until the returned function is called or the user is garbage collected."""
        self.acquire()
        let_go = weakref.finalize(user, self.release)
        let_go.atexit = False
        return let_go
