"""The routes of the page: its files, with a content security policy that allows no others, and its settings."""

from __future__ import annotations

from importlib.resources import files
from typing import get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..prompting.preferences import presets
from ..request import Request as AnswerRequest
from ..settings import VIEW_NAMES, Mode, Placement

_SCRIPTS = ("answer", "api", "chats", "compare", "manage", "markdown", "page", "strip", "token", "turn", "views")
#: The served files and their types, by path.
FILES = {
    "/": ("web/page.html", "text/html"),
    "/page.css": ("web/page.css", "text/css"),
    "/blame.css": ("../blame.css", "text/css"),
    "/icon.svg": ("web/icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"web/{name}.js", "text/javascript") for name in _SCRIPTS},
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes(model: str, defaults: AnswerRequest) -> list[Route]:
    """The routes of the page's files and of its default settings."""

    async def page(request: Request) -> Response:
        name, kind = FILES[request.url.path]
        return Response(_read(name), media_type=kind, headers=_HEADERS)

    async def about(request: Request) -> Response:
        return JSONResponse(
            {
                "model": model,
                "presets": presets(),
                "modes": get_args(Mode),
                "placements": get_args(Placement),
                "settings": {
                    "preferences": dict(zip(VIEW_NAMES, defaults.views, strict=True)),
                    "generation": {"mode": defaults.generation.mode, "strength": defaults.generation.strength},
                    "prompting": {"placement": defaults.prompting.placement},
                },
            }
        )

    return [*(Route(path, page) for path in FILES), Route("/api/about", about)]


def _read(name: str) -> bytes:
    folder = files("pjlocal") if name.startswith("../") else files(__package__)
    return folder.joinpath(name.removeprefix("../")).read_bytes()
