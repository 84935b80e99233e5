"""The state of a chat that its commands and front ends share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..attachments import Attachment, with_attachments
from ..errors import UsageError, plural
from ..request import Request
from ..sessions.remote import RemoteStore
from ..sessions.session import Session
from ..sessions.store import Store
from ..settings import View
from .conversation import Conversation, Writing
from .screen import Screen


@dataclass
class Chat:
    """The state that commands and front ends share.

    saved: the store of sessions; None if nothing is saved.
    status: the exit status.
    attachments: files for the next question.
    unsent: a text of the user's that was not sent, for the history of the prompt.
    """

    conversation: Conversation
    screen: Screen
    view: View
    saved: Store | RemoteStore | None
    done: bool = False
    status: int = field(default=0, init=False)
    attachments: list[Attachment] = field(default_factory=list, init=False)
    unsent: str = field(default="", init=False)

    @property
    def store(self) -> Store | RemoteStore:
        """The store of sessions.

        Raises:
            UsageError: nothing is saved.
        """
        if self.saved is None:
            raise UsageError("this chat is not saved: start it with --save to use saved chats")
        return self.saved

    def answer(self, writing: Writing) -> None:
        """Show an answer while it is written."""
        self.screen.answer(writing, self.conversation, self.view)

    def ask(self, question: str) -> None:
        """Show the answer to a question with its attached files."""
        writing = self.conversation.ask(with_attachments(self.attachments, question))
        try:
            self.answer(writing)
        finally:
            if writing.turn in self.conversation.session.turns:
                self.attachments.clear()

    @contextmanager
    def keeping(self, text: str) -> Iterator[None]:
        """Keep a text from the user's editor if it cannot be sent."""
        try:
            yield
        except BaseException:
            self.unsent = text
            raise

    def use(self, request: Request, *, needs_preferences: bool = True) -> None:
        """Use other settings for the next answers, and save them.  See `Conversation.put_in_force`."""
        self.conversation.put_in_force(request, needs_preferences=needs_preferences)
        self.changed()

    def changed(self) -> None:
        """Save changed settings in the session."""
        session = self.conversation.session
        session.settings = self.conversation.settings()
        self.conversation.recorder.save_settings()

    def open(self, session: Session) -> None:
        """Continue a saved chat."""
        self.conversation.open(session)
        self.show_where_we_were()

    def greet(self) -> None:
        """Show the model, and the last turn of a continued session."""
        judge = self.conversation.judge
        by = f" · answers come from {judge.server.name}" if judge.server else ""
        self.screen.greet(f"{judge.model.name}{by} · /help lists the commands")
        if not self.conversation.session.turns:
            changes = "changes the" if any(self.conversation.views.values()) else "sets"
            self.screen.greet(f"/prefer {changes} preferences, as in /prefer vivid creative")
        self.screen.gap()
        if self.conversation.session.turns:
            self.show_where_we_were()
            self.screen.gap()

    def show_where_we_were(self) -> None:
        """The session's title, and its last question and answer."""
        session = self.conversation.session
        n = len(session.turns)
        self.screen.greet(f"{session.title}: {n} {plural(n, 'turn')}")
        if session.turns:
            self.screen.gap()
            self.screen.show_turn(session.turns[-1], self.view)
