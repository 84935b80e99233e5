"""Find saved chats by title, or by the words in them."""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from ..errors import UsageError
from . import words
from .session import LONGEST_TITLE


@dataclass(frozen=True)
class Summary:
    """A session in a list.

    n_turns: the number of turns that are not undone.
    model: the model's `lasting_name` (in older versions: the name that the user gave, or None).
    updated: seconds since the epoch.
    """

    id: int
    title: str
    n_turns: int
    model: str | None
    updated: float


@dataclass(frozen=True)
class Hit:
    """A turn in the results of a search.

    snippet: the words around the match, in the question or the answer.
    created: seconds since the epoch.
    """

    session_id: int
    title: str
    turn_id: int
    question: str
    snippet: str
    created: float


_SNIPPET_WORDS, _SNIPPET_CHARACTERS = 16, 48  # length of a snippet; characters for scripts without spaces


def parse_title(text: str) -> str:
    """A session's title, in one line with single spaces.

    Raises:
        UsageError: the title is empty, too long, or a number, which names the session of that number.
    """
    title = " ".join(text.split())
    if not title:
        raise UsageError("a chat's title must not be empty")
    if len(title) > LONGEST_TITLE:
        raise UsageError(f"a chat's title must have at most {LONGEST_TITLE} characters (not {len(title)})")
    if title.isdecimal():
        raise UsageError(f"a number cannot be a title: {title} means the chat of that number")
    return title


class ChatList:
    """A list of saved chats, in which they are found by name."""

    def summaries(self) -> list[Summary]:
        """Every session, the newest first."""
        raise NotImplementedError

    def latest(self) -> int | None:
        """The session that was updated last; None without any."""
        return next((summary.id for summary in self.summaries()), None)

    def find_whole(self, name: str) -> int | None:
        """Find a session by its id or its title (the first of several); None if no session matches.

        Case is ignored, and so is the amount of white space.
        """
        return _find_whole(" ".join(name.split()), self.summaries())

    def find(self, name: str) -> int:
        """Find a session as `find_whole` does, or by the beginning of exactly one title.

        Raises:
            UsageError: no session matches, or several do; the message names some.
        """
        name, sessions = " ".join(name.split()), self.summaries()
        if (found := _find_whole(name, sessions)) is not None:
            return found
        folded = name.casefold()
        titles = [(session.title.casefold(), session) for session in sessions if session.title]
        begin = [session for title, session in titles if folded and title.startswith(folded)]
        if len(begin) == 1:
            return begin[0].id
        if begin:
            raise UsageError(f"several saved chats begin with {name!r}: {_listed(begin[:3])}")
        similar = difflib.get_close_matches(folded, [title for title, _ in titles], n=3)
        nearest = [next(session for title, session in titles if title == match) for match in dict.fromkeys(similar)]
        hint = f"did you mean {_listed(nearest)}?" if nearest else "pjlocal sessions list shows them"
        raise UsageError(f"there is no saved chat {name!r}: {hint}")


def _find_whole(name: str, sessions: Sequence[Summary]) -> int | None:
    by_id = (session.id for session in sessions if str(session.id) == name)
    by_title = (session.id for session in sessions if name and session.title.casefold() == name.casefold())
    return next(chain(by_id, by_title), None)


def search(db: sqlite3.Connection, query: str) -> list[Hit]:
    """The turns that contain every word of ``query``, the newest first.  The last word may be incomplete.

    Undone turns and unfinished answers are not searched.
    """
    match = words.match(query)
    if not match:
        return []
    n_words = _SNIPPET_CHARACTERS if words.apart(query) != query else _SNIPPET_WORDS
    rows = db.execute(
        "SELECT session_id, title, turns.id AS turn_id, turns.question, "
        "snippet(turns_text, -1, '', '', '…', ?) AS snippet, turns.created "
        "FROM turns_text JOIN turns ON turns.id = turns_text.rowid JOIN sessions ON sessions.id = session_id "
        "WHERE turns_text MATCH ? AND NOT undone ORDER BY turns.id DESC",
        (n_words, match),
    ).fetchall()
    return [Hit(**dict(row) | {"snippet": words.together(row["snippet"])}) for row in rows]


def _listed(sessions: Sequence[Summary]) -> str:
    return ", ".join(f"{session.title} ({session.id})" for session in sessions)
