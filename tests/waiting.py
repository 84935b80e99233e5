"""Waiting for a condition, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds after which what a test waits for is taken never to come.
PATIENCE_S = 60


def when(condition: Callable[[], object], says: Callable[[], object] = lambda: "it never came") -> None:
    """Wait until it holds; ``says`` describes what there is instead, where it never does."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, says()
        time.sleep(0.01)
