"""A judge behind a URL, tested with a server on loopback that answers, refuses, stalls, or sends invalid replies."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from evaluated import make_answer
from waiting import PATIENCE_S

from pjlocal.engine.interrupt import Interrupt, Interrupted
from pjlocal.errors import ModelError, UsageError
from pjlocal.evaluation import endpoint
from pjlocal.evaluation.endpoint import EndpointJudge
from pjlocal.evaluation.judges import Opinion
from pjlocal.evaluation.question import SYSTEM, Question

KEY = "sk-very-secret-0123456789"


def reply(text: str | None = "1", top: dict[str, float] | None = None) -> bytes:
    listed = [{"token": token, "logprob": value} for token, value in (top or {}).items()]
    logprobs = {"content": [{"token": text, "logprob": 0, "top_logprobs": listed}]} if top else None
    return json.dumps({"choices": [{"message": {"content": text}, "logprobs": logprobs}]}).encode()


class Server(ThreadingHTTPServer):
    """Answers what `script` says to each request; keeps the requests."""

    daemon_threads = True
    script: Callable[[Server, BaseHTTPRequestHandler, dict[str, Any]], None]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.paths: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.headers.append(self.headers)
        self.server.paths.append(self.path)
        self.server.script(self.server, self, body)

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in endpoint.KEY_NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(endpoint, "_DELAY_S", 0.01)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def make_questions(n: int = 1) -> list[Question]:
    return [
        Question(make_answer(f"Arr {i}", system="judge"), make_answer(f"Plain {i}", system="plain"), "p", "Pirate.", 0)
        for i in range(n)
    ]


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_CONCURRENCY", 1)


def make_judge(server: Server, interrupt: Interrupt | None = None) -> EndpointJudge:
    return EndpointJudge(server.url, "gpt", interrupt or Interrupt())


def ask(judge: EndpointJudge, n: int = 1) -> list[Opinion]:
    return [said for _, said in judge.ask([make_questions(n)], set())]


def says(*answers: tuple[Any, ...]) -> Callable[[Server, Handler, dict[str, Any]], None]:
    """One answer a request, the last again and again: arguments of `Handler.say`."""
    left = list(answers)
    lock = threading.Lock()

    def script(server: Server, handler: Handler, body: dict[str, Any]) -> None:
        with lock:
            (data, *status, headers) = left.pop(0) if len(left) > 1 else left[0]
        handler.say(data, *status, **headers)

    return script


def test_a_verdict_is_read_from_probabilities(server: Server) -> None:
    server.script = says((reply("I", {"1": -1.0, " 1": -2.0, "2": -3.0, "I": -0.1, "0": -9999.0}), {}))
    (said,) = ask(make_judge(server))
    odds = (2.718281828**-1 + 2.718281828**-2) / 2.718281828**-3
    assert said[0] / said[1] == pytest.approx(odds)
    assert sum(said[:2]) == pytest.approx(1) and said[2] == pytest.approx(0)
    (request,) = server.requests
    assert request["model"] == "gpt" and request["max_tokens"] == 1 and request["logprobs"] is True
    assert [m["role"] for m in request["messages"]] == ["system", "user"] and request["messages"][0][
        "content"
    ] == SYSTEM
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] is None


@pytest.mark.parametrize(("text", "said"), [("1", (1, 0, 0)), (" 2\n", (0, 1, 0)), ("0", (0, 0, 1))])
def test_without_probabilities_the_text_counts(server: Server, text: str, said: tuple[int, int, int]) -> None:
    server.script = says((reply(text), {}))
    assert ask(make_judge(server)) == [said]


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>", b"", b"{", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"\xff\xfe",
        b"[" * 100_000, reply("I think 1"), reply("3"), reply(""), reply(None), reply("x", {"x": -0.1}),
        b'{"choices": [{"message": {"content": "1"}, "logprobs": {"content": [{"top_logprobs": [3]}]}}]}',
    ],
)  # fmt: skip
def test_an_unusable_reply_is_counted_and_not_guessed(server: Server, body: bytes) -> None:
    server.script = says((body, {}), (reply("2"), {}))
    judge = make_judge(server)
    assert ask(judge, 3) == [(0, 1, 0)] * 2
    assert judge.failures.total() == 1


@pytest.mark.usefixtures("one_by_one")
def test_a_judge_without_usable_replies_ends_scoring(server: Server) -> None:
    server.script = says((reply("I think 1"), {}))
    with pytest.raises(ModelError, match="no usable reply so far: a reply other than 1, 2 or 0"):
        ask(make_judge(server), 100)
    assert len(server.requests) == 5


def test_a_huge_body_is_not_read_to_its_end(server: Server) -> None:
    def script(server: Server, handler: Handler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.over.is_set():
            handler.wfile.write(b"x" * 65536)

    server.script = script
    judge = make_judge(server)
    assert ask(judge) == []
    assert list(judge.failures) == ["a reply of more than 1 MiB"]


def test_a_compressed_body_is_not_unpacked(server: Server) -> None:
    """A few bytes could become a reply that fills the memory."""
    server.script = says((gzip.compress(reply()), {"Content_Encoding": "gzip"}))
    judge = make_judge(server)
    assert ask(judge) == []
    assert list(judge.failures) == ["a reply that is not a chat completion"]
    assert server.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_busy_server_is_asked_again(server: Server, status: int) -> None:
    server.script = says((b"busy", status, {}), (b"busy", status, {}), (reply(), {}))
    assert ask(make_judge(server)) == [(1, 0, 0)]
    assert len(server.requests) == 3


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_respected(server: Server, as_date: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    waits: list[tuple[int, float]] = []  # requests before it, and seconds

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if seconds:
            waits.append((len(server.requests), seconds))

    monkeypatch.setattr(endpoint, "time", SimpleNamespace(time=lambda: now, monotonic=lambda: now))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    after = formatdate(now + 90, usegmt=True) if as_date else "90"
    server.script = says((b"slow down", 429, {"Retry_After": after}), (reply(), {}))
    assert len(ask(make_judge(server), 2)) == 2
    assert waits == [(1, 90)]


def test_a_long_retry_after_ends_scoring(server: Server) -> None:
    server.script = says((b"", 429, {"Retry_After": "86400"}))
    with pytest.raises(ModelError, match="asks for a pause of 86400 s"):
        ask(make_judge(server))


def test_a_server_that_stays_busy_ends_scoring_with_its_message(server: Server) -> None:
    server.script = says((json.dumps({"error": {"message": "quota\x1b[31m used up"}}).encode(), 429, {}))
    with pytest.raises(ModelError, match=r"no reply in 6 tries .*429: quota␛\[31m used up"):
        ask(make_judge(server))
    assert len(server.requests) == 6


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(
    ("status", "says_what"),
    [(401, "set PJLOCAL_JUDGE_KEY"), (404, "check the address"), (403, "PJLOCAL_JUDGE_KEY"), (418, "refuses")],
)
def test_a_refusal_ends_scoring_at_once(server: Server, status: int, says_what: str) -> None:
    server.script = says((b'{"error": {"message": "no such thing"}}', status, {}))
    with pytest.raises(ModelError, match=f"status {status}: no such thing.*{says_what}|{says_what}.*no such thing"):
        ask(make_judge(server), 3)
    assert len(server.requests) == 1


def test_options_that_a_server_refuses_are_left_out(server: Server) -> None:
    def script(server: Server, handler: Handler, body: dict[str, Any]) -> None:
        for name in ("max_tokens", "temperature", "logprobs"):
            if name in body:
                use = ", use 'max_completion_tokens'" if name == "max_tokens" else ""
                handler.say(json.dumps({"error": {"message": f"unsupported: {name}{use}"}}).encode(), 400)
                return
        handler.say(reply("2"))

    server.script = script
    assert ask(make_judge(server), 4) == [(0, 1, 0)] * 4
    assert server.requests[-1]["max_completion_tokens"] == 1


@pytest.mark.usefixtures("one_by_one")
def test_a_question_that_is_refused_does_not_end_the_others(server: Server) -> None:
    server.script = says((reply(), {}), (b"too long", 400, {}), (reply(), {}))
    judge = make_judge(server)
    assert len(ask(judge, 3)) == 2
    assert judge.failures == {"status 400: too long": 1}


def test_a_redirect_is_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJLOCAL_JUDGE_KEY", KEY)
    server.script = says((b"", 302, {"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(ModelError, match="elsewhere"):
        ask(make_judge(server))
    assert len(server.requests) == 1


def test_a_cut_connection_is_tried_again(server: Server) -> None:
    def script(server: Server, handler: Handler, body: dict[str, Any]) -> None:
        if len(server.requests) == 1:
            handler.connection.close()
        elif len(server.requests) == 2:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"choices"')
            handler.close_connection = True
        else:
            handler.say(reply())

    server.script = script
    assert ask(make_judge(server)) == [(1, 0, 0)]


def test_a_server_that_stalls_or_drips_times_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_TRIES", 2)
    monkeypatch.setattr(endpoint, "_TIMEOUT_S", 0.1)

    def script(server: Server, handler: Handler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        n_waits = 200 if len(server.requests) == 2 else 1
        for _ in range(n_waits):  # ten seconds either way, and then a reply
            if not server.over.wait(10 / n_waits):
                handler.wfile.write(b" ")
        handler.wfile.write(reply())

    server.script = script
    with pytest.raises(ModelError, match=r"no reply in 2 tries \(no reply within 0\.1 s"):
        ask(make_judge(server))


def test_a_refused_connection_is_reported_without_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_wait(*args: object) -> None:
        raise AssertionError("it waits for another try")

    monkeypatch.setattr(asyncio, "sleep", no_wait)
    judge = EndpointJudge("http://127.0.0.1:9", "gpt", Interrupt())
    with pytest.raises(ModelError, match=r"cannot reach the judge at http://127.0.0.1:9/v1/chat/completions"):
        ask(judge)


def test_an_interrupt_does_not_wait_for_replies_and_verdicts_are_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_CONCURRENCY", 2)
    interrupt = Interrupt()
    waited_for: list[bool] = []

    def script(server: Server, handler: Handler, body: dict[str, Any]) -> None:
        if len(server.requests) > 2:
            interrupt.set()
            waited_for.append(not server.over.wait(10))
        handler.say(reply())

    server.script = script
    came = []
    verdicts = make_judge(server, interrupt).ask([make_questions(10)], set())
    with pytest.raises(Interrupted):
        came.extend(iter(lambda: next(verdicts), None))
    assert len(came) == 2 and not waited_for


def test_several_requests_run_at_once_and_known_verdicts_are_not_requested(server: Server) -> None:
    together = threading.Barrier(4, timeout=PATIENCE_S)

    def script(server: Server, handler: Handler, body: dict[str, Any]) -> None:
        together.wait()
        handler.say(reply())

    server.script = script
    questions = make_questions(9)
    answered = [q for q, _ in make_judge(server).ask([questions], {questions[3].key})]
    assert sorted(q.key for q in answered) == sorted(q.key for q in questions if q is not questions[3])
    assert len(server.requests) == 8


@pytest.mark.parametrize("name", ["PJLOCAL_JUDGE_KEY", "OPENAI_API_KEY"])
def test_the_key_comes_from_the_environment_and_is_in_no_message(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, f" {KEY}\n")
    server.script = says((f"bad key {KEY}".encode(), 401, {}))
    judge = make_judge(server)
    with caplog.at_level("DEBUG"), pytest.raises(ModelError) as error:
        ask(judge)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "bad key" in str(error.value) and "check the key" in str(error.value)
    assert KEY not in str(error.value) + caplog.text + repr(judge.identity) + repr(judge)


def test_sending_a_key_without_encryption_gives_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PJLOCAL_JUDGE_KEY", KEY)
    for url in ("http://localhost:1/v1", "http://127.0.0.2", "https://example.org"):
        EndpointJudge(url, "gpt", Interrupt())
    assert not caplog.text
    for _ in range(2):  # it is checked before the answers are written, and made again to judge them
        EndpointJudge("http://unencrypted.example.org", "gpt", Interrupt())
    assert caplog.text.count("not encrypted") == 1 and KEY not in caplog.text


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://x:99999", "http://[::1"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--judge-url must be a URL"):
        EndpointJudge(url, "gpt", Interrupt())


@pytest.mark.parametrize("url", [f"https://me:{KEY}@example.org", f"https://example.org/v1?key={KEY}"])
def test_a_key_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="set PJLOCAL_JUDGE_KEY") as error:
        EndpointJudge(url, "gpt", Interrupt())
    assert KEY not in str(error.value)


def test_a_query_in_the_url_is_refused_as_one() -> None:
    with pytest.raises(UsageError, match="--judge-url must not have a query"):
        EndpointJudge("https://example.org/v1?api-version=2024-06-01", "gpt", Interrupt())


def test_an_address_leads_to_the_chat_completions() -> None:
    for url in ("http://h", "http://h/", "http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"):
        assert EndpointJudge(url, "gpt", Interrupt()).url == "http://h/v1/chat/completions"
    assert EndpointJudge("http://h/api/v3", "gpt", Interrupt()).url == "http://h/api/v3/chat/completions"


def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJLOCAL_JUDGE_KEY", f"{KEY}\r\nX-Evil: 1")
    with pytest.raises(UsageError) as error:
        EndpointJudge("http://h", "gpt", Interrupt())
    assert KEY not in str(error.value)
