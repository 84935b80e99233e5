"""Keys that are typed while an answer is written."""

from __future__ import annotations

import os
import select
import signal
import tty
from collections.abc import Callable, Iterator

import pytest
from waiting import PATIENCE_S

from pjlocal.screen import suspend
from pjlocal.screen.console import KeysUnseen

Type = Callable[[bytes], None]


@pytest.fixture
def type_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[Type]:
    """Type a key on a terminal that is standard input and makes no key a signal."""
    keyboard, terminal = os.openpty()
    tty.setraw(terminal)

    def type_key(key: bytes) -> None:
        os.write(keyboard, key)
        select.select([terminal], [], [], PATIENCE_S)

    with open(terminal) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield type_key
    os.close(keyboard)


def test_keys_typed_after_a_ctrl_c_are_kept(type_key: Type) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        keys = KeysUnseen(keeps_typed=True)
        with suspend.in_force(keys):
            type_key(b"\x03")
            with pytest.raises(KeyboardInterrupt):
                keys.take()
            type_key(b"b")
            keys.take()
        assert b"".join(keys.taken) == b"b"
    finally:
        signal.signal(signal.SIGINT, previous)
