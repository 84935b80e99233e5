"""List the models on this machine.  Only folders are read; no model file is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

from .ollama import manifests
from .places import HUGGING_FACE, LM_STUDIO, OLLAMA, PJLOCAL, Place, places
from .split import PART, files_of

_QUANTIZATION = re.compile(
    r"[-._](?P<quant>(?:UD-)?(?:I?Q\d\w*|T?Q[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32|FP16|FP32))(?=$|[-.])",
    re.IGNORECASE,
)
_DEEPEST = 6  # levels of folders to search: Hugging Face's files are 4 deep, or deeper in a repository's own folders
_MODEL = re.compile(r"(?!\.|mmproj).*\.gguf$", re.IGNORECASE)
#: Folders without models: hidden ones, those with the name of a file, and some of Hugging Face's cache.
_WITHOUT_MODELS = re.compile(r"^\.|(?i:\.gguf)$|^(blobs|refs)$|^(datasets|spaces)--")


@dataclass(frozen=True)
class ModelFile:
    """A model on this machine: a file, or all files of a split model.

    Attributes:
        name: its name for ``-m``: the file's name, or Ollama's ``NAME:TAG``; the whole path if an earlier file has
            the same name.
        path: the file, or the first part of a split model; may be a link.
        owner: the program whose folder contains it (see `places`).
        repo: the repository ``org/name`` that it was downloaded from, if the folder's name contains it.
        parts: all files of the model.
        size: the size of all parts in bytes.
        others: links to the same file, and other names of it.
        trouble: the reason why it cannot be used, if the folder shows one.
        manifest: Ollama's file for the name.
    """

    name: str
    path: Path
    owner: str
    repo: str | None
    parts: tuple[Path, ...]
    size: int
    others: tuple[ModelFile, ...] = ()
    trouble: str | None = None
    manifest: Path | None = None

    @property
    def named(self) -> Path:
        """The path that identifies the name: Ollama's manifest, or the file.

        Two names in Ollama may share the file.
        """
        return self.manifest or self.path

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same file."""
        return tuple(dict.fromkeys(other.name for other in self.others if other.name != self.name))

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def quantization(self) -> str | None:
        """The quantization in the name of the file or its folder, in upper case."""
        return quantization_of(self.name if self.owner == OLLAMA else f"{self.path.parent.name}/{self.path.name}")


def quantization_of(file: str) -> str | None:
    """The last quantization in a file's name, or in its folder's, in upper case.

    ``Q4_K_M`` for ``model-Q4_K_M-00001-of-00002.gguf``, ``BF16`` for ``BF16/model.gguf``.
    """
    *folders, name = file.split("/")
    stem = re.sub(r"\.gguf$", "", PART.sub("", name), flags=re.IGNORECASE).replace(":", "-")
    spelled = [match["quant"].upper() for match in _QUANTIZATION.finditer(stem)]
    if spelled:
        return spelled[-1]
    return quantization_of(f"-{folders[-1]}") if folders else None


def without_part(file: str) -> str:
    """The name of a model's file without the number of a split model's part."""
    return PART.sub(r"-of-\2", file)


def find_all() -> list[ModelFile]:
    """The models in all places, each file once, in the order of the places.

    A model in another program's folder belongs to that program, even if the folder is ``models/`` or is in it.
    """
    seen: dict[tuple[int, int], int] = {}  # index in ``found`` by device and inode
    found: list[ModelFile] = []
    every = list(places())
    of_others = {_identity(place.folder) for place in every if place.owner not in (PJLOCAL, OLLAMA)} - {None}
    for place in every:
        for model in _in_place(place, of_others if place.owner == PJLOCAL else set()):
            key = None if place.owner == OLLAMA else _identity(model.path)  # each of Ollama's names is a model
            if key is not None and key in seen:
                known = found[seen[key]]
                found[seen[key]] = replace(known, others=(*known.others, model))
                continue
            if key is not None:
                seen[key] = len(found)
            found.append(model)
    return _distinct(found)


