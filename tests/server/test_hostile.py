"""Whatever bytes come, the server answers in a line or hangs up, and goes on serving others."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import Served, serving
from waiting import PATIENCE_S, when

KEY = "a secret of mine"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
#: By its path, what a body must hold, and with which it is answered.
BODIES = {CHAT: '"messages": [{"role": "user", "content": "x"}]', COMPLETIONS: '"prompt": "x"'}
GOOD = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def served(tiny: Callable[[str], Path], server_environment: dict[str, str]) -> Iterator[Served]:
    environment = server_environment | {"PJLOCAL_API_KEY": KEY}
    with serving(tiny("llama"), environment, "--cors", "https://friend.example/") as made:
        made.http.headers["Authorization"] = f"Bearer {KEY}"
        yield made
        status, said = made.end()
        assert (status, said) == (0, made.greeting)


@pytest.fixture(autouse=True)
def goes_on(served: Served) -> Iterator[None]:
    yield
    assert served.http.post(CHAT, json=GOOD).status_code == 200


def raw(served: Served, data: bytes, hang_up: bool = False) -> bytes:
    """What is answered to bytes on a socket."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S) as client:
        client.sendall(data)
        if hang_up:
            return b""
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"])
def test_a_wrong_key_opens_nothing(served: Served, header: str) -> None:
    with httpx2.Client(base_url=served.url, headers={"Authorization": header} if header else {}) as client:
        for method, path in (("POST", CHAT), ("POST", COMPLETIONS), ("GET", "/v1/models"), ("GET", "/metrics")):
            reply = client.request(method, path)
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
        assert client.get("/health").status_code == 200


def refused(served: Served, path: str, content: bytes) -> dict[str, str]:
    """The error that a body gets."""
    reply = served.http.post(path, content=content)
    assert reply.status_code in (400, 404), (content[:80], reply.status_code, reply.text)
    error = reply.json()["error"]
    assert error["message"] and error["type"] == "invalid_request_error" and len(reply.text) < 2000
    return error


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"\0" * 100, b"{}", b"[" * 100_000, b'{"a":' * 100_000],
)
def test_an_invalid_body_is_refused_in_one_line(served: Served, path: str, content: bytes) -> None:
    refused(served, path, content)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        *((CHAT, f'"messages": {messages}') for messages in (
            "[]", "3", '[{"role": "user"}]', '[{"role": "root", "content": "x"}]',
            '[{"role": "user", "content": {"a": 1}}]', '[{"role": "user", "content": "\\ud800"}]',
        )),
        (CHAT, f'{BODIES[CHAT]}, "prompt": "x"'),
        *((COMPLETIONS, f'"prompt": {prompt}') for prompt in (
            "[]", "3", "null", '""', '{"a": 1}', '"\\ud800"', '["a", 3]', '["a", [1, "b"]]', "[[]]", "[1, 99999999]",
        )),
        (COMPLETIONS, f'{BODIES[COMPLETIONS]}, "messages": []'),
    ],
)  # fmt: skip
def test_empty_and_oversized_fields_are_refused_in_one_line(served: Served, path: str, text: str) -> None:
    refused(served, path, f"{{{text}}}".encode())


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("field", "says"),
    [
        ('"max_tokens": 1e999', "max_tokens"), ('"max_tokens": -2', "max_tokens"), ('"temperature": NaN', "JSON"),
        ('"seed": 99999999999999999999999', "seed"), ('"stop": [""]', "stop"), ('"logit_bias": {"cat": 1e300}', "bias"),
        (f'"model": "{"m" * 100_000}"', "100,000"), ('"pjlocal": {"prefer": "vivid"}', "pjlocal.prefer"),
        ('"pjlocal": {"aligner": "/etc/passwd"}', "server's files"), ('"pjlocal": {"grammar": "nonsense"}', "grammar"),
        ('"pjlocal": {"regex": "("}', "unclosed group"), ('"pjlocal": {"events": "yes"}', "pjlocal.events"),
    ],
    ids=["endless", "negative", "nan", "seed", "stop", "bias", "model", "prefer", "file", "grammar", "regex", "events"],
)  # fmt: skip
def test_a_field_that_cannot_be_is_refused_by_what_is_wrong_with_it(
    served: Served, path: str, field: str, says: str
) -> None:
    assert served.http.post(path, content=f'{{{BODIES[path]}, "max_tokens": 1}}').status_code == 200
    assert says in refused(served, path, f"{{{BODIES[path]}, {field}}}".encode())["message"]


