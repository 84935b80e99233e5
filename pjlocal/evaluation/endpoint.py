"""A judge behind an OpenAI-compatible endpoint.  Several requests run at once, and are repeated if the server is
busy."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from ..client import check_key, is_loopback
from ..engine.interrupt import Interrupt, Interrupted
from ..errors import ModelError, UsageError, extra
from ..visible import one_line
from .judges import Group, Opinion, opinion
from .question import REPLIES, SYSTEM, Question

with extra("eval"):
    import httpx2
    import openai

log = logging.getLogger("pjlocal")

#: Environment variables with the key; the first one that is set is used.
KEY_NAMES = ("PJLOCAL_JUDGE_KEY", "OPENAI_API_KEY")

_PATH = "/chat/completions"
_CONCURRENCY = 4  # simultaneous requests
_TIMEOUT_S = 60.0  # for a whole reply
_TRIES = 6
_DELAY_S = 1.0  # before the second try; it doubles with each further try
_MOST_WAIT_S = 300.0  # the longest pause that a server may demand
_MOST_BYTES = 2**20  # of a reply
_MOST_QUOTED = 200  # characters of a server's error message
_HOPELESS = 5  # unusable replies without a usable one, after which scoring ends
_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}  # statuses that may change later
_THIS_ONE = {400, 413, 422}  # statuses that may concern this question alone
_POLL_S = 0.1  # seconds between checks for Ctrl-C


class _Unusable(openai.OpenAIError):  # a class that the client does not wrap in another error
    """One question got no usable reply."""


class EndpointJudge:
    """A judge on a server.

    Its verdict is computed from the probabilities of the first token of its reply.  If the server does not send them,
    the reply must be 1, 2 or 0 and nothing else.

    This class handles tries and timeouts itself.  The client would try a refused connection for 12 s, wait for a server
    at most 120 s, and restart its timeout with every byte.

    Args:
        url: the URL of the server's API, with or without ``/chat/completions``.
        model: the model's name on the server.

    Raises:
        UsageError: the URL is not valid, or contains a key or a query.
    """

    def __init__(self, url: str, model: str, interrupt: Interrupt) -> None:
        self.url = _address(url)
        self.name = model
        self.identity = [self.url, model]
        self.failures: Counter[str] = Counter()
        self._key = find_key()
        self._interrupt = interrupt
        self._options: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
        self._n_usable = 0
        self._not_before = 0.0  # the time at which the server asks for the next try
        if self._key:
            _warn_of_plain_http(self.url)

    def ask(self, groups: Iterable[Group], done: Collection[str]) -> Iterator[tuple[Question, Opinion]]:
        """Yield the verdict on each question whose key is not in ``done``, in the order in which the replies come.

        Raises:
            Interrupted: on request.
            ModelError: the server cannot be reached, refuses the requests, or sends no usable reply.
        """
        todo = iter([question for group in groups for question in group if question.key not in done])
        loop = asyncio.new_event_loop()
        client = self._client()
        asking: dict[asyncio.Task[Opinion], Question] = {}
        try:
            while True:
                while len(asking) < _CONCURRENCY and (question := next(todo, None)):
                    asking[loop.create_task(self._opinion(client, question))] = question
                if not asking:
                    return
                if self._interrupt.is_set():
                    raise Interrupted
                some = asyncio.wait(asking, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
                finished, _ = loop.run_until_complete(some)
                for task in sorted(finished, key=lambda task: task.exception() is not None):  # errors last
                    question = asking.pop(task)
                    try:
                        verdict = task.result()
                    except _Unusable as error:
                        self._count_failure(str(error))
                    else:
                        self._n_usable += 1
                        yield question, verdict
        finally:
            loop.run_until_complete(_end(asking, client))
            loop.close()

    def _count_failure(self, reason: str) -> None:
        self.failures[reason] += 1
        if not self._n_usable and self.failures.total() >= _HOPELESS:
            raise ModelError(f"the judge at {self.url} gave no usable reply so far: {reason}")

    def _client(self) -> openai.AsyncOpenAI:
        """A client that does not retry, and does not follow redirects, which could send the key to another host."""
        http = openai.DefaultAsyncHttpxClient(follow_redirects=False, event_hooks={"response": [_read_whole]})
        url, key = self.url.removesuffix(_PATH), self._key or "none"
        return openai.AsyncOpenAI(base_url=url, api_key=key, timeout=None, max_retries=0, http_client=http)

    async def _opinion(self, client: openai.AsyncOpenAI, question: Question) -> Opinion:
        """The verdict on a question.  The request is repeated while the server is busy."""
        for number in range(_TRIES):
            while (wait_s := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            after_s = _DELAY_S * 2**number * random.uniform(0.5, 1.0)
            try:
                return _read(await asyncio.wait_for(self._reply(client, question), _TIMEOUT_S))
            except asyncio.TimeoutError:
                why = f"no reply within {_TIMEOUT_S:g} s"
            except openai.APIStatusError as error:
                why = self._status(error)
                if (pause_s := _retry_after(error.response.headers.get("retry-after"))) is not None:
                    if pause_s > _MOST_WAIT_S:
                        raise ModelError(
                            f"the judge at {self.url} asks for a pause of {pause_s:.0f} s: score again after that"
                        ) from None
                    self._not_before, after_s = max(self._not_before, time.monotonic() + pause_s), 0.0
            except openai.APIConnectionError as error:
                why = self._clean(str(error.__cause__) or type(error.__cause__).__name__)
                if isinstance(error.__cause__, httpx2.ConnectError) and not self._n_usable:
                    raise ModelError(f"cannot reach the judge at {self.url}: {why}") from None
            if number < _TRIES - 1:
                await asyncio.sleep(after_s)
        raise ModelError(
            f"the judge at {self.url} gave no reply in {_TRIES} tries ({why}): score again later, which continues "
            "from here"
        )

    async def _reply(self, client: openai.AsyncOpenAI, question: Question) -> Any:
        """The reply to one question.  Options that the server refuses are left out of this and later requests.

        Raises:
            openai.APIStatusError, openai.APIConnectionError: a later try may succeed.
            _Unusable: the server refuses this question.
            ModelError: the server refuses all questions.
        """
        messages: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question.text}]
        headers = {"Accept-Encoding": "identity"} | ({} if self._key else {"Authorization": openai.Omit()})
        while True:
            options = self._options
            try:
                return await client.chat.completions.create(
                    model=self.name, messages=messages, extra_headers=headers, **options
                )
            except openai.APIStatusError as error:
                if error.status_code in _AGAIN:
                    raise
                if error.status_code not in _THIS_ONE:
                    raise self._refusal(error) from None
                less = _without_refused_options(options, self._complaint(error))
                if less is None:
                    raise _Unusable(self._status(error)) from None
                if options is self._options:  # otherwise another question has changed them meanwhile
                    self._options = less

    def _refusal(self, error: openai.APIStatusError) -> ModelError:
        """The error for a server that refuses all questions."""
        if 300 <= error.status_code < 400:
            place = self._clean(error.response.headers.get("location", "nowhere"))
            return ModelError(f"the judge at {self.url} redirects to {place}: give that address, if it is right")
        hint = ""
        if error.status_code in (401, 403):
            hint = ": check the key" if self._key else f": set {KEY_NAMES[0]} to a key"
        elif error.status_code in (404, 405):
            hint = ": check the address and the model's name"
        return ModelError(f"the judge at {self.url} refuses ({self._status(error)}){hint}")

    def _status(self, error: openai.APIStatusError) -> str:
        return f"status {error.status_code}: {self._complaint(error)}".removesuffix(": ")

    def _complaint(self, error: openai.APIStatusError) -> str:
        body = error.body
        return self._clean(str((body.get("message", body) if isinstance(body, dict) else body) or ""))

    def _clean(self, text: str) -> str:
        """A server's text on one line, shortened, and without the key, which the server may repeat."""
        if self._key:
            text = text.replace(self._key, "(key)")
        line = one_line(text)
        return line if len(line) <= _MOST_QUOTED else f"{line[:_MOST_QUOTED]} …"


