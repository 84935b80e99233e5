"""What an evaluation is made of: prompts, objectives with checks, and the systems that answer.  Read from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A prompt of a set; ``id`` is its own there."""

    id: str
    text: str


@dataclass(frozen=True)
class Check:
    """What an answer must be, told from its text alone; what is None is not asked for.

    name: under which it is reported.
    of: the preference that it checks.
    regex: found somewhere in the text, ignoring case where it says (?i).
    not_regex: found nowhere in it.
    max_words, min_words, max_sentences: limits.
    finished: whether the answer must have come to its end by itself.
    lowercase: whether no letter may be a capital.
    shorter_than: the share of the plain answer's words (same prompt and seed) that it may have at most.
    simpler_than_plain: whether it must be easier to read than the plain answer.
    """

    name: str
    of: str | None = None
    regex: str | None = None
    not_regex: str | None = None
    max_words: int | None = None
    min_words: int | None = None
    max_sentences: int | None = None
    finished: bool = False
    lowercase: bool = False
    shorter_than: float | None = None
    simpler_than_plain: bool = False


@dataclass(frozen=True)
class Objectives:
    """Preferences that are asked for together, as ``-p`` takes them, with the checks that say whether they were met."""

    name: str
    prefer: tuple[str, ...]
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class System:
    """A way of answering.

    settings: what differs from the command line, by the names of the settings (``mode``, ``strength``, ``placement``).
    only: the number of the one preference, from 1, that it is told; None for all of them.
    model: another model than the command line's.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    only: int | None = None
    model: str | None = None


@dataclass(frozen=True)
class Suite:
    """An evaluation as a user writes it down.

    prompts: a file, a data set's name, or ``default``; with a limit, a sample's seed and the field of the text.
    baseline: the system that the others are compared with.
    """

    name: str
    title: str
    objectives: tuple[Objectives, ...]
    systems: tuple[System, ...]
    baseline: str
    prompts: str = "default"
    field: str | None = None
    limit: int | None = None
    sample: int | None = None
    max_chars: int | None = None
    seeds: tuple[int, ...] = (0,)
    max_tokens: int = 128
    shape: str = "systems"  # how the report lays it out: systems, lambda, models or time
