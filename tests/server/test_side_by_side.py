"""Several clients at once: each gets the text that it gets alone, or is told to come again."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from served import Served, serving
from waiting import when

OPTIONS = ("--ctx", "32768", "--parallel", "2", "--queue", "1", "--batch-size", "32")  # rounds as `alone` does
ENDLESS = 30_000  # tokens: seconds even of a tiny model, however fast the machine


def fields(**changes: Any) -> dict[str, Any]:
    own = {"ignore_end": True} | changes.pop("pjlocal", {})
    return {"seed": 1, "max_tokens": 20, "pjlocal": own} | changes


def body(**changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], **fields(**changes)}


def busy(served: Served, n: int) -> Callable[[], bool]:
    return lambda: served.metric("pjlocal_answers_now") == n


def test_answers_side_by_side_are_what_they_are_alone(served: Served, alone: Callable[..., str]) -> None:
    wanted = [("cats", ()), ("dogs", ("vivid", "creative")), ("rain", ("vivid", "concise"))]
    with ThreadPoolExecutor(3) as clients:
        own = [fields(seed=2, max_tokens=60, pjlocal={"prefer": list(prefer)}) for _, prefer in wanted]
        texts = [*clients.map(lambda one, how: served.text(one[0], **how), wanted, own)]
    assert texts == [alone(p, prefer, seed=2, max_tokens=60, ignore_end=True) for p, prefer in wanted]


@contextmanager
def endless(served: Served) -> Iterator[httpx2.Response]:
    """An answer that is being streamed while the block lasts; then its client hangs up."""
    asked = body(max_tokens=ENDLESS, stream=True)
    with httpx2.stream("POST", f"{served.url}/v1/chat/completions", json=asked, timeout=60) as reply:
        yield reply


def test_one_batch_decodes_the_tokens_of_all_answers(served: Served) -> None:
    with endless(served) as one, endless(served) as other:
        assert next(lines := one.iter_lines()) and next(others := other.iter_lines())
        counters = ("pjlocal_tokens_fed_total", "pjlocal_decodes_total")
        fed, decodes = served.metrics(*counters)
        when(lambda: served.metric("pjlocal_decodes_total") > decodes + 50)
        n_fed, n_decodes = served.metrics(*counters)
        assert (n_fed - fed) / (n_decodes - decodes) == pytest.approx(2, abs=0.1)
        assert lines and others
    when(busy(served, 0))


@pytest.mark.slow
def test_a_client_that_hangs_up_frees_its_place(served: Served) -> None:
    with endless(served) as reply:
        assert next(lines := reply.iter_lines()) and lines
        when(busy(served, 1))
    when(busy(served, 0))
    asked = json.dumps(body(max_tokens=ENDLESS)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(asked)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(head.encode() + asked)
        when(busy(served, 1))
    when(busy(served, 0))
    decodes = served.metric("pjlocal_decodes_total")
    assert served.text(**fields(max_tokens=3)) and served.metric("pjlocal_decodes_total") <= decodes + 4
    assert served.metric('pjlocal_answers_total{finish_reason="cancelled"}') >= 2


def test_a_waiting_client_that_disconnects_leaves_the_queue(served: Served) -> None:
    with endless(served) as one, endless(served) as other, endless(served) as third:
        when(busy(served, 3))
        third.close()
        when(busy(served, 2))
        assert one.status_code == other.status_code == 200
    when(busy(served, 0))


def test_a_request_beyond_the_queue_is_asked_to_retry(served: Served) -> None:
    with endless(served), endless(served), endless(served):
        when(busy(served, 3))
        refused = served.http.post("/v1/chat/completions", json=body())
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        with pytest.raises(openai.RateLimitError):
            served.openai().chat.completions.create(model="llama", messages=[{"role": "user", "content": "hello"}])
        assert served.http.get("/health").status_code == 200
    when(busy(served, 0))
    assert served.text(**fields())


def test_a_request_for_more_answers_than_places_is_refused_without_retry(served: Served) -> None:
    reply = served.http.post("/v1/chat/completions", json=body(n=4))
    assert reply.status_code == 400 and "at most 3 answers at once (not 4)" in reply.text
    seven = {"prefer": ["vivid", "creative", "formal", "simple", "correct", "concise", "warm:2"]}
    reply = served.http.post("/v1/chat/completions", json=body(pjlocal=seven))
    assert reply.status_code == 400 and "9 views" in reply.text and "--parallel" in reply.text


def test_a_continued_conversation_is_not_read_again(served: Served) -> None:
    said: list[dict[str, str]] = [{"role": "user", "content": "Tell me all about the sun and the rain."}]
    fed = served.metric("pjlocal_tokens_fed_total")
    first = served.text(said, **fields())
    n_first = served.metric("pjlocal_tokens_fed_total") - fed
    said += [{"role": "assistant", "content": first}, {"role": "user", "content": "More."}]
    held = served.metric("pjlocal_prompt_tokens_held_total")
    served.text(said, **fields())
    assert served.metric("pjlocal_prompt_tokens_held_total") - held > n_first - 20 - 5  # its prompt, at the least


def test_a_request_cannot_enlarge_what_the_server_has_in_memory(served: Served) -> None:
    def resident_mib() -> int:
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024

    text, before = served.text(**fields()), resident_mib()
    assert served.text(**fields(pjlocal={"lookahead": 31})) == text
    assert resident_mib() < before + 16  # a second context takes 70 MiB


def test_a_broken_answer_does_not_affect_the_others(
    tiny: Callable[[str], Path], server_environment: dict[str, str]
) -> None:
    with serving(tiny("broken_word"), server_environment, "-p", "vivid", "-p", "concise", "--mode", "both") as served:

        def ask(prompt: str) -> tuple[int, str]:
            asked = body(messages=[{"role": "user", "content": prompt}], max_tokens=30)
            reply = served.http.post("/v1/chat/completions", json=asked)
            if reply.status_code == 200:
                return 200, reply.json()["choices"][0]["message"]["content"]
            return reply.status_code, reply.json()["error"]["message"]

        assert ask("hello")[0] == 200
        prompts = ["hello", "Q", "Q and more of it " * 9, "hello"]
        with ThreadPoolExecutor(4) as clients:
            replies = list(clients.map(ask, prompts))
        for reply in replies[1:3]:
            assert reply[0] == 500 and reply[1].startswith("the model computes invalid logits")
        for status, text in (
            replies[0],
            replies[3],
            ask("hello"),
        ):  # the KV cache of one beside others is kept for the next
            assert status == 200 and text, "invalid logits of others would be a 500; the text may round differently"
        status, said = served.end()
        assert status == 0 and "Traceback" not in said
