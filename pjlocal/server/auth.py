"""Check access to the server by key, token, host and origin, and make the responses for errors."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..client import is_loopback
from ..engine.interrupt import Interrupted
from ..errors import NoRoom, PjlocalError, RefusedError, TooLong, UsageError, explain
from ..sessions.faults import RemovedError
from .bodies import Wrong, in_fields
from .jobs import Busy, Stopping
from .metrics import Metrics
from .page import FILES
from .replies import JsonResponse

log = logging.getLogger("pjlocal")

_OPEN = ("/health", *FILES)  # paths that need no key
_OWN = "/api/"  # only for the server's own page, because it has the user's chats
_RETRY_AFTER_S = 1
#: Messages for paths of other APIs.
_NOT_SERVED = {
    "/v1/messages": "Anthropic's Messages API is not served",
    "/v1/responses": "responses are not kept: send all messages with POST /v1/responses",
    "/v1/conversations": "conversations are not kept: send all messages with POST /v1/responses",
    "/v1/assistants": "assistants are not served",
    "/v1/threads": "assistants are not served",
    "/v1/embeddings": "embeddings are not served",
    "/v1/moderations": "moderation is not served",
    "/v1/audio": "speech is not served",
    "/v1/realtime": "speech is not served",
    "/v1/images": "images are not served",
    "/v1/videos": "videos are not served",
    "/v1/files": "files are not kept",
    "/v1/uploads": "files are not kept",
    "/v1/vector_stores": "files are not kept",
    "/v1/batches": "batches are not served: send requests side by side",
    "/v1/fine_tuning": "models are not trained",
    "/v1beta": "Google's Gemini API is not served",
}
_OLLAMA = "chat generate tags show version ps pull push create copy delete blobs embed embeddings"
_NOT_SERVED |= {f"/api/{name}": "Ollama's API is not served" for name in _OLLAMA.split()}
_MOST_MESSAGE = 1000  # characters of an error message
_HUNG_UP = 499  # the status by which web servers count disconnected clients


#: The status of an error, with OpenAI's type and code.
_STATUS: list[tuple[type[Exception], int, str, str | None]] = [
    (Busy, 429, "rate_limit_error", "rate_limit_exceeded"),
    (Stopping, 503, "server_error", "stopping"),
    (Interrupted, 503, "server_error", "stopping"),
    (RemovedError, 404, "invalid_request_error", "chat_not_found"),
    (TooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (NoRoom, 400, "invalid_request_error", "no_room"),
    (UsageError, 400, "invalid_request_error", None),
    (RefusedError, 400, "invalid_request_error", None),
    (Exception, 500, "server_error", None),
]


def error_body(message: str, kind: str, code: str | None = None, field: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's format.  Its message is shortened, because it may quote the request."""
    if len(message) > _MOST_MESSAGE:
        message = f"{message[:_MOST_MESSAGE]} …"
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def described(error: Exception, *, in_flags: bool = False) -> tuple[int, dict[str, Any]]:
    """The status and the body for an error.  Errors of the server are also logged.

    Args:
        in_flags: whether the message names settings by command-line flags instead of fields.
    """
    status, kind, code = next(known[1:] for known in _STATUS if isinstance(error, known[0]))
    if isinstance(error, Wrong):
        status, code = error.status, error.code
    message = "the server is stopping" if isinstance(error, Interrupted) else explain(error)[0]
    if status == 500:
        log.error("%s", message)
        if not isinstance(error, PjlocalError):
            message = "internal server error: the server's log has the details"
    if not in_flags:
        message = in_fields(message[: _MOST_MESSAGE + 1])  # the rest is cut off anyway
    return status, error_body(message, kind, code, getattr(error, "field", None))


def refusal(error: Exception, *, in_flags: bool = False) -> JsonResponse:
    """The response for an error.  Logs errors of the server."""
    status, body = described(error, in_flags=in_flags)
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status == 429 else None
    return JsonResponse(body, status, headers)


def not_served(path: str) -> str | None:
    """The message for a path of an API that this server does not have; None for other paths."""
    return next((_NOT_SERVED[known] for known in _NOT_SERVED if f"{path}/".startswith(f"{known}/")), None)


class Guard:
    """Middleware that checks the access to the routes.

    Args:
        key: the key that clients must send; None opens all paths except `/api`.
        token: opens `/api` too, like the key.
        local: accept only loopback addresses in the Host header.  A web page can resolve its own host name to this
            server (DNS rebinding).
        origins: the origins whose web pages may use the server, besides its own; ``*`` for all.
    """

    def __init__(
        self, app: ASGIApp, key: str | None, token: str, local: bool, origins: Sequence[str], metrics: Metrics
    ) -> None:
        self._app = app
        self._key = key
        self._token = token
        self._local = local
        self._origins = origins
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0  # of the response, once it is sent

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = None if _is_local_socket(scope) else self._refused(Headers(scope=scope), scope["path"])
            await (refused or self._app)(scope, receive, counting)
        except ClientDisconnect:
            status = status or _HUNG_UP
        except Exception as error:
            response = refusal(error)  # logs errors of the server
            if not status:
                await response(scope, receive, counting)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.requests.labels(route, str(status)).inc()

    def _refused(self, headers: Headers, path: str) -> JsonResponse | None:
        """The response to a client without access; None for a client with access."""
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if self._local and not is_loopback(_host(host)):
            return JsonResponse(error_body("the Host header must be a loopback address", "permission_error"), 403)
        own = path.startswith(_OWN) and not not_served(path)
        is_foreign = origin not in ("", f"http://{host}", f"https://{host}")
        if is_foreign and own:
            message = f"only this server's own page may use the saved chats, not pages of {origin}"
            return JsonResponse(error_body(message, "permission_error"), 403)
        if is_foreign and "*" not in self._origins and origin not in self._origins:
            hint = "" if origin == "null" else f": start it with --cors {origin} to allow them"
            message = f"web pages of {origin} may not use this server{hint}"
            return JsonResponse(error_body(message, "permission_error"), 403)
        header = headers.get("authorization", "")
        if own:
            if not (_has_secret(self._token, header) or (self._key is not None and _has_secret(self._key, header))):
                message = (
                    "/api is for this server's own page: open the address with ?token= that pjlocal serve printed, or "
                    "send its token, or the API key, in the header Authorization: Bearer TOKEN"
                )
                return JsonResponse(error_body(message, "authentication_error", "invalid_token"), 401)
        elif self._key is not None and path not in _OPEN and not _has_secret(self._key, header):
            message = "the key is missing or wrong: send the header Authorization: Bearer KEY"
            return JsonResponse(error_body(message, "authentication_error", "invalid_api_key"), 401)
        return None


def _is_local_socket(scope: Scope) -> bool:
    """True if the client uses the Unix socket, which only the same user can open."""
    server = scope.get("server")
    return server is not None and server[1] is None


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _has_secret(secret: str, header: str) -> bool:
    """True if the header contains the secret.  The comparison takes constant time."""
    scheme, _, value = header.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(value.strip().encode(), secret.encode())
