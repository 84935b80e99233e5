"""Completions for the shell: names of models, presets, personas, chats, documents and suites."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Names = list[tuple[str, str]]  # names with descriptions, which zsh and fish show

#: A name that is safe in every shell: zsh evaluates Typer's completions, and bash splits them at spaces.
_PLAIN = re.compile(r"[\w@][\w.:/@+-]*")


def _completes(names: Callable[[], Iterable[tuple[str, str]]]) -> Callable[[str], Names]:
    """Turn a function that returns all names into a completion function for Typer.  After an error there are none."""

    def complete(incomplete: str) -> Names:
        try:
            found = list(names())
        except Exception:
            return []
        return [(name, about) for name, about in found if name.startswith(incomplete) and _PLAIN.fullmatch(name)]

    return complete


@_completes
def models() -> Iterable[tuple[str, str]]:
    from ..gguf.locate import all_models

    return [(name, model.owner) for model in all_models() for name in model.names]


@_completes
def catalogue() -> Iterable[tuple[str, str]]:
    from ..gguf.catalogue import CATALOGUE

    return [(entry.name, entry.repo) for entry in CATALOGUE.values()]


@_completes
def presets() -> Iterable[tuple[str, str]]:
    from ..config.config import load_config
    from ..prompting.preferences import PRESETS

    return [(name, " ".join(text.split())) for name, text in {**PRESETS, **load_config().presets}.items()]


@_completes
def personas() -> Iterable[tuple[str, str]]:
    from ..config.config import load_config

    return [(name, "persona") for name in load_config().personas]


def presets_and_personas(incomplete: str) -> Names:
    return [*presets(incomplete), *personas(incomplete)]


def own(incomplete: str) -> Names:
    """The user's own presets, and personas."""
    from ..prompting.preferences import PRESETS

    return [name for name in presets_and_personas(incomplete) if name[0] not in PRESETS]


@_completes
def sessions() -> Iterable[tuple[str, str]]:
    """Titles of saved chats, and their numbers with the titles."""
    from ..sessions.database import store_path
    from ..sessions.store import Store

    if not store_path().exists():
        return []
    with Store(reading=True) as store:
        summaries = store.summaries()
    names = [(summary.title, f"chat {summary.id}") for summary in summaries]
    return [*names, *((str(summary.id), summary.title) for summary in summaries)]


@_completes
def documents() -> Iterable[tuple[str, str]]:
    from .documents import topics

    return topics().items()


@_completes
def suites() -> Iterable[tuple[str, str]]:
    from ..evaluation.suitefile import load_suite, ready_suites

    return [(name, load_suite(name).title) for name in ready_suites()]
