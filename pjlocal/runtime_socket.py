"""The Unix socket of a server of the same user, which is found by its name."""

from __future__ import annotations

import json
import os
import socket
import stat
from hashlib import sha256
from pathlib import Path

from . import __version__
from .folders import runtime_folder
from .prompting.preferences import presets
from .settings import Engine

#: Variables of the environment that change what llama.cpp computes on, by their beginnings.
_COMPUTING = ("GGML_", "CUDA_", "HIP_", "ROCR_")


def socket_path(model: Path, engine: Engine) -> Path | None:
    """Where a server listens that would write what this process would; None where there can be none.

    The name tells such servers from all others: those with another model file, or one that has changed since, with
    other engine settings or presets, or of another version.
    """
    folder = runtime_folder()
    if folder is None or not hasattr(socket, "AF_UNIX"):
        return None
    try:
        file = model.resolve()
        status = file.stat()
    except (OSError, RuntimeError):  # which loading it tells of
        return None
    computing = {name: value for name, value in os.environ.items() if name.startswith(_COMPUTING)}
    same = [__version__, str(file), status.st_size, status.st_mtime_ns, engine.as_dict(), presets(), computing]
    return folder / f"{sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]}.sock"


def is_private(folder: Path) -> bool:
    """Whether nobody but this user can have put something there, or another folder in its place."""
    try:
        status, above = folder.lstat(), folder.parent.stat()
    except OSError:
        return False
    replaceable = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
    if above.st_uid not in (0, os.getuid()) or replaceable:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
