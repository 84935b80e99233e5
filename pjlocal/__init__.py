"""Persona-judge (arXiv 2504.12663) on local GGUF models: two preferences write one answer, without training."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # known to type checkers; importing typing takes time during which Ctrl-C is not caught

if TYPE_CHECKING:
    from typing import Any

    from .answer import Answer
    from .errors import ModelError, PjlocalError, UsageError
    from .events import Result, TokenEvent
    from .persona import PersonaJudge
    from .prompting.prompt import Message
    from .settings import Engine, Generation, Prompting, Sampling

__version__ = "0.1.0"

# If llama.cpp aborts, it runs a debugger that writes to standard output.  It reads this variable when it is loaded.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

_WHERE = {
    "Answer": "answer",
    "PersonaJudge": "persona",
    **dict.fromkeys(("Result", "TokenEvent"), "events"),
    **dict.fromkeys(("Engine", "Generation", "Prompting", "Sampling"), "settings"),
    "Message": "prompting.prompt",
    **dict.fromkeys(("ModelError", "PjlocalError", "UsageError"), "errors"),
}

__all__ = [
    "Answer",
    "Engine",
    "Generation",
    "Message",
    "ModelError",
    "PersonaJudge",
    "PjlocalError",
    "Prompting",
    "Result",
    "Sampling",
    "TokenEvent",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    """Import on first use, because ``pjlocal --help`` needs neither NumPy nor llama.cpp."""
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
