"""The user's own folders, which a container with an arbitrary user has not."""

from __future__ import annotations

from pathlib import Path


def data_folder() -> Path | None:
    """Where chats and models are kept; None where the user has no home."""
    from platformdirs import user_data_path

    try:
        return _absolute(user_data_path("pjlocal"))
    except RuntimeError:
        return None


def config_folder() -> Path | None:
    """Where settings are kept; None where the user has no home."""
    from platformdirs import user_config_path

    try:
        return _absolute(user_config_path("pjlocal"))
    except RuntimeError:
        return None


def cache_folder() -> Path | None:
    """Where what can be found out again is kept; None where the user has no home."""
    from platformdirs import user_cache_path

    try:
        return _absolute(user_cache_path("pjlocal"))
    except RuntimeError:
        return None


def runtime_folder() -> Path | None:
    """Where what lasts as long as a login lies, as sockets do; None where the system has no such folder."""
    import warnings

    from platformdirs import user_runtime_path

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of having to take another folder
            return _absolute(user_runtime_path("pjlocal"))
    except (OSError, RuntimeError):
        return None


def _absolute(path: Path) -> Path | None:
    """platformdirs up to 4.9 gives a path that begins with ``~`` instead of raising an error."""
    return path if path.is_absolute() else None
