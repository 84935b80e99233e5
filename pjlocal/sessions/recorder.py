"""Save a chat while it is written: every token is in the database before it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import UsageError
from ..events import Result, TokenEvent
from .faults import GONE_ON, RemovedError, StoreError
from .session import Session, Turn, title_of
from .store import Store

_Write = Callable[[Store], object]


class Recorder:
    """Writes every turn and token of the current session to the store immediately.

    Failed writes (a full disk, a locked database) are kept in memory and repeated with the next turn and at the end.
    One message reports the failure, and another one that all is saved again.  If the database is deleted or replaced,
    the whole session is written to the file that is then at its path.

    Args:
        store: the store; None to save nothing.
        say: shows a line to the user.  Without it, a failed write raises StoreError, and the next one
            repeats it.
    """

    def __init__(self, store: Store | None, session: Session, say: Callable[[str], None] | None) -> None:
        self.store = store
        self.session = session
        self._say = say or (lambda line: None)
        self._raises = say is None
        self._pending: list[tuple[Session, _Write]] = []  # failed writes, in order
        self._trouble = ""  # the reported error
        self._hidden: list[tuple[Session, Turn]] = []  # undone turns, which are not in their sessions

    def close(self) -> None:
        """Repeat failed writes, and tell the user if they fail again."""
        self.catch_up()
        if self._pending:
            self._say("the messages since then are not saved")

    def check_seen(self) -> None:
        """Check that nothing else, such as the page, has added to the session since it was loaded.

        Raises:
            UsageError: the session has new turns.
        """
        session, store = self.session, self.store
        if store is None or session.id is None or self._pending or store.replaced:
            return
        with suppress(StoreError):  # saving the turn reports it
            last, seen = store.last_turn(session.id), session.turns[-1].id if session.turns else 0
            if None not in (last, seen) and last != seen:
                raise UsageError(GONE_ON)

    def begin(self, turn: Turn, replacing: Turn | None = None) -> None:
        """Save a new turn with its question; and the session's settings, unless the turn is only compared.

        The turn that it replaces stays until the new one is put in force.
        """
        session = self.session
        if replacing:
            turn.join(replacing)
        if session.turns and session.turns[-1] is turn:
            self._do(lambda store: _save(store, session))
        self._do(lambda store: _write(store, session, turn))

    def token(self, turn: Turn, event: TokenEvent) -> None:
        """Save a token of the turn's answer."""
        session, turn_id = self.session, turn.id
        if turn_id is None or self._pending:
            return  # `finish` writes it
        if self.store and self.store.replaced:
            self.catch_up()
        elif not self._try(session, lambda store: store.add_token(turn_id, event)):
            self._pending.append((session, lambda store: _write(store, session, turn)))

    def finish(self, turn: Turn) -> None:
        """Save the end of the turn's answer."""
        session = self.session
        self._do(lambda store: _write(store, session, turn))

    def replace(self, turn: Turn, replaced: Turn) -> None:
        """Replace the last turn by a finished one."""
        self.session.turns[-1:] = [turn]
        turn.undone = True
        self.begin(turn, replaced)
        self.put_in_force(turn)

    def put_in_force(self, turn: Turn) -> None:
        """Show this draft of a turn, and hide the others."""
        session = self.session
        turn.put_in_force()
        self._do(lambda store: _put_in_force(store, session, turn))

    def add_drafts(self, turn: Turn, drafts: Sequence[Turn]) -> None:
        """Save finished answers as other drafts of a turn, except those that repeat another."""
        for draft in drafts:
            draft.join(turn)
            if draft.is_repeated():
                draft.leave()
        session = self.session
        self._do(lambda store: _write(store, session, turn.drafts[-1]))

    def switch(self, draft: Turn) -> None:
        """Replace the last turn by another of its drafts."""
        self.session.turns[-1:] = [draft]
        self.put_in_force(draft)

    def remove(self) -> None:
        """Remove the session, whose only turn got no text.  The next turn saves it again."""
        session, saved = self.session, self.session.id
        session.id = None
        self._pending = [(other, write) for other, write in self._pending if other is not session]
        self._do(lambda store: None if saved is None else store.remove(saved))

    def drop(self, turn: Turn) -> None:
        """Hide a turn for which nothing was written.  It is no longer a draft of the turn that it would replace."""
        turn.leave()
        turn.undone = True
        self._do(lambda store: None if turn.id is None else store.drop_draft(turn.id))

    def undo(self, turn: Turn) -> None:
        """Hide a turn."""
        turn.undone = True
        self._hidden.append((self.session, turn))
        self._do(lambda store: None if turn.id is None else store.set_undone(turn.id))

    def fork(self, n_turns: int) -> Session:
        """Start a new session with a copy of the first turns, and make it the current one."""
        self.session = self.session.fork(n_turns)
        self._pending += self._writes_of(self.session)
        self.catch_up()
        return self.session

    def save_settings(self) -> None:
        """Save the session's settings."""
        session = self.session
        self._do(lambda store: _save(store, session))

    def rename(self) -> None:
        """Save the session's title."""
        session = self.session
        self._do(lambda store: None if session.id is None else store.rename(session.id, session.title))

    def catch_up(self) -> None:
        """Repeat failed writes.  A session that cannot be written does not block others."""
        if not self._reopen_if_replaced():
            return
        left: list[tuple[Session, _Write]] = []
        for session, write in self._pending:
            if any(session is stuck for stuck, _ in left) or not self._try(session, write):
                left.append((session, write))
        self._pending = left
        if self._trouble and not left:
            self._trouble = ""
            self._say("the whole chat is saved again")

    def _reopen_if_replaced(self) -> bool:
        """Reopen the store if its file was replaced; False if that fails.

        The new file does not contain the chat, so the whole chat is written to it.
        """
        store = self.store
        if store is None or not store.replaced:
            return True
        sessions = {id(session): session for session in (*(session for session, _ in self._pending), self.session)}
        self._pending = [write for session in sessions.values() for write in self._writes_of(session)]
        try:
            store.reopen()
        except StoreError as error:
            if self._raises:
                raise
            self._say_trouble(error)
            return False
        if self._pending and not self._trouble:
            self._say(f"{store.path} was deleted or replaced: the whole chat is saved there again")
        return True

    def _writes_of(self, session: Session) -> list[tuple[Session, _Write]]:
        """The writes that save a whole session to an empty store, including undone turns and drafts."""
        session.id = None
        undone = [turn for owner, turn in self._hidden if owner is session]
        drafts = {id(draft): draft for turn in (*undone, *session.turns) for draft in turn.drafts}.values()
        for draft in drafts:
            draft.id = None
        return [(session, partial(_write, session=session, turn=draft)) for draft in drafts]

    def _do(self, write: _Write) -> None:
        self._pending.append((self.session, write))
        self.catch_up()

    def _try(self, session: Session, write: _Write) -> bool:
        if self.store is None:
            return True
        try:
            write(self.store)
        except RemovedError:
            if self._raises:
                raise
            self._say("this chat was deleted elsewhere: new messages are saved as a new chat")
            session.id = None
            for turn in session.turns:
                for draft in turn.drafts:
                    draft.id = None
            return False
        except StoreError as error:
            if self._raises:
                raise
            self._say_trouble(error)
            return False
        return True

    def _say_trouble(self, error: StoreError) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._say(f"{error}. The chat continues; saving is tried again with the next message")


