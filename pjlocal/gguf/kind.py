"""Recognize GGUF files that cannot write text, and the options that take them."""

from __future__ import annotations

from .header import Header


def no_model(header: Header) -> str | None:
    """A description of a file that contains no model; None for a model."""
    metadata, architecture = header.metadata, header.architecture
    kind = metadata.text("general.type")
    if kind == "adapter" or any(tensor.name.endswith(".lora_a") for tensor in header.tensors):
        return "a LoRA adapter, not a model: give it to --lora, and its model to -m"
    if architecture == "controlvector":
        return "a control vector, not a model: give it to --control-vector, and its model to -m"
    if architecture in ("clip", "mmproj") or kind == "mmproj":
        return "the part of a model that reads images or sound (mmproj): use the model that it belongs to"
    if architecture == "imatrix" or kind == "imatrix":
        return "an importance matrix for quantizing, not a model"
    if not header.n_parameters:
        return "a vocabulary without weights, not a complete model"
    return None


def writes_no_text(header: Header) -> str | None:
    """A description of a model that writes no text; None if the header does not show that."""
    pooling = header.of_architecture("pooling_type")
    if pooling == _RANK:
        return "a reranker, which writes no text: give it to eval score --reward-model"
    if pooling or header.metadata.get(f"{header.architecture}.attention.causal") is False:
        return "an embedding model, which writes no text"
    return None


_RANK = 4  # llama.cpp's LLAMA_POOLING_TYPE_RANK
