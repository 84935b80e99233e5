"""Tokens a second at 1, 2, 4 and 8 clients, beside llama-cpp-python's own server: for people, not for pytest.

    $ pip install "llama-cpp-python[server]"
    $ python tests/tools/throughput.py

Each server answers in turn, at each number of clients, by OpenAI's protocol: the same questions on the same model.
llama-cpp-python's reads one prompt a token, so the fair neighbour is mode plain; mode judge reads two, and both three.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from load import SUBJECTS
from served import serving

from pjlocal.gguf.locate import find_model

CLIENTS = (1, 2, 4, 8)
PREFER = ["vivid", "concise"]
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_cpp.server, one prompt": ("theirs", {}),
    "pjlocal serve, mode plain": ("ours", {"pjlocal": {"mode": "plain"}}),
    "pjlocal serve, mode judge": ("ours", {"pjlocal": {"prefer": PREFER, "mode": "judge"}}),
    "pjlocal serve, mode both": ("ours", {"pjlocal": {"prefer": PREFER, "mode": "both"}}),
}


@contextmanager
def theirs(python: str, model: Path, n_ctx: int) -> Iterator[str]:
    """llama-cpp-python's server, at its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    options = ["--model", str(model), "--n_ctx", str(n_ctx), "--port", port, "--n_threads", str(os.cpu_count())]
    quiet = ["--verbose", "false", "--interrupt_requests", "false"]  # who comes next waits, and does not push out
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([python, "-m", "llama_cpp.server", *options, *quiet], **silent)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                httpx2.get(f"{url}/v1/models")
                break
            except httpx2.HTTPError:
                if process.poll() is not None:
                    sys.exit("llama_cpp.server does not start: is llama-cpp-python[server] installed?")
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def ask(url: str, number: int, max_tokens: int, more: dict[str, Any]) -> int:
    """The tokens of an answer."""
    question = f"Tell me {number % 7 + 2} things about {SUBJECTS[number % len(SUBJECTS)]}."
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "seed": number, **more}
    reply = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=600)
    reply.raise_for_status()
    return int(reply.json()["usage"]["completion_tokens"])


def speed(url: str, n_clients: int, asked: Sequence[int], max_tokens: int, more: dict[str, Any]) -> float:
    """Tokens a second over all clients."""
    started = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as clients:
        tokens = sum(clients.map(lambda number: ask(url, number, max_tokens, more), asked))
    return tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", help="as behind pjlocal run -m")
    parser.add_argument("--requests", type=int, default=8, help="at each number of clients, and two a client at least")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=3, help="each number is the median of so many")
    parser.add_argument("--python", default=sys.executable, help="that has llama-cpp-python[server]")
    given = parser.parse_args()
    model = find_model(given.model)
    options = ["--parallel", max(CLIENTS), "--ctx", given.ctx, "--threads", os.cpu_count()]
    speeds: dict[str, dict[int, list[float]]] = {name: {n: [] for n in CLIENTS} for name in CONTENDERS}
    first = 0  # of the questions, which are others each time
    with (
        serving(model, dict(os.environ), *map(str, options)) as ours,
        theirs(given.python, model, given.ctx) as url,
    ):
        urls = {"ours": ours.url, "theirs": url}
        for turn in range(given.turns + 1):
            for n_clients in CLIENTS:
                asked = range(first, first + max(given.requests, 2 * n_clients))
                first = asked.stop
                for name, (whose, more) in CONTENDERS.items():
                    found = speed(urls[whose], n_clients, asked, given.max_tokens, more)
                    if turn:  # the first one warms up
                        speeds[name][n_clients].append(found)
    print(f"| tokens/s at ... clients | {' | '.join(map(str, CLIENTS))} |")
    print(f"|---|{'---|' * len(CLIENTS)}")
    for name, by_clients in speeds.items():
        print(f"| {name} | {' | '.join(f'{median(by_clients[n]):.0f}' for n in CLIENTS)} |")


if __name__ == "__main__":
    main()
