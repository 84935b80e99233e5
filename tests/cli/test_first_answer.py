"""The first answer of the embedded model says that it is a small one, once, and how to get a better one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import PJLOCAL

from pjlocal.engine.machine import Limit
from pjlocal.screen.first_answer import small_model_notice

SMALL = "The small model smollm2 (135M parameters)"
SHORT = ("-n", "4", "--threads", "1", "--ctx", "512")


@pytest.mark.slow
@pytest.mark.parametrize("first", ["run", "chat"])
def test_a_terminal_shows_it_after_the_first_answer_and_never_again(
    on_terminal: Callable, pjlocal: Callable, smollm2: Path, first: str, tiny: Callable[[str], Path]
) -> None:
    def run(*options: str) -> str:
        terminal = on_terminal(*PJLOCAL, "run", *SHORT, *options, "Hello", columns=300)
        terminal.end()
        return terminal.text

    def chat() -> str:
        terminal = on_terminal(*PJLOCAL, "chat", *SHORT, columns=300)
        terminal.at_prompt()
        shown = terminal.say("Hello") + terminal.say("And?")
        terminal.leave()
        return shown

    assert SMALL not in pjlocal("run", *SHORT, "Hello").stderr, "a pipe is left alone"
    assert SMALL not in run("-m", str(tiny("llama"))), "another model"
    both = {"run": run, "chat": chat}
    shown = both.pop(first)()
    assert shown.count(SMALL) == 1 and ": pjlocal models pull " in shown
    (other,) = both.values()
    assert SMALL not in other() and SMALL not in run()


def test_it_names_the_command_that_fits(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def notice(gb: float, model: str = smollm2.name) -> str:
        monkeypatch.setattr("pjlocal.screen.first_answer.memory", lambda: Limit(int(gb * 1e9)))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / f"{gb}"))
        return small_model_notice(model)

    for name in ("HOME", "OLLAMA_MODELS", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pjlocal.gguf.locate.model_folders", list)
    assert notice(3).endswith("memory: pjlocal models pull qwen2.5-1.5b (1.1 GB to download, licence Apache-2.0)")
    assert notice(3) == "", "once"
    assert notice(0.5).endswith("pjlocal models pull lists better ones, which need more memory than is free now")
    assert notice(9, "other.gguf") == "" and notice(9), "another model does not count"
    (tmp_path / "1").write_text("")
    assert notice(1) == "", "where it cannot be remembered, it is not shown"


def test_a_machine_with_other_models_is_told_of_them(
    smollm2: Path, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.gguf").symlink_to(tiny("llama"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert small_model_notice(smollm2.name).endswith("with -m: pjlocal models list shows them")
