"""The logits after the last tokens of finished texts, for scores.  Shared beginnings are read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..settings import Engine as EngineSettings
from .context import Logits
from .engine import Engine
from .interrupt import Interrupt
from .lanes import needs
from .model import Model
from .shortlist import check_numbers

Tokens = Sequence[int]

_LOGITS_BYTES = 64 * 2**20  # for the rows of one batch: 110 for a vocabulary of 152k tokens, 341 for 49k


class TextReader:
    """Reads texts one after the other, in a context of its own on a loaded model.

    Several texts in one batch are not faster on a CPU: the four prompts of an answer, which share no beginning, take
    as long together as one by one (for four answers of 100 tokens, SmolLM2 7.6 and 7.8 s, Qwen 0.5B 12.0 and 12.3).

    Args:
        model: the loaded model; it stays open when the reader is closed.
        interrupt: the flag that stops the current decode.
    """

    def __init__(self, model: Model, settings: EngineSettings, interrupt: Interrupt) -> None:
        self._engine = Engine(model, settings, interrupt)
        self._n_rows = max(1, min(settings.n_batch, _LOGITS_BYTES // (4 * model.n_vocab)))

    def close(self) -> None:
        self._engine.close()

    @property
    def n_fed(self) -> int:
        """The number of tokens read so far."""
        return self._engine.lanes.n_fed

    def read(self, texts: Sequence[Tokens], n_rows: Sequence[int]) -> Iterator[tuple[int, int, Logits]]:
        """Yield the logits after each of the last tokens of every text.

        Caches of earlier calls are not reused, so the same call gives the same logits to the bit.

        Args:
            n_rows: the number of these tokens in each text, at least one.

        Yields:
            The text's number, the token's index in it, and its logits, float32 [n_vocab], valid until the next step.

        Raises:
            Interrupted: a stop was requested.
            ModelError: llama.cpp failed, the logits contain NaN or infinity, or there is not enough memory.
        """
        longest = max(map(len, texts), default=1)
        with self._engine.direct(needs(1, longest, n_rows=self._n_rows, reuses=False)) as slot:
            slot.reduce = _checked
            for number in sorted(range(len(texts)), key=lambda number: tuple(texts[number])):  # share beginnings
                text = texts[number]
                place = len(text) - n_rows[number]
                slot.start([text[: place + 1]])
                yield number, place, slot.logits(0)
                for first in range(place + 1, len(text), self._n_rows):
                    tokens = text[first : first + self._n_rows]
                    slot.feed(tokens)
                    for row in range(len(tokens)):
                        yield number, first + row, slot.logits(0, row)


def _checked(logits: Logits) -> Logits:
    check_numbers(logits)
    return logits
