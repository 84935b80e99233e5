"""A long prompt does not hold up the answers that are being written, whichever way it comes.

Counted in steps of the answer that is being written, not in seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import Served, streamed
from waiting import when

from pjlocal import Engine, Generation, PersonaJudge
from pjlocal.request import Request, place
from pjlocal.runtime_socket import socket_path

pytestmark = pytest.mark.usefixtures("here")

ENGINE = Engine(n_threads=1, n_ctx=32768, n_batch=512)
OPTIONS = ("--ctx", "32768", "--parallel", "2", "--batch-size", "512")
LONG = "word " * 800  # 4,000 tokens: eight whole batches
N_TOKENS, PIECE = 4000, 32


class Stream:
    """An answer that is being streamed; its events are counted."""

    def __init__(self, served: Served) -> None:
        self.n = 0
        self._asked = {
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 30_000,
            "stream": True,
            "pjlocal": {"ignore_end": True},
        }
        self._url = f"{served.url}/v1/chat/completions"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with httpx2.stream("POST", self._url, json=self._asked, timeout=60) as reply:
            for line in reply.iter_lines():
                self.n += line.startswith("data:")
                if self._ended.is_set():
                    return

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def streaming(served: Served) -> Iterator[Stream]:
    stream = Stream(served)
    try:
        when(lambda: stream.n > 5)
        yield stream
    finally:
        stream.close()
        when(lambda: served.metric("pjlocal_answers_now") == 0)


SHORT: dict[str, Any] = {"max_tokens": 5, "seed": 1, "pjlocal": {"ignore_end": True}}


@pytest.mark.slow
def test_a_stream_continues_during_a_long_prompt_over_http(served: Served) -> None:
    with streaming(served) as stream:
        fed, decodes = served.metrics("pjlocal_tokens_fed_total", "pjlocal_decodes_total")
        text = served.text(LONG, **SHORT)
        n_fed, n_decodes = served.metrics("pjlocal_tokens_fed_total", "pjlocal_decodes_total")
        assert n_fed - fed > N_TOKENS and n_decodes - decodes > 2 * N_TOKENS / PIECE
        assert stream.n > N_TOKENS / PIECE
    assert len(text)


@pytest.mark.slow
def test_alone_it_is_read_in_whole_batches(served: Served) -> None:
    decodes = served.metric("pjlocal_decodes_total")
    served.text("other " + LONG, **SHORT)
    assert served.metric("pjlocal_decodes_total") - decodes < N_TOKENS / 512 + 2 + 5


def run(model: Path, prompt: str, timeout: float = 60, **changes: Any) -> str:
    """The text that `pjlocal run` gets by the socket."""
    request = Request(place(("vivid", "creative")), Generation(seed=1, max_tokens=5, ignore_end=True))
    request = request.replace(**changes)
    asked = {"request": request.as_dict(), "messages": [{"role": "user", "content": prompt}]}
    transport = httpx2.HTTPTransport(uds=str(socket_path(model, ENGINE)))
    with httpx2.Client(transport=transport, base_url="http://pjlocal", timeout=timeout) as client:
        *_, end = streamed(client.post("/api/answers", json=asked).text.splitlines())
    text: str = end["result"]["text"]
    return text


@pytest.mark.slow
def test_a_stream_continues_during_a_long_prompt_from_the_command_line(
    served: Served, model: Path, tiny: Callable[[str], Path]
) -> None:
    with PersonaJudge(model, prefer=["vivid", "creative"], engine=ENGINE) as judge:
        alone = judge(LONG, seed=1, max_tokens=5, ignore_end=True).text
    for stream_is_there in (False, True):
        if stream_is_there:
            with streaming(served) as stream:
                n = stream.n
                assert run(model, "again " + LONG, placement="system")  # else what both begin with is read once
                assert stream.n - n > 2 * N_TOKENS / PIECE, "two views, of which each reads half a piece"
        else:
            assert run(model, LONG) == alone


@pytest.mark.slow
def test_other_answers_start_while_a_prompt_from_the_command_line_is_read(served: Served, model: Path) -> None:
    """And who gave up is not waited for."""
    texts: list[str] = []
    thread = threading.Thread(target=lambda: texts.append(run(model, "more " + LONG * 4)))
    thread.start()
    try:
        when(lambda: served.metric("pjlocal_answers_now") == 1)
        n = 0
        while not texts:
            assert served.text(f"hello {n}", **SHORT)
            n += 1
        assert n > 1, "while a prompt of 32 whole batches was read"
    finally:
        thread.join()


def test_a_client_that_disconnects_while_its_prompt_is_read_frees_its_place(served: Served, model: Path) -> None:
    with streaming(served) as stream:
        with suppress(httpx2.TimeoutException):
            run(model, "less " + LONG * 3, timeout=0.3)
        when(lambda: served.metric("pjlocal_answers_now") == 1)
        n = stream.n
        when(lambda: stream.n > n + 5)
