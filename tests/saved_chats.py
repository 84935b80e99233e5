"""A database of chats that is a test's own, and turns to fill it with.

A test file has the fixtures that it imports, as in ``from saved_chats import file as file``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pjlocal.events import RejectedToken, TokenEvent
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database of a test, not there yet."""
    path = tmp_path / "data" / "chats.db"
    monkeypatch.setenv("PJLOCAL_DATABASE", str(path))
    return path


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    with Store(timeout=0.2) as store:
        yield store


def token(position: int, text: str) -> TokenEvent:
    return TokenEvent(
        position, 100 + position, text, "accepted", position // 4, "a", 0.1, 1 / 3, 0.30000000000000004, judge="b"
    )


def resampled(position: int, text: str) -> TokenEvent:
    return replace(token(position, text), kind="resampled", rejected=RejectedToken(7, ' "no\n', 0.01, 0.2))


def plain(position: int, text: str) -> TokenEvent:
    return TokenEvent(position, 5, text, "plain", 0, None, 1.0, None, None)


def a_turn(question: str = "Why?", answer: str = "Because.", **values: object) -> Turn:
    """A finished turn, a token a word."""
    tokens = [token(i, text) for i, text in enumerate(re.findall(r"\s*\S+", answer))]
    return Turn(question, tokens, finish_reason="stop", **values)


def saved(store: Store, title: str, *turns: Turn, **values: object) -> Session:
    session = Session(title, list(turns), **values)
    store.add_session(session)
    for turn in turns:
        store.add_turn(session.id, turn)
    return session


def texts(store: Store, session: Session, **options: bool) -> list[tuple[str, str]]:
    return [(turn.question, turn.answer) for turn in store.load(session.id, **options).turns]
