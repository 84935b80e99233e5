"""`/api/answers`: an answer as a stream of token events, by TCP and by the Unix socket, as it is without a server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import ENGINE, LONG, REQUESTS, Served, make_request, no_times, serving, streamed
from waiting import when

from pjlocal import PersonaJudge, Sampling, TokenEvent
from pjlocal.events import Result
from pjlocal.request import Request
from pjlocal.runtime_socket import socket_path

pytestmark = pytest.mark.usefixtures("here")

OPTIONS = ()


@pytest.fixture
def by_socket(served: Served, model: Path) -> Iterator[httpx2.Client]:
    path = socket_path(model, ENGINE)
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://pjlocal", timeout=60) as client:
        yield client


def body(request: Request, prompt: str = "hello", **more: Any) -> dict[str, Any]:
    return {"request": request.as_dict(), "messages": [{"role": "user", "content": prompt}], **more}


def ask(client: httpx2.Client, asked: dict[str, Any]) -> list[dict[str, Any]]:
    reply = client.post("/api/answers", json=asked)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return [*streamed(reply.text.splitlines())]


@pytest.mark.parametrize(
    "wanted",
    [
        *REQUESTS,
        make_request(["vivid", "creative"], mode="judge", schedule="reference", decoding="greedy"),
        make_request(["vivid", "creative"], mode="rewrite"),
    ],
)
def test_each_event_and_the_result_are_those_of_a_model_loaded_here(
    served: Served, by_socket: httpx2.Client, model: Path, wanted: Request
) -> None:
    prompt = "hello" if wanted.generation.mode == "rewrite" else LONG  # which has room twice
    with PersonaJudge(model, request=wanted, engine=ENGINE) as judge:
        expected = judge.stream(prompt)
        events = [*expected]
        for client in (by_socket, served.http):  # nor does it matter what was read before
            head, *tokens, end = ask(client, body(wanted, prompt))
            head = head["head"]
            assert (head["mode"], head["labels"]) == (expected.mode, expected.labels)
            assert (tuple(head["pushing"]), head["layout"]) == (expected.pushing, expected.layout)
            assert Request().restore(head["request"]) == wanted
            assert [TokenEvent.from_dict(event) for event in head["drafted"]] == expected.drafted
            if wanted.generation.schedule == "reference":  # another way to the same text
                assert [one["event"]["text"] for one in tokens] == [event.text for event in events]
            else:
                assert [TokenEvent.from_dict(one["event"]) for one in tokens] == events
            assert tokens[-1]["statistics"]["completion_tokens"] == expected.statistics.completion_tokens
            assert no_times(Result.from_whole(end["result"]).as_dict()) == no_times(expected.result.as_dict())


def test_a_conversation_keeps_its_answers_tokens_and_drops_turns_that_do_not_fit(served: Served) -> None:
    request = make_request(["vivid"], max_tokens=5)
    said: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
    _, *tokens, end = ask(served.http, body(request) | {"messages": said})
    ids = [token["event"]["id"] for token in tokens]
    said.append({"role": "assistant", "content": end["result"]["text"], "tokens": ids})
    said.append({"role": "user", "content": "go on"})
    held = served.metric("pjlocal_prompt_tokens_held_total")
    ask(served.http, body(request) | {"messages": said, "shortens": True})
    assert served.metric("pjlocal_prompt_tokens_held_total") - held > 20
    said[:0] = [{"role": "user", "content": "long " * 100}, {"role": "assistant", "content": "yes"}]
    for first in (0, 1):
        head = ask(served.http, body(request) | {"messages": said, "shortens": True, "first": first})[0]["head"]
        assert head["first"] == 1
    (error,) = ask(served.http, body(request) | {"messages": said})
    assert "too long" in error["error"] and error["status"] == 2 and "--ctx" in error["error"]


def test_a_stopped_answer_has_a_result_and_a_disconnected_client_frees_its_place(big: Served) -> None:
    endless = body(make_request(["vivid"], max_tokens=30_000))
    with big.http.stream("POST", "/api/answers", json=endless) as reply:
        lines = streamed(reply.iter_lines())
        for _ in range(5):
            next(lines)
        stop = f"/api/answers/{reply.headers['X-Pjlocal-Answer']}/stop"
        assert big.http.post(stop).status_code == 204
        *_, end = lines
    assert end["result"]["finish_reason"] == "interrupted" and end["result"]["statistics"]["completion_tokens"] >= 4
    when(lambda: big.http.post(stop).status_code == 404)
    with big.http.stream("POST", "/api/answers", json=endless) as reply:
        next(reply.iter_lines())
    when(lambda: big.metric("pjlocal_answers_now") == 0)


@pytest.mark.slow
def test_an_answer_of_a_chat_is_followed_by_several_clients_and_outlives_them_for_a_while(big: Served) -> None:
    """The page is loaded anew, or opened in a second tab."""
    ends = {"max_tokens": 40, "ignore_end": True, "draft_prefer": ["vivid"]}
    asked = {"chat": {"question": "Hello", "lasts": True}, "settings": ends}
    *_, end = ask(big.http, asked)
    assert end["result"]["finish_reason"] == "length"
    chat = big.http.get("/api/chats").json()["chats"][0]["id"]
    follow = f"/api/chats/{chat}/answer"
    assert big.http.get(follow).status_code == 204, "nothing is written there"
    asked["chat"] |= {"id": chat, "question": "Go on"}
    asked["settings"] = ends | {"max_tokens": 30_000}
    with big.http.stream("POST", "/api/answers", json=asked) as reply:
        heard = [next(lines) for lines in [streamed(reply.iter_lines())] for _ in range(20)]
    with big.http.stream("GET", follow) as first, big.http.stream("GET", follow) as second:
        streams = [streamed(one.iter_lines()) for one in (first, second)]
        question = next(streams[0])["asked"]
        assert question == next(streams[1])["asked"]
        assert (question["question"], question["settings"]["preferences"]["a"]) == ("Go on", ["vivid"])
        assert [next(streams[0]) for _ in heard] == heard, "from its beginning"
        number = first.headers["X-Pjlocal-Answer"]
        assert number == reply.headers["X-Pjlocal-Answer"] and question["turn"] == heard[0]["head"]["turn"]
        assert big.http.post(f"/api/answers/{number}/stop").status_code == 204
        rest = [[*lines] for lines in streams]
    assert rest[0] == rest[1][len(heard) :] and rest[0][-1]["result"]["finish_reason"] == "interrupted"
    with big.http.stream("POST", "/api/answers", json=asked) as reply:
        next(reply.iter_lines())
        when(lambda: big.metric("pjlocal_answers_now") == 1)
    when(lambda: big.metric("pjlocal_answers_now") == 0)


@pytest.mark.slow
def test_while_a_prompt_is_read_the_stream_says_how_much_of_it(
    smollm2: Path, server_environment: dict[str, str]
) -> None:
    asked = body(make_request(["vivid", "creative"], max_tokens=2), "word " * 1000)  # seconds
    with (
        serving(smollm2, server_environment, "--ctx", "8192", "--batch-size", "64") as served,
        served.http.stream("POST", "/api/answers", json=asked) as reply,
    ):
        lines = [line for line in reply.iter_lines() if line]
    reads = [tuple(map(int, re.findall(r"\d+", line))) for line in lines if line.startswith(": read ")]
    assert reads == sorted(reads) and reads[0][0] < reads[-1][0] <= reads[-1][1], lines[:9]


@pytest.mark.slow
def test_an_answer_that_waits_says_that_it_is_alive_and_a_full_queue_refuses_it(
    model: Path, server_environment: dict[str, str]
) -> None:
    endless = body(make_request(["vivid", "creative"], max_tokens=200_000))
    options = ("--ctx", "262144", "--parallel", "1", "--queue", "1")
    with (
        serving(model, server_environment, *options) as full,
        full.http.stream("POST", "/api/answers", json=endless),
        full.http.stream("POST", "/api/answers", json=endless) as waiting,
    ):
        refused = full.http.post("/api/answers", json=endless)
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert next(waiting.iter_lines()) == ": alive"


def test_the_model_and_a_request_are_described_without_an_answer(served: Served, by_socket: httpx2.Client) -> None:
    about = by_socket.get("/api/model").json()
    assert about["name"] == "llama" and about["context_limit"] == 512
    good = make_request(["vivid"]).as_dict()
    assert by_socket.post("/api/check", json={"request": good}).json() is None
    wrong = make_request(["vivid"], sampling=Sampling(regex="(")).as_dict()
    refused = by_socket.post("/api/check", json={"request": wrong})
    assert refused.json()["status"] == 2 and "regular expression" in refused.json()["error"]


def test_tcp_needs_the_token_and_a_local_name_and_the_socket_neither(served: Served, by_socket: httpx2.Client) -> None:
    asked = body(make_request(max_tokens=2))
    for path, sent in (("/api/answers", asked), ("/api/check", {"request": asked["request"]})):
        assert httpx2.post(served.url + path, json=sent).status_code == 401
        assert served.http.post(path, json=sent, headers={"Host": "evil.example"}).status_code == 403
        assert by_socket.post(path, json=sent, headers={"Host": "evil.example"}).status_code == 200
    assert httpx2.get(f"{served.url}/api/model").status_code == 401


WRONG: list[dict[str, Any]] = [
    {}, {"messages": []}, {"messages": [{"role": "user", "content": "x"}], "chat": {"question": "x"}},
    {"messages": [{"role": "assistant", "content": "x"}]}, {"messages": [{"role": "user", "content": 3}]},
    {"messages": [{"role": "user", "content": "x", "tokens": ["x"]}]}, {"messages": [1] * 100_000},
    {"messages": [{"role": "user", "content": "x"}], "request": {"generation": 3}},
    {"messages": [{"role": "user", "content": "x"}], "request": {"generation": {"max_tokens": "x"}}},
    {"messages": [{"role": "user", "content": "x"}], "request": {}, "settings": {}},
    body(make_request(["@/etc/passwd"])), body(make_request(aligner="smollm2")), body(make_request(["vvid"])),
    body(make_request(lora=("x.gguf",))), {"messages": [{"role": "user", "content": "x"}], "settings": {"mode": 3}},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_wrong_requests_are_refused_in_one_line(served: Served, by_socket: httpx2.Client, wrong: Any) -> None:
    reply = by_socket.post("/api/answers", json=wrong)
    if reply.status_code == 200:
        (error,) = streamed(reply.text.splitlines())
        assert error["status"] == 2 and "\n" not in error["error"]
    else:
        assert reply.status_code == 400 and "\n" not in reply.json()["error"]["message"]
    assert served.metric("pjlocal_errors_total") == 0, "none of it is a fault of the server's"


def test_the_page_sends_the_settings_that_it_sets(served: Served) -> None:
    asked = {"messages": [{"role": "user", "content": "hello"}], "settings": {"prefer": ["vivid"], "max_tokens": 3}}
    head, *_, end = ask(served.http, asked)
    assert head["head"]["preferences"] == {"a": ["vivid"], "b": []}
    assert end["result"]["statistics"]["completion_tokens"] <= 3


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "n_threads"), [("judge", 1), ("judge", 2), ("both", 2)])
@pytest.mark.parametrize("kind", ["llama", "smollm2"])
def test_a_server_gives_the_bytes_of_run_for_any_threads_and_cache(
    request: pytest.FixtureRequest,
    model: Path,
    server_environment: dict[str, str],
    kind: str,
    mode: str,
    n_threads: int,
) -> None:
    """With two threads, two views have a lane each, and more are in one batch."""
    path = request.getfixturevalue("smollm2") if kind == "smollm2" else model
    engine, wanted = ENGINE.replace(n_threads=n_threads), make_request(["vivid", "creative"], mode=mode, max_tokens=40)
    prompts = ["Why do cats purr?", LONG, "Why do dogs bark? Tell me all about it.", f"{LONG}?"]
    expected = []
    for prompt in prompts:
        with PersonaJudge(path, request=wanted, engine=engine) as judge:
            expected.append([*judge.stream(prompt)])
    with serving(path, server_environment, "--threads", str(n_threads), "--mode", mode):
        transport = httpx2.HTTPTransport(uds=str(socket_path(path, engine)))
        with httpx2.Client(transport=transport, base_url="http://pjlocal", timeout=60) as client:
            for prompt, events in [*zip(prompts, expected, strict=True)] * 2:
                head, *tokens, _ = ask(client, body(wanted, prompt))
                assert head["head"]["layout"] == ("contexts" if (mode, n_threads) == ("judge", 2) else "batched")
                assert [TokenEvent.from_dict(one["event"]) for one in tokens] == events


@pytest.mark.slow
@pytest.mark.parametrize("hangs_up", [False, True], ids=["stopped", "hung up"])
def test_a_prompt_that_is_read_in_one_long_batch_is_stopped_before_the_batch_is_over(
    smollm2: Path, server_environment: dict[str, str], hangs_up: bool
) -> None:
    asked = body(make_request(["vivid", "creative"]), "word " * 3500)  # seconds, on any machine
    with (
        serving(smollm2, server_environment, "--ctx", "8192", "--batch-size", "4096") as served,
        served.http.stream("POST", "/api/answers", json=asked) as reply,
    ):
        time.sleep(0.5)
        if hangs_up:
            reply.close()
            when(lambda: served.metric("pjlocal_answers_now") == 0)
        else:
            served.http.post(f"/api/answers/{reply.headers['X-Pjlocal-Answer']}/stop")
            *_, end = streamed(reply.iter_lines())
            assert end["result"]["finish_reason"] == "interrupted" and not end["result"]["text"]
        assert served.metric("pjlocal_tokens_fed_total") == 0
        if hangs_up:
            short = body(make_request(max_tokens=2), "hello")
            assert ask(served.http, short)[-1]["result"]["finish_reason"] == "length", "the next one is written"
