"""Models in several files, with numbered names: NAME-00001-of-00003.gguf."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")

#: Parts that a model may have: the largest that are shared have some dozens.
MOST_PARTS = 1024


def beside_its_parts(path: Path) -> Path:
    """The path under which llama.cpp finds a split model's other parts by their names.

    That is the first along a chain of links beside which they all lie: a link to the first part may have a name of its
    own, or lie elsewhere than the parts; and in a cache of Hugging Face's it is the links that have the names, and what
    they lead to is called after a checksum.
    """
    hop = path
    while not all(os.path.isfile(part) for part in part_paths(hop)):
        if not hop.is_symlink():
            return path
        hop = hop.parent / os.readlink(hop)
    return hop


def files_of(path: Path) -> list[Path]:
    """The files of a model, the first part first; the file alone if it is not split."""
    path = beside_its_parts(path)
    return [part for part in part_paths(path) if part.is_file()] or [path]


def part_paths(path: Path) -> list[Path]:
    """The paths of a part and all others beside it, in order; for another name, a path that is not a file."""
    part = _PART.search(path.name)
    n_parts = int(part[2]) if part else 0
    if part is None or not 0 < n_parts <= MOST_PARTS:
        return [path / "no part"]
    stem = path.name[: part.start()]
    return [path.with_name(f"{stem}-{i:05}-of-{part[2]}.gguf") for i in range(1, n_parts + 1)]
