"""A GGUF model loaded through llama.cpp: its weights, vocabulary and metadata."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as lib

from ..errors import ModelError, byte_size
from ..gguf.header import Header, in_words, read_header
from ..gguf.kind import no_model, writes_no_text
from ..gguf.offload import Offload, weights_on_host, with_fewer_layers
from ..gguf.ollama import manifest_at, model_file, shown_name
from ..gguf.split import beside_its_parts
from ..settings import DEFAULT_VIEWS, Engine
from .backend import device_ran_out_of_memory, forget_errors, init_backend, last_error, ran_out_of_memory
from .interrupt import Interrupt, Interrupted
from .lifetime import Lifetime
from .machine import memory
from .offload import choose_offload, load_mode, warn_of_lock, with_devices
from .probe import check_model
from .tokenizer import CUT_OUT, Tokenizer

log = logging.getLogger("pjlocal")

_CONTROL = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN


class Model:
    """A loaded model.  Contexts made on it share its weights.

    The weights are freed when the model and all contexts and judges on it are closed or garbage collected.  Afterwards
    every method raises an error.

    Args:
        path: a GGUF file (of a split model: its first part, or a link to it), or a manifest of Ollama's.
        engine: the settings of the engine.
        interrupt: the flag that stops the loading.
        n_views: number of views whose KV caches must fit on the devices too.
        trusted: whether to skip the checks of the file before llama.cpp reads it.

    Raises:
        ModelError: the file is missing, empty, not GGUF, truncated, or not a model that writes text.
    """

    def __init__(
        self,
        path: Path,
        engine: Engine,
        interrupt: Interrupt,
        *,
        trusted: bool = False,
        n_views: int = DEFAULT_VIEWS,
    ) -> None:
        self.header = read_header(path)
        if not trusted:
            if kind := self._not_for_this(self.header):
                raise ModelError(f"{path} is {kind}")
            check_model(self.header, interrupt)
        self.path = path
        self.file = beside_its_parts(model_file(path))
        init_backend(engine.verbose)
        self.offload = choose_offload(self.header, engine, n_views)
        if not engine.mmap:
            self._check_memory()
        self._handle = self._load(engine, interrupt)
        #: The lifetime of the weights; contexts and other users of them are counted.
        self.lifetime = Lifetime(f"the model {path.name}", partial(lib.llama_model_free, self._handle))
        self._let_go = self.lifetime.hold(self)
        self.loras: dict[str, Any] = {}  # by file; llama.cpp frees them with the model
        try:
            self._vocab = lib.llama_model_get_vocab(self._handle)
            self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
            self._check_use()
            if not self.offload.n_layers:  # the choice did not need them
                self.offload = replace(self.offload, n_layers=int(lib.llama_model_n_layer(self.handle)) + 1)
            self._tokenizer = Tokenizer(self._vocab)
            self._warn_of_unused()
            if engine.n_ctx and 0 < self.n_ctx_train < engine.n_ctx:
                _warn_once(
                    f"the context of {engine.n_ctx} tokens is larger than the model was trained with: answers may "
                    f"become nonsense beyond {self.n_ctx_train} tokens"
                )
        except BaseException:
            self.close()
            raise

    def _load(self, engine: Engine, interrupt: Interrupt) -> Any:
        """Load the weights and return llama.cpp's handle.  Retry with fewer layers on the devices if they do not
        fit."""
        params = lib.llama_model_default_params()
        params.load_mode = load_mode(engine)
        if engine.mlock:
            warn_of_lock(self.file)
        progress = lib.llama_progress_callback(lambda fraction, user_data: not interrupt.is_set())
        params.progress_callback = progress
        while True:
            forget_errors()
            with with_devices(params, engine, self.offload):
                handle = lib.llama_model_load_from_file(os.fsencode(self.file), params)
            if interrupt.is_set():
                if handle:
                    lib.llama_model_free(handle)
                raise Interrupted
            if handle:
                return handle
            reason = last_error()
            if not device_ran_out_of_memory(reason) or not self.offload.n_gpu_layers or engine.gpu_layers is not None:
                detail = f"{reason or 'llama.cpp gave no reason'}{_hint(reason, self.offload)}"
                raise ModelError(f"cannot load {self.path}: {detail}")
            less = with_fewer_layers(self.offload)
            log.warning(
                "%d layers do not fit in the devices' memory (%s): trying %d",
                self.offload.n_gpu_layers,
                reason,
                less.n_gpu_layers,
            )
            self.offload = less

    def _warn_of_unused(self) -> None:
        """Log the layers of Ollama's manifest that are not used."""
        if manifest := manifest_at(self.path):
            stops = manifest.parameters().get("stop")
            only_control = isinstance(stops, list) and all(map(self._is_control_text, stops))
            needless = {"stop"} if only_control else set()
            if unused := manifest.unused(needless):
                _warn_once(f"{manifest.name}: {unused}")

    def _is_control_text(self, text: object) -> bool:
        """True if the text spells a control token, which answers do not show."""
        tokens = self.tokenize(text, special=True) if isinstance(text, str) else []
        return len(tokens) == 1 and self.is_control(tokens[0])

    def _check_memory(self) -> None:
        """Refuse weights that do not fit in memory, before the system kills the process."""
        needed, free = weights_on_host(self.header, self.offload), memory()
        if needed > free.amount:
            raise ModelError(
                f"not enough memory{free.where}: the weights of {self.path} take {byte_size(needed)} and "
                f"{byte_size(free.amount)} is free. Leave --no-mmap out, or use a smaller model"
            )

    def close(self) -> None:
        """Release the weights; the last user frees them."""
        self._let_go()

    @property
    def handle(self) -> Any:
        """llama.cpp's handle.  Raises UsageError if the weights are freed."""
        self.lifetime.check()
        return self._handle

    @property
    def vocab(self) -> Any:
        """llama.cpp's handle.  Raises UsageError if the weights are freed."""
        self.lifetime.check()
        return self._vocab

    def lora(self, file: str) -> Any:
        """llama.cpp's handle of a LoRA adapter, which is loaded once.  The caller must check that it fits the model.

        Raises:
            ModelError: llama.cpp cannot load it.
        """
        if file not in self.loras:
            forget_errors()
            handle = lib.llama_adapter_lora_init(self.handle, os.fsencode(file))
            if not handle:
                raise ModelError(f"cannot load the LoRA adapter {file}: {last_error() or 'llama.cpp gave no reason'}")
            self.loras[file] = handle
        return self.loras[file]

    @staticmethod
    def _not_for_this(header: Header) -> str | None:
        """A noun phrase for the kind of file; None if it is a model that writes text."""
        return no_model(header) or writes_no_text(header)

    def _check_use(self) -> None:
        """Refuse a model that cannot write text."""
        architecture = self.header.architecture or "this architecture"
        reason = ""
        if self.n_vocab <= 0 or lib.llama_vocab_type(self.vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            reason = "it has no vocabulary"
        elif lib.llama_model_n_layer(self.handle) <= 0 or lib.llama_model_n_params(self.handle) == 0:
            reason = "it has a vocabulary and no weights"
        elif lib.llama_model_has_encoder(self.handle) or not lib.llama_model_has_decoder(self.handle):
            reason = f"{architecture} is not a decoder-only model"
        elif lib.llama_model_is_diffusion(self.handle):
            reason = f"{architecture} is a diffusion model"
        if reason:
            raise ModelError(f"{self.path} cannot write text: {reason}. Use a chat model in GGUF format")

    # Metadata.

    @cached_property
    def name(self) -> str:
        return shown_name(self.path)

    @cached_property
    def description(self) -> str:
        """Architecture, size and quantization, as in ``llama 135M Q4_1``."""
        n_parameters = lib.llama_model_n_params(self.handle)
        return f"{self.header.architecture} {in_words(n_parameters)} {self.header.file_type}"

    @cached_property
    def n_ctx_train(self) -> int:
        return int(lib.llama_model_n_ctx_train(self.handle))

    @cached_property
    def size_bytes(self) -> int:
        return int(lib.llama_model_size(self.handle))

    @cached_property
    def recurrent(self) -> bool:
        """True if part of the cache is a running state, from which the last tokens cannot be removed again (Mamba,
        Jamba, LFM2, ...).  From a sliding window they can: its cache holds some more tokens."""
        return bool(lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))

    @cached_property
    def n_swa(self) -> int:
        """Width of the sliding attention window in tokens, or 0."""
        return int(lib.llama_model_n_swa(self.handle))

    @cached_property
    def keeps_all_tokens(self) -> bool:
        """True if the cache holds every token that was read, and can be truncated to any length."""
        return not self.recurrent and self.n_swa == 0

    @cached_property
    def chat_template(self) -> str | None:
        template = lib.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8", "replace") if template else None

    # Vocabulary.

    @cached_property
    def bos(self) -> int | None:
        """The token that must begin every prompt, or None."""
        if not lib.llama_vocab_get_add_bos(self.vocab):
            return None
        token = int(lib.llama_vocab_bos(self.vocab))
        return token if token >= 0 else None

    def special_text(self, token: int) -> str:
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def bos_text(self) -> str:
        return self.special_text(int(lib.llama_vocab_bos(self.vocab)))

    @property
    def eos_text(self) -> str:
        return self.special_text(int(lib.llama_vocab_eos(self.vocab)))

    @cached_property
    def end(self) -> int | None:
        """The token that ends an answer in a chat, or None."""
        token = int(lib.llama_vocab_eot(self.vocab))
        token = token if token >= 0 else int(lib.llama_vocab_eos(self.vocab))
        return token if token >= 0 else None

    def is_end(self, token: int) -> bool:
        """True if the token ends a generation; a model has several such tokens."""
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def is_control(self, token: int) -> bool:
        """True if the token is not text: a control token, or the token for unknown text."""
        return bool(self._attributes(token) & _CONTROL)

    def is_cut_out(self, token: int) -> bool:
        """True if llama.cpp searches a text for the token's spelling before it splits the rest; see `CUT_OUT`."""
        return bool(self._attributes(token) & CUT_OUT)

    def strips_left(self, token: int) -> bool:
        """True if white space before the token is dropped."""
        return bool(self._attributes(token) & lib.LLAMA_TOKEN_ATTR_LSTRIP)

    def strips_right(self, token: int) -> bool:
        """True if white space after the token is dropped."""
        return bool(self._attributes(token) & lib.LLAMA_TOKEN_ATTR_RSTRIP)

    def _attributes(self, token: int) -> int:
        return int(lib.llama_vocab_get_attr(self.vocab, token))

    def tokenize(self, text: str, *, special: bool, continues: bool = False) -> list[int]:
        """Tokens of a text, without BOS.

        Args:
            special: whether text that spells a control token becomes that token.
            continues: whether the text continues other text, so that no space is put before it.  Many SentencePiece
                vocabularies (Llama 2, Mistral 7B) put a space before a text and after a control token.

        Raises:
            UsageError: the text is not valid Unicode, or the model is closed.
            MemoryError: there is no memory for the thread that a long text needs.
        """
        self.lifetime.check()
        return self._tokenizer(text, special, continues)

    def with_bos(self, tokens: list[int]) -> list[int]:
        """The tokens of a whole prompt, which begin with the BOS token if the model wants one."""
        return tokens if self.bos is None or tokens[:1] == [self.bos] else [self.bos, *tokens]

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of a token, which may be part of a UTF-8 character; empty for a control token without
        ``special``."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as readable text with control tokens written out, for people to read."""
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")


@cache
def _warn_once(line: str) -> None:
    """Log a line once: an evaluation loads a model several times."""
    log.warning("%s", line)


def _hint(reason: str, offload: Offload) -> str:
    if ran_out_of_memory(reason):
        if not offload.n_gpu_layers or not device_ran_out_of_memory(reason):
            return ". Is there enough memory? Use a smaller model, or free memory"
        return ". Is there enough memory on the devices? Give fewer --gpu-layers, or auto"
    if "not within the file bounds" in reason or "failed to read" in reason:
        return ". The file is cut short: download it again"
    if "tensor" in reason and "not found" in reason:
        return ". The file is not a complete model (only a vocabulary?): use a chat model in GGUF format"
    return ""
