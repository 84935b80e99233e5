"""A judge behind an OpenAI-compatible endpoint: many questions at a time, and patience with a server that is busy."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..engine.interrupt import Interrupt, Interrupted
from ..errors import ModelError, UsageError
from ..visible import one_line
from .judges import Group, Opinion, opinion
from .question import REPLIES, SYSTEM, Question

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger("pjlocal")

#: Where the key is looked for, the first before the second.
KEY_NAMES = ("PJLOCAL_JUDGE_KEY", "OPENAI_API_KEY")

_PATH = "/chat/completions"
_TRIES = 6
_MOST_WAIT_S = 300.0  # that a server may ask for
_MOST_BYTES = 2**20  # of a reply
_MOST_QUOTED = 200  # characters of what a server says of an error
_HOPELESS = 5  # unusable replies, without a single usable one, after which it is asked no more
_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}  # answers of a server that may say otherwise later
_THIS_ONE = {400, 413, 422}  # ... that may be about this question alone
_POLL_S = 0.1  # how often Ctrl-C is looked for


class _Unusable(Exception):
    """A question got no usable reply; others may."""


class _Later(Exception):
    """Worth another try, after so many seconds where the server says when."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class EndpointJudge:
    """A model that a server runs.

    Its verdict is read from the probabilities of the first token of its reply; where the server gives none, from the
    text, if that is 1, 2 or 0 and nothing else.

    Args:
        url: of the server's API, with ``/chat/completions`` or without.
        model: by the name that the server knows it by.
        concurrency: questions asked at a time.
        timeout_s: how long a reply may take as a whole.
        delay_s: before the second try; it doubles with every other.

    Raises:
        UsageError: no usable address, or a package is missing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        interrupt: Interrupt,
        *,
        concurrency: int = 4,
        timeout_s: float = 60.0,
        delay_s: float = 1.0,
    ) -> None:
        _http()
        self.url = _address(url)
        self.name = model
        self.identity = [self.url, model]
        self.failures: Counter[str] = Counter()
        self._key = find_key()
        self._interrupt = interrupt
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._delay_s = delay_s
        self._options: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
        self._n_usable = 0
        self._not_before = 0.0  # when the server wants to be asked again
        parts = urlsplit(self.url)
        if self._key and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            log.warning("%s is not encrypted: whoever listens on the way can read the key. Use https", self.url)

    def close(self) -> None:
        """Nothing is kept open between two calls of `ask`."""

    def ask(self, groups: Iterable[Group], done: Collection[str]) -> Iterator[tuple[Question, Opinion]]:
        """What the model says of each question whose key is not ``done``, in the order in which it answers.

        Raises:
            Interrupted: it was stopped.
            ModelError: the server cannot be reached, refuses, or gives nothing that can be used.
        """
        todo = iter([question for group in groups for question in group if question.key not in done])
        loop = asyncio.new_event_loop()
        client = _http().AsyncClient(timeout=self._timeout_s)
        asking: dict[asyncio.Task[Opinion], Question] = {}
        try:
            while True:
                while len(asking) < self._concurrency and (question := next(todo, None)):
                    asking[loop.create_task(self._opinion(client, question))] = question
                if not asking:
                    return
                if self._interrupt.is_set():
                    raise Interrupted
                some = asyncio.wait(asking, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
                finished, _ = loop.run_until_complete(some)
                for task in sorted(finished, key=lambda task: task.exception() is not None):  # what failed may end it
                    question = asking.pop(task)
                    try:
                        said = task.result()
                    except _Unusable as error:
                        self._count(str(error))
                    else:
                        self._n_usable += 1
                        yield question, said
        finally:
            loop.run_until_complete(_end(asking, client))
            loop.close()

    def _count(self, reason: str) -> None:
        self.failures[reason] += 1
        if not self._n_usable and self.failures.total() >= _HOPELESS:
            raise ModelError(f"the judge at {self.url} has given no usable reply so far: {reason}")

    async def _opinion(self, client: httpx2.AsyncClient, question: Question) -> Opinion:
        """Asked as often as it makes sense."""
        for number in range(_TRIES):
            await self._wait_for_server()
            try:
                return _read(await asyncio.wait_for(self._post(client, question), self._timeout_s))
            except asyncio.TimeoutError:
                error = _Later(f"no reply within {self._timeout_s:g} s")
            except _Later as later:
                error = later
            if number < _TRIES - 1:
                await self._back_off(number, error)
        raise ModelError(
            f"the judge at {self.url} gave no reply in {_TRIES} tries ({error}): score again later, to go on from here"
        )

    async def _wait_for_server(self) -> None:
        while (wait_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    async def _back_off(self, number: int, error: _Later) -> None:
        """Wait twice as long each time, give or take, or all together until the server wants to be asked again."""
        if error.wait_s is None:
            await asyncio.sleep(self._delay_s * 2**number * random.uniform(0.5, 1.0))
        elif error.wait_s > _MOST_WAIT_S:
            raise ModelError(
                f"the judge at {self.url} wants to be left alone for {error.wait_s:.0f} s: score again then"
            )
        else:
            self._not_before = max(self._not_before, time.monotonic() + error.wait_s)

    async def _post(self, client: httpx2.AsyncClient, question: Question) -> bytes:
        """The body of the reply to one question, asked without what the server does not take.

        Raises:
            _Later, _Unusable: see there.
            ModelError: it refuses for good.
        """
        while True:
            options = self._options
            status, headers, body = await self._exchange(client, question, options)
            if status == 200:
                return body
            complaint = self._quote(body)
            what = f"status {status}{': ' if complaint else ''}{complaint}"
            if 300 <= status < 400:
                place = self._clean(headers.get("location", "nowhere"))
                raise ModelError(
                    f"the judge at {self.url} sends its guests on to {place}: give that address, if it is right"
                )
            if status in _AGAIN:
                raise _Later(what, _retry_after(headers.get("retry-after")))
            if status not in _THIS_ONE:
                raise ModelError(f"the judge at {self.url} refuses ({what}){_hint(status, bool(self._key))}")
            less = _without_what_it_refuses(options, complaint)
            if less is None:
                raise _Unusable(what)
            if options is self._options:  # else another question has changed them meanwhile
                self._options = less

    async def _exchange(
        self, client: httpx2.AsyncClient, question: Question, options: dict[str, Any]
    ) -> tuple[int, httpx2.Headers, bytes]:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question.text}]
        headers = {"Accept-Encoding": "identity"}  # a body cannot be larger than what is read of it
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        http = _http()
        try:
            request = {"model": self.name, "messages": messages, **options}
            async with client.stream("POST", self.url, json=request, headers=headers) as response:
                body = b""
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise _Unusable(f"a reply of more than {_MOST_BYTES // 2**20} MiB")
                return response.status_code, response.headers, body
        except http.ConnectError as error:
            if not self._n_usable:
                raise ModelError(f"cannot reach the judge at {self.url}: {self._clean(str(error))}") from None
            raise _Later(self._clean(str(error))) from None
        except http.TransportError as error:
            raise _Later(self._clean(str(error) or type(error).__name__)) from None

    def _quote(self, body: bytes) -> str:
        """What a server says of an error, in a line."""
        text = body.decode("utf-8", "replace")
        try:
            said = json.loads(text)
            error = said.get("error", said)
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError, RecursionError):
            pass
        return self._clean(text)

    def _clean(self, text: str) -> str:
        """In a line, without the key, which a server may have repeated."""
        if self._key:
            text = text.replace(self._key, "(key)")
        line = one_line(text)
        return line if len(line) <= _MOST_QUOTED else f"{line[:_MOST_QUOTED]} …"


async def _end(tasks: Iterable[asyncio.Task[Opinion]], client: httpx2.AsyncClient) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()


def _http() -> Any:
    """The HTTP library, which only an evaluation needs."""
    try:
        import httpx2
    except ImportError:
        raise UsageError("a judge behind an address needs one package more: pip install 'pjlocal[eval]'") from None
    return httpx2


def find_key() -> str:
    """The key from the environment, or nothing.

    Raises:
        UsageError: it cannot be sent.
    """
    for name in KEY_NAMES:
        if key := os.environ.get(name, "").strip():
            if not key.isascii() or not key.isprintable():
                raise UsageError(f"the key in {name} holds characters that no key has: set it again")
            return key
    return ""


def _address(url: str) -> str:
    """Where questions are sent."""
    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"--judge-url takes an address such as http://localhost:8080/v1 (not {one_line(url)!r})")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"--judge-url takes a plain address, without a key in it: set {KEY_NAMES[0]} to the key")
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path = f"{path or '/v1'}{_PATH}"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _hint(status: int, has_key: bool) -> str:
    if status in (401, 403):
        return ": is the key right?" if has_key else f": set {KEY_NAMES[0]} to a key"
    if status in (404, 405):
        return ": is the address right, and the model's name?"
    return ""


def _retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait, told as a number or a date."""
    if not value:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait_s) if math.isfinite(wait_s) else None


