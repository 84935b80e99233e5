"""The user's own folders, which a container with an arbitrary user has not."""

from __future__ import annotations

import warnings
from pathlib import Path


def data_folder() -> Path | None:
    """Where chats and models are kept; None where the user has no home."""
    return _folder("data")


def config_folder() -> Path | None:
    """Where settings are kept; None where the user has no home."""
    return _folder("config")


def cache_folder() -> Path | None:
    """Where what can be found out again is kept; None where the user has no home."""
    return _folder("cache")


def runtime_folder() -> Path | None:
    """Where what lasts as long as a login lies, as sockets do; None where the system has no such folder."""
    return _folder("runtime")


def _folder(kind: str) -> Path | None:
    from platformdirs import PlatformDirs

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of having to take another folder
            path: Path = getattr(PlatformDirs("pjlocal"), f"user_{kind}_path")
    except (OSError, RuntimeError):
        return None
    return path if path.is_absolute() else None  # up to 4.9 it begins with ``~`` instead of an error
