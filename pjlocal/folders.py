"""The user's own folders.  A container with an arbitrary user has none."""

from __future__ import annotations

from pathlib import Path


def data_folder() -> Path | None:
    """The folder for chats and models; None if the user has no home."""
    from platformdirs import user_data_path

    try:
        return _absolute(user_data_path("pjlocal"))
    except RuntimeError:
        return None


def config_folder() -> Path | None:
    """The folder for settings; None if the user has no home."""
    from platformdirs import user_config_path

    try:
        return _absolute(user_config_path("pjlocal"))
    except RuntimeError:
        return None


def cache_folder() -> Path | None:
    """The folder for files that can be made again; None if the user has no home."""
    from platformdirs import user_cache_path

    try:
        return _absolute(user_cache_path("pjlocal"))
    except RuntimeError:
        return None


def runtime_folder() -> Path | None:
    """The folder for files that last as long as a login, such as sockets; None if the system has no such folder."""
    import warnings

    from platformdirs import user_runtime_path

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about using another folder
            return _absolute(user_runtime_path("pjlocal"))
    except (OSError, RuntimeError):
        return None


def _absolute(path: Path) -> Path | None:
    """The path if it is absolute: platformdirs up to 4.9 returns one with ``~`` instead of raising an error."""
    return path if path.is_absolute() else None
