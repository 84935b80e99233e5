"""The chats of a server on another machine, with the interface of a `Store`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from ..client import Server
from .finding import ChatList, Hit, Summary
from .recorder import Recorder

if TYPE_CHECKING:  # they import NumPy, which a list of chats does not need
    from .session import Session, Turn

_T = TypeVar("_T")


class RemoteStore(ChatList):
    """The chats of a server.

    Raises:
        UsageError: from every method: the server refused the request.
        ServerError: from every method: the server did not answer.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    def summaries(self) -> list[Summary]:
        return self._call("GET", "/api/chats", lambda reply: [Summary(**each) for each in reply["chats"]])

    def search(self, query: str) -> list[Hit]:
        """The turns that contain every word of ``query``; see `finding.search`."""
        if not query.strip():
            return []
        path = f"/api/chats?q={quote(query, safe='', errors='replace')}"
        return self._call("GET", path, lambda reply: [Hit(**each) for each in reply["hits"]])

    def load(self, session_id: int, with_undone: bool = False) -> Session:
        """A session with its turns."""
        return self._call("GET", f"/api/chats/{session_id}{'?undone=true' if with_undone else ''}", _session)

    def rename(self, session_id: int, title: str) -> None:
        """Change the title of a session."""
        self.server.call("PATCH", f"/api/chats/{session_id}", {"title": title})

    def save_settings(self, session: Session) -> None:
        """Save the session's settings."""
        assert session.id is not None
        self.server.call("PATCH", f"/api/chats/{session.id}", {"settings": session.settings})

    def undo(self, session_id: int, turn_id: int) -> None:
        """Hide a turn."""
        self.server.call("POST", f"/api/chats/{session_id}/undo", {"turn": turn_id})

    def edit(self, session_id: int, turn_id: int, answer: str) -> Turn:
        """Replace the last turn by one with another answer, and return it."""
        return self._call("POST", f"/api/chats/{session_id}/edit", _turn, {"turn": turn_id, "answer": answer})

    def put_in_force(self, session_id: int, turn_id: int, draft_id: int) -> None:
        """Show another draft of the last turn, and hide the others."""
        self.server.call("POST", f"/api/chats/{session_id}/draft", {"turn": turn_id, "draft": draft_id})

    def fork(self, session_id: int, turn_id: int) -> Session:
        """A new session with a copy of the turns up to this one."""
        return self._call("POST", f"/api/chats/{session_id}/fork", _session, {"turn": turn_id})

    def add_whole(self, session: Session) -> int:
        """Add a session with its turns and their drafts; returns its id there."""
        from .export import as_json

        return self._call("POST", "/api/chats", lambda reply: int(reply["id"]), json.loads(as_json(session)))

    def remove(self, session_id: int) -> None:
        """Delete a session with all its turns."""
        self.server.call("DELETE", f"/api/chats/{session_id}")

    def _call(self, method: str, path: str, read: Callable[[Any], _T], body: Mapping[str, Any] | None = None) -> _T:
        """Call a route, and return its JSON as ``read`` converts it."""
        try:
            return read(self.server.call(method, path, body))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self.server.protocol_error() from error


def _session(values: Mapping[str, Any]) -> Session:
    """The session in a server's JSON."""
    from .session import Session

    kept = ("title", "settings", "created", "updated", "id")
    turns = [*map(_turn, values["turns"])]
    return Session(turns=turns, **{name: values[name] for name in kept if name in values})


def _turn(values: Mapping[str, Any]) -> Turn:
    """The turn in a server's JSON, with its drafts."""
    turn = _answered(values)
    if described := values.get("drafts"):
        turn.drafts = [turn if draft["id"] == turn.id else _answered(draft) for draft in described]
        for draft in turn.drafts:
            draft.drafts = turn.drafts
    return turn


def _answered(values: Mapping[str, Any]) -> Turn:
    from ..events import TokenEvent
    from .session import Turn

    events = [*map(TokenEvent.from_dict, values["events"])]
    kept = ("question", "settings", "finish_reason", "statistics", "created", "id", "undone")
    return Turn(events=events, **{name: values[name] for name in kept if name in values})


class RemoteRecorder(Recorder):
    """The recorder of a session on a server.  The server saves the answers that it writes; other changes are sent to
    it.

    Raises:
        UsageError, ServerError: see `RemoteStore`.
    """

    def __init__(self, chats: RemoteStore, session: Session, say: Callable[[str], None]) -> None:
        super().__init__(None, session, say)
        self._chats = chats
        self._is_named = bool(session.title) and session.id is None  # the user set a title before the first turn

    def finish(self, turn: Turn) -> None:
        if self._is_named and self.session.id is not None:
            self._is_named = False
            self.rename()

    def replace(self, turn: Turn, replaced: Turn) -> None:
        if replaced.id is not None and self.session.id is not None:
            turn = self._chats.edit(self.session.id, replaced.id, turn.answer)
        self.session.turns[-1:] = [turn]

    def add_drafts(self, turn: Turn, drafts: Sequence[Turn]) -> None:
        if self.session.id is not None:
            saved = self._chats.load(self.session.id).turns[-1]
            if saved.id == turn.id:
                turn.drafts = [turn if draft is saved else draft for draft in saved.drafts]
                for draft in turn.drafts:
                    draft.drafts = turn.drafts

    def switch(self, draft: Turn) -> None:
        last = self.session.turns[-1]
        if last.id is not None and draft.id is not None and self.session.id is not None:
            self._chats.put_in_force(self.session.id, last.id, draft.id)
        super().switch(draft)

    def fork(self, n_turns: int) -> Session:
        last = self.session.turns[n_turns - 1]
        if last.id is None or self.session.id is None:
            return super().fork(n_turns)
        self.session = self._chats.fork(self.session.id, last.id)
        return self.session

    def undo(self, turn: Turn) -> None:
        if turn.id is not None and self.session.id is not None:
            self._chats.undo(self.session.id, turn.id)
        turn.undone = True

    def save_settings(self) -> None:
        if self.session.id is not None:
            self._chats.save_settings(self.session)

    def rename(self) -> None:
        if self.session.id is None:
            self._is_named = True
        else:
            self._chats.rename(self.session.id, self.session.title)
