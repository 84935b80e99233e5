"""A saved chat goes on with the same files from every folder, and one line says when it cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import call, configure, one_line
from terminal import database
from tiny_models import write_lora

from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

Chat = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def chat(environment: dict[str, str], tmp_path: Path) -> Chat:
    """Run one question through ``pjlocal chat`` in a folder of the test's."""

    def chat(folder: str, *args: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = ["chat", "--regex", "a", "--threads", "1", *args]
        status, written, complained = call(command, environment, tmp_path / folder, b"Why?\n")
        return subprocess.CompletedProcess(command, status, written.decode(), complained.decode())

    return chat


@pytest.fixture
def last(environment: dict[str, str]) -> Callable[[], Session]:
    """The chat used last."""

    def last() -> Session:
        with Store(database(environment)) as store:
            return store.load(store.latest())

    return last


def stands_at(path: Path, model: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(model)
    return path


@pytest.mark.slow
def test_the_model_is_the_same_file_from_another_folder(chat: Chat, last, tiny, tmp_path, environment) -> None:
    own = stands_at(Path(environment["XDG_DATA_HOME"]) / "pjlocal" / "models" / "own.gguf", tiny("llama"))
    here = stands_at(tmp_path / "here" / "my.gguf", tiny("llama"))
    in_models = stands_at(tmp_path / "here" / "models" / "toy.gguf", tiny("llama"))
    for name in ("my.gguf", "models/toy.gguf", "toy.gguf", "own.gguf"):
        stands_at(tmp_path / "there" / name, tiny("recurrent"))
    for name, path in (("./my.gguf", here), ("my.gguf", here), ("toy", in_models), ("own", own)):
        assert chat("here", "-m", name).returncode == 0
        assert last().settings["model"] == str(path)
        result = chat("there", "--continue")
        assert result.returncode == 0 and result.stderr == ""
        assert last().settings["model"] == str(path) and len(last().turns) == 2


def test_a_model_that_is_gone_is_named(chat: Chat, last, tiny, tmp_path) -> None:
    mine = stands_at(tmp_path / "here" / "my.gguf", tiny("llama"))
    chat("here", "-m", "./my.gguf")
    mine.unlink()
    result = chat("there", "--continue")
    assert result.returncode == 1 and result.stdout == ""
    assert one_line(result.stderr) == (
        f"pjlocal: the chat's model is missing: no such model file: {mine}. Give another one with -m"
    )
    assert chat("there", "--continue", "-m", str(tiny("llama"))).returncode == 0
    assert last().settings["model"] == str(tiny("llama")) and len(last().turns) == 2


def test_a_model_path_saved_by_an_older_version_is_reported_once(chat: Chat, last, tiny, tmp_path, environment) -> None:
    with Store(database(environment)) as store:
        store.add_session(Session("Old", settings={"model": "./my.gguf"}))
    there = stands_at(tmp_path / "there" / "my.gguf", tiny("llama"))
    result = chat("here", "--continue")
    assert "the chat's model is missing: no such model file: ./my.gguf. Give another one with -m" in one_line(
        result.stderr
    )
    result = chat("there", "--continue")
    assert one_line(result.stderr) == f"pjlocal: the chat's model was saved as ./my.gguf; here this name means {there}"
    assert chat("here", "--continue").stderr == "" and len(last().turns) == 2


@pytest.mark.slow
def test_a_chat_with_the_embedded_model_keeps_it_whatever_the_config_file_says(
    chat: Chat, last, tiny, environment
) -> None:
    chat("here")
    configure(environment, f"model = '{tiny('llama')}'\n")
    assert chat("here", "--continue").returncode == 0
    assert last().settings["model"] == "smollm2" and len(last().turns) == 2


def test_files_of_preferences_are_the_same_from_another_folder(chat: Chat, last, tiny, tmp_path) -> None:
    (tmp_path / "here").mkdir()
    wish = tmp_path / "here" / "wish.txt"
    wish.write_text("Answer in rhyme.\n")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "wish.txt").write_text("Be another.\n")
    chat("here", "-m", str(tiny("llama")), "-p", "@wish.txt", "-p", "vivid")
    assert chat("there", "--continue").returncode == 0
    assert last().settings["preferences"] == {"a": [f"@{wish}"], "b": ["vivid"]}
    wish.unlink()
    assert f"cannot read preference file {wish}: " in one_line(chat("there", "--continue").stderr)


@pytest.mark.parametrize("prefer", [(), ("-p", "vivid")])
def test_a_chat_with_a_missing_adapter_says_how_to_continue(
    chat: Chat, last, tiny, tmp_path, prefer: tuple[str, ...]
) -> None:
    (tmp_path / "here").mkdir()
    adapter = write_lora(tmp_path / "here" / "pirate.gguf")
    assert chat("here", "-m", str(tiny("llama")), *prefer, "--lora-a", "pirate.gguf:0.5").returncode == 0
    adapter.rename(tmp_path / "away.gguf")
    result = chat("there", "--continue")
    assert result.returncode == 1 and one_line(result.stderr) == (
        f"pjlocal: the chat's adapter is missing: no such file: {adapter}. Give another with --lora-a, or continue "
        "without it: --lora-a pirate.gguf:0"
    )
    assert chat("there", "--continue", "--lora-a", "../away.gguf").returncode == 0
    assert chat("there", "--continue", "--lora-a", "pirate.gguf:0").returncode == 0
    assert len(last().turns) == 3
