"""Find the file of a model by its name, from any folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pjlocal.errors import ModelError
from pjlocal.gguf.locate import EMBEDDED, available_models, find_model, lasting_name


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty models folder in it, and no models of the user's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    here = tmp_path / "here"
    (here / "models").mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


def test_only_files_count_not_folders_of_that_name(here: Path) -> None:
    (here / "toy.gguf").mkdir()
    (here / "toy").mkdir()
    (here / "models" / "toy").mkdir()
    (here / "models" / "toy.gguf").touch()
    (here / "models" / "folder.gguf").mkdir()
    assert find_model("toy") == find_model("toy.gguf") == Path("models/toy.gguf")
    assert "folder.gguf" not in available_models()


def test_a_lasting_name_means_the_same_file_from_everywhere(here: Path, tmp_path: Path, monkeypatch) -> None:
    own = tmp_path / "data" / "pjlocal" / "models" / "own.gguf"
    own.parent.mkdir(parents=True)
    for path in (own, here / "mine.gguf", here / "models" / "toy.gguf"):
        path.touch()
    names = [lasting_name(name) for name in ("mine.gguf", "./mine.gguf", "../here/mine.gguf", "toy", "own")]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for name in ("mine.gguf", "toy.gguf", "own.gguf"):
        (elsewhere / name).touch()
    assert [find_model(name).resolve().parent.name for name in names] == ["here", "here", "here", "models", "models"]
    assert lasting_name(None) == lasting_name("") == lasting_name("smollm2") == EMBEDDED


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("~nosuchuser/x.gguf", "cannot use the path ~nosuchuser/x.gguf: no home folder is known for ~nosuchuser"),
        ("~nosuchuser", "no model '~nosuchuser' in this folder, models.* or [^ ]*models: "),
        ("a\0b/x.gguf", "contains a NUL character"),
        ("a\0b", "no model 'a.x00b' in this folder"),
        ("no/x.gguf", "no such model file: no/x.gguf"),
        ("models/toy.gguf/x", "no such model file: models/toy.gguf/x"),
        ("n" * 300, "no model 'nnn"),
    ],
)
def test_an_impossible_name_gives_an_error(here: Path, name: str, says: str) -> None:
    (here / "models" / "toy.gguf").touch()
    with pytest.raises(ModelError, match=says):
        find_model(name)


def test_a_file_may_have_any_name(here: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.gguf")
    for name in ("~tilde.gguf", odd):
        (here / "models" / name).touch()
        assert find_model(name) == Path("models", name) and name in available_models()
    assert lasting_name(odd) == str(here / "models" / odd)
