"""Help texts, messages and labels, in one file that a reviewer can read."""

from __future__ import annotations

from tools import write_messages


def test_the_file_of_messages_is_current() -> None:
    same = write_messages.FILE.read_text(encoding="utf-8") == write_messages.text()
    assert same, "a help text or message has changed: run python tests/tools/write_messages.py, and read what differs"
