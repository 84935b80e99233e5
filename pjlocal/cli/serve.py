"""``pjlocal serve``: serve one loaded model to other programs."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..client import KEY_VARIABLE, check_key, is_loopback
from ..config.config import load_config
from ..engine.interrupt import Interrupt, Interrupted, on_sigint
from ..errors import UsageError, extra
from ..request import Overrides, Request
from ..screen.console import Spinner, say
from ..settings import Engine
from .options import ModelOption, takes_settings

_SERVER = "Server"
_TOKEN_BYTES = 24  # size of the secret in the page's address


@takes_settings()
def serve(
    model: ModelOption = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on. Only this machine can reach the default.", rich_help_panel=_SERVER
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.", rich_help_panel=_SERVER)
    ] = 8473,
    parallel: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Answers written at once, with four views each (two if --mode is not both). Each view takes "
            "memory for --ctx tokens.",
            rich_help_panel=_SERVER,
        ),
    ] = 2,
    queue: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            help="Requests that may wait. Further requests return status 429.",
            rich_help_panel=_SERVER,
        ),
    ] = 32,
    unload_after: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Free the model's memory after this time without a request. The next request loads the model again.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar=KEY_VARIABLE,
            show_envvar=True,
            help="The key that clients must send. It is required if other machines reach the address. Other users "
            f"of this machine see the option in the list of processes, but not {KEY_VARIABLE}.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    cors: Annotated[
        list[str],
        typer.Option(
            metavar="ORIGIN",
            help="Origin of web pages that may use the server, as in https://example.org; * allows all (repeatable).",
            rich_help_panel=_SERVER,
        ),
    ] = [],
    *,
    request: Request,
    engine: Engine,
) -> int:
    with extra("serve"):
        from ..server.app import create_app
        from ..server.metrics import Metrics
        from ..server.openai import Names
        from ..server.run import listen, listen_locally
        from ..server.run import serve as answer
    from ..engine.constraint import check_constraint
    from ..gguf.locate import find_model, lasting_name
    from ..gguf.ollama import shown_name
    from ..prompting.plan import expected_views  # loads llama.cpp, which other commands do not need
    from ..server.jobs import Job, ModelName
    from ..server.loaded import LoadedModel, check_servable
    from ..server.service import Service
    from ..sessions.faults import StoreError
    from ..sessions.store import Store

    if api_key == "":
        raise UsageError("--api-key must not be empty: leave it out, or give a key")
    check_key(api_key or "", f"--api-key ({KEY_VARIABLE})")
    origins = [_origin(text) for text in cors]
    local = is_loopback(host)
    if not local and api_key is None:
        raise UsageError(
            f"other machines reach {host}: set a key with --api-key or {KEY_VARIABLE}, or leave --host out"
        )
    check_servable(request.generation)
    check_constraint(request.sampling)
    request = request.as_defaults()
    n_views = expected_views(request)
    path = find_model(model)
    shown = shown_name(path)
    personas = load_config().personas
    names = Names(*_model_names(model, shown), personas)
    interrupt, metrics = Interrupt(), Metrics()
    metrics.count_errors(logging.getLogger("pjlocal"))
    lookahead = _most_lookahead(request, personas.values())
    load = partial(LoadedModel, path, engine, parallel, interrupt, lookahead=lookahead, n_views=n_views)
    service = Service(load, parallel + queue, unload_after, interrupt, metrics)
    with listen(host, port) as listening:
        try:
            Store().close()
        except StoreError as error:
            say(f"{error}. Until then only /v1 answers, not the page")
        with on_sigint(interrupt, ending=()), Spinner() as spinner:
            spinner.say("Loading the model")
            model_loaded = service.load()
            model_loaded.check(Job(request))
            loaded = model_loaded.describe()
            del model_loaded  # it is freed when the service unloads it
        if interrupt.is_requested:  # after the last check of the loading
            raise Interrupted
        saved_as = ModelName(lasting_name(model), shown)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        app = create_app(
            service, names, request, metrics, loaded, saved_as, token=token, key=api_key, local=local, origins=origins
        )
        url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        with listen_locally(path, engine) as local_socket:
            access = (
                "with your key" if api_key else "without a key: every user of this machine may use it (see --api-key)"
            )
            say(f"{names.model} answers at {url}/v1, {access}")
            page = f"{url}/?token={token} (Ctrl-C stops the server)"
            say(f"page with your chats, also the URL for --server: {page}")
            return answer(app, [listening, local_socket] if local_socket else [listening], service)


def _model_names(model: str | None, shown: str) -> tuple[str, set[str]]:
    """The model's name for clients, and other names that they may give.

    Args:
        model: the option ``--model``.
        shown: the name of the model's file.
    """
    from ..gguf.locate import EMBEDDED

    name = model if model and Path(model).name == model else shown if model else EMBEDDED
    return name.removesuffix(".gguf"), {shown, shown.removesuffix(".gguf"), shown.removesuffix(":latest")}


def _origin(text: str) -> str:
    """An origin as browsers send it, without the slash of an address.  Raises UsageError if it is none."""
    origin = text.rstrip("/")
    if not re.fullmatch(r"\*|[a-z][\w+.-]*://[^/\s]+", origin):
        raise UsageError(f"--cors must be an origin such as https://example.org, or * for all (not {text!r})")
    return origin


def _most_lookahead(request: Request, personas: Iterable[Overrides]) -> int:
    """The most tokens that an answer may guess ahead, by the defaults or a persona."""
    most: int = max(request.generation.lookahead, *(each.generation.get("lookahead", 0) for each in personas), 0)
    return most
