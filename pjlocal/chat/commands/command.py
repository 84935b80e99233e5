"""The commands of a chat: lines that begin with a slash.

commands = Commands()

@commands.add("/undo", "Take the last turn back.")
def undo(chat: Chat, words: str) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ..chat import Chat

Run = Callable[[Chat, str], None]


@dataclass(frozen=True)
class Command:
    """usage: as the help shows it; its first word is the name."""

    usage: str
    help: str
    run: Run
    #: What may stand behind it, to complete.
    choices: Callable[[Chat], Sequence[str]]

    @property
    def name(self) -> str:
        return self.usage.split()[0]


class Commands(dict[str, Command]):
    """The commands of one subject by name, in the order in which the help lists them."""

    def add(
        self, usage: str, help: str, choices: Callable[[Chat], Sequence[str]] = lambda chat: ()
    ) -> Callable[[Run], Run]:
        """Return a decorator that makes a function a command."""

        def register(run: Run) -> Run:
            made = Command(usage, help, run, choices)
            self[made.name] = made
            return run

        return register


def one_of(what: str, word: str, known: Sequence[str]) -> Any:
    """Return the word, if it is a known one.

    Raises:
        UsageError: it is not.
    """
    if word not in known:
        raise UsageError(f"{what} must be one of {', '.join(known)} (not {word!r})")
    return word
