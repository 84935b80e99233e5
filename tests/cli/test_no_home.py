"""A user without a home folder, as in a container that runs as any number: what needs no folder works."""

from __future__ import annotations

import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import one_line
from huggingface_hub import constants

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def homeless(pjlocal: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command as a user whom the system does not know, with neither HOME nor XDG folders."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in [name for name in environment if name == "HOME" or name.startswith("XDG_")]:
        del environment[name]

    def run(*args: str | Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environment.update(variables)
        return pjlocal(*args, stdin=stdin)

    return run


def test_an_answer_needs_no_home(homeless: Run, tiny: Callable[[str], Path]) -> None:
    result = homeless("run", "-m", tiny("llama"), "--regex", "a", "hello")
    assert result.returncode == 0 and not result.stderr and result.stdout


def test_a_chat_continues_unsaved_and_says_so_in_one_line(homeless: Run, tiny: Callable[[str], Path]) -> None:
    result = homeless("chat", "-m", tiny("llama"), "--regex", "a", stdin="hello\n")
    assert result.returncode == 0 and result.stdout
    assert "PJLOCAL_DATABASE" in one_line(result.stderr) and "not saved" in result.stderr


@pytest.mark.parametrize("command", ["config show", "prefs list", "prefs show vivid"])
def test_commands_that_only_read_settings_show_the_defaults(homeless: Run, command: str) -> None:
    result = homeless(*command.split())
    assert result.returncode == 0 and not result.stderr


def test_a_home_that_is_no_folder_has_no_settings(homeless: Run, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    (tmp_path / "home").touch()
    home = {"HOME": str(tmp_path / "home")}
    for command in (("config", "show"), ("prefs", "list"), ("run", "-m", tiny("llama"), "--regex", "a", "hello")):
        result = homeless(*command, **home)
        assert result.returncode == 0 and not result.stderr and result.stdout
    listed = homeless("sessions", "list", **home)
    assert listed.returncode == 0 and one_line(listed.stderr) == "pjlocal: there are no saved chats yet"


@pytest.mark.parametrize(
    ("command", "status", "variable"),
    [
        ("config path", 2, "PJLOCAL_CONFIG"),
        ("config edit", 2, "PJLOCAL_CONFIG"),
        ("prefs add pirate Arr", 2, "PJLOCAL_CONFIG"),
        ("prefs rm pirate", 2, "PJLOCAL_CONFIG"),
        ("sessions path", 1, "PJLOCAL_DATABASE"),
        ("sessions list", 1, "PJLOCAL_DATABASE"),
        ("sessions rm 1", 1, "PJLOCAL_DATABASE"),
        ("chat --continue", 1, "PJLOCAL_DATABASE"),
    ],
)
def test_commands_that_need_a_folder_say_how_to_name_one(
    homeless: Run, command: str, status: int, variable: str
) -> None:
    result = homeless(*command.split())
    assert result.returncode == status
    assert f"set HOME, or {variable}" in one_line(result.stderr)


def test_named_files_replace_a_home(homeless: Run, tmp_path: Path) -> None:
    files = {"PJLOCAL_CONFIG": str(tmp_path / "c.toml"), "PJLOCAL_DATABASE": str(tmp_path / "chats.db")}
    assert homeless("prefs", "add", "pirate", "Arr", **files).returncode == 0
    assert homeless("sessions", "path", **files).stdout == f"{tmp_path / 'chats.db'}\n"


def test_a_deleted_working_folder_does_not_end_the_search(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f"cd gone && rmdir ../gone && exec {sys.executable} -m pjlocal run -m nothing hello"
    result = subprocess.run(
        ["sh", "-c", command], input="", capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert result.returncode == 1 and "no model 'nothing'" in one_line(result.stderr)


def test_a_model_is_searched_in_the_folders_that_exist(homeless: Run) -> None:
    result = homeless("run", "-m", "nothing", "hello")
    assert result.returncode == 1 and "no model 'nothing'" in one_line(result.stderr)


def test_models_are_listed_and_a_doctor_finds_nothing_broken(homeless: Run) -> None:
    listed = homeless("models", "list")
    assert listed.returncode == 0 and "smollm2" in listed.stdout and not listed.stderr
    found = homeless("doctor")
    assert found.returncode == 0 and not found.stderr, found.stdout
    for what in ("configuration", "data folder", "cache folder", "chats"):
        assert f"note    {what:14}  no home folder is known" in found.stdout


def test_commands_that_need_a_home_say_so(homeless: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")  # without HF_HOME and without a home
    pulled = homeless("models", "pull", "org/repo")
    assert "no home folder for downloads is known: set HOME, or set HF_HOME" in one_line(pulled.stderr)
    installed = homeless("--install-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert one_line(installed.stderr) == "pjlocal: no home folder is known: set HOME"
    assert not (tmp_path / "~").exists()
