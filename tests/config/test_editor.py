"""The user's own editor: what it saves is what is asked."""

from __future__ import annotations

from pathlib import Path

from pjlocal.config.editor import edit_text


def test_a_byte_order_mark_of_an_editor_is_removed(tmp_path: Path, monkeypatch) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf '\\357\\273\\277// a comment\\n' > \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    assert edit_text("before") == "// a comment"