def _distinct(found: Iterable[ModelFile]) -> list[ModelFile]:
    """Make names unique: if several models have the same name, all except the first are named by their path."""
    taken: set[str] = set()
    result = []
    for model in found:
        if model.name in taken:
            model = replace(model, name=str(model.path.absolute()))
        taken.add(model.name)
        result.append(model)
    return result


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _in_place(place: Place, without: set[tuple[int, int] | None]) -> list[ModelFile]:
    if place.owner == OLLAMA:
        return sorted(_ollama(place.folder), key=lambda model: model.name)
    files = list(_files(place.folder, without))
    if place.owner == HUGGING_FACE:
        files = _current_first(place.folder, files)
    else:
        files.sort(key=lambda path: (path.is_symlink(), path))  # files before links to them
    return [_one(place, parts) for parts in _together(files)]


def _files(folder: Path, without: set[tuple[int, int] | None]) -> Iterator[Path]:
    """The GGUF files in a folder and its subfolders.  Links to folders are followed; each folder is read once.

    Args:
        without: folders to leave out, by device and inode.
    """
    seen = set(without)
    for current, folders, files in os.walk(folder, followlinks=True):
        key = _identity(Path(current))
        if key in seen:
            folders.clear()
            continue
        seen.add(key)
        is_deepest = len(Path(current).relative_to(folder).parts) == _DEEPEST
        folders[:] = [] if is_deepest else [name for name in folders if not _WITHOUT_MODELS.search(name)]
        for name in files:
            path = Path(current, name)
            if _MODEL.match(name) and (os.path.isfile(path) or not os.path.exists(path)):  # a broken link is listed
                yield path


def _together(files: Iterable[Path]) -> Iterator[list[Path]]:
    """The files of each model, in their order."""
    models: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
        models.setdefault((path.parent, without_part(path.name)), []).append(path)
    return map(sorted, models.values())


def _one(place: Place, parts: list[Path]) -> ModelFile:
    first, size, trouble = parts[0], 0, None
    files, match = parts, PART.search(first.name)
    if match and len(parts) < int(match[2]) and first.is_symlink() and first.exists():
        files = files_of(first)  # a link's other parts are beside its target
    for part in files:
        try:
            status = part.stat()
        except OSError:
            trouble = "its link is broken"
            continue
        size += status.st_size
    if match:
        whole, there = int(match[2]), {int(m[1]) for part in files if (m := PART.search(part.name))}
        if missing := [i for i in range(1, min(whole, 1000) + 1) if i not in there]:
            trouble = f"{len(missing)} of {whole} parts missing (the first is {missing[0]:05})"
    return ModelFile(first.name, first, place.owner, _repo(place, first), tuple(parts), size, trouble=trouble)


def _repo(place: Place, path: Path) -> str | None:
    """The repository ``org/name``, if the names of the folders contain it."""
    above = path.relative_to(place.folder).parts[:-1]
    if place.owner == HUGGING_FACE and above and above[0].startswith("models--"):
        return above[0].removeprefix("models--").replace("--", "/", 1)
    if place.owner == LM_STUDIO and len(above) >= 2:
        return f"{above[0]}/{above[1]}"
    return None


def _current_first(folder: Path, files: list[Path]) -> list[Path]:
    """Sort files in Hugging Face's cache: the current snapshot of a repository before older ones."""
    current: dict[str, str] = {}

    def order(path: Path) -> tuple[str, bool, str]:
        repo, *below = path.relative_to(folder).parts
        if repo not in current:
            try:
                current[repo] = (folder / repo / "refs" / "main").read_text().strip()
            except (OSError, ValueError):
                current[repo] = ""
        return repo, below[1:2] != [current[repo]], str(path)

    return sorted(files, key=order)


def _ollama(folder: Path) -> Iterator[ModelFile]:
    """The models in Ollama's store."""
    for manifest in manifests(folder):
        size, trouble = 0, None
        try:
            status = manifest.model.stat()
            size = status.st_size
            if not S_ISREG(status.st_mode) or not size:
                trouble = "its file is empty: ollama pull it again"
        except OSError:
            trouble = "its file is missing: ollama pull it again"
        blob = manifest.model
        yield ModelFile(
            manifest.name, blob, OLLAMA, manifest.repo, (blob,), size, trouble=trouble, manifest=manifest.path
        )