async def _end(tasks: Iterable[asyncio.Task[Opinion]], client: openai.AsyncOpenAI) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


async def _read_whole(response: httpx2.Response) -> None:
    """Read a body up to the size limit.  A compressed body is not unpacked, because it could exceed the limit."""
    stream, body = response.stream, b""
    assert isinstance(stream, httpx2.AsyncByteStream)
    async for chunk in stream:
        body += chunk
        if len(body) > _MOST_BYTES:
            raise _Unusable(f"a reply of more than {_MOST_BYTES // 2**20} MiB")
    await stream.aclose()
    response.stream = httpx2.ByteStream(body)
    response.headers.pop("content-encoding", None)


def find_key() -> str:
    """The key from the environment; empty if none is set.

    Raises:
        UsageError: the key cannot be sent.
    """
    for name in KEY_NAMES:
        if key := os.environ.get(name, "").strip():
            check_key(key, name)
            return key
    return ""


@cache  # an evaluation makes its judge twice: it checks one before the answers are written
def _warn_of_plain_http(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        log.warning("%s is not encrypted, so others on the network can read the key. Use https", url)


def _address(url: str) -> str:
    """The URL for requests, from a server's URL."""
    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"--judge-url must be a URL such as http://localhost:8080/v1 (not {one_line(url)!r})")
    if parts.username or parts.password:
        raise UsageError(f"--judge-url must not contain a key: set {KEY_NAMES[0]} to the key")
    if parts.query or parts.fragment:
        raise UsageError(
            f"--judge-url must not have a query: leave it out; if it is a key, set {KEY_NAMES[0]} to the key"
        )
    path = parts.path.rstrip("/")
    if not path.endswith(_PATH):
        path = f"{path or '/v1'}{_PATH}"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _retry_after(value: str | None) -> float | None:
    """Parse a Retry-After header, which has seconds or a date.  Returns seconds from now, None if it is invalid."""
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


_FEW_LOGPROBS = 5  # a number that most servers allow


def _without_refused_options(options: dict[str, Any], complaint: str) -> dict[str, Any] | None:
    """Remove or reduce an option that the server's error message names; None if it names none."""
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


def _read(reply: Any) -> Opinion:
    """The verdict in a reply, which the client does not validate.  Raises _Unusable if there is none."""
    try:
        choice = reply.choices[0]
        text = choice.message.content
        tokens = (choice.logprobs and choice.logprobs.content) or []
        listed = [(x.token.strip(), x.logprob) for token in tokens[:1] for x in token.top_logprobs or ()]
    except (LookupError, TypeError, AttributeError):
        raise _Unusable("a reply that is not a chat completion") from None
    weights = [_log_sum([value for token, value in listed if token == reply]) for reply in REPLIES]
    if max(weights) > -math.inf:
        return opinion(weights)
    if isinstance(text, str) and text.strip() in REPLIES:
        return opinion([0.0 if reply == text.strip() else -math.inf for reply in REPLIES])
    raise _Unusable("a reply other than 1, 2 or 0")


def _log_sum(logs: list[Any]) -> float:
    total = math.fsum(math.exp(x) for x in logs if isinstance(x, int | float) and x <= 0)
    return math.log(total) if total else -math.inf