def test_a_body_without_end_is_cut_off(served: Served) -> None:
    big = json.dumps(GOOD | {"user": "x" * (5 << 20)}).encode()
    assert served.http.post(CHAT, content=big).status_code == 413
    assert served.http.post(CHAT, content=iter([b" " * 65536] * 80)).status_code == 413  # of a length that nobody told


@pytest.mark.parametrize("hang_up", [True, False])
def test_half_a_request_does_no_harm(served: Served, hang_up: bool) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
    whole = f"{head}Content-Length: 1000\r\n\r\n".encode()
    for cut in (0, 1, 10, len(whole) - 2, len(whole)):
        raw(served, whole[:cut] + (b'{"messa' if cut == len(whole) else b""), hang_up)


def test_noise_does_no_harm(served: Served) -> None:
    noise = random.Random(7)
    for _ in range(50):
        raw(served, noise.randbytes(noise.randrange(1, 300)), hang_up=noise.random() < 0.5)
    answer = raw(served, b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert raw(served, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 100_000).startswith(b"HTTP/1.1 400")


def test_unknown_paths_get_an_error_in_openais_form(served: Served) -> None:
    for method, path, status in (
        ("GET", "/none", 404),
        ("POST", "/", 405),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/x", 404),
    ):
        reply = served.http.request(method, path)
        assert reply.status_code == status and reply.json()["error"]["message"].startswith(f"{method} {path}")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/messages", "Anthropic's Messages API"), ("/v1/messages/count_tokens", "Anthropic's Messages API"),
        ("/v1/embeddings", "embeddings are not served"), ("/v1/images/generations", "images are not served"),
        ("/v1/assistants", "assistants are not served"), ("/v1/files", "files are not kept"),
        ("/v1/responses/resp_1", "responses are not kept: send all messages"),
        ("/v1/audio/transcriptions", "speech"), ("/api/chat", "Ollama's API"), ("/api/generate", "Ollama's API"),
        ("/api/tags", "Ollama's API"), ("/api/blobs/sha256:0", "Ollama's API"), ("/api/embed", "Ollama's API"),
        ("/v1beta/models/gemini:generateContent", "Gemini"), ("/chat/completions", ""), ("/v1/v1/models", ""),
        ("/" + "x" * 60_000, ""),
    ],
)  # fmt: skip
def test_clients_of_other_protocols_get_a_hint_of_the_right_one(served: Served, path: str, says: str) -> None:
    for method in ("GET", "POST"):
        reply = served.http.request(method, path, content=b"{}")
        error = reply.json()["error"]["message"]
        assert reply.status_code == 404 and says in error and "OpenAI's API" in error
        assert "/v1/chat/completions" in error and "\n" not in error and len(error) < 600


def test_web_pages_of_others_may_not_ask(served: Served) -> None:
    for origin, status in (
        ("https://evil.example", 403), ("null", 403), ("https://friend.example", 200), (served.url, 200),
    ):  # fmt: skip
        reply = served.http.post(CHAT, json=GOOD, headers={"Origin": origin})
        assert reply.status_code == status
        assert ("--cors" in reply.text) == (origin == "https://evil.example"), "every local file has the origin null"
        allowed = reply.headers.get("access-control-allow-origin")
        assert allowed == (origin if origin == "https://friend.example" else None)
    preflight = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    assert httpx2.options(served.url + CHAT, headers=preflight).status_code == 200  # which carries no key
    preflight["Origin"] = "https://evil.example"
    assert httpx2.options(served.url + CHAT, headers=preflight).status_code == 400


def test_a_page_that_has_its_own_name_lead_to_this_machine_is_refused(served: Served) -> None:
    reply = served.http.post(CHAT, json=GOOD, headers={"Host": "evil.example"})
    assert reply.status_code == 403 and "loopback" in reply.text
    for host in ("localhost", f"localhost:{served.port}", "[::1]:80", "127.0.0.1"):
        assert served.http.get("/v1/models", headers={"Host": host}).status_code == 200


def whole(body: bytes, length: int | None = None, head: str = "") -> bytes:
    """A request as it goes over the line."""
    line = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n{head}"
    return f"{line}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


ABSURD: tuple[dict[str, Any], ...] = (
    {"max_tokens": 10**30}, {"max_tokens": -5}, {"n": 10**9}, {"seed": 10**40}, {"temperature": 1e308}, {"top_p": -1},
    {"stop": ["x"] * 10_000}, {"stop": "x" * 1_000_000}, {"messages": [{"role": "user", "content": "x" * 3_000_000}]},
    {"messages": [{"role": "user", "content": "x"}] * 50_000}, {"top_logprobs": 10**6, "logprobs": True},
    {"pjlocal": {"top_k": 10**12}}, {"pjlocal": {"lookahead": 10**6}}, {"pjlocal": {"prefer": ["vivid"] * 1000}},
    {"pjlocal": {"regex": "(a{1000}){1000}"}}, {"pjlocal": {"json_schema": "[" * 1000}}, {"model": "x" * 10**6},
    {"pjlocal": {"strength": "9" * 400}}, {"logit_bias": {str(n): 1 for n in range(10_000)}},
)  # fmt: skip


