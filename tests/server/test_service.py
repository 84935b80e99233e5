"""The service by itself."""

from __future__ import annotations

from typing import NoReturn

import pytest
from waiting import PATIENCE_S, when

from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import ModelError
from pjlocal.request import Request
from pjlocal.service import Job, News, Service, Stopping


def make_jobs(n: int, news: list[News]) -> list[Job]:
    return [Job(Request(), "a text", news.append) for _ in range(n)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_ever_when_the_thread_ends_by_what_nobody_foresaw() -> None:
    def load(interrupt: Interrupt) -> NoReturn:
        raise SystemExit  # which no handler of errors catches

    news: list[News] = []
    service = Service(load, 4, None, Interrupt())
    service.start()
    service.submit(make_jobs(3, news))
    service.join(PATIENCE_S)
    assert [type(one) for one in news] == [Stopping] * 3
    assert not service.is_open
    with pytest.raises(Stopping):
        service.submit(make_jobs(1, news))


def test_what_cannot_be_loaded_is_news_and_tried_again_for_the_next() -> None:
    def load(interrupt: Interrupt) -> NoReturn:
        raise ModelError("it is gone")

    news: list[News] = []
    service = Service(load, 2, None, Interrupt())
    service.start()
    for n in (1, 2):
        service.submit(make_jobs(1, news))
        when(lambda n=n: len(news) == n)
    assert [str(one) for one in news] == ["it is gone"] * 2 and service.is_open
    service.end(0.0)
    service.join(PATIENCE_S)
    assert not service.is_open
