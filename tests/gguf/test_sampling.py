"""--sampling model: the sampling settings of a model's file are used if nothing else sets them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from commandline import PREFER, QUESTION, configure

from pjlocal import PersonaJudge
from pjlocal.gguf.sampling import recommended
from pjlocal.settings import Sampling

SAYS = {"temp": 0.6, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "penalty_repeat": 1.1, "mirostat": 1}


@pytest.fixture
def says(tmp_path: Path) -> Path:
    return tiny_models.write_llama(tmp_path / "says.gguf", recommends=SAYS)


def test_the_files_values_take_the_place_of_defaults_alone(says: Path) -> None:
    with PersonaJudge(says, sampling=Sampling(defaults="model", top_p=0.5)) as judge:
        assert judge.request.sampling == Sampling(
            defaults="model", temperature=0.6, top_k=40, top_p=0.5, min_p=0.05, repeat_penalty=1.1
        )
        assert judge.followed_sampling == "temperature 0.6, top-k 40, min-p 0.05, repeat-penalty 1.1"
        request, values = judge.request, judge.recommended
        assert request.with_model_defaults(values) == request
        assert request.replace(defaults="own").with_model_defaults(values).sampling == Sampling(top_p=0.5)
        assert request.with_model_defaults({"min_p": 0.2}).sampling == Sampling(defaults="model", top_p=0.5, min_p=0.2)
    with PersonaJudge(says) as judge:
        assert judge.request.sampling == Sampling() and judge.followed_sampling == ""


@pytest.mark.slow
def test_flags_and_the_config_file_win_even_with_what_is_the_default_anyway(
    pjlocal: Callable, says: Path, environment: dict[str, str]
) -> None:
    def with_model_defaults(*options: str) -> str:
        result = pjlocal("run", "-m", says, *PREFER, "-n", "2", "--stats", "--sampling", "model", *options, QUESTION)
        assert result.returncode == 0, result.stderr
        return result.stderr.strip().rpartition("sampling of the model: ")[2]

    assert with_model_defaults() == "temperature 0.6, top-k 40, top-p 0.95, min-p 0.05, repeat-penalty 1.1"
    assert with_model_defaults("-t", "0.7") == "top-k 40, top-p 0.95, min-p 0.05, repeat-penalty 1.1"
    configure(environment, "[sampling]\ntop_k = 20\n")
    assert with_model_defaults("-t", "0.7") == "top-p 0.95, min-p 0.05, repeat-penalty 1.1"
    plain = pjlocal("run", "-m", says, *PREFER, "-n", "2", "--stats", QUESTION)
    assert "sampling of the model" not in plain.stderr


@pytest.mark.slow
def test_a_continued_chat_keeps_its_settings_and_takes_the_files_values_on_request(
    pjlocal: Callable, says: Path, environment: dict[str, str]
) -> None:
    def temperature(*lines: str, options: tuple[str, ...] = ()) -> str:
        session = () if "--no-save" in options else ("--session", "it")
        result = pjlocal("chat", *session, *options, stdin="\n".join([*lines, "/set temperature"]))
        assert result.returncode == 0, result.stderr
        return re.findall(r"temperature +(\S+)", result.stdout)[-1]

    options = ("-m", str(says), *PREFER, "-n", "2", "--sampling", "model")
    assert temperature("/set temperature 0.25", "Hi", options=options) == "0.25"
    assert temperature() == "0.25"
    assert temperature(options=("--sampling", "model")) == "0.6"
    assert temperature(options=("--sampling", "model", "-t", "0.7")) == "0.7"
    configure(environment, "[sampling]\ntemperature = 0.9\n")
    assert temperature(options=("--sampling", "model")) == "0.6"
    assert temperature(options=("-m", str(says), "--sampling", "model", "--no-save")) == "0.9"


def test_a_chat_continued_with_another_model_leaves_the_first_ones_values(
    pjlocal: Callable, says: Path, tiny: Callable[[str], Path], environment: dict[str, str]
) -> None:
    def temperatures(*options: str, lines: str) -> list[str]:
        result = pjlocal("chat", *options, "-n", "2", stdin=f"{lines}\n/set temperature\n/set top-p")
        assert result.returncode == 0, result.stderr
        return re.findall(r"(?:temperature|top-p) +(\S+)", result.stdout)[-2:]

    first = ("-m", str(says), *PREFER, "--sampling", "model", "--session", "it")
    assert temperatures(*first, lines="/set top-p 0.5\nHi") == ["0.6", "0.5"]
    other = ("-m", str(tiny("llama")))
    assert temperatures("--continue", *other, lines="/stats") == ["0.7", "0.5"]
    assert temperatures(*other, lines="/load it") == ["0.7", "0.5"]
    loaded = pjlocal("chat", *other, stdin="/load it").stderr
    assert "llama.gguf, and was saved with" in loaded and "says.gguf loads that" in loaded


def test_a_continued_chat_keeps_what_no_file_recommends(pjlocal: Callable, says: Path) -> None:
    begun = pjlocal("chat", "-m", says, *PREFER, "--session", "it", "-n", "9", stdin="/set regex (yes|no)\nHi")
    assert begun.returncode == 0
    for choice in ("model", "own"):
        shown = pjlocal("chat", "--session", "it", "--sampling", choice, "-n", "9", stdin="Hi\n/set regex").stdout
        assert "(yes|no)" in shown


def test_info_shows_what_the_file_says(pjlocal: Callable, says: Path, smollm2: Path) -> None:
    assert "temperature 0.6, top-k 40, top-p 0.95" in pjlocal("models", "info", says).stdout
    assert json.loads(pjlocal("models", "info", says, "--json").stdout)["sampling"]["temperature"] == 0.6
    assert "none in the file" in pjlocal("models", "info", smollm2).stdout


def test_values_that_cannot_be_are_left_out() -> None:
    said = {"temp": "nan", "top_k": "-5", "top_p": 3.0, "min_p": "half", "penalty_repeat": "1.2", "xtc_threshold": None}
    assert recommended(lambda key: said.get(key.removeprefix("general.sampling."))) == {"repeat_penalty": 1.2}
