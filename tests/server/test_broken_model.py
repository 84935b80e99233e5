"""An answer with invalid logits ends with an error, and other answers are not affected."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from served import serving


def test_a_broken_answer_does_not_affect_the_others(
    tiny: Callable[[str], Path], server_environment: dict[str, str]
) -> None:
    with serving(tiny("broken_word"), server_environment, "-p", "vivid", "-p", "concise", "--mode", "both") as served:

        def ask(prompt: str) -> tuple[int, str]:
            said = [{"role": "user", "content": prompt}]
            own = {"ignore_end": True}
            body = {"messages": said, "seed": 1, "max_tokens": 30, "pjlocal": own}
            reply = served.http.post("/v1/chat/completions", json=body)
            if reply.status_code == 200:
                return 200, reply.json()["choices"][0]["message"]["content"]
            return reply.status_code, reply.json()["error"]["message"]

        assert ask("hello")[0] == 200
        prompts = ["hello", "Q", "Q and more of it " * 9, "hello"]
        with ThreadPoolExecutor(4) as clients:
            replies = list(clients.map(ask, prompts))
        for reply in replies[1:3]:
            assert reply[0] == 500 and reply[1].startswith("the model computes invalid logits")
        for status, text in (
            replies[0],
            replies[3],
            ask("hello"),
        ):  # the KV cache of one beside others is kept for the next
            assert status == 200 and text, "invalid logits of others would be a 500; the text may round differently"
        status, said = served.end()
        assert status == 0 and "Traceback" not in said
