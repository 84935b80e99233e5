"""The service by itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakSet

import pytest
from served import ENGINE
from waiting import PATIENCE_S, when

from pjlocal import Sampling
from pjlocal.engine.filters import FilterChain
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import ModelError, NoRoom
from pjlocal.events import Result
from pjlocal.prompting.prompt import Message
from pjlocal.request import Request, place
from pjlocal.server import loaded as loaded_module
from pjlocal.server.jobs import Busy, Job, News, Raw, Stopping
from pjlocal.server.loaded import LoadedModel
from pjlocal.server.service import Service
from pjlocal.settings import Generation, Prompting


def make_jobs(n: int, news: list[News]) -> list[Job]:
    return [Job(Request(), Raw("a text"), news.append) for _ in range(n)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_jobs_end_if_the_thread_dies_of_an_unexpected_error() -> None:
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


def test_more_answers_than_places_are_refused_as_such_also_while_the_service_is_busy() -> None:
    """Only then can a command load the model itself instead of waiting."""
    service = Service(lambda interrupt: pytest.fail("it is not started"), 2, None, Interrupt())
    service.submit(make_jobs(2, []))
    with pytest.raises(Busy):
        service.submit([Job(Request())])
    with pytest.raises(NoRoom, match="at most 2 answers at once"):
        service.submit([Job(Request(place(["vivid"]), Generation(best=3)))])


def test_a_failed_load_is_reported_and_tried_again_for_the_next_job() -> None:
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


@pytest.mark.parametrize(("options", "n_sequences"), [({}, 2 * 4), ({"n_views": 2}, 2 * 2)])
def test_memory_is_reserved_for_the_views_of_as_many_answers(model: Path, options: Any, n_sequences: int) -> None:
    loaded = LoadedModel(model, ENGINE, 2, Interrupt(), Interrupt(), **options)
    with closing(loaded):
        assert len([*loaded.engine.lanes]) == n_sequences


@pytest.mark.parametrize("n_missing", [-1, 100, 200])
def test_a_chat_of_any_length_is_shortened_and_never_refused(model: Path, n_missing: int) -> None:
    """Also if the settings' texts alone make it too long to be tokenized."""
    with closing(LoadedModel(model, ENGINE, 1, Interrupt(), Interrupt())) as loaded:
        old = "x" * (loaded_module._MOST_PER_TOKEN * loaded.n_ctx - n_missing)
        chat = [Message("user", old), Message("assistant", "Yes."), Message("user", "Why?")]
        settings = Request(prompting=Prompting(system="Be " + 30 * "very " + "kind."))
        assert loaded.prepare(Job(settings, chat, shortens=True)).first == 1


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_llama_cpps_samplers_are_freed_with_their_answer_and_not_by_pythons_garbage_collector(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains: WeakSet[FilterChain] = WeakSet()
    make = FilterChain.__init__

    def noted(self: FilterChain, *args: Any, **options: Any) -> None:
        chains.add(self)
        make(self, *args, **options)

    monkeypatch.setattr(FilterChain, "__init__", noted)
    news: list[News] = []
    interrupt = Interrupt()
    service = Service(partial(LoadedModel, model, ENGINE, 2, interrupt), 8, None, interrupt)
    service.start()
    for mode in ("judge", "both", "rewrite"):
        for max_tokens in (4, 9000):
            generation = Generation(mode=mode, max_tokens=max_tokens, ignore_end=True)
            job = Job(Request(place(["vivid", "creative"]), generation), [Message("user", "Why?")], news.append)
            service.submit([job])
            if max_tokens == 9000:
                when(lambda: any(not isinstance(one, Exception) for one in news))
                service.cancel([job])
            else:
                when(lambda: any(isinstance(one, Result | Exception) for one in news))
            assert not any(isinstance(one, Exception) for one in news), news
            news.clear()
    when(lambda: not chains)
    service.end(0.0)
    service.join(PATIENCE_S)


def test_the_best_answer_so_far_is_given_if_it_is_stopped_while_the_next_one_waits_for_a_place(model: Path) -> None:
    """One of two places is taken, so the second answer to choose from begins when the first one is finished."""
    interrupt = Interrupt()
    service = Service(partial(LoadedModel, model, ENGINE, 2, interrupt), 8, None, interrupt)
    news: list[News] = []

    def stop_between(_: News) -> None:
        if best.answer and best.answer.parts[0].is_done:
            service.stop([best])

    views, ask = place(["vivid", "creative"]), [Message("user", "Why?")]
    letters = Sampling(regex="a*")  # each step has news: no token is held back as a part of a character
    other = Job(Request(views, Generation(max_tokens=9000, ignore_end=True), letters), ask, stop_between)
    both = Generation(mode="both", best=2, max_tokens=4, ignore_end=True)
    best = Job(Request(views, both), ask, news.append)
    service.submit([other, best])
    service.start()
    when(lambda: any(isinstance(one, Result | Exception) for one in news))
    service.end(0.0)
    service.join(PATIENCE_S)
    *_, tokens, result = news
    assert isinstance(result, Result) and isinstance(tokens, list)
    assert result.finish_reason == "interrupted"
    assert [bool(each.result.text) for each in result.candidates] == [True, False]
    assert "".join(token.event.text for token in tokens) == result.text == result.candidates[0].result.text != ""
