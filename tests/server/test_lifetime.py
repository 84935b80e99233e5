"""How a server begins, rests and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny_models
from commandline import PJLOCAL, one_line
from served import Served, serving
from tiny_models import CHATML
from waiting import PATIENCE_S, when

from pjlocal.server.loaded import LoadedModel
from pjlocal.server.service import Service

CHAT = "/v1/chat/completions"
ENDLESS: Any = {
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 30_000,
    "pjlocal": {"ignore_end": True},
    "stream": True,
}


def listening(served: Served) -> tuple[list[str], threading.Thread]:
    """What an endless answer says, line by line, until it ends."""
    lines: list[str] = []
    begun = threading.Event()

    def read() -> None:
        with httpx2.Client(base_url=served.url, timeout=60) as client:
            try:
                with client.stream("POST", CHAT, json=ENDLESS) as reply:
                    for line in reply.iter_lines():
                        lines.append(line)
                        begun.set()
            except httpx2.HTTPError:
                pass
            begun.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(PATIENCE_S)
    return lines, thread


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_what_is_written_and_says_so_to_who_listens(
    tiny: Callable[[str], Path], environment: dict[str, str], signum: int, status: int
) -> None:
    half = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    with (
        serving(tiny("llama"), environment, "--ctx", "32768") as served,
        socket.create_connection(("127.0.0.1", served.port)) as idler,
    ):
        idler.sendall(half)  # for the rest of which nobody waits
        lines, thread = listening(served)
        assert served.end(signum) == (status, served.greeting)
        thread.join()
        assert len([line for line in lines if line]) < ENDLESS["max_tokens"]
        assert "the server is stopping" in [line for line in lines if line][-1]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(tiny: Callable[[str], Path], environment: dict[str, str]) -> None:
    with serving(tiny("llama"), environment, "--ctx", "32768") as served:
        _, thread = listening(served)
        served.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        status, said = served.end(signal.SIGINT)
        assert (status, said) == (130, served.greeting)
        thread.join()


@pytest.mark.slow
def test_a_short_answer_ends_as_it_would_after_a_signal(
    tiny: Callable[[str], Path], environment: dict[str, str]
) -> None:
    with serving(tiny("llama"), environment) as served:
        replies: list[httpx2.Response] = []
        asked = ENDLESS | {"max_tokens": 5, "stream": False}  # milliseconds of the half second that there is
        thread = threading.Thread(target=lambda: replies.append(httpx2.post(served.url + CHAT, json=asked, timeout=60)))
        thread.start()
        when(lambda: served.metric("pjlocal_answers_now") or replies)
        assert served.end()[0] == 0
        thread.join()
        assert replies[0].status_code == 200 and replies[0].json()["usage"]["completion_tokens"] == 5


@pytest.mark.slow
def test_the_model_leaves_the_memory_after_idling_and_comes_back(
    tiny: Callable[[str], Path], environment: dict[str, str]
) -> None:
    with serving(tiny("llama"), environment, "--unload-after", "0.1") as served:
        texts = []
        for _ in range(2):
            reply = served.http.post(CHAT, json=ENDLESS | {"max_tokens": 5, "seed": 1, "stream": False})
            texts.append(reply.json()["choices"][0]["message"]["content"])
            when(lambda: not served.metric("pjlocal_model_loaded"))
        assert texts[0] == texts[1]


@pytest.mark.slow
def test_a_missing_model_file_is_reported_and_served_again_once_it_is_back(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(tiny("llama").read_bytes())
    with serving(path, environment, "--unload-after", "0.05") as served:
        when(lambda: not served.metric("pjlocal_model_loaded"))
        path.rename(tmp_path / "away.gguf")
        asked = ENDLESS | {"max_tokens": 2, "stream": False}
        reply = served.http.post(CHAT, json=asked)
        assert reply.status_code == 500 and "mine.gguf" in reply.json()["error"]["message"]
        (tmp_path / "away.gguf").rename(path)
        assert served.http.post(CHAT, json=asked).status_code == 200


@pytest.mark.slow
def test_answers_continue_while_a_slow_template_runs(environment: dict[str, str], tmp_path: Path) -> None:
    loop = "{% for i in range(400) %}{{ range(9999) | sum - range(9999) | sum }}{% endfor %}"
    template = f"{{% if 'slowly' in messages[-1].content %}}{loop}{{% endif %}}{CHATML}"
    path = tiny_models.write_llama(tmp_path / "m.gguf", chat_template=template)
    with serving(path, environment, "--ctx", "32768") as served:
        lines, thread = listening(served)
        before = len(lines)
        said = [{"role": "user", "content": "slowly"}]
        reply = served.http.post(CHAT, json=ENDLESS | {"messages": said, "max_tokens": 1, "stream": False})
        n_told = len(lines) - before
        assert reply.status_code == 200, reply.text
        assert n_told > 50
        served.end()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (("--host", "0.0.0.0"), 2, "set a key with --api-key"),
        (("--host", "0.0.0.0", "--api-key", ""), 2, "--api-key must not be empty"),
        (("--cors", "friend.example"), 2, "--cors must be an origin such as https://example.org"),
        (("--cors", "https://friend.example/page"), 2, "--cors must be an origin"),
        (("--cors", "null"), 2, "--cors must be an origin"),
        (("--api-key", "clé"), 2, "printable ASCII"),
        (("--api-key", "two\nlines"), 2, "printable ASCII"),
        (("--api-key", "secret "), 2, "without spaces or line ends around it"),
        (("-p", "vivd"), 2, "did you mean vivid"),
        (("--lora", "a.gguf"), 2, "all of the server's answers share: leave --lora out"),
        (("--control-vector-b", "a.gguf"), 2, "leave --control-vector-b out"),
        (("--aligner", "smollm2"), 2, "the server has one model: leave --aligner out"),
        (("-m", "nowhere.gguf", "--regex", "("), 2, "the regular expression cannot be used: "),
        (("-m", "nowhere.gguf"), 1, "nowhere.gguf"),
        (("--logit-bias", "99999999=1"), 2, "the model has tokens 0 to"),
        (("--stop-token", "999999"), 2, "the model has tokens 0 to"),
        (("--ctx", "100000000"), 1, "--parallel"),
    ],
)
def test_wrong_settings_are_reported_before_serving_starts(
    pjlocal: Callable[..., subprocess.CompletedProcess[str]],
    tiny: Callable[[str], Path],
    options: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    result = pjlocal("serve", "--port", "0", "-m", tiny("llama"), *options)
    warned = f"{result.stderr.splitlines()[0]}\n" if "--ctx" in options else ""
    assert result.returncode == status and says in one_line(result.stderr.removeprefix(warned))


def test_ctrl_c_after_the_model_is_loaded_ends_it_before_it_serves(
    pjlocal: Callable[..., subprocess.CompletedProcess[str]],
    tiny: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Service.load

    def pressed(service: Service) -> LoadedModel:
        loaded = load(service)
        signal.raise_signal(signal.SIGINT)
        return loaded

    monkeypatch.setattr(Service, "load", pressed)
    result = pjlocal("serve", "--port", "0", "-m", tiny("llama"))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_a_port_in_use_is_reported_in_one_line(
    pjlocal: Callable[..., subprocess.CompletedProcess[str]], tiny: Callable[[str], Path]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = pjlocal("serve", "-m", tiny("llama"), "--port", port)
    says = f"cannot listen on 127.0.0.1 port {port}: Address already in use: give another with --port"
    assert result.returncode == 1 and one_line(result.stderr).endswith(says)


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no', name='uvicorn')")
    result = subprocess.run(
        [*PJLOCAL, "serve"], capture_output=True, text=True, env=environment | {"PYTHONPATH": str(tmp_path)}
    )
    assert result.returncode == 2 and "pip install 'pjlocal[serve]'" in one_line(result.stderr)
