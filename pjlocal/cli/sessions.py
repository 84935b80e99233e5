"""``pjlocal sessions``: the saved chats."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..client import Server
from ..config.config import load_config
from ..engine.interrupt import Interrupt
from ..errors import UsageError
from ..gguf.ollama import shown_name
from ..screen.console import say
from ..screen.display import local_time
from ..textfile import read_bytes
from ..visible import one_line
from . import completion
from .options import YesOption, confirm_removal, server_at, server_option, which_server

if TYPE_CHECKING:
    from ..sessions.remote import RemoteStore
    from ..sessions.store import Store

sessions_app = typer.Typer(no_args_is_help=True, add_completion=False)

_Name = Annotated[
    str,
    typer.Argument(
        help="The chat's number, its title, or the beginning of its title.", autocompletion=completion.sessions
    ),
]


@sessions_app.callback()
def _sessions(
    context: typer.Context,
    server: Annotated[
        str | None, server_option("Use the chats of this pjlocal serve instead of those on this machine")
    ] = None,
    no_server: Annotated[bool, typer.Option("--no-server", help="Use the chats on this machine.")] = False,
) -> None:
    named = which_server(load_config().server if server is None else server, no_server)
    context.obj = server_at(named, Interrupt())


@sessions_app.command("list")
def list_sessions(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of the lines.")] = False,
) -> None:
    """Print every saved chat, the newest first."""
    with _store(context) as store:
        summaries = store.summaries() if store else []
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(summary) for summary in summaries]))
        return
    if not summaries:
        _say_none_is_saved()
    rows = []
    for summary in summaries:
        turns = f"{summary.n_turns:3} turn{' ' if summary.n_turns == 1 else 's'}"
        saved = summary.model or "-"  # a path, or a name that may contain slashes
        model = one_line(shown_name(Path(saved)) if os.path.isabs(saved) else saved)
        rows.append([f"{summary.id:4}", local_time(summary.updated), turns, f"{model:16}", _title(summary.title)])
    for row in _on_terminal(rows) if sys.stdout.isatty() else rows:
        typer.echo("  ".join(row))


@sessions_app.command()
def show(
    context: typer.Context,
    name: _Name,
    undone: Annotated[bool, typer.Option("--all", help="Also show drafts and undone turns.")] = False,
) -> None:
    """Print a chat as Markdown text."""
    from ..sessions.export import as_markdown

    with _named(context, name) as (store, session_id):
        session = store.load(session_id, with_undone=undone)
    typer.echo(as_markdown(session, undone), nl=False)


@sessions_app.command()
def search(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(help="Words that the turn must contain; the last may be the beginning of a word.")
    ],
) -> None:
    """Find the turns in which all the words occur, the newest first."""
    with _store(context) as store:
        if store is None or store.latest() is None:
            _say_none_is_saved()
            return
        hits = store.search(" ".join(words))
    if not hits:
        say("nothing found")
    for hit in hits:
        typer.echo(f"{hit.session_id:4}  {local_time(hit.created)}  {_title(hit.title)}\n      {one_line(hit.snippet)}")


@sessions_app.command()
def export(
    context: typer.Context,
    name: _Name,
    file: Annotated[
        Path | None, typer.Argument(help="The file to write (.md, .json or .html); standard output by default.")
    ] = None,
    form: Annotated[
        Literal["md", "json", "html"] | None,
        typer.Option(
            "--format", help="The format on standard output (default: md); a file's ending determines its format."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    drafts: Annotated[
        bool, typer.Option("--drafts", help="Include the other drafts of each answer; JSON always has them.")
    ] = False,
) -> None:
    """Write a chat as Markdown, JSON or HTML."""
    from ..sessions.export import FORMATS, write_export

    if file and form and file.suffix.lower() != f".{form}":
        raise UsageError(f"{file} does not end in .{form}: leave --format out, or change the file's ending")
    with _named(context, name) as (store, session_id):
        session = store.load(session_id)
    if file:
        write_export(session, file, force, drafts)
        return
    typer.echo(FORMATS[form or "md"](session, drafts), nl=False)


@sessions_app.command("import")
def import_chat(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A chat that was exported as JSON; - is standard input.")],
) -> None:
    """Add a chat from a JSON file that sessions export or /export wrote."""
    from ..sessions.importing import find_same, parse_export

    session = parse_export(_read_export(file), "standard input" if str(file) == "-" else str(file))
    with _store(context, reading=False, create=True) as store:
        assert store is not None
        session_id = find_same(store, session)
        is_new = session_id is None
        if session_id is None:
            session_id = store.add_whole(session)
    saved = "is saved" if is_new else "is saved already, and nothing was added"
    say(f"{_title(session.title)} {saved}: pjlocal chat --session {session_id} continues it")


def _read_export(file: Path) -> str:
    from .prompt_input import MOST_BYTES, read_stdin

    if str(file) == "-":
        return read_stdin()
    content = read_bytes(file, str(file), MOST_BYTES)
    if content.startswith(b"\x89PNG"):
        raise UsageError(f"{file} is a picture: pjlocal prefs import saves a character card as a persona")
    return content.decode("utf-8-sig", "replace")


@sessions_app.command()
def rename(context: typer.Context, name: _Name, title: Annotated[str, typer.Argument(help="The new title.")]) -> None:
    """Give a chat another title."""
    from ..sessions.finding import parse_title

    title = parse_title(title)
    with _named(context, name, reading=False) as (store, session_id):
        store.rename(session_id, title)


@sessions_app.command()
def rm(context: typer.Context, name: _Name, yes: YesOption = False) -> None:
    """Remove a chat permanently."""
    with _named(context, name, reading=False) as (store, session_id):
        title = next(_title(summary.title) for summary in store.summaries() if summary.id == session_id)
        if yes or confirm_removal(repr(title), str(session_id)):
            from ..sessions.cache import remove_session
            from ..sessions.store import Store

            if isinstance(store, Store):
                remove_session(store, session_id)
            else:  # the server removes the caches
                store.remove(session_id)


@sessions_app.command()
def path(context: typer.Context) -> None:
    """Print the path of the database; for a server's chats, its URL."""
    from ..sessions.database import store_path

    server: Server | None = context.obj
    typer.echo(server.url if server else store_path())


