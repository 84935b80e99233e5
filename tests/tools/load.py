"""Many clients for minutes: `python tests/tools/load.py --requests 1000 --clients 32`, for people, not for pytest.

Starts a server on a model, asks it by OpenAI's protocol, each request with a seed of its own, and hangs up on some.  At
the end: how many were lost, how many texts are not what the seed gives alone (asked again one by one), the server's
memory before and after, and how long the first token took.  Exit status 1 where one was lost, or the memory has grown
by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from served import Served, serving

from pjlocal.gguf.locate import find_model

SUBJECTS = ("cats", "the sea", "old maps", "a long walk", "bread", "thunder", "chess", "the moon")
SYSTEMS: list[dict[str, Any]] = [
    {},
    {"prefer": ["vivid", "creative"]},
    {"prefer": ["concise", "formal"], "mode": "judge"},
    {"prefer": ["humorous"], "mode": "prompt"},
]
HANG_UPS = 0.05  # share of the requests
MOST_GROWTH = 1.05  # of the server's memory
_ROUND, _MOST_ROUNDS = 128, 10  # of requests before it is looked at


@dataclass
class Reply:
    """What came of a request: its text, None where it was lost; seconds to the first token; whether we hung up."""

    text: str | None
    first_s: float
    left: bool = False


def body(number: int, max_tokens: int) -> dict[str, Any]:
    prompt = f"Tell me {number % 7 + 1} things about {SUBJECTS[number % len(SUBJECTS)]}."
    return {
        "messages": [{"role": "user", "content": prompt}],
        "seed": number,
        "max_tokens": max_tokens,
        "stream": True,
        "pjlocal": SYSTEMS[number % len(SYSTEMS)],
    }


def ask(served: Served, number: int, max_tokens: int, hang_up: bool) -> Reply:
    """Ask until there is a place; read the answer to its end, or hang up at its beginning."""
    while True:
        started, first_s, text, ended = time.monotonic(), 0.0, "", False
        url = f"{served.url}/v1/chat/completions"
        with httpx2.stream("POST", url, json=body(number, max_tokens), timeout=600) as reply:
            if reply.status_code == 429:
                time.sleep(float(reply.headers["retry-after"]) * random.random())
                continue
            for line in reply.iter_lines():
                first_s = first_s or time.monotonic() - started
                if hang_up:
                    return Reply(None, first_s, left=True)
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    text += "".join(c["delta"].get("content") or "" for c in chunk.get("choices", []))
                ended = ended or line == "data: [DONE]"
        return Reply(text if ended else None, first_s)


def rss_mib(served: Served) -> float:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def warm_up(served: Served, n_clients: int, max_tokens: int) -> None:
    """Have made what is made once, before memory is looked at: caches take none until they are written to, and the
    system's allocator keeps an arena for each thread that ever ran beside others.  That is so when a round of requests
    makes no difference."""
    with ThreadPoolExecutor(n_clients) as clients:
        for number in range(_MOST_ROUNDS):
            before, asked = rss_mib(served), range(number * _ROUND, (number + 1) * _ROUND)
            list(clients.map(lambda n: ask(served, n, max_tokens, hang_up=n % 20 == 0), asked))
            if rss_mib(served) < 1.005 * before:
                return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", help="as behind pjlocal run -m")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--alone", type=int, default=100, help="texts that are asked for again, one by one")
    given = parser.parse_args()

    options = ["--parallel", given.parallel, "--queue", given.queue, "--ctx", given.ctx]
    with serving(find_model(given.model), dict(os.environ), *map(str, options)) as served:
        warm_up(served, given.clients, given.max_tokens)
        before, started, choose = rss_mib(served), time.monotonic(), random.Random(0)
        leaving = [choose.random() < HANG_UPS for _ in range(given.requests)]
        with ThreadPoolExecutor(given.clients) as clients:
            replies = list(
                clients.map(lambda n: ask(served, n, given.max_tokens, hang_up=leaving[n]), range(given.requests))
            )
        took = time.monotonic() - started
        after = rss_mib(served)
        whole = [number for number, reply in enumerate(replies) if not reply.left]
        lost = sum(replies[number].text is None for number in whole)
        again = choose.sample(whole, min(given.alone, len(whole)))
        differ = sum(ask(served, n, given.max_tokens, hang_up=False).text != replies[n].text for n in again)
        first = sorted(reply.first_s for reply in replies)
        print(f"{len(whole)} answers, {lost} lost, {given.requests - len(whole)} hung up on, in {took:.0f} s")
        print(f"{differ} of {len(again)} texts are not what the seed gives alone")
        print(f"first token: median {median(first):.2f} s, p99 {quantiles(first, n=100)[-1]:.2f} s")
        print(f"memory: {before:.0f} MiB before, {after:.0f} after ({after / before - 1:+.1%})")
        print(f"answers left in the server: {served.metric('pjlocal_answers_now'):.0f}")
    return int(lost > 0 or after > MOST_GROWTH * before)


if __name__ == "__main__":
    sys.exit(main())
