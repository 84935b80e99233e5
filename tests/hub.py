"""A hub on loopback, which serves repositories like Hugging Face, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c" * 40


class Hub:
    """Serves ``files``, by repository and name.

    refuse: what to answer for a repository instead: status and headers.
    breaks_after: bytes after which a connection breaks, as often as there are numbers.
    elsewhere: whether files come from another host, by a redirect, as they do from Hugging Face.
    ranges: whether parts of a file can be had.
    lies: bytes that are served instead of a file's, by its name.
    says: what is answered for any repository instead, as bytes of JSON or of anything else.
    headers: what the headers of files are to be instead; without a value, they are left out.
    silent: whether it takes connections and never answers.
    asked: every request: method, path, and headers in small letters.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.refuse: dict[str, tuple[int, dict[str, str]]] = {}
        self.breaks_after: list[int] = []
        self.elsewhere = False
        self.ranges = True
        self.lies: dict[str, bytes] = {}
        self.says: bytes | None = None
        self.headers: dict[str, str | None] = {}
        self.silent = threading.Event()
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.silent.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ranges_asked(self) -> list[str]:
        return [headers["range"] for method, _, headers in self.asked if method == "GET" and "range" in headers]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no error: its traceback would be printed into whichever test runs by then."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            path = urlsplit(self.path).path
            hub.asked.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
            while hub.silent.is_set():
                time.sleep(0.02)
            if hub.says is not None and path.startswith("/api/"):
                self._send(200, {"Content-Type": "application/json"}, hub.says)
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
                self._describe(match[1])
            elif match := re.fullmatch(r"(/elsewhere)?/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                self._file(match[2], match[3], with_body, redirected=bool(match[1]))
            else:
                self._send(404, {}, b"")

        def _describe(self, repo: str) -> None:
            if repo in hub.refuse:
                status, headers = hub.refuse[repo]
                self._send(status, headers, b"{}")
            elif repo not in hub.files:
                self._send(404, {"X-Error-Code": "RepoNotFound"}, b"{}")
            else:
                siblings = [_sibling(name, data) for name, data in hub.files[repo].items()]
                document = {"id": repo, "sha": COMMIT, "private": False, "siblings": siblings}
                self._send(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

        def _file(self, repo: str, name: str, with_body: bool, redirected: bool) -> None:
            data = hub.files[repo][name]
            digest = hashlib.sha256(data).hexdigest()
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            changed = {**headers, **hub.headers}
            headers = {name: value for name, value in changed.items() if value is not None}
            if hub.elsewhere and not redirected:
                place = f"http://localhost:{hub.port}/elsewhere{self.path}"
                self._send(302, {**headers, "Location": place}, b"")
                return
            data = hub.lies.get(name, data)
            status = 200
            if hub.ranges and (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
                start = int(match[1])
                if start >= len(data):
                    self._send(416, {}, b"")
                    return
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                data = data[start:]
            if with_body and hub.breaks_after:
                cut = hub.breaks_after.pop(0)
                self._head(status, headers, len(data))
                self.wfile.write(data[:cut])
                self.wfile.flush()
                self.close_connection = True
                return
            self._send(status, headers, data, with_body)

        def _head(self, status: int, headers: dict[str, str], n: int) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(n)}.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, status: int, headers: dict[str, str], data: bytes, with_body: bool = True) -> None:
            self._head(status, headers, len(data))
            if with_body and self.command == "GET":
                self.wfile.write(data)

    return Handler


def _sibling(name: str, data: bytes) -> dict[str, object]:
    lfs = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
    return {"rfilename": name, "size": len(data), "blobId": "b" * 40} | ({"lfs": lfs} if name.endswith(".gguf") else {})
