"""The user's own folders.  They may not exist, for example for an arbitrary user in a container."""

from __future__ import annotations

import warnings
from pathlib import Path


def data_folder() -> Path | None:
    """The folder for chats and models; None if the user has no home."""
    return _folder("data")


def config_folder() -> Path | None:
    """The folder for settings; None if the user has no home."""
    return _folder("config")


def cache_folder() -> Path | None:
    """The folder for files that can be made again; None if the user has no home."""
    return _folder("cache")


def runtime_folder() -> Path | None:
    """The folder for files that last as long as a login, such as sockets; None if the system has no such folder."""
    return _folder("runtime")


def _folder(kind: str) -> Path | None:
    from platformdirs import PlatformDirs

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about using another folder
            path: Path = getattr(PlatformDirs("pjlocal"), f"user_{kind}_path")
    except (OSError, RuntimeError):
        return None
    return path if path.is_absolute() else None  # platformdirs up to 4.9 returns one with ``~``
