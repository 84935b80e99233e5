"""Saved chats are read where nothing can be written: on a read-only mount, in a backup, on a full disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import PJLOCAL, one_line
from saved_chats import a_turn, saved
from saved_chats import file as file

from pjlocal.sessions import schema
from pjlocal.sessions.schema import MIGRATIONS
from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

_MOUNT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
_FULL = (
    'cp -r "$1" "$1.copy" && mount -t tmpfs -o size=1m tmpfs "$1" && cp -r "$1.copy/." "$1" && rm -r "$1.copy" && '
    '{ cat /dev/zero >"$1/rest" 2>"$1.err"; shift; exec "$@"; }'
)
_PLACES = (["unshare", "-m"], ["unshare", "-Urm"])


def _can(place: list[str], folder: Path) -> bool:
    command = [*place, "sh", "-c", _MOUNT, "sh", str(folder), "touch", str(folder / "x")]
    result = subprocess.run(command, capture_output=True, text=True)
    return "Read-only file system" in result.stderr and "mount:" not in result.stderr


@pytest.fixture
def read(environment, file: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``pjlocal`` while the folder of the database is mounted read-only, or is a full disk."""
    file.parent.mkdir()
    place = next((p for p in _PLACES if sys.platform == "linux" and shutil.which(p[0]) and _can(p, file.parent)), None)
    if place is None:
        pytest.skip("needs a mount of its own")
    env = environment | {"PJLOCAL_DATABASE": str(file)}

    def read(*args: str, mount: str = _MOUNT) -> subprocess.CompletedProcess[str]:
        command = [*place, "sh", "-c", mount, "sh", str(file.parent), *PJLOCAL, *args]
        return subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)

    return read


@pytest.mark.slow
@pytest.mark.parametrize("mount", [_MOUNT, _FULL], ids=["read-only", "full"])
def test_a_closed_database_is_listed_shown_searched_and_exported(read, file, mount) -> None:
    with Store() as store:
        saved(store, "Birds", a_turn("A bird?", "A grey heron."))
    for args in (("list",), ("show", "birds"), ("search", "heron"), ("export", "1"), ("list", "--json")):
        result = read("sessions", *args, mount=mount)
        assert result.returncode == 0 and result.stderr == "" and ("Birds" in result.stdout)
    assert [path.name for path in file.parent.iterdir()] == ["chats.db"]


@pytest.mark.slow
def test_a_database_that_another_process_holds_or_left_is_read(read, file, tmp_path) -> None:
    with Store() as store:
        saved(store, "Birds", a_turn("A bird?", "A grey heron."))
        result = read("sessions", "search", "heron")
        assert result.returncode == 0 and result.stderr == "" and "Birds" in result.stdout
        left = tmp_path / "left"
        shutil.copytree(file.parent, left)
    for path in left.iterdir():
        shutil.copy(path, file.parent)
    result = read("sessions", "list")
    assert result.returncode == 0 and result.stderr == "" and "Birds" in result.stdout


def test_an_unreadable_wal_file_is_reported(read, file, tmp_path) -> None:
    with Store() as store:
        saved(store, "Early", a_turn())
    with Store() as store:
        saved(store, "Late", a_turn())
        left = tmp_path / "left"
        shutil.copytree(file.parent, left)
    for path in left.iterdir():
        shutil.copy(path, file.parent)
    Path(f"{file}-shm").unlink()
    result = read("sessions", "list")
    assert result.returncode == 0 and "Early" in result.stdout and "Late" not in result.stdout
    assert one_line(result.stderr).startswith(
        f"pjlocal: the latest messages are in {file}-wal, which cannot be read in"
    )


def test_an_old_schema_is_reported(read, file, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:1])
        with Store() as store:
            store.add_session(Session("Old"))
    result = read("sessions", "list")
    assert result.returncode == 1 and result.stdout == ""
    assert "an older pjlocal wrote it, and it cannot be upgraded in a folder that cannot be written" in one_line(
        result.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mount", "reason"), [(_MOUNT, "unable to open"), (_FULL, "the disk is full")], ids=["read-only", "full"]
)
def test_commands_that_write_are_refused_and_a_chat_is_read_but_not_saved(read, file, tiny, mount, reason) -> None:
    with Store() as store:
        saved(store, "Birds", a_turn())
    for args in (("rename", "birds", "x"), ("rm", "-y", "birds")):
        result = read("sessions", *args, mount=mount)
        assert result.returncode == 1 and f"cannot use the saved chats in {file}: {reason}" in one_line(result.stderr)
    for option in ("--save", "--continue"):
        result = read("chat", "-m", str(tiny("llama")), option, mount=mount)
        assert result.returncode == 0 and one_line(result.stderr).endswith(". This chat is not saved")