@contextmanager
def _store(
    context: typer.Context, *, reading: bool = True, create: bool = False
) -> Iterator[Store | RemoteStore | None]:
    """The database, or the server's chats; None without a database, unless it should be created."""
    from ..sessions.database import store_path
    from ..sessions.store import Store

    if context.obj:
        from ..sessions.remote import RemoteStore

        yield RemoteStore(context.obj)
        return
    if not create and not store_path().exists():
        yield None
        return
    with Store(reading=reading) as store:
        if store.unread:
            say(store.unread)
        yield store


@contextmanager
def _named(context: typer.Context, name: str, *, reading: bool = True) -> Iterator[tuple[Store | RemoteStore, int]]:
    """The database, and the id of the session that ``name`` means."""
    with _store(context, reading=reading) as store:
        if store is None:
            raise UsageError(f"there is no saved chat {name!r}: none is saved yet")
        yield store, store.find(name)


def _say_none_is_saved() -> None:
    say("there are no saved chats yet")


def _title(title: str) -> str:
    return one_line(title) or "untitled"


def _on_terminal(rows: list[list[str]]) -> list[list[str]]:
    """The rows of the list, as wide as the terminal: without models and then without dates if there is no room for 20
    columns of each title, and with the titles cut."""
    from rich.cells import cell_len
    from rich.text import Text

    columns = shutil.get_terminal_size().columns
    for narrower in ([0, 1, 2, 4], [0, 2, 3]):
        if all(cell_len("  ".join([*row[:-1], ""])) + min(cell_len(row[-1]), 20) <= columns for row in rows):
            break
        rows = [[row[i] for i in narrower] for row in rows]
    cut = [Text("  ".join(row)) for row in rows]
    for text in cut:
        text.truncate(columns, overflow="ellipsis")
    return [[text.plain] for text in cut]
