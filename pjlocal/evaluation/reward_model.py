"""Reward models in GGUF: models whose head gives a text one number, through llama.cpp's rank pooling.

``rank:PREFERENCE`` is this number for an answer to the prompt under the preference.  Prompt and answer become one text
by the first of these that the file has:

- a template for ranking, as in Qwen3's rerankers: preference and prompt are its query, the answer is its document;
- a chat template: the chat under the preference, including the end of the answer's turn;
- otherwise query and document with the separators of the vocabulary, as in llama.cpp's server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib

from ..engine.backend import forget_errors
from ..engine.context import Batch, check_decoded, context_limit, context_params, freed_with, no_context
from ..engine.interrupt import Interrupt
from ..engine.machine import cores
from ..engine.model import Model
from ..engine.shortlist import INVALID_LOGITS
from ..engine.worker import in_thread
from ..errors import ModelError
from ..gguf.header import Header
from ..gguf.kind import no_model
from ..gguf.memory import padded_context
from ..prompting.pieces import Hidden, tokens_of
from ..prompting.preferences import prefix, without_strength
from ..prompting.prompt import ChatTemplate, Message
from ..settings import Engine, Prompting
from .records import AnswerRecord, computed_with, digest_of

_HEADS = ("cls.output.weight", "cls.weight")  # tensors of a head
_SOFTMAX = ("qwen3", "qwen3vl")  # architectures for which llama.cpp applies a softmax to the head's output


class RewardModel(Model):
    """A loaded model with a head for ranking.

    Raises:
        ModelError: the model has no head, or llama.cpp would give every text the same number.
    """

    @staticmethod
    def _not_for_this(header: Header) -> str | None:
        return no_model(header)

    def _check_use(self) -> None:
        if self.n_vocab <= 0 or not any(tensor.name in _HEADS for tensor in self.header.tensors):
            raise ModelError(
                f"{self.path} is not a reward model: it has no output for a score. For the likelihood under a "
                "model that writes text, use --scorer"
            )
        if self.header.architecture in _SOFTMAX and lib.llama_model_n_cls_out(self.handle) == 1:
            raise ModelError(
                f"{self.path} cannot score: it has one output, llama.cpp applies a softmax to it, and the result "
                "is always 1"
            )

    @cached_property
    def rank_template(self) -> str | None:
        template = lib.llama_model_chat_template(self.handle, b"rerank")
        return template.decode("utf-8", "replace") if template else None

    @cached_property
    def separators(self) -> tuple[list[int], list[int], list[int]]:
        """The tokens before, between and after query and document, as in llama.cpp's server."""
        vocab = self.vocab
        sep = int(lib.llama_vocab_sep(vocab))
        eos = int(lib.llama_vocab_eos(vocab))
        end = eos if eos >= 0 else sep
        first = [] if self.bos is None else [self.bos]
        last = [end] if lib.llama_vocab_get_add_eos(vocab) and end >= 0 else []
        middle = [*last, *([sep] if lib.llama_vocab_get_add_sep(vocab) and sep >= 0 else [])]
        return first, middle, last


class Ranker:
    """A reward model that ranks answers.

    Args:
        path: a GGUF file.
        prompting: the system text, for models with a chat template.
        interrupt: stops the loading, or the current decode.

    Raises:
        ModelError: there is no such file, or it is not a reward model.
    """

    def __init__(self, path: Path, engine: Engine, prompting: Prompting, interrupt: Interrupt) -> None:
        self._engine = engine
        self._interrupt = interrupt
        self._prompting: Prompting = prompting.replace(placement="system")
        self._model = RewardModel(path, engine, interrupt)
        self._template = ChatTemplate(self._model) if self._model.chat_template else None
        self._limit = context_limit(self._model, engine)
        self._handle: Any = None
        self._room = 0
        self.name = self._model.name
        self.identity = {"model": digest_of(path), "system": prompting.system, **computed_with(engine)}

    def close(self) -> None:
        self._free()
        if self._template:
            self._template.close()
        self._model.close()

    def metrics(self, prefer: Sequence[str]) -> dict[str, str]:
        """The preference text of each metric, by the metric's name."""
        return {f"rank:{without_strength(wish)}": prefix([wish]) for wish in prefer}

    def scores(self, answers: Sequence[AnswerRecord], prefer: Sequence[str]) -> list[dict[str, float]]:
        """The values of each answer by metric; empty if the answer is empty or exceeds the model's context.

        Raises:
            Interrupted: on request.
            ModelError: llama.cpp failed.
        """
        found = []
        for answer in answers:
            texts = {metric: self._tokens(answer, preference) for metric, preference in self.metrics(prefer).items()}
            fits = answer.text and max(map(len, texts.values())) <= self._limit
            found.append({metric: self._rank(tokens) for metric, tokens in texts.items()} if fits else {})
        return found

    def _rank(self, tokens: Sequence[int]) -> float:
        """The score of a text."""
        self._make_room(len(tokens))
        in_thread(lambda: self._decode(tokens), self._interrupt)
        value = float(lib.llama_get_embeddings_seq(self._handle, 0)[0])
        if not math.isfinite(value):
            raise ModelError(INVALID_LOGITS)
        return value

    def _decode(self, tokens: Sequence[int]) -> None:
        n = len(tokens)
        batch = Batch(n)
        batch.token[:] = tokens
        batch.pos[:] = np.arange(n)
        batch.logits[:] = 1
        batch.struct.n_tokens = n
        memory = lib.llama_get_memory(self._handle)
        if memory:  # models without causal attention have none
            lib.llama_memory_clear(memory, False)
        check_decoded(int(lib.llama_decode(self._handle, batch.struct)), self._interrupt)
        lib.llama_synchronize(self._handle)

    def _make_room(self, n_tokens: int) -> None:
        """Make a context for ``n_tokens`` in one batch, as non-causal attention requires, unless there is one."""
        if n_tokens <= self._room:
            return
        self._free()
        room = padded_context(n_tokens)
        n_threads = self._engine.n_threads or cores().amount
        params = context_params(self._engine, room, room, 1, n_threads, self._interrupt)
        params.n_ubatch = room
        params.embeddings = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_RANK
        forget_errors()
        self._handle = lib.llama_init_from_model(self._model.handle, params)
        if not self._handle:
            raise no_context(f"{n_tokens} tokens", self._model)
        self._free_context = freed_with(self, self._handle, self._model)
        self._room = room

    def _free(self) -> None:
        if self._handle:
            self._free_context()
            self._handle, self._room = None, 0

    def _tokens(self, answer: AnswerRecord, preference: str) -> list[int]:
        model, query = self._model, f"{preference}\n\n{answer.prompt}"
        if model.rank_template:
            return self._filled(model.rank_template, query, answer.text)
        if self._template:
            prompt = self._template.tokens([Message("user", answer.prompt)], preference, self._prompting)
            end = [] if model.end is None else [model.end]
            return [*prompt, *self._template.answer_tokens(prompt, answer.text), *end]
        first, middle, last = model.separators
        query_tokens, answer_tokens = (model.tokenize(text, special=False) for text in (query, answer.text))
        return [*first, *query_tokens, *middle, *answer_tokens, *last]

    def _filled(self, template: str, query: str, document: str) -> list[int]:
        """The tokens of a ranking template with its texts, in which control tokens are not recognized."""
        before, _, rest = template.partition("{query}")
        between, _, behind = rest.partition("{document}")
        return self._model.with_bos(tokens_of(self._model, [before, Hidden(query), between, Hidden(document), behind]))
