"""Run the user's own text editor."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..engine.interrupt import leave_ctrl_c_to_child
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
        program, *options = _words(editor, os.name == "posix")
        program = os.path.expanduser(program)
        with leave_ctrl_c_to_child():
            status = subprocess.run([shutil.which(program) or program, *options, path]).returncode
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot start the editor {editor}: {getattr(error, 'strerror', None) or error}") from None
    if status:
        raise PjlocalError(f"the editor {editor} failed (exit status {status})")


def _words(command: str, is_posix: bool) -> list[str]:
    """Split a command as the system's shell does: on Windows a backslash is part of a path."""
    if is_posix:
        return shlex.split(command)
    return [re.sub('^"(.*)"$', r"\1", word) for word in shlex.split(command, posix=False)]


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
