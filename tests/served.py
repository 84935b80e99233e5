"""`pjlocal serve` as a process on loopback, as its users run it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from commandline import PJLOCAL
from openai import OpenAI
from waiting import PATIENCE_S

from pjlocal import Engine, Generation, Prompting, Sampling
from pjlocal.request import Request, changed, place

ENGINE = Engine(n_threads=1)  # of a server as `serving` starts it, and of who shall find it
BIG = ("--ctx", "32768")  # room for answers that do not end
VIEWS = (*BIG, "-p", "vivid", "-p", "concise")
LONG = "Tell me of the sun, the rain and the sea, " * 8


def make_request(prefer: Sequence[str] = (), system: str = "", sampling: Any = None, **generation: Any) -> Request:
    generation = {"seed": 1, "max_tokens": 20, "ignore_end": True} | generation
    groups = Generation(**generation), sampling or Sampling(), Prompting(system=system)
    return Request(place(prefer), *groups, frozenset(generation) | changed(groups[1]))


REQUESTS = [
    make_request(),
    make_request(["vivid", "creative"], max_tokens=60),
    make_request(["vivid:1.5", "concise"], mode="both", avoid=("formal",)),
    make_request(["vivid", "concise"], mode="prompt", strength="2", system="You are a cook."),
    make_request(["vivid", "creative", "formal:2"], lam=2),
    make_request(["vivid", "creative"], decoding="greedy"),
    make_request(["vivid"], mode="prompt", lookahead=4, stop=("e",)),
    make_request(["vivid", "creative"], sampling=Sampling(regex="[a-z ]{5,30}", temperature=1.5, logit_bias=("5=1",))),
]


class Served:
    """A server that runs; what it says on standard error is kept.  `http` sends the page's token."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.port, self.token = self._read_greeting()
        self.greeting = "".join(self.said)
        self._reader = threading.Thread(target=self._keep_reading)
        self._reader.start()
        self.http = httpx2.Client(
            base_url=self.url, timeout=PATIENCE_S, headers={"Authorization": f"Bearer {self.token}"}
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, chat: str = "") -> str:
        """The address of the page as the server prints it; ``chat`` is what stands behind it, as in ``#3``."""
        return f"{self.url}/?token={self.token}{chat}"

    def openai(self, key: str = "none", retries: int = 0) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=retries)

    def metrics(self, *names: str) -> list[float]:
        """Counters' values at one moment, as Prometheus reads them."""
        text = self.http.get("/metrics").text
        return [float(re.findall(rf"^{re.escape(name)} ([\d.e+-]+)$", text, re.MULTILINE)[0]) for name in names]

    def metric(self, name: str) -> float:
        return self.metrics(name)[0]

    def complete(self, prompt: str | list[Any] = "hello", **fields: Any) -> dict[str, Any]:
        """The reply to a chat completion."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        reply = self.http.post("/v1/chat/completions", json={"messages": messages, **fields})
        assert reply.status_code == 200, reply.text
        return reply.json()  # type: ignore[no-any-return]

    def text(self, prompt: str | list[Any] = "hello", **fields: Any) -> str:
        """The text of a chat completion."""
        text: str = self.complete(prompt, **fields)["choices"][0]["message"]["content"]
        return text

    def end(self, signum: int = signal.SIGTERM, timeout: float = PATIENCE_S) -> tuple[int, str]:
        """Send it a signal; its exit status and all that it said."""
        self.process.send_signal(signum)
        return self.wait(timeout)

    def wait(self, timeout: float = PATIENCE_S) -> tuple[int, str]:
        status = self.process.wait(timeout)
        self._reader.join()
        return status, "".join(self.said)

    def _read_greeting(self) -> tuple[int, str]:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"http://\S+:(\d+)/\?token=(\S+)", line):
                return int(found[1]), found[2]
        raise AssertionError("".join(self.said))

    def _keep_reading(self) -> None:
        assert self.process.stderr
        self.said += self.process.stderr


@contextmanager
def serving(model: Path, environment: dict[str, str], *options: str) -> Iterator[Served]:
    """A server on a free port of loopback, until the block is left."""
    command = [*PJLOCAL, "serve", "-m", str(model), "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        served = Served(process)
        yield served
        served.http.close()
        if process.poll() is None:
            served.end()
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def streamed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream of `/api/answers`."""
    return (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def no_times(report: dict[str, Any]) -> dict[str, Any]:
    """A result as JSON, without its times."""
    return {
        key: no_times(value) if key == "draft" and value else value for key, value in report.items() if key != "timings"
    }