def hostile(choose: random.Random) -> tuple[bytes, bool]:
    """Bytes that are no good request, and whether who sends them hangs up without listening."""
    good = json.dumps(GOOD | {"max_tokens": 50, "stream": True}).encode()
    kind = choose.randrange(7)
    if kind == 0:  # half a request
        sent = whole(good)
        return sent[: choose.randrange(len(sent))], choose.random() < 0.5
    if kind == 1:  # a good one, for whose answer nobody waits
        return whole(good), True
    if kind == 2:
        return whole(json.dumps(GOOD | choose.choice(ABSURD)).encode()), choose.random() < 0.2
    if kind == 3:  # no JSON
        return whole(choose.randbytes(choose.randrange(1, 2000))), False
    if kind == 4:  # a good one with some bytes changed
        sent = bytearray(whole(good))
        for _ in range(choose.randrange(1, 6)):
            sent[choose.randrange(len(sent))] = choose.randrange(256)
        return bytes(sent), False
    if kind == 5:  # of another size than it says
        return whole(good, choose.choice((0, 1, len(good) - 1, len(good) + 1, 10**12, 10**30, -1))), False
    return choose.randbytes(choose.randrange(1, 300)), choose.random() < 0.5


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m" * 4_000_000}, {"model": "vivid+" * 600_000 + "vivid"}, {"pjlocal": {"m" * 4_000_000: 1}},
        {"pjlocal": {"prefer": ["v" * 4_000_000]}}, {"pjlocal": {"mode": "v" * 4_000_000}},
        {"messages": [1] * 1_300_000}, {"messages": [{}] * 1_000_000}, {"stop": [1] * 1_300_000},
        {"messages": [{"role": "user", "content": [1] * 1_300_000}]}, {"messages": GOOD["messages"] * 90_000},
        {"logit_bias": {str(n): "x" for n in range(200_000)}}, {str(n): 1 for n in range(300_000)},
        {"m" * 4_000_000: 1},
    ],
    ids=["model", "presets", "key", "preference", "mode", "numbers", "objects", "stops", "parts", "messages", "biases",
         "fields", "field"],
)  # fmt: skip
def test_a_body_of_megabytes_does_not_hold_up_others(served: Served, body: dict[str, Any]) -> None:
    def seconds() -> float:
        """Of the processor that the server has used."""
        used = Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

    content = json.dumps(GOOD | body)
    before = seconds()
    reply = served.http.post(CHAT, content=content)
    assert reply.status_code in (200, 400, 404) and len(reply.text) < 2000
    used, start = seconds() - before, time.process_time()
    json.loads(json.dumps([1] * 1_300_000))
    assert used < 0.2 + 4 * (time.process_time() - start), "as much of the processor as parsing four such bodies"


def test_a_path_or_search_of_any_length_is_refused_in_a_line(served: Served) -> None:
    for path in (
        "/v1/models/" + "m" * 60_000,
        "/v1/models/" + "vivid+" * 9000 + "vivid",
        "/api/chats?q=" + "a+" * 30_000,
    ):
        reply = served.http.get(path)
        error = reply.json()["error"]["message"]
        assert reply.status_code in (400, 404) and "at most 1000 characters" in error and len(error) < 200
    origin = "https://" + "x" * 60_000
    assert len(served.http.get("/v1/models", headers={"Origin": origin}).text) < 2000


@pytest.mark.slow
def test_a_thousand_hostile_inputs_do_no_harm(served: Served) -> None:
    def n_files() -> int:
        return len(os.listdir(f"/proc/{served.process.pid}/fd"))

    choose = random.Random(3)
    n_before = n_files()
    for number in range(1000):
        sent, hang_up = hostile(choose)
        with suppress(ConnectionError):  # the server may hang up before all is sent
            answer = raw(served, sent, hang_up)
            assert b"Traceback" not in answer and b" 500 " not in answer[:20], (number, sent[:300], answer[:300])
        if number % 50 == 0:
            assert served.http.post(CHAT, json=GOOD).status_code == 200
    when(lambda: not served.metric("pjlocal_answers_now") and n_files() <= n_before + 2)
