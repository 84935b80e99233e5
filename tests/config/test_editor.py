"""The user's own editor: what it saves is what is asked."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pjlocal.config.editor import edit_text
from pjlocal.engine.interrupt import Ended, Interrupt, _words, on_sigint
from pjlocal.errors import PjlocalError


def test_a_byte_order_mark_of_an_editor_is_removed(tmp_path: Path, monkeypatch) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf '\\357\\273\\277// a comment\\n' > \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    assert edit_text("before") == "// a comment"


@pytest.mark.slow
def test_ctrl_c_is_the_editors_and_what_it_saves_afterwards_counts(
    process: Callable, environment: dict[str, str], tmp_path: Path
) -> None:
    editor = tmp_path / "editor"
    editor.write_text(
        "#!/bin/sh\nkill -INT $PPID\nsh -c 'kill -INT $$' && exit 1 # Ctrl-C is not ignored in the editor\n"
        "sleep 0.6\necho 'save = false' > \"$1\"\n"
    )
    editor.chmod(0o755)
    environment["VISUAL"] = str(editor)
    edited = process("config", "edit")
    assert (edited.returncode, edited.stderr) == (0, "")
    assert (tmp_path / "config/pjlocal/config.toml").read_text() == "save = false\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_pjlocal_ends_the_editor(tmp_path: Path, monkeypatch, signum: signal.Signals) -> None:
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\nkill -{signum} $PPID\nexec sleep 9\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    before, begun = signal.signal(signum, signal.SIG_DFL), time.monotonic()  # nohup ignores SIGHUP
    try:
        with pytest.raises(Ended) as ended, on_sigint(Interrupt()), pytest.raises(PjlocalError):
            edit_text("before")
    finally:
        signal.signal(signum, before)
    assert ended.value.status == 128 + signum and time.monotonic() - begun < 9


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("code --wait", ["code", "--wait"]),
        (r'"C:\Program Files\Code\code.exe" --wait', [r"C:\Program Files\Code\code.exe", "--wait"]),
        (r"C:\vim\gvim.exe -f", [r"C:\vim\gvim.exe", "-f"]),
    ],
)
def test_an_editor_on_windows_may_be_in_quotes(command: str, words: list[str]) -> None:
    assert _words(command, is_posix=False) == words