_FEW_LOGPROBS = 5  # that most servers give


def _without_what_it_refuses(options: dict[str, Any], complaint: str) -> dict[str, Any] | None:
    """Options for a server, or a model, that does not take some of these; None where it complains of something else."""
    less = dict(options)
    if "max_completion_tokens" in complaint and "max_tokens" in less:
        less["max_completion_tokens"] = less.pop("max_tokens")
    elif "logprobs" in complaint and less.get("top_logprobs", 0) > _FEW_LOGPROBS:
        less["top_logprobs"] = _FEW_LOGPROBS
    elif "logprobs" in complaint and "logprobs" in less:
        del less["logprobs"], less["top_logprobs"]
    elif "temperature" in complaint and "temperature" in less:
        del less["temperature"]
    else:
        return None
    return less


def _read(body: bytes) -> Opinion:
    """The verdict in a reply."""
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"]["content"]
        listed = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs") or []
        logs = {reply: [x["logprob"] for x in listed if x["token"].strip() == reply] for reply in REPLIES}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Unusable("a reply that is none of a chat") from None
    weights = [_log_sum(logs[reply]) for reply in REPLIES]
    if max(weights) > -math.inf:
        return opinion(weights)
    if isinstance(text, str) and text.strip() in REPLIES:
        return opinion([0.0 if reply == text.strip() else -math.inf for reply in REPLIES])
    raise _Unusable("a reply other than 1, 2 or 0")


def _log_sum(logs: list[Any]) -> float:
    total = math.fsum(math.exp(x) for x in logs if isinstance(x, int | float) and x <= 0)
    return math.log(total) if total else -math.inf
