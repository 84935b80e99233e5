"""Split models: several files with numbered names, as in NAME-00001-of-00003.gguf."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: The number of a part and that of all parts, before the ending of a file's name.
PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)

MOST_PARTS = 1024  #: the largest models on Hugging Face have some dozens


def beside_its_parts(path: Path) -> Path:
    """Follow links from a split model's first part to the folder that contains all parts.

    llama.cpp finds the parts by their names.  A link may have another name, or be in another folder.  In Hugging Face's
    cache the links have the names, and the files that they lead to are named by checksums.
    """
    hop = path
    while not all(os.path.isfile(part) for part in part_paths(hop)):
        if not hop.is_symlink():
            return path
        hop = hop.parent / os.readlink(hop)
    return hop


def files_of(path: Path) -> list[Path]:
    """The files of a model: the parts in order, or the file alone if it is not split."""
    path = beside_its_parts(path)
    return [part for part in part_paths(path) if part.is_file()] or [path]


def part_paths(path: Path) -> list[Path]:
    """The paths of all parts of the model that a part belongs to, in order.

    If the path does not have the name of a part: a path that does not exist.  llama.cpp does not recognize a
    name that ends in ``.GGUF``.
    """
    part = PART.search(path.name)
    n_parts = int(part[2]) if part else 0
    if part is None or path.suffix != ".gguf" or not 0 < n_parts <= MOST_PARTS:
        return [path / "no part"]
    stem = path.name[: part.start()]
    return [path.with_name(f"{stem}-{i:05}-of-{part[2]}.gguf") for i in range(1, n_parts + 1)]
