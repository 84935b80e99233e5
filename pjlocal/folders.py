"""The user's own folders.  They may not exist, for example for an arbitrary user in a container."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal


def user_folder(kind: Literal["data", "config", "cache", "runtime"]) -> Path | None:
    """The user's folder for chats and models, for settings, for files that can be made again, or for files that last as
    long as a login, such as sockets; None if the user has no home, or the system has no such folder."""
    from platformdirs import PlatformDirs

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about using another folder
            path: Path = getattr(PlatformDirs("pjlocal"), f"user_{kind}_path")
    except (OSError, RuntimeError):
        return None
    return path if path.is_absolute() else None  # platformdirs up to 4.9 returns one with ``~``
