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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commandline import PJLOCAL, one_line
from served import Served, serving

from pjlocal import Engine, Generation, PersonaJudge, Prompting, Sampling, TokenEvent
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import UsageError
from pjlocal.prompting.preferences import placed
from pjlocal.server.near import Lost, NearAnswer, ask, socket_path
from pjlocal.server.wish import Wish

ENGINE = Engine(n_threads=1)
ENDLESS = ("-n", "30000", "--ignore-end", "--ctx", "32768")


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Path:
    return tiny("llama")


@pytest.fixture(scope="module")
def served(model: Path, server_environment: dict[str, str]) -> Iterator[Served]:
    with serving(model, server_environment) as made:
        yield made


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, server_environment: dict[str, str]) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", server_environment["XDG_RUNTIME_DIR"])


def make_wish(prefer: Sequence[str] = (), system: str = "", sampling: Any = None, **generation: Any) -> Wish:
    generation = {"seed": 1, "max_tokens": 20, "ignore_end": True} | generation
    return Wish(
        placed(prefer), Prompting(system=system), sampling or Sampling(), Generation(**generation), frozenset()
    )


def near(model: Path, wish: Wish | None = None, prompt: str = "hello", engine: Engine = ENGINE) -> NearAnswer | None:
    return ask(model, engine, wish or make_wish(), prompt, Interrupt())


def run(model: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [*PJLOCAL, "run", "-m", str(model), "--threads", "1", *options, "hello"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def written(served: Served) -> float:
    """Answers that the server has written to their ends."""
    text = served.http.get("/metrics").text
    return sum(map(float, re.findall(r"^pjlocal_answers_total\{.*\} ([\d.e+]+)$", text, re.MULTILINE)))


def when(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def no_times(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key != "timings"}


WISHES = [
    make_wish(),
    make_wish(["vivid", "creative"], max_tokens=60),
    make_wish(["vivid:1.5", "concise"], mode="both", avoid=("formal",)),
    make_wish(["vivid", "concise"], mode="args", system="You are a cook."),
    make_wish(["vivid", "creative", "formal"], panel=True, lam=2),
    make_wish(["vivid", "creative"], schedule="reference", decoding="greedy"),
    make_wish(["vivid"], mode="prompt", lookahead=4, stop=("e",)),
    make_wish(["vivid", "creative"], sampling=Sampling(regex="[a-z ]{5,30}", temperature=1.5, logit_bias=("5=1",))),
]


@pytest.mark.parametrize("wish", WISHES)
def test_each_event_and_the_result_are_those_of_a_model_loaded_here(served: Served, model: Path, wish: Wish) -> None:
    draft, judge = wish.views
    kinds: Any = {"prompting": wish.prompting, "sampling": wish.sampling, "generation": wish.generation}
    with PersonaJudge(model, draft_prefer=draft, judge_prefer=judge, engine=ENGINE, own_sampling=(), **kinds) as one:
        for prompt in ("hello", "Tell me of the sun, the rain and the sea, " * 8):  # begins anew each time
            expected = one.stream(prompt)
            events: list[TokenEvent] = list(expected)
            one.pool.views(len(expected.plan.prompts), 1).rewind(0)
            answer = near(model, wish, prompt)
            assert answer and (answer.mode, answer.told) == (expected.mode, expected.told)
            assert tuple(answer.pushing) == tuple(expected.pushing)
            assert list(answer) == events
            told, wanted = answer.result, expected.result
            assert no_times(told.as_dict()) == no_times(wanted.as_dict())
            answer.close()
            break


def test_run_prints_and_traces_the_same_and_the_model_is_not_loaded(
    served: Served, model: Path, server_environment: dict[str, str], tmp_path: Path
) -> None:
    options = ("-p", "vivid", "-p", "creative", "--seed", "3", "-n", "30", "--json", "--trace")
    before = written(served)
    by_server = run(model, server_environment, *options, str(tmp_path / "near"))
    assert written(served) == before + 1
    loaded = run(model, server_environment, *options, str(tmp_path / "own"), "--no-server")
    assert written(served) == before + 1
    assert by_server.returncode == loaded.returncode == 0 and by_server.stderr == loaded.stderr == ""
    assert no_times(json.loads(by_server.stdout)) == no_times(json.loads(loaded.stdout))
    assert (tmp_path / "near").read_bytes() == (tmp_path / "own").read_bytes()


def test_run_by_a_server_imports_no_llama_cpp(
    served: Served, model: Path, server_environment: dict[str, str]
) -> None:
    code = (
        "import sys, atexit; from pjlocal.__main__ import main\n"
        "heavy = {'llama_cpp', 'numpy', 'starlette', 'uvicorn', 'jinja2', 'pjlocal.persona'}\n"
        "atexit.register(lambda: print('imported:', *heavy & sys.modules.keys()))\n"
        f"sys.argv = ['pjlocal', 'run', '-m', {str(model)!r}, '--threads', '1', '-n', '3', '--stats', 'hello']\nmain()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=server_environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert result.stdout.endswith("imported:\n"), result
    assert "3 tokens" in result.stderr and "load 0.0" in result.stderr


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
    os.utime(model, (1e9, 1e9))
    try:
        assert near(model) is None
    finally:
        status = served.http.get("/health")  # which goes on
        assert status.status_code == 200


def test_what_needs_more_than_the_model_is_not_asked_of_a_server(
    model: Path, served: Served, tmp_path: Path
) -> None:
    (tmp_path / "wish").write_text("Rhyme.")
    assert near(model, make_wish(["vivid"], mode="rewrite")) is None
    assert near(model, make_wish([f"@{tmp_path}/wish"])) is None
    assert near(model, engine=ENGINE.replace(verbose=True)) is None
