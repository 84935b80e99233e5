"""A model in several files is found from its first part, through whatever links lead there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_models

from pjlocal import Engine
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model
from pjlocal.errors import ModelError


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    parts = tiny_models.write_split(tmp_path_factory.mktemp("split") / "tiny.gguf")
    assert [part.name for part in parts] == [f"tiny-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    return parts


def n_tensor_bytes(path: Path) -> int:
    model = Model(path, Engine(), Interrupt())
    try:
        assert model.path == path and model.name == path.name
        return model.size_bytes
    finally:
        model.close()


def in_a_cache(parts: list[Path], folder: Path) -> Path:
    """The snapshot of a model in a cache of Hugging Face's: links to files that are called after checksums."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "0123abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, part in enumerate(parts):
        shutil.copy(part, blobs / f"{i}{i}{i}")
        (snapshot / part.name).symlink_to(f"../../blobs/{i}{i}{i}")
    return snapshot


def test_the_first_part_and_every_link_to_it_load_the_whole_model(split: list[Path], tmp_path: Path) -> None:
    first = split[0]
    whole = n_tensor_bytes(first)
    snapshot = in_a_cache(split, tmp_path / "cache")
    assert n_tensor_bytes(snapshot / first.name) == whole, "links to blobs"
    links = tmp_path / "models"
    links.mkdir()
    for name, target in (
        ("mine.gguf", first),
        (first.name, first),  # the name of a part, and no other part beside it
        ("cached.gguf", Path("../cache/snapshots/0123abc") / first.name),
        ("twice.gguf", Path("cached.gguf")),
    ):
        (links / name).symlink_to(target)
        assert n_tensor_bytes(links / name) == whole, name
    (tmp_path / "elsewhere").symlink_to(snapshot)
    (links / "through-a-folder.gguf").symlink_to(tmp_path / "elsewhere" / first.name)
    assert n_tensor_bytes(links / "through-a-folder.gguf") == whole


def test_a_part_without_the_others_is_refused_with_what_is_missing(split: list[Path], tmp_path: Path) -> None:
    alone, first, second = tmp_path / "alone.gguf", tmp_path / split[0].name, tmp_path / split[1].name
    for source, copy in ((split[0], alone), (split[0], first), (split[1], second)):
        shutil.copy(source, copy)
    name_the_first = "as in NAME-00001-of-00003.gguf, and keep all parts in one folder"
    for path, says in (
        (alone, name_the_first),
        (second, name_the_first),
        (first, f"{split[2].name}' is missing .No such file"),
    ):
        with pytest.raises(ModelError, match=f"cannot load {path}: .*{says}"):
            Model(path, Engine(), Interrupt())
