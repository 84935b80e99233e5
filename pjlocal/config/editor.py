"""Run the user's own text editor."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..engine.interrupt import child_in_front
from ..errors import PjlocalError, UsageError


def edit_file(path: Path) -> None:
    """Open a file in $VISUAL or $EDITOR and wait until it is closed.

    Raises:
        UsageError: no editor is set, or it cannot be started.
        PjlocalError: the editor failed.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    if not editor.strip():
        raise UsageError("set VISUAL or EDITOR to your editor")
    try:
        with child_in_front(editor, path) as child:
            pass
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot start the editor {editor}: {getattr(error, 'strerror', None) or error}") from None
    if child.returncode:
        raise PjlocalError(f"the editor {editor} failed (exit status {child.returncode})")


def edit_text(text: str) -> str:
    """Edit a text in the user's editor, and return it without white space around it.  Raises the errors of
    `edit_file`."""
    with tempfile.TemporaryDirectory(prefix="pjlocal-") as folder:
        path = Path(folder) / "question.md"
        path.write_text(text + "\n", encoding="utf-8", errors="replace")
        edit_file(path)
        try:
            return path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the text that the editor saved: {error}") from None
