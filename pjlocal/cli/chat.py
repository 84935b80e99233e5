"""``pjlocal chat``: a conversation with two preferences."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.interrupt import Interrupt, Interrupted, on_sigint
from ..errors import ModelError, UsageError, byte_size
from ..request import Request
from ..settings import RECOMMENDABLE, Engine, Generation, split_scale
from . import completion
from .options import OFF, ModelOption, ServerOption, ThoughtsOption, ViewOption, server_at, takes_settings

if TYPE_CHECKING:
    from ..chat.chat import Chat
    from ..chat.screen import Screen
    from ..sessions.remote import RemoteStore
    from ..sessions.session import Session
    from ..sessions.store import Store

_SAVING = "Saved chats"


@takes_settings()
def chat(
    model: ModelOption = None,
    view: ViewOption = "markdown",
    thoughts: ThoughtsOption = "hide",
    go_on: Annotated[
        bool, typer.Option("--continue", "-c", help="Continue the chat used last.", rich_help_panel=_SAVING)
    ] = False,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Continue the chat with this title or number, or begin a chat with this title.",
            rich_help_panel=_SAVING,
            autocompletion=completion.sessions,
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Save the chat as it goes.", rich_help_panel=_SAVING)
    ] = True,
    save_cache: Annotated[
        bool,
        typer.Option(
            "--save-cache/--no-save-cache",
            help="Save the KV caches too, and use saved ones: a continued chat is not read again (tens of megabytes).",
            rich_help_panel=_SAVING,
        ),
    ] = False,
    server: ServerOption = None,
    *,
    given: frozenset[str],
    request: Request,
    engine: Engine,
) -> int:
    if go_on and session is not None:
        raise UsageError("--continue and --session exclude each other: give one")
    interrupt = Interrupt()
    there = server_at(server, interrupt, given)
    if there and save_cache and "save_cache" in given:
        raise UsageError("--save-cache needs a model loaded here: leave it out, or give --no-server")
    save_cache = save_cache and not there
    if not save and (go_on or session is not None):
        raise UsageError("--continue and --session need saved chats: give --save")
    from ..chat import loop
    from ..chat.chat import Chat
    from ..chat.conversation import Conversation
    from ..chat.judges import Judge, RemoteJudge, make_judge
    from ..sessions.recorder import Recorder
    from ..sessions.remote import RemoteRecorder, RemoteStore

    screen = loop.make_screen()
    screen.thoughts = thoughts
    chats = RemoteStore(there) if there and save else None
    store = _store(screen, must=go_on or session is not None) if save and not there else None
    opened = _opened(chats or store, go_on, session)
    stored = opened.settings
    request = _restored(request, stored, given)
    if not there:
        model = _model_of(stored, model, given, screen)
        _check_files(request.generation, stored.get("generation", {}).keys() - given)
    finds = server != OFF and not save_cache  # a server's caches cannot be saved

    def load(name: str | None, may_find: bool) -> Judge:
        return make_judge(name, finds=finds and may_find, engine=engine, interrupt=interrupt)

    with on_sigint(interrupt, patience=math.inf):  # signals never end a running chat by force
        with screen.wait("Loading the model"):
            judge: Judge
            if there:
                judge = RemoteJudge(there, request, saves=save)
                model = judge.lasting_name
            else:
                judge = make_judge(model, finds=finds, engine=engine, interrupt=interrupt, request=request)
        if interrupt.is_requested:  # after the last check of the loading
            raise Interrupted
        written = None if store and store.unwritable else store
        recorder = RemoteRecorder(chats, opened, screen.say) if chats else Recorder(written, opened, screen.say)
        conversation = Conversation(judge, opened, recorder, model, screen.say, load)
        try:
            return _converse(Chat(conversation, screen, view, chats or store), save, save_cache)
        finally:
            try:
                conversation.close()
            finally:
                if store:
                    store.close()


def _restored(request: Request, stored: Mapping[str, Any], given: frozenset[str]) -> Request:
    """The request with the settings of a saved chat, except for the options on the command line."""
    restored = request.restore(stored).as_defaults()  # it may be without preferences now
    changed = restored.override(request.pick(given))
    if stored and "defaults" in given and request.sampling.defaults == "model":  # they replace the saved ones
        return dataclasses.replace(changed, explicit=changed.explicit - (RECOMMENDABLE - given))
    return changed


def _model_of(stored: Mapping[str, Any], model: str | None, given: frozenset[str], screen: Screen) -> str:
    """The lasting name of the chat's model: that of the command line, else that of the saved chat, else ``model``.

    Raises:
        ModelError: the model is missing.
    """
    from ..gguf.locate import lasting_name

    if "model" in given or not (saved := stored.get("model")):
        return lasting_name(model)
    try:
        name = lasting_name(saved)
    except ModelError as error:
        raise ModelError(f"the chat's model is missing: {error}. Give another one with -m") from None
    if name != saved:  # older versions saved the typed name, which may mean another file here
        screen.say(f"the chat's model was saved as {saved}; here this name means {name}")
    return name


def _converse(chat_state: Chat, save: bool, save_cache: bool) -> int:
    """Answer the user until the chat ends, from saved KV caches if there are any.  Returns the exit status."""
    from ..chat import loop
    from ..chat.judges import LocalJudge
    from ..sessions import cache

    conversation = chat_state.conversation
    judge = conversation.judge
    if save_cache and isinstance(judge, LocalJudge):
        with suppress(UsageError):  # an impossible combination of settings: the next answer reports it
            cache.load_cache(judge.decoder, conversation.session, judge.roles(judge.request).adapters)
    chat_state.greet()
    status = loop.talk(chat_state, _history(save))
    judge = conversation.judge
    if save_cache and isinstance(judge, LocalJudge) and (size := cache.save_cache(judge.decoder, conversation.session)):
        chat_state.screen.greet(f"cache saved: {byte_size(size)}")
    return status


def _store(screen: Screen, must: bool) -> Store | None:
    """The store of chats; None, with a message, if it cannot be opened and no saved chat is requested.

    If it can only be read, the message says that the chat is not saved.
    """
    from ..sessions.faults import ForeignStoreError, StoreError
    from ..sessions.store import Store

    store: Store | None = None
    trouble: StoreError | None
    try:
        store = Store(reading=True)
        trouble = store.unwritable
        if store.unread:
            screen.say(store.unread)
    except StoreError as error:
        if must or isinstance(error, ForeignStoreError):
            raise
        trouble = error
    if trouble:
        screen.say(f"{trouble}. This chat is not saved")
    return store


def _history(save: bool) -> Path | None:
    """The file of the input history; None if nothing is saved."""
    from ..sessions.database import store_path
    from ..sessions.faults import StoreError

    try:
        return store_path().with_suffix(".history") if save else None
    except StoreError:
        return None


def _opened(store: Store | RemoteStore | None, go_on: bool, name: str | None) -> Session:
    """The requested session; a new one if none is requested, or none has that name."""
    from ..sessions.finding import parse_title
    from ..sessions.session import Session

    if store and go_on:
        latest = store.latest()
        if latest is None:
            raise UsageError("no chat is saved yet: leave out --continue")
        return store.load(latest)
    if store and name is not None:
        found = store.find_whole(name)
        if found is None and name.strip().isdecimal():
            raise UsageError(f"there is no saved chat {name.strip()!r}: pjlocal sessions list shows them")
        return Session(title=parse_title(name)) if found is None else store.load(found)
    return Session()


def _check_files(generation: Generation, stored: Collection[str]) -> None:
    """Check that the adapters of a saved chat exist.

    Raises:
        ModelError: one is missing.
    """
    for name, spec in generation.adapters():
        file, scale = split_scale(spec)
        if name in stored and scale and not os.path.exists(file):
            option = f"--{name.replace('_', '-')}"
            raise ModelError(
                f"the chat's adapter is missing: no such file: {file}. Give another with {option}, or continue "
                f"without it: {option} {os.path.basename(file)}:0"
            )
