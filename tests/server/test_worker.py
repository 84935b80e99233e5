"""The thread that has the model, by itself."""

from __future__ import annotations

from typing import NoReturn

import pytest

from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import ModelError
from pjlocal.request import Request
from pjlocal.server.metrics import Metrics
from pjlocal.server.worker import Order, Stopping, Told, Worker


def make_orders(n: int, told: list[Told]) -> list[Order]:
    return [Order(Request(), "a text", None, told.append) for _ in range(n)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_ever_when_the_thread_ends_by_what_nobody_foresaw() -> None:
    def load() -> NoReturn:
        raise SystemExit  # which no handler of errors catches

    told: list[Told] = []
    worker = Worker(load, 4, None, Interrupt(), Metrics())
    worker.start()
    worker.submit(make_orders(3, told))
    worker.join(10)
    assert [type(one) for one in told] == [Stopping] * 3
    assert not worker.alive
    with pytest.raises(Stopping):
        worker.submit(make_orders(1, told))


def test_what_cannot_be_loaded_is_told_and_tried_again_for_the_next() -> None:
    def load() -> NoReturn:
        raise ModelError("it is gone")

    told: list[Told] = []
    worker = Worker(load, 2, None, Interrupt(), Metrics())
    worker.start()
    for n in (1, 2):
        worker.submit(make_orders(1, told))
        while len(told) < n:
            pass
    assert [str(one) for one in told] == ["it is gone"] * 2 and worker.alive
    worker.stop(0.0)
    worker.join(10)
    assert not worker.alive
