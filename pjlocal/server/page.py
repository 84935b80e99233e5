"""The routes of the page: its files, with a content security policy that allows no others, and its settings."""

from __future__ import annotations

from importlib.resources import files
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..prompting.plan import strength_in_force
from ..prompting.preferences import presets
from ..request import Request as AnswerRequest
from ..settings import DEFAULT_MODE, Generation, Mode
from .replies import JsonResponse

_PACKAGE = files("pjlocal")
_SCRIPTS = [file.name for file in _PACKAGE.joinpath("server/web").iterdir() if file.name.endswith(".js")]
#: The served files and their types, by path.
FILES = {
    "/": ("server/web/page.html", "text/html"),
    "/page.css": ("server/web/page.css", "text/css"),
    "/blame.css": ("blame.css", "text/css"),
    "/icon.svg": ("server/web/icon.svg", "image/svg+xml"),
    **{f"/{name}": (f"server/web/{name}", "text/javascript") for name in _SCRIPTS},
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes(model: str, defaults: AnswerRequest, most_file: int) -> list[Route]:
    """The routes of the page's files and of its default settings.

    Args:
        most_file: the most bytes of a file that is sent with a question.
    """

    async def page(request: Request) -> Response:
        name, kind = FILES[request.url.path]
        return Response(_PACKAGE.joinpath(name).read_bytes(), media_type=kind, headers=_HEADERS)

    async def about(request: Request) -> Response:
        return JsonResponse(
            {
                "model": model,
                "presets": presets(),
                "default_mode": DEFAULT_MODE,
                "strengths": {mode: strength_in_force(Generation(), mode) for mode in get_args(Mode)},
                "settings": defaults.as_dict(),
                "most_file": most_file,
            }
        )

    return [*(Route(path, page) for path in FILES), Route("/api/about", about)]
