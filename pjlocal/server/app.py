"""The ASGI application: the routes of OpenAI's API, the page, the saved chats and pjlocal's own clients."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import UsageError
from ..prompting.conversation import check_begin
from ..prompting.plan import make_roles, unused
from ..prompting.tools import Tools
from ..request import Overrides
from ..request import Request as AnswerRequest
from .answers import AnswerRoutes
from .auth import Guard, error_body, not_served
from .bodies import Wrong, in_sent_fields, validated
from .chats import chat_routes
from .jobs import Job, ModelName, Raw
from .metrics import Metrics
from .model_routes import model_routes
from .openai import MOST_CHOICES, WARNING, Body, Chat, Completion, Names, Reply
from .page import PAGE_ROUTES
from .replies import JsonResponse
from .responses import N_KEPT, OutputItem, Responses, ResponsesReply, naming_own_fields
from .service import Service
from .streaming import AnswerResponse, Answers, read_body
from .tools import NOT_OFFERED, Calling, arrange, loosened

_ROUTES_HINT = (
    "This server speaks OpenAI's API: POST /v1/chat/completions, POST /v1/responses, POST /v1/completions and "
    "GET /v1/models, with http://HOST:PORT/v1 as the base URL"
)
_MOST_PATH = 200  # characters of a path in an error


def create_app(
    service: Service,
    names: Names,
    defaults: AnswerRequest,
    metrics: Metrics,
    model: Mapping[str, Any],
    saved_as: ModelName,
    *,
    token: str,
    key: str | None = None,
    local: bool = True,
    origins: Sequence[str] = (),
) -> Starlette:
    """Make the application.

    Args:
        defaults: the settings of answers, unless a request sets them.
        model: facts about the model (see `LoadedModel.describe`).
        token, key, local, origins: see `Guard`.
    """
    middleware = [Middleware(Guard, key=key, token=token, local=local, origins=origins, metrics=metrics)]
    if origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[WARNING],
            max_age=600,
        )
        middleware.insert(0, cors)
    return Starlette(
        routes=[
            *routes(service, names, defaults, metrics, model["context_limit"]),
            *PAGE_ROUTES,
            *chat_routes(),
            *model_routes(service, names, defaults, model, saved_as),
            *AnswerRoutes(service, defaults, model["context_limit"], saved_as).routes(),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _no_route},
    )


def routes(service: Service, names: Names, defaults: AnswerRequest, metrics: Metrics, n_ctx: int) -> list[Route]:
    """OpenAI's routes."""
    started = int(time.time())
    kept = deque[OutputItem](maxlen=N_KEPT)
    make_answers = partial(_make_answers, service, names, defaults, n_ctx)

    async def health(request: Request) -> Response:
        return JsonResponse({"status": "ok"}) if service.is_open else JsonResponse({"status": "stopping"}, 503)

    async def measured(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(request: Request) -> Response:
        return JsonResponse({"object": "list", "data": [_model(name, started) for name in names.all()]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if names.find(name) is None:
            raise Wrong(names.unknown(name), status=404, code="model_not_found")
        return JsonResponse(_model(name, started))

    async def chat(request: Request) -> Response:
        return await _respond(validated(Chat, await read_body(request)))

    async def completion(request: Request) -> Response:
        return await _respond(validated(Completion, await read_body(request)))

    async def responses(request: Request) -> Response:
        parsed = validated(Responses, await read_body(request))
        with naming_own_fields():
            body = parsed.as_chat(kept)
            answers, calling = await make_answers(body)
        reply = ResponsesReply(parsed, body, body.model or names.model, calling, kept)
        return AnswerResponse(answers.cancel, partial(reply.streamed if parsed.stream else reply.whole, answers))

    async def _respond(body: Body) -> Response:
        answers, calling = await make_answers(body)
        reply = Reply(body, body.model or names.model, calling)
        return AnswerResponse(answers.cancel, partial(reply.streamed if body.stream else reply.whole, answers))

    return [
        Route("/health", health),
        Route("/metrics", measured),
        Route("/v1/models", models),
        Route("/v1/models/", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completion, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
    ]


async def _make_answers(
    service: Service, names: Names, defaults: AnswerRequest, n_ctx: int, body: Body
) -> tuple[Answers, Calling | None]:
    """Make the answers to a request, and the description of how they may call functions."""
    named = names.find(body.model)
    if named is None:
        raise Wrong(names.unknown(str(body.model)), status=404, code="model_not_found")
    system, prompts = body.system_and_prompts()
    persona, overrides = body.persona(n_ctx), body.overrides(n_ctx)
    request = defaults.override(named).override(persona).override(overrides).with_system(system)
    try:
        roles = make_roles(request)
        given = persona.flat() | overrides.flat()
        for warning in unused(request, roles, given):
            raise UsageError(warning)
        for prompt in prompts:
            continues = isinstance(prompt, Raw) or prompt[-1].role == "assistant"
            check_begin(overrides.flat().get("begin", ""), continues)
    except UsageError as error:
        raise in_sent_fields(error, body.settings()[1]) from None
    n = body.n or 1
    if n > 1 and roles.n_answers > 1:
        raise Wrong("n and best exclude each other: n sends every answer, and best chooses one", "n")
    if n * len(prompts) > MOST_CHOICES:
        raise Wrong(f"n times the prompts must be at most {MOST_CHOICES} answers", "prompt")
    calling: Calling | None = None
    warnings: list[str] = []
    form = body.response_format and body.response_format.json_schema
    if form and not form.strict:
        schema = await asyncio.to_thread(loosened, form.schema_, "the JSON schema of the answer is", warnings.append)
        request = request.override(Overrides(sampling={"json_schema": schema}))
    if isinstance(body, Chat) and (functions := body.functions):
        calling = await asyncio.to_thread(arrange, functions, body.must_call, service.call_support, request)
        if calling:
            if roles.mode == "rewrite":
                raise Wrong("mode rewrite cannot call functions: use mode both", "tools")
            request = request.override(calling.settings)
            warnings += calling.warnings
        else:
            warnings.append(NOT_OFFERED)
    tools = calling.tools if calling else Tools()
    jobs = [Job(request.nth(number), prompt, top=body.top, tools=tools) for prompt in prompts for number in range(n)]
    return Answers(service, jobs, warnings), calling


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "pjlocal"}


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    why = f"{not_served(path) or 'unknown path'}. {_ROUTES_HINT}" if error.status_code == 404 else error.detail
    message = f"{request.method} {path[:_MOST_PATH]}: {why}"
    return JsonResponse(error_body(message, "invalid_request_error"), error.status_code, error.headers)
