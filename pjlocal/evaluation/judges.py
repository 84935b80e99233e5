"""LLMs that compare two answers and give the probabilities of three possible replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..engine.context import context_limit
from ..engine.interrupt import Interrupt
from ..engine.model import Model
from ..engine.scoring import TextReader
from ..errors import ModelError
from ..prompting.prompt import ChatTemplate, Message
from ..settings import Engine, Prompting
from .question import REPLIES, SYSTEM, Question
from .records import computed_with, digest_of

#: The probabilities of a judge's three possible replies, for the first answer, the second, and a tie; their sum is 1.
Opinion = tuple[float, float, float]

#: Questions about the same two answers, in both orders.
Group = Sequence[Question]


class LocalJudge:
    """A judge on a loaded model.  Its verdict is computed from the probabilities of the first token of its reply.

    All questions about two answers, in both orders, are read together, and their shared beginning is read once.
    Verdicts that are known already are computed again with the others, so that the numbers do not depend on which
    were known.  Six questions about two answers of 90 tokens take 5.2 s together and 14.5 s one by one (Qwen 0.5B,
    one thread).

    Args:
        model: the loaded model; it stays open when the judge is closed.
        interrupt: stops the current decode.

    Raises:
        ModelError: the vocabulary has no tokens for the three replies.
    """

    def __init__(self, model: Model, engine: Engine, interrupt: Interrupt) -> None:
        self.name = model.name
        # The inputs of its verdicts besides the question, for the cache key.
        self.identity = {"model": digest_of(model.path), **computed_with(engine)}
        self.failures: Counter[str] = Counter()  # questions without a usable reply, by reason
        self._template = ChatTemplate(model)
        self._prompting = Prompting(system=SYSTEM, think="off" if self._template.has_think_switch else "auto")
        self._limit = context_limit(model, engine)
        self._spellings = [_spelling(model, reply) for reply in REPLIES]
        if not all(map(len, self._spellings)):
            raise ModelError(f"{model.name} cannot judge: its vocabulary has no tokens for 1, 2 and 0")
        self._white = frozenset(_spelling(model, "").tolist())
        self.reader = TextReader(model, engine, interrupt)

    def close(self) -> None:
        self.reader.close()
        self._template.close()

    def ask(self, groups: Iterable[Group], done: Collection[str]) -> Iterator[tuple[Question, Opinion]]:
        """Yield the opinion on each question whose key is not in ``done``; failed questions are left out."""
        for group in groups:
            todo = [i for i, question in enumerate(group) if question.key not in done]
            prompts = [self.prompt(question) for question in group]
            if max(map(len, prompts)) >= self._limit:
                self.failures["the two answers are too long for its context"] += len(todo)
                continue
            opinions = self._opinions(prompts)
            for i in todo:
                yield group[i], opinions[i]

    def prompt(self, question: Question) -> list[int]:
        """The prompt tokens of a question.  The model's next token is the verdict."""
        return self._template.tokens([Message("user", question.text)], "", self._prompting)

    def _opinions(self, prompts: Sequence[list[int]]) -> list[Opinion]:
        """The opinion after each prompt.

        If the most probable token is white space, it is read, and the token after it is the reply: many vocabularies
        have no token for " 1".
        """
        logs, white = self._read(prompts)
        if white:
            again, _ = self._read([[*prompts[i], token] for i, token in white.items()])
            logs |= dict(zip(white, again.values(), strict=True))
        return [opinion(logs[i]) for i in range(len(prompts))]

    def _read(self, prompts: Sequence[list[int]]) -> tuple[dict[int, list[float]], dict[int, int]]:
        """Read the prompts.

        Returns:
            The log weights of the three replies after each prompt, and the most probable tokens that are white space,
            by the prompt's index.
        """
        logs: dict[int, list[float]] = {}
        white: dict[int, int] = {}
        for i, _, logits in self.reader.read(prompts, [1] * len(prompts)):
            best = int(logits.argmax())
            if best in self._white:
                white[i] = best
            logs[i] = [float(np.logaddexp.reduce(logits[ids].astype(np.float64))) for ids in self._spellings]
        return dict(sorted(logs.items())), dict(sorted(white.items()))


def opinion(logs: Sequence[float]) -> Opinion:
    """The opinion from the logarithms of the weights of three replies, in the order of `REPLIES`.

    At least one must be finite.
    """
    weights = np.exp(np.array(logs) - max(logs))
    p_first, p_second, p_tie = (weights / weights.sum()).tolist()
    return p_first, p_second, p_tie


def _spelling(model: Model, text: str) -> NDArray[np.intp]:
    """All tokens with this text, with or without white space around it."""
    return np.array([t for t in range(model.n_vocab) if (piece := model.piece(t)) and piece.strip() == text.encode()])
