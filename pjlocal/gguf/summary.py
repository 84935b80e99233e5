"""The summary of a model for a list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .header import Header, read_header
from .kind import no_model, writes_no_text
from .library import ModelFile


@dataclass(frozen=True)
class Summary:
    """A model with its header, or the reason why it cannot be used.  A file of another kind has both."""

    found: ModelFile
    header: Header | None = None
    trouble: str | None = None

    def as_dict(self) -> dict[str, Any]:
        found, header = self.found, self.header
        return {
            "name": found.name,
            "aliases": list(found.aliases),
            "path": str(found.path.absolute()),
            "parts": len(found.parts),
            "owner": found.owner,
            "repo": found.repo,
            "size_bytes": found.size,
            "architecture": (header and header.architecture) or None,
            "parameters": (header and header.n_parameters) or None,
            "quantization": (header and header.file_type) or None,
            "context_length": header and header.n_ctx_train,
            "chat_template": bool(header and header.has_chat_template),
            "trouble": self.trouble,
        }


def summary(found: ModelFile) -> Summary:
    """Summarize a model.  Errors become its ``trouble``."""
    if found.trouble:
        return Summary(found, trouble=found.trouble)
    try:
        header = read_header(found.path)
    except ModelError as error:
        return Summary(found, trouble=_without_path(str(error), found.path))
    return Summary(found, header, no_model(header) or writes_no_text(header))


def _without_path(message: str, path: Path) -> str:
    """Remove the file's path from a message: the list has it already."""
    for head in (f"{path} is ", f"{path}: ", f"cannot load {path}: ", f"cannot read {path}: "):
        message = message.removeprefix(head)
    return message
