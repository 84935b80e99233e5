"""`pjlocal run` by a server of the same user: the same bytes, without being told, and never worse than without one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from commandline import PJLOCAL, one_line
from served import BIG, ENGINE, LONG, REQUESTS, Served, make_request, no_times, serving
from talking import plain_event
from waiting import PATIENCE_S, when

from pjlocal import Engine, PersonaJudge, Sampling, TokenEvent
from pjlocal.cli.options import server_at
from pjlocal.cli.run import Job
from pjlocal.client import RemoteAnswer, Server, ServerError
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import UsageError, explain
from pjlocal.events import Result, Statistics
from pjlocal.request import Request
from pjlocal.runtime_socket import is_private, socket_path

pytestmark = pytest.mark.usefixtures("here")

OPTIONS = ()


def by_server(
    model: Path, request: Request | None = None, prompt: str = "hello", engine: Engine = ENGINE
) -> RemoteAnswer | None:
    """As `pjlocal run` has it; None where that would load the model."""
    return Job(str(model), request or make_request(), prompt, engine, Interrupt()).by_server(None, str, finds=True)


def run(model: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [*PJLOCAL, "run", "-m", str(model), "--threads", "1", *options, "hello"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def written(served: Served) -> float:
    """Answers that the server has written to their ends."""
    text = served.http.get("/metrics").text
    return sum(map(float, re.findall(r"^pjlocal_answers_total\{.*\} ([\d.e+]+)$", text, re.MULTILINE)))


@pytest.mark.parametrize("wanted", REQUESTS)
def test_each_event_and_the_result_are_those_of_a_model_loaded_here(
    served: Served, model: Path, wanted: Request
) -> None:
    with PersonaJudge(model, request=wanted, engine=ENGINE) as one:
        expected = one.stream(LONG)
        events: list[TokenEvent] = list(expected)
        for _ in range(2):  # nor does it matter what was read before
            answer = by_server(model, wanted, LONG)
            assert answer and (answer.mode, answer.labels) == (expected.mode, expected.labels)
            assert tuple(answer.pushing) == tuple(expected.pushing)
            assert list(answer) == events
            assert no_times(answer.result.as_dict()) == no_times(expected.result.as_dict())


def test_a_correction_comes_with_the_first_answer(served: Served, model: Path) -> None:
    wanted = make_request(["vivid", "concise"], mode="rewrite")
    with PersonaJudge(model, request=wanted, engine=ENGINE) as one:
        expected = one.stream("hello")
        events = list(expected)
        answer = by_server(model, wanted)
        assert answer and list(answer) == events and answer.drafted == expected.drafted
        assert no_times(answer.result.as_dict())["text"] == expected.result.text and answer.result.draft


@pytest.mark.slow
def test_run_and_not_the_server_warns_of_settings_without_effect(
    served: Served, model: Path, server_environment: dict[str, str]
) -> None:
    for _ in range(2):
        result = run(model, server_environment, "-p", "vivid", "--mode", "plain", "--strength", "2", "-n", "2")
        assert (
            result.returncode == 0 and "pjlocal: --strength has no effect in mode plain" in result.stderr.splitlines()
        )
    assert "no effect" not in "".join(served.said)


def test_a_warning_is_printed_once_for_all_views(
    served: Served, model: Path, server_environment: dict[str, str]
) -> None:
    result = run(model, server_environment, "-p", "vivid", "-p", "creative", "--think", "on", "-n", "2")
    assert [line for line in result.stderr.splitlines() if "no switch" in line] == [
        "pjlocal: think on: this model's chat template has no switch for thinking"
    ]


def test_a_result_is_whole_on_the_other_side() -> None:
    draft = Result("a", "m", "plain", {}, 4, 1, "stop", Statistics([3], 2, decode_s=0.1))
    result = Result("b", "m", "rewrite", {"a": ["vivid"]}, 4, 1, "length", Statistics(), {"a": "auto"}, draft=draft)
    assert Result.from_whole(json.loads(json.dumps(result.whole()))) == result


@pytest.mark.slow
def test_run_prints_and_traces_the_same_and_the_model_is_not_loaded(
    served: Served, model: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    options = ("-p", "vivid", "-p", "creative", "--seed", "3", "-n", "30", "--json", "--trace")
    before = written(served)
    served_run = run(model, server_environment, *options, str(tmp_path / "near"))
    assert written(served) == before + 1
    loaded = run(model, server_environment, *options, str(tmp_path / "own"), "--no-server")
    assert written(served) == before + 1
    assert served_run.returncode == loaded.returncode == 0
    assert served_run.stderr == loaded.stderr
    assert no_times(json.loads(served_run.stdout)) == no_times(json.loads(loaded.stdout))
    assert (tmp_path / "near").read_bytes() == (tmp_path / "own").read_bytes()


def test_engine_settings_without_effect_on_a_server_are_listed(caplog: pytest.LogCaptureFixture) -> None:
    for given, names in (
        ({"n_ctx"}, "--ctx has"),
        ({"n_ctx", "n_threads", "n_batch"}, "--ctx, --batch-size and --threads have"),
    ):
        server_at("http://127.0.0.1:1", Interrupt(), given)
        assert caplog.messages[-1].endswith(f"has its own engine settings: {names} no effect")


def test_run_by_a_server_imports_no_llama_cpp(served: Served, model: Path, server_environment: dict[str, str]) -> None:
    code = (
        "import sys, atexit; from pjlocal.__main__ import main\n"
        "heavy = {'llama_cpp', 'numpy', 'starlette', 'uvicorn', 'jinja2', 'pjlocal.persona'}\n"
        "atexit.register(lambda: print('imported:', *heavy & sys.modules.keys()))\n"
        f"sys.argv = ['pjlocal', 'run', '-m', {str(model)!r}, '--threads', '1', '-n', '3', '--ignore-end', '--stats', "
        "'hello']\nmain()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=server_environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert result.stdout.endswith("imported:\n"), result
    assert "3 tokens" in result.stderr and "load 0.0" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["option", "environment", "config", "context", "version"])
def test_a_server_that_is_not_wanted_or_does_not_suit_is_let_alone(
    served: Served,
    model: Path,
    server_environment: dict[str, str],
    tmp_path: Path,
    how: str,
) -> None:
    environment = dict(server_environment)
    options: tuple[str, ...] = ("-n", "2")
    if how == "option":
        options += ("--no-server",)
    elif how == "environment":
        environment["PJLOCAL_SERVER"] = "0"
    elif how == "config":
        environment["PJLOCAL_CONFIG"] = str(tmp_path / "config.toml")
        (tmp_path / "config.toml").write_text("server = false\n")
    elif how == "context":
        options += ("--ctx", "200")
    else:
        environment["PJLOCAL_CONFIG"] = str(tmp_path / "config.toml")
        (tmp_path / "config.toml").write_text('[presets]\nvivid2 = "Be vivid."\n')  # which that server has not
    before = written(served)
    result = run(model, environment, *options)
    assert result.returncode == 0 and result.stdout and written(served) == before


def test_a_model_file_that_has_changed_is_not_the_servers(served: Served, model: Path) -> None:
    status = model.stat()
    os.utime(model, (1e9, 1e9))
    try:
        assert by_server(model) is None
    finally:
        os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert by_server(model)


def test_requests_that_need_more_than_the_model_do_not_go_to_a_server(
    model: Path, served: Served, tmp_path: Path
) -> None:
    (tmp_path / "wish").write_text("Rhyme.")
    assert by_server(model, make_request(["vivid"], mode="rewrite", aligner=str(model))) is None
    assert by_server(model, make_request([f"@{tmp_path}/wish"])) is None
    assert by_server(model, make_request(["vivid"], schedule="reference")) is None
    assert by_server(model, engine=ENGINE.replace(verbose=True)) is None


# What goes wrong on the way.

ENDLESS = (*BIG, "-n", "30000", "--ignore-end")


@contextmanager
def endless(model: Path, environment: dict[str, str], *options: str) -> Iterator[subprocess.Popen[str]]:
    """A `run` in the middle of an answer."""
    command = [*PJLOCAL, "run", "-m", str(model), "--threads", "1", *ENDLESS, *options, "hello"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout and process.stdout.read(20)
            yield process
        finally:
            process.kill()


def test_ctrl_c_stops_the_answer_on_the_server(big: Served, model: Path, server_environment: dict[str, str]) -> None:
    stopped = 'pjlocal_answers_total{finish_reason="interrupted"}'
    with endless(model, server_environment) as process:
        assert big.metric("pjlocal_answers_now") == 1
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and stderr == ""
    when(lambda: big.metric("pjlocal_answers_now") == 0)
    assert big.metric(stopped) == 1


def test_ctrl_c_just_as_the_answer_has_ended_loses_nothing_of_it(served: Served, model: Path) -> None:
    before = written(served)
    answer = by_server(model)
    assert answer
    when(lambda: written(served) > before)
    answer.server.interrupt.set()
    assert len([*answer]) == 20 and answer.result.finish_reason == "length"


@pytest.mark.slow
def test_a_wrong_request_has_the_same_error_as_without_a_server(
    served: Served, model: Path, server_environment: dict[str, str]
) -> None:
    told = [run(model, server_environment, "-p", "vvid", *more) for more in ((), ("--no-server",))]
    assert told[0].returncode == told[1].returncode == 2
    assert one_line(told[0].stderr) == one_line(told[1].stderr)
    for wish in (
        make_request(sampling=Sampling(regex="(")),
        make_request(system="word " * 3000),
        make_request(mode="both"),
    ):
        with pytest.raises(UsageError) as told_by_server:
            by_server(model, wish)
        kinds: Any = {"prompting": wish.prompting, "sampling": wish.sampling, "generation": wish.generation}
        with pytest.raises(UsageError) as here, PersonaJudge(model, engine=ENGINE, **kinds) as judge:
            judge("hello")
        assert explain(told_by_server.value) == explain(here.value)


@pytest.mark.parametrize(("prompt", "prefer"), [("caf\udce9 hello", []), ("hello", ["sing caf\udce9"])])
def test_text_that_is_not_utf_8_is_called_so(served: Served, model: Path, prompt: str, prefer: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^the text is not valid UTF-8"):
        by_server(model, make_request(prefer), prompt)


def test_an_answer_beside_others_is_the_same(served: Served, model: Path) -> None:
    answer = by_server(model, make_request(["vivid"], max_tokens=50))
    assert answer
    alone = [event.text for event in answer]
    body = {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 150, "pjlocal": {"ignore_end": True}}
    asking = threading.Thread(target=lambda: served.http.post("/v1/chat/completions", json=body))
    asking.start()
    beside = [by_server(model, make_request(["vivid"], max_tokens=50)) for _ in range(2)]
    assert all(one and [event.text for event in one] == alone for one in beside)
    asking.join()


@pytest.mark.slow
def test_more_at_once_than_the_server_has_places_for_load_the_model(
    model: Path, server_environment: dict[str, str]
) -> None:
    engine = ENGINE.replace(n_ctx=32768, n_batch=200)
    wish = make_request(max_tokens=30_000)
    with serving(model, server_environment, *BIG, "--batch-size", "200", "--queue", "0") as full:
        held = [by_server(model, wish, engine=engine) for _ in range(2)]  # as many as --parallel says
        assert all(held) and by_server(model, wish, engine=engine) is None
        for one in held:
            assert one
            one.close()
        when(lambda: full.metric("pjlocal_answers_now") == 0)


TOO_LARGE = (
    make_request(["vivid", "concise"], mode="both", best=4),
    make_request(["vivid", "creative", "formal", "simple", "correct", "concise", "warm:2"]),
)


def test_an_answer_for_which_the_server_has_no_room_loads_the_model(
    model: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    engine = ENGINE.replace(n_batch=201)
    with serving(model, server_environment, "--batch-size", "201", "--parallel", "2", "--queue", "1") as small:
        assert by_server(model, engine=engine)
        for request in TOO_LARGE:
            assert by_server(model, request, engine=engine) is None
            with pytest.raises(UsageError, match=r"--queue|--parallel"):
                Server(small.page(), Interrupt()).answer(request, messages=[{"role": "user", "content": "hello"}])
        (tmp_path / "rows").write_text("hello\n")
        rows = ("run", "-m", str(model), "--threads", "1", "--batch-size", "201", "--batch", str(tmp_path / "rows"))
        command = [*PJLOCAL, *rows, "-p", "vivid", "-p", "concise", "--best", "4", "-n", "2"]
        result = subprocess.run(command, env=server_environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert result.returncode == 0 and '"text"' in result.stdout, result


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_in_the_middle_ends_run_with_a_line(
    model: Path, server_environment: dict[str, str], signum: int
) -> None:
    with serving(model, server_environment, *BIG, "--batch-size", "500") as dying:
        with endless(model, server_environment, "--batch-size", "500") as process:
            dying.process.send_signal(signum)
            _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1 and "during the answer: try again" in one_line(stderr)
    options = (*BIG, "--batch-size", "500", "-n", "2", "--seed", "1")
    result = run(model, server_environment, *options)  # of a killed one the socket is left
    about_context, ending = result.stderr.splitlines()
    assert result.returncode == 0 and "the context of " in about_context and "cut off after 2 tokens" in ending


@contextmanager
def impostor(model: Path, *lines: bytes, hold: bool = False) -> Iterator[None]:
    """Something that listens where the server would, says this to whoever comes, and hangs up, or holds the line."""
    path = socket_path(model, ENGINE.replace(n_ctx=300))
    assert path
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def talk() -> None:
            with suppress(OSError), listening.accept()[0] as client, client.makefile("rb") as request:
                length = 0  # nobody may come, or not wait
                while line := request.readline().strip().lower():
                    length = int(line.partition(b"content-length:")[2] or length)
                request.read(length)
                client.sendall(b"".join(lines))
                if hold:
                    client.recv(1 << 20)  # until the other side hangs up

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield
        finally:
            path.unlink()


TAKEN = b"HTTP/1.1 200 OK\r\nX-Pjlocal-Answer: 1\r\nConnection: close\r\n\r\n"
HEAD = b'data: {"head": {"mode": "plain"}}\n\n'
BUSY = b'HTTP/1.1 429 Busy\r\nConnection: close\r\n\r\n{"error": {"message": "full"}}'
FAILED = b"HTTP/1.1 500 Failed\r\nConnection: close\r\n\r\n"
ENDING = b'HTTP/1.1 503 Stopping\r\nConnection: close\r\n\r\n{"error": {"message": "the server is stopping"}}'


@pytest.mark.parametrize(
    "lines",
    [
        [], [TAKEN], [TAKEN, b"data: {}\n\n"], [BUSY], [FAILED], [ENDING], [b"what?\n"], [TAKEN, b"data: [1]\n\n"],
        [TAKEN, HEAD], [TAKEN, HEAD[:20]], [TAKEN, b'data: {"head": 1}\n\n'], [TAKEN.replace(b"X-Pjlocal", b"X")],
        [TAKEN, b'data: {"event": {}}\n\n'], [TAKEN, b"data: what\n\n"], [TAKEN, b": alive\n\n"],
    ],
)  # fmt: skip
def test_a_server_that_writes_nothing_is_as_good_as_none(model: Path, lines: list[bytes]) -> None:
    with impostor(model, *lines):
        assert by_server(model, engine=ENGINE.replace(n_ctx=300)) is None


def test_a_server_that_is_frozen_is_not_waited_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pjlocal.client._RESIDENT_S", 0.1)
    with impostor(model, hold=True):
        assert by_server(model, engine=ENGINE.replace(n_ctx=300)) is None


TOKEN = (
    b"data: " + json.dumps({"event": plain_event(0).as_dict(), "statistics": asdict(Statistics())}).encode() + b"\n\n"
)


def test_a_server_that_falls_silent_in_the_middle_is_given_up(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pjlocal.client._SILENT_S", 1)
    with impostor(model, TAKEN, HEAD, TOKEN, hold=True):
        answer = by_server(model, engine=ENGINE.replace(n_ctx=300))
        assert answer
        with pytest.raises(ServerError, match="--no-server"):
            list(answer)


@pytest.mark.parametrize("trace", [(), ("--trace", "FILE")])
def test_the_text_so_far_is_reported_if_the_server_dies_during_an_answer(
    model: Path, server_environment: dict[str, str], tmp_path: Path, trace: tuple[str, ...]
) -> None:
    file = str(tmp_path / "trace")
    options = (name.replace("FILE", file) for name in trace)
    known = {"mode": "plain", "model": model.name, "seed": 7, "request": make_request().as_dict()}
    known["strengths"] = {"a": "auto", "b": 2.0}
    with impostor(model, TAKEN, f"data: {json.dumps({'head': known})}\n\n".encode(), TOKEN, TOKEN):
        result = run(model, server_environment, "--ctx", "300", "--json", "--stats", *options)
    report = json.loads(result.stdout)
    assert (report["text"], report["finish_reason"]) == ("Yes.Yes.", "interrupted")
    assert (report["model"], report["lambda"], report["seed"]) == (model.name, 4, 7)
    assert report["strengths"] == known["strengths"]
    assert (
        result.returncode == 1 and "stopped responding during the answer: try again" in result.stderr.splitlines()[-1]
    )
    if trace:
        assert len(Path(file).read_text().splitlines()) == 2


def test_a_socket_in_a_folder_that_others_can_open_is_not_used(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    path = socket_path(model, ENGINE.replace(n_ctx=300))
    assert path
    with impostor(model, TAKEN, HEAD, TOKEN):
        assert path.is_socket()
        path.parent.chmod(0o755)
        assert by_server(model, engine=ENGINE.replace(n_ctx=300)) is None


def test_a_folder_that_others_can_replace_is_not_private(tmp_path: Path) -> None:
    folder = tmp_path / "runtime-1000" / "pjlocal"
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700)
    for mode, private in ((0o700, True), (0o755, True), (0o777, False), (0o1777, True)):  # the last as of /tmp
        folder.parent.chmod(mode)
        assert is_private(folder) == private, oct(mode)
    if os.getuid() == 0:
        os.chown(folder.parent, 65534, -1)
        assert not is_private(folder)


@pytest.mark.slow
def test_the_socket_is_the_users_alone_and_goes_with_its_server(
    model: Path, server_environment: dict[str, str]
) -> None:
    options = ("--batch-size", "400")
    path = socket_path(model, ENGINE.replace(n_batch=400))
    assert path
    with serving(model, server_environment, *options) as first:
        assert path.is_socket() and path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with serving(model, server_environment, *options) as second:  # which finds it taken
            assert run(model, server_environment, *options, "-n", "2").returncode == 0
            assert written(first) == 1 and written(second) == 0
        assert path.is_socket()
    assert not path.exists()


NOISE = (b"", b"\n", b"{", b"GET / HTTP/9\r\n\r\n", b"\xff" * 1000 + b"\n", b"POST /api/answers HTTP/1.1\r\n\r\n")
NOISE += (b"POST /api/answers HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"[" * 99_999,)


def test_noise_on_the_socket_does_no_harm(served: Served, model: Path) -> None:
    for noise in NOISE:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(socket_path(model, ENGINE)))
            client.sendall(noise)
    answer = by_server(model)
    assert answer and len(list(answer)) == 20
    with pytest.raises(UsageError, match="vvid"):
        by_server(model, make_request(["vvid"]))
    assert served.metric("pjlocal_errors_total") == 0, "none of it is a fault of the server's"
