"""A model of Ollama's goes by its name everywhere, and what else Ollama has for it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from commandline import PREFER, one_line

PARAMETERS = {"temperature": 0.3, "top_k": 7, "repeat_last_n": 32, "num_ctx": 2048, "stop": ["Arr!"]}


@pytest.fixture
def store(environment: dict[str, str]) -> Path:
    """One file of weights under two names, one of which has a system prompt, an adapter and parameters."""
    store = Path(environment["OLLAMA_MODELS"])
    (store / "blobs").mkdir(parents=True)

    def layer(kind: str, number: int, text: str | None = None) -> dict[str, str]:
        blob = store / "blobs" / f"sha256-{number:064}"
        if text is not None:
            blob.write_text(text)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{number:064}"}

    def manifest(name: str, *layers: dict[str, str]) -> None:
        path = store / "manifests" / "registry.ollama.ai" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))

    tiny_models.write_llama(store / "blobs" / f"sha256-{1:064}", recommends={"temp": 0.9, "top_p": 0.8})
    tiny_models.write_lora(store / "blobs" / f"sha256-{2:064}")
    manifest("library/plain/latest", layer("model", 1), layer("license", 9, "MIT"))
    manifest(
        "anna/pirate/latest",
        layer("model", 1),
        layer("adapter", 2),
        layer("system", 3, "You are a pirate."),
        layer("params", 4, json.dumps(PARAMETERS)),
    )
    return store


@pytest.mark.slow
@pytest.mark.parametrize("server", [(), ("--no-server",)])
def test_an_ollama_model_is_found_by_its_name(pjlocal: Callable, store: Path, server: tuple[str, ...]) -> None:
    for given, name in (("plain", "plain:latest"), ("anna/pirate", "anna/pirate:latest")):
        result = pjlocal("run", "-m", given, "-n", "2", "--json", *server, "Hello")
        assert json.loads(result.stdout)["model"] == name


def test_every_name_is_listed(pjlocal: Callable, store: Path) -> None:
    listed = pjlocal("models", "list").stdout
    assert "\nplain:latest" in listed and "\nanna/pirate:latest" in listed
    assert "sha256" not in listed
    assert pjlocal("models", "info", "anna/pirate").stdout.split()[:2] == ["name", "anna/pirate:latest"]


@pytest.mark.slow
def test_unused_parts_of_an_ollama_model_are_reported(pjlocal: Callable, store: Path) -> None:
    said, cut_off = pjlocal("run", "-m", "anna/pirate", "-n", "2", "--seed", "1", "Hello").stderr.splitlines()
    assert "cut off" in cut_off and said == (
        "pjlocal: anna/pirate:latest: parts of Ollama's model are not used: its system prompt "
        f"(--system gives one), its adapter (--lora {store}/blobs/sha256-{2:064} applies it), its parameters "
        "num_ctx, stop; --sampling model uses its temperature, top_k, repeat_last_n"
    )
    assert one_line(pjlocal("run", "-m", "plain", "-n", "2", "--seed", "1", "Hello").stderr) == cut_off
    adapter = f"{store}/blobs/sha256-{2:064}"
    assert pjlocal("run", "-m", "plain", "-n", "2", "--lora", adapter, "Hello").returncode == 0


@pytest.mark.slow
def test_its_parameters_are_the_models_sampling(pjlocal: Callable, store: Path) -> None:
    arguments = ("--sampling", "model", "-n", "2", "--stats", "Hello")
    said = pjlocal("run", "-m", "anna/pirate", *arguments).stderr
    assert "sampling of the model: temperature 0.3, top-p 0.8, top-k 7, penalty-last-n 32" in said
    assert "sampling of the model: temperature 0.9, top-p 0.8" in pjlocal("run", "-m", "plain", *arguments).stderr
    info = json.loads(pjlocal("models", "info", "anna/pirate", "--json").stdout)
    assert info["sampling"] == {"temperature": 0.3, "top_p": 0.8, "top_k": 7, "penalty_last_n": 32}


@pytest.mark.slow
def test_an_evaluation_reports_unused_parts_of_an_ollama_model_once(pjlocal, store: Path, tmp_path) -> None:
    system, objectives = '[[systems]]\nname = "plain"\nmode = "plain"\n', '[[objectives]]\nname = "o"\n'
    (tmp_path / "suite.toml").write_text(f'limit = 1\n{system}{objectives}prefer = ["vivid"]\n')
    result = pjlocal("eval", "run", "suite.toml", "--out", "out", "-m", "anna/pirate", "-n", "2")
    assert result.returncode == 0 and "Scores by anna/pirate:latest" in result.stdout
    assert result.stderr.count("parts of Ollama's model are not used") == 1


@pytest.mark.slow
def test_a_chat_and_its_copies_say_the_name(pjlocal: Callable, process: Callable, store: Path) -> None:
    chat = pjlocal("chat", "-m", "anna/pirate", *PREFER, "--max-tokens", "4", stdin="Hello\n/model\n/quit\n")
    assert "anna/pirate:latest" in chat.stdout + chat.stderr
    assert "anna/pirate:latest" in pjlocal("sessions", "list").stdout
    assert json.loads(pjlocal("sessions", "list", "--json").stdout)[0]["model"] == "anna/pirate:latest"
    for form in ("md", "html", "json"):
        exported = pjlocal("sessions", "export", "1", "--format", form)
        assert "anna/pirate:latest" in exported.stdout and "sha256-" not in exported.stdout, form
    again = process("chat", "--continue", stdin="More\n/quit\n")
    assert again.returncode == 0 and "anna/pirate:latest" in again.stdout + again.stderr
