"""The path of the Unix socket by which a server of the same user is found."""

from __future__ import annotations

import json
import os
import socket
import stat
from hashlib import sha256
from pathlib import Path

from . import __version__
from .folders import user_folder
from .prompting.preferences import presets
from .settings import Engine

#: Prefixes of environment variables that change the devices or the computation of llama.cpp.
_COMPUTING = ("GGML_", "CUDA_", "HIP_", "ROCR_")


def socket_path(model: Path, engine: Engine) -> Path | None:
    """The socket of a server that writes the same answers as this process; None if there cannot be one.

    The name is a hash of the version, the model file and its state, the engine settings, the presets, and environment
    variables, so a server that differs in one of them has another socket.
    """
    folder = user_folder("runtime")
    if folder is None or not hasattr(socket, "AF_UNIX"):
        return None
    try:
        file = model.resolve()
        status = file.stat()
    except (OSError, RuntimeError):  # loading the model reports it
        return None
    computing = {name: value for name, value in os.environ.items() if name.startswith(_COMPUTING)}
    same = [__version__, str(file), status.st_size, status.st_mtime_ns, engine.as_dict(), presets(), computing]
    return folder / f"{sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]}.sock"


def is_private(folder: Path) -> bool:
    """True if only this user can write into the folder or replace it."""
    try:
        status, above = folder.lstat(), folder.parent.stat()
    except OSError:
        return False
    replaceable = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
    if above.st_uid not in (0, os.getuid()) or replaceable:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