class Recording:
    """A turn of the recorder's session that is being answered.

    If the answer is stopped before the first token, or a continued answer gets no new text, the turn and the title from
    it are removed, and the turn that it would replace stays.

    Args:
        replacing: the turn of which this one is another draft.
        keep: whether to put the turn in force when it has an answer.  If not, it stays a draft, unless another draft
            has the same mode and text.
    """

    def __init__(self, recorder: Recorder, turn: Turn, replacing: Turn | None = None, *, keep: bool = True) -> None:
        self.turn = turn
        self._keep = keep
        self._recorder = recorder
        self._session = recorder.session
        self._replacing = replacing
        self._before = list(self._session.turns)
        self._n_continued = len(turn.events)  # tokens of an answer that is continued
        #: Whether the beginning of the answer is not the whole answer of the turn that it replaces.
        self._begins_anew = replacing is not None and bool(turn.events) and not turn.continues(replacing)
        self._title = self._session.title
        self._is_first = self._session.id is None and not self._before

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Add the turn to its session and set the session's settings, unless it stays a draft.

        In the database a further draft is hidden at first, so a killed process leaves one turn with its earlier
        drafts.
        """
        session = self._session
        self.turn.undone = not self._keep or self._replacing is not None
        if self._keep:
            if self._replacing:
                session.turns.remove(self._replacing)
            session.turns.append(self.turn)
            session.title = session.title or title_of(self.turn.question)
            session.settings = dict(settings)
        self._recorder.begin(self.turn, self._replacing)

    def add(self, event: TokenEvent) -> TokenEvent:
        """Add a token of the answer, and return it with its position in the whole answer."""
        if self._n_continued:
            event = replace(event, position=len(self.turn.events))
        self.turn.events.append(event)
        self._recorder.token(self.turn, event)
        return event

    def finish(self, result: Result) -> None:
        """Save the end of the answer."""
        self.turn.finish(result)
        self._recorder.finish(self.turn)
        added = self.turn.events[self._n_continued :]
        has_more = any(event.text for event in added) if self._n_continued else bool(added)
        has_more |= self._begins_anew
        if not self._keep:
            if not has_more or self.turn.is_repeated():
                self._recorder.drop(self.turn)
        elif has_more:
            if drafts := self._others(result):
                self._recorder.add_drafts(self.turn, drafts)
            if self._replacing:
                self._recorder.put_in_force(self.turn)
        else:
            self._session.turns[:] = self._before
            if self._session.title != self._title:
                self._session.title = self._title
                self._recorder.rename()
            if self._is_first:
                self._recorder.remove()
            else:
                self._recorder.drop(self.turn)

    def _others(self, result: Result) -> list[Turn]:
        """The answers among which this one was chosen."""
        turn, drafts = self.turn, []
        given = turn.events[: self._n_continued]
        for candidate in result.candidates:
            if candidate.result.text and not candidate.is_chosen:
                events = [replace(event, position=n) for n, event in enumerate((*given, *candidate.events))]
                settings = turn.settings | {"seed": candidate.result.seed}
                drafts.append(Turn(turn.question, events, settings, undone=True))
                drafts[-1].finish(candidate.result)
        return drafts


# These writes are idempotent: they are repeated if it is not known whether they succeeded.


def _write(store: Store, session: Session, turn: Turn) -> None:
    """Save the earlier drafts of a turn, then the turn with its answer so far."""
    session_id = store.add_session(session) if session.id is None else session.id
    is_there = turn.id is not None
    for draft in turn.drafts:
        if draft.id is None:
            store.add_turn(session_id, draft)
        if draft is turn:
            break
    if is_there:
        store.finish_turn(turn)


def _put_in_force(store: Store, session: Session, turn: Turn) -> None:
    if turn.id is None:
        _write(store, session, turn)
    assert turn.id is not None
    store.put_in_force(turn.id)


def _save(store: Store, session: Session) -> None:
    if session.id is not None:
        store.save_settings(session)
