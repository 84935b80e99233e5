"""Writes a chat down while it happens, and does not stop it where that fails."""

from __future__ import annotations

from collections.abc import Callable

from ..events import TokenEvent
from ..session import Session, Turn
from ..store import Store, StoreError


class Recorder:
    """Puts every turn and token of the session in force into the store at once.

    What cannot be written (a full disk, a locked database) is kept in memory and tried again with the next turn and at
    the end; one line says so, and one when all is saved again.

    Args:
        store: None saves nothing.
        say: shows a line to the user.
    """

    def __init__(self, store: Store | None, session: Session, say: Callable[[str], None]) -> None:
        self.store = store
        self.session = session
        self._say = say
        self._behind: list[Turn] = []  # turns that the store lacks, wholly or in part
        self._undone: list[Turn] = []  # turns that the store still has to hide
        self._failing = False

    def begin(self, turn: Turn) -> None:
        """A turn begins: its question is safe from now on."""
        self.catch_up()
        if self._behind or not self._try(lambda store: self._begin(store, turn)):
            self._behind.append(turn)

    def token(self, turn: Turn, event: TokenEvent) -> None:
        """A token of its answer was written."""
        if turn.id is not None and turn not in self._behind and not self._failing:
            turn_id = turn.id
            if not self._try(lambda store: store.add_token(turn_id, event)):
                self._behind.append(turn)

    def finish(self, turn: Turn) -> None:
        """Its answer is whole, or was stopped."""
        if turn not in self._behind:
            self._behind.append(turn)
        self.catch_up()

    def undo(self, turn: Turn) -> None:
        """The turn is to be hidden."""
        self._undone.append(turn)
        self.catch_up()

    def save_session(self) -> None:
        """Title and settings have changed."""
        if self.session.id is not None:
            self._try(lambda store: store.save_session(self.session))

    def catch_up(self) -> None:
        """Write what the store lacks."""
        while self._behind and self._try(lambda store: self._write(store, self._behind[0])):
            del self._behind[0]
        while not self._behind and self._undone and self._try(lambda store: self._hide(store, self._undone[0])):
            del self._undone[0]
        if self._failing and not self._behind and not self._undone:
            self._failing = False
            self._say("the chat is saved again, all of it")

    def _begin(self, store: Store, turn: Turn) -> None:
        store.begin_turn(self._session_id(store), turn)

    def _write(self, store: Store, turn: Turn) -> None:
        if turn.id is None:
            store.add_turn(self._session_id(store), turn)
        else:
            store.finish_turn(turn)

    def _hide(self, store: Store, turn: Turn) -> None:
        if turn.id is not None:
            store.set_undone(turn.id)

    def _session_id(self, store: Store) -> int:
        return store.add_session(self.session) if self.session.id is None else self.session.id

    def _try(self, action: Callable[[Store], object]) -> bool:
        if self.store is None:
            return True
        try:
            action(self.store)
        except StoreError as error:
            if not self._failing:
                self._failing = True
                self._say(f"{error}. The chat goes on; saving is tried again with the next message")
            return False
        return True
