"""Text files that options, settings and preferences name."""

from __future__ import annotations

from pathlib import Path

from .errors import UsageError


def read_text(path: Path, what: str) -> str:
    """The stripped text of a UTF-8 file that an option names.

    Raises:
        UsageError: the file is missing, unreadable, empty or not UTF-8.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {what} {path}: {reason}") from None
    if not text:
        raise UsageError(f"{what} {path} is empty")
    return text
