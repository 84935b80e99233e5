"""OpenAI's protocol, from tokens and results to the JSON that clients read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from ..engine.log_probs import LogProbs
from ..events import Result
from ..service import Done, Token


@dataclass
class Choice:
    """One of the answers that a request wants, as far as it is told."""

    tokens: list[Token] = field(default_factory=list)
    done: Done | None = None

    @property
    def text(self) -> str:
        return _text(self.tokens)


@dataclass(frozen=True)
class Reply:
    """What all that is sent of one request has in common.

    chat: whether a conversation is answered; else a text goes on.
    with_logprobs, with_events: what rides along.
    """

    model: str
    chat: bool
    with_logprobs: bool
    with_events: bool
    id: str = field(default_factory=lambda: uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answers at once."""
        listed = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return self._head(stream=False) | {"choices": listed, "usage": usage(choices)}

    def begin(self, index: int) -> dict[str, Any]:
        """The first chunk of an answer, which says who speaks."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}})

    def chunk(self, index: int, tokens: Sequence[Token]) -> dict[str, Any]:
        """What has come of an answer."""
        text = _text(tokens)
        said: dict[str, Any] = {"delta": {"content": text}} if self.chat else {"text": text}
        if self.with_logprobs:
            said["logprobs"] = self._logprobs(tokens)
        if self.with_events:
            said["pjlocal"] = {"events": _events(tokens)}
        return self._chunk(index, said)

    def end(self, index: int, result: Result) -> dict[str, Any]:
        """The last chunk of an answer."""
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        if self.with_events:
            said["pjlocal"] = _summary(result)
        return self._chunk(index, said, result.finish_reason)

    def usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The chunk behind all answers that counts their tokens."""
        return self._head(stream=True) | {"choices": [], "usage": usage(choices)}

    def _head(self, stream: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if stream else "chat.completion") if self.chat else "text_completion"
        name = f"chatcmpl-{self.id}" if self.chat else f"cmpl-{self.id}"
        return {"id": name, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, said: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "logprobs": None, **said, "finish_reason": finish_reason}
        return self._head(stream=True) | {"choices": [choice]}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        assert choice.done
        result = choice.done.result
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": choice.text}} if self.chat else {"text": choice.text}
        )
        said["logprobs"] = self._logprobs(choice.tokens) if self.with_logprobs else None
        if self.with_events:
            said["pjlocal"] = {"events": _events(choice.tokens)} | _summary(result)
        return {"index": index, **said, "finish_reason": result.finish_reason}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        told = [token.log_probs for token in tokens if token.log_probs]
        if self.chat:
            return {"content": [_logprob(one) for one in told]}
        return {
            "tokens": [_readable(one.piece) for one in told],
            "token_logprobs": [one.log_prob for one in told],
            "top_logprobs": [{_readable(piece): log for piece, log in one.top} for one in told],
        }


def usage(choices: Sequence[Choice]) -> dict[str, Any]:
    """Tokens of a request: of its prompt those of the longest view, which is what must fit into the context."""
    done = [choice.done for choice in choices if choice.done]
    prompt = max(max(one.result.statistics.prompt_tokens, default=0) for one in done)
    completion = sum(one.result.statistics.completion_tokens for one in done)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _text(tokens: Sequence[Token]) -> str:
    return "".join(token.event.text for token in tokens)


def _events(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    return [token.event.as_dict() | {"writer": token.event.writer} for token in tokens]


def _summary(result: Result) -> dict[str, Any]:
    """What ``pjlocal run --json`` says of an answer, without the answer."""
    told = result.as_dict()
    return {key: told[key] for key in told if key not in ("text", "model", "finish_reason")}


def _readable(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _one(piece: bytes, log_prob: float) -> dict[str, Any]:
    return {"token": _readable(piece), "logprob": log_prob, "bytes": list(piece)}


def _logprob(told: LogProbs) -> dict[str, Any]:
    return _one(told.piece, told.log_prob) | {"top_logprobs": [_one(*other) for other in told.top]}
