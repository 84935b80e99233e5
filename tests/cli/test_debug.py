"""A bug is told in a line that says how to report it; --debug shows where it is."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from collections.abc import Callable

import pytest
from commandline import one_line

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def broken(pjlocal: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with a function of it replaced by one that fails."""

    def bug(*args: object, **options: object) -> None:
        raise TypeError("oh \x1b[31m no")

    def run(where: str, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(where, bug)
        monkeypatch.setattr(faulthandler, "enable", lambda: None)  # pytest has its own
        environment.update(variables)
        return pjlocal(*args)

    return run


@pytest.mark.parametrize(
    ("where", "command"),
    [
        ("pjlocal.persona.PersonaJudge", "run hello"),
        ("pjlocal.chat.judges.make_judge", "chat"),
        ("pjlocal.bench.measure.measure", "bench --quick"),
        ("pjlocal.sessions.database.store_path", "sessions list"),
        ("pjlocal.config.tomlfile.read", "config show"),
        ("pjlocal.config.tomlfile.read", "prefs list"),
    ],
)
def test_a_bug_is_one_line_and_status_1(broken: Run, where: str, command: str) -> None:
    result = broken(where, *command.split())
    assert result.returncode == 1
    said = one_line(result.stderr)
    assert said.startswith("pjlocal: this is a bug in pjlocal: TypeError: oh ␛[31m no (in ")
    assert "--debug" in said


@pytest.mark.parametrize(("options", "variables"), [(["--debug"], {}), ([], {"PJLOCAL_DEBUG": "1"})])
def test_debug_shows_the_traceback_without_what_a_terminal_obeys(
    broken: Run, options: list[str], variables: dict[str, str]
) -> None:
    result = broken("pjlocal.config.tomlfile.read", *options, "config", "show", **variables)
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "in load_config" in result.stderr and "this is a bug" in result.stderr
    assert "\x1b" not in result.stderr


def test_debug_shows_where_c_code_crashed(environment: dict[str, str]) -> None:
    code = (
        "import ctypes, pjlocal.config.config as c\nc.tomlfile.read = lambda path: ctypes.string_at(0)\n"
        "from pjlocal.__main__ import main\nmain()"
    )
    command = [sys.executable, "-c", code, "--debug", "config", "show"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode < 0 and "load_config" in result.stderr


@pytest.mark.slow
def test_a_bug_in_a_thread_of_another_package_is_one_line_and_the_work_continues(environment: dict[str, str]) -> None:
    code = """
import threading, pjlocal.config.config as c
def read(path):
    thread = threading.Thread(target=lambda: [][1])
    thread.start()
    thread.join()
    return ""
c.tomlfile.read = read
from pjlocal.__main__ import main
main()"""
    command = [sys.executable, "-c", code, "prefs", "show", "vivid"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stdout
    assert "IndexError" in one_line(result.stderr)
