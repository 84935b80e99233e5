"""The routes for facts about the model, checks of requests, attached files, and dials."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .. import __version__
from ..attachments import parse_attachment, with_attachments
from ..errors import UsageError
from ..prompting.dials import STEP, adjust
from ..prompting.preferences import presets, strength_in_force
from ..request import Request as AnswerRequest
from ..sessions.session import Session
from ..settings import DEFAULT_MODE, Generation, Mode, Sampling, SamplingDefaults
from .auth import refusal
from .bodies import Exact, Object, Whole, check_overrides, parse_request, validated
from .chats import chat_defaults, open_chat
from .following import PROGRESS_S, as_error
from .jobs import Checked, Job, ModelName
from .openai import Names
from .replies import JsonResponse
from .service import Service
from .streaming import AnswerResponse, Answers, read_body, until_done

_MOST_FILE = 8 << 20  # bytes of an attached file


class _ToCheck(Exact):
    request: Object


class _Dial(Exact):
    """A preference whose strength is raised or lowered by 0.5.

    settings: the settings that differ from those of the server or the chat.
    chat: the saved chat in which the question is asked.
    """

    preference: Annotated[str, Field(min_length=1)]
    more: bool
    settings: Object = Field(default={})
    chat: Whole | None = None


def model_routes(
    service: Service, names: Names, defaults: AnswerRequest, model: Mapping[str, Any], saved_as: ModelName
) -> list[Route]:
    """The routes of `/api/model`, `/api/check`, `/api/files` and `/api/dials`.

    Args:
        defaults, model, saved_as: see `create_app`.
    """

    def temperature(source: SamplingDefaults) -> float:
        """The temperature unless one is set, with these defaults of the filters."""
        request = AnswerRequest(sampling=Sampling(defaults=source))
        return request.with_model_defaults(model["recommended"]).sampling.temperature

    async def model_facts(request: Request) -> Response:
        of_the_page = {
            "presets": presets(),
            "default_mode": DEFAULT_MODE,
            "strengths": {mode: strength_in_force(Generation(), mode) for mode in get_args(Mode)},
            "settings": defaults.as_dict(),
            "automatic": {
                "temperature": {source: temperature(source) for source in get_args(SamplingDefaults)},
                "max_tokens": Generation().max_tokens,
            },
            "most_file": _MOST_FILE,
        }
        named = {"name": names.model, "lasting_name": saved_as.lasting, "version": __version__}
        return JsonResponse({**named, **model, **of_the_page})

    async def check(request: Request) -> Response:
        body = validated(_ToCheck, await read_body(request))
        try:
            answers = Answers(service, [Job(parse_request(body.request))])
            answers.submit()
        except Exception as error:
            return refusal(error, in_flags=True)

        async def respond() -> Response:
            return StreamingResponse(_verdict(answers), media_type="application/json")

        return AnswerResponse(answers.cancel, respond)

    async def attach(request: Request) -> Response:
        """A text file, as it is put before a question."""
        name = request.query_params.get("name", "") or "the file"
        attachment = parse_attachment(name, name, await read_body(request, _MOST_FILE + 1), _MOST_FILE)
        answers = Answers(service, [Job(defaults, text=attachment.text)])
        answers.submit()

        async def respond() -> Response:
            try:
                _, counted = await answers.next()
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
            assert isinstance(counted, Checked)
            head = with_attachments([attachment], "")
            return JsonResponse({"name": attachment.name, "size": attachment.size(counted.n_tokens), "head": head})

        return AnswerResponse(answers.cancel, respond)

    async def turn_dial(request: Request) -> Response:
        body = validated(_Dial, await read_body(request))
        settings = body.settings | {"draft_prefer": [body.preference]}
        base = chat_defaults(defaults, Session() if body.chat is None else await open_chat(body.chat))
        under = base.override(check_overrides(settings, model["context_limit"], base))
        changed = adjust(under, body.preference, STEP if body.more else -STEP).views[0]
        return JsonResponse({"preference": changed[0] if changed else ""})

    return [
        Route("/api/model", model_facts),
        Route("/api/check", check, methods=["POST"]),
        Route("/api/files", attach, methods=["POST"]),
        Route("/api/dials", turn_dial, methods=["POST"]),
    ]


async def _verdict(answers: Answers) -> AsyncIterator[bytes]:
    """The verdict on a request as JSON: null, or an error as in a stream.  White space comes before while it waits."""
    verdict = await answers.wait(answers.next(), PROGRESS_S)
    async for _ in until_done(verdict, PROGRESS_S):
        yield b" "
    try:
        verdict.result()
        yield b"null"
    except Exception as error:
        yield json.dumps(as_error(error, in_flags=True)).encode()
