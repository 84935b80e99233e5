"""Completion in shells: through bash itself, and by the protocol of the scripts for zsh and fish."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import PJLOCAL, configure
from waiting import PATIENCE_S

from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds the command by its name, with models, presets and chats of one's own."""
    script = tmp_path / "bin" / "pjlocal"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.join(PJLOCAL)} "$@"\n')
    script.chmod(0o755)
    models = tmp_path / "data" / "pjlocal" / "models"
    models.mkdir(parents=True)
    for name in ("Qwen3-8B-Q4_K_M.gguf", "Qwen3-4B.gguf", 'odd";touch gone;".gguf', "two words.gguf", "$(id).gguf"):
        (models / name).touch()
    configure(environment, '[presets]\npirate = "Talk like a pirate."\n[personas.captain]\nprefer = ["pirate"]\n')
    with Store(tmp_path / "data" / "pjlocal" / "chats.db") as store:
        for title in ("poems", "two words"):
            store.add_session(Session(title=title))
    root = str(Path(__file__).parents[2])
    return environment | {"PATH": f"{script.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": root}


def bash(shell: dict[str, str], code: str) -> str:
    done = subprocess.run(["bash", "--norc", "-c", code], env=shell, capture_output=True, text=True, timeout=PATIENCE_S)
    assert not done.stderr, done.stderr
    return done.stdout


def completed(shell: dict[str, str], *words: str) -> list[str]:
    """The completions that bash offers for the last word."""
    array = " ".join(map(shlex.quote, words))
    code = f'. "$HOME/completion.sh"; COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; _pjlocal_completion pjlocal'
    script = Path(shell["HOME"], "completion.sh")
    if not script.exists():
        script.write_text(bash(shell, "pjlocal --show-completion; :"))  # it finds out that a bash has called it
    return bash(shell, f'{code}; printf "%s\\n" "${{COMPREPLY[@]}}"').split()


@pytest.mark.slow
def test_bash_completes_models_presets_personas_commands_and_options(shell: dict[str, str]) -> None:
    assert completed(shell, "pjlocal", "run", "-m", "Qwen") == ["Qwen3-4B.gguf", "Qwen3-8B-Q4_K_M.gguf"]
    assert completed(shell, "pjlocal", "run", "--aligner", "sm") == ["smollm2"]
    assert completed(shell, "pjlocal", "eval", "score", "dir", "--reward-model", "sm") == ["smollm2"]
    assert completed(shell, "pjlocal", "models", "info", "sm") == ["smollm2"]
    assert completed(shell, "pjlocal", "models", "pull", "llama-3.2-1") == ["llama-3.2-1b"]
    assert completed(shell, "pjlocal", "chat", "-p", "pi") == ["pirate"]
    assert completed(shell, "pjlocal", "run", "-P", "") == ["captain"]
    assert completed(shell, "pjlocal", "prefs", "show", "cap") == ["captain"]
    assert completed(shell, "pjlocal", "prefs", "rm", "") == ["pirate", "captain"], "only what it removes"
    assert {"models", "doctor", "chat"} <= {*completed(shell, "pjlocal", "")}
    assert completed(shell, "pjlocal", "run", "--temp") == ["--temperature"]
    assert completed(shell, "pjlocal", "run", "--mode", "ba") == ["base"]
    assert completed(shell, "pjlocal", "docs", "ser") == ["server"]
    assert completed(shell, "pjlocal", "eval", "run", "qui") == ["quick"]


@pytest.mark.slow
def test_names_that_a_shell_would_take_apart_or_run_are_not_offered(shell: dict[str, str]) -> None:
    for word in ("odd", "two", "$"):
        assert completed(shell, "pjlocal", "run", "-m", word) == []


@pytest.mark.slow
def test_saved_chats_are_completed(shell: dict[str, str]) -> None:
    assert completed(shell, "pjlocal", "chat", "--session", "po") == ["poems"]
    assert completed(shell, "pjlocal", "sessions", "show", "") == ["poems", "2", "1"]


@pytest.mark.parametrize("shell_name", ["zsh", "fish"])
def test_zsh_and_fish_get_names_with_what_they_are(shell: dict[str, str], shell_name: str) -> None:
    asked = {"_PJLOCAL_COMPLETE": f"complete_{shell_name}", "_TYPER_COMPLETE_ARGS": "pjlocal run -m smol"}
    asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    done = subprocess.run(PJLOCAL, env=shell | asked, capture_output=True, text=True)
    expected = {"zsh": '_arguments \'*: :(("smollm2":"pjlocal"))\'\n', "fish": "smollm2\tpjlocal\n"}
    assert (done.stdout, done.stderr) == (expected[shell_name], "")


def test_install_completion_writes_what_bash_reads(shell: dict[str, str]) -> None:
    assert "bash completion installed in" in bash(shell, "pjlocal --install-completion; :")
    offered = bash(shell, '. "$HOME/.bashrc"; complete -p pjlocal')
    assert "_pjlocal_completion pjlocal" in offered


@pytest.mark.slow
def test_nothing_is_offered_where_nothing_can_be_looked_up(shell: dict[str, str]) -> None:
    configure(shell, "nonsense")
    assert completed(shell, "pjlocal", "run", "-P", "") == []


@pytest.mark.slow
def test_completion_loads_nothing_that_takes_its_time(shell: dict[str, str]) -> None:
    """It takes 0.24 s on an idle machine."""
    code = """import atexit, sys
from pjlocal.cli.main import main
atexit.register(lambda: print(*sys.modules))
main()"""
    asked = {"_PJLOCAL_COMPLETE": "complete_bash", "COMP_WORDS": "pjlocal run -m sm", "COMP_CWORD": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=shell | asked, capture_output=True, text=True)
    offered, *loaded = done.stdout.split()
    assert offered == "smollm2", done.stderr
    assert not {"llama_cpp", "numpy", "huggingface_hub", "prompt_toolkit"} & {*loaded}
