"""The routes of the page's files, with a content security policy that allows no others."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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


async def page(request: Request) -> Response:
    name, kind = FILES[request.url.path]
    return Response(_PACKAGE.joinpath(name).read_bytes(), media_type=kind, headers=_HEADERS)


PAGE_ROUTES = [Route(path, page) for path in FILES]
