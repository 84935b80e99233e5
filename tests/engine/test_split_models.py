"""A model in several files is found from its first part, through whatever links lead there."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import tiny_models

from pjlocal import Engine
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.model import Model


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    parts = tiny_models.write_split(tmp_path_factory.mktemp("split") / "tiny.gguf")
    assert [part.name for part in parts] == [f"tiny-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    return parts


def n_tensor_bytes(path: Path) -> int:
    with closing(Model(path, Engine(), Interrupt())) as model:
        assert model.path == path and model.name == path.name
        return model.size_bytes


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
