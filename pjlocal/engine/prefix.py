"""The choice of a KV cache for each prompt, and of a cache to copy its beginning from: plain Python over lists of
tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations

Tokens = Sequence[int]

#: Prompt tokens from which a shared beginning is read once and copied.
WORTH_COPYING = 32
#: Copy only if at least 1 of 10 copied tokens is reused: copying a token costs at most a tenth of computing it.
_COPIED_PER_REUSED = 10
_MOST_PERMUTED = 4  # views of an answer; of more there are too many orders to try


@dataclass(frozen=True)
class Cache:
    """A sequence's KV cache, as a candidate for a prompt.

    tokens: the tokens in memory.
    adapters: the adapters that they were read with.
    lane, number: the context that holds it, and its sequence there.
    released: time of its last release, counted in answers.
    """

    tokens: Tokens
    adapters: object = None
    lane: int = 0
    number: int = 0
    released: int = 0


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Length of the longest common prefix."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def assign(
    prompts: Sequence[Tokens], adapters: Sequence[object], caches: Sequence[Cache], *, separate: bool = False
) -> list[int]:
    """Return the number of a cache for each prompt; there must be enough caches.

    Prefer an empty cache to evicting one that is mostly useless here, as of another conversation that only begins
    alike, and among equals the one released longest ago.  Of the caches chosen, each prompt then gets the one that
    makes the prompts' common prefixes longest in sum: swapped preferences swap their caches.

    Args:
        adapters: the adapters that each prompt is read with; a cache with other adapters is useless to it.
        separate: whether every prompt goes to a lane of its own; otherwise all go to one lane, if one has room for
            them.
    """
    held = [
        [common_prefix(prompt, cache.tokens) if cache.adapters == own else 0 for cache in caches]
        for prompt, own in zip(prompts, adapters, strict=True)
    ]

    def fitness(prompt: int, number: int) -> tuple[bool, bool, int, int]:
        cache, n_held = caches[number], held[prompt][number]
        is_useful = 2 * n_held >= len(cache.tokens) > 0
        return is_useful, not cache.tokens, n_held, -cache.released

    chosen: list[int] = []
    for prompt in range(len(prompts)):
        left = [number for number in range(len(caches)) if number not in chosen]
        lanes = {caches[number].lane for number in chosen}
        if separate:
            left = [number for number in left if caches[number].lane not in lanes]
        else:
            left = _of_one_lane(left, lanes, caches, len(prompts)) or left
        chosen.append(max(left, key=partial(fitness, prompt)))
    if len(prompts) > _MOST_PERMUTED:
        return chosen

    def held_by(order: Iterable[int]) -> int:
        return sum(row[number] for row, number in zip(held, order, strict=True))

    return list(max(permutations(sorted(chosen)), key=held_by))  # the first of the best keeps the order


def fresh(n: int, caches: Sequence[Cache], *, separate: bool = False) -> list[int]:
    """The numbers of caches to overwrite for ``n`` prompts that reuse nothing.

    Prefer empty ones, else those released longest ago.  Prefer consecutive sequences: llama.cpp decodes them together,
    as in a new lane; it decodes others one by one, which rounds differently.

    Args:
        separate: see `assign`.
    """
    runs = [range(first, first + n) for first in range(len(caches) - n + 1)]
    runs = [run for run in runs if _follow_each_other([caches[number] for number in run])]
    if separate or not runs:
        return assign([()] * n, [None] * n, caches, separate=separate)

    def loss(run: range) -> tuple[int, int]:
        held = [caches[number].released for number in run if caches[number].tokens]
        return len(held), max(held, default=0)

    return [*min(runs, key=loss)]


def _follow_each_other(caches: Sequence[Cache]) -> bool:
    first = caches[0]
    return all((cache.lane, cache.number) == (first.lane, first.number + i) for i, cache in enumerate(caches))


def _of_one_lane(left: Sequence[int], lanes: set[int], caches: Sequence[Cache], n: int) -> list[int]:
    """The caches of the lane in use, or of lanes with room for all prompts."""
    of_lane = [caches[number].lane for number in left]
    allowed = lanes or {lane for lane in of_lane if of_lane.count(lane) >= n}
    return [number for number in left if caches[number].lane in allowed]


def shared_prefix(prompts: Sequence[Tokens]) -> int:
    """The number of tokens that all prompts begin with, at least one less than the shortest prompt has."""
    first = prompts[0]
    return min(min(common_prefix(first, prompt), len(prompt) - 1) for prompt in prompts)


def source(prompt: Tokens, held: int, caches: Sequence[Tokens], worth: int = WORTH_COPYING) -> tuple[int, int] | None:
    """The number of the cache to copy a prompt's beginning from, and the tokens to copy; None if copying does not pay.

    Args:
        held: number of tokens of the prompt that its own cache holds.
        worth: number of tokens from which copying pays.
    """
    lengths = [min(common_prefix(prompt, cache), len(prompt) - 1) for cache in caches]
    if not lengths:
        return None
    best = max(range(len(caches)), key=lengths.__getitem__)
    n_more = lengths[best] - held
    if n_more < worth or _COPIED_PER_REUSED * n_more < len(caches[best]):
        return None
    return best, lengths[best]
