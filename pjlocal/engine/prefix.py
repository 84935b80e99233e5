"""Choose a KV cache for each prompt, and a cache to copy its beginning from.  Plain Python over lists of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations

Tokens = Sequence[int]

#: The least length in tokens of a shared beginning that is read once and copied.
WORTH_COPYING = 32
#: Copy only if at least 1 of 10 copied tokens is reused: copying a token costs at most a tenth of computing it.
_COPIED_PER_REUSED = 10
_MOST_PERMUTED = 4  # views of an answer; more have too many orders to try


@dataclass(frozen=True)
class Cache:
    """A sequence's KV cache, as a candidate for a prompt.

    tokens: the tokens in the cache.
    adapters: the adapters that computed it.
    lane, number: the context that holds it, and its sequence number there.
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

    First choose the caches.  Prefer one that is mostly useful here, then an empty one, then the one that is evicted at
    the smallest loss.  A cache of another conversation that only begins alike is not useful.  Then assign the chosen
    caches so that the sum of the common prefixes is greatest: swapped preferences swap their caches.

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

    return list(max(permutations(sorted(chosen)), key=held_by))  # among equals, `max` keeps the order


def fresh(n: int, caches: Sequence[Cache], *, separate: bool = False) -> list[int]:
    """The numbers of caches to overwrite for ``n`` prompts that reuse nothing.

    Prefer consecutive sequences, which llama.cpp decodes together, as in a new lane; it decodes others one by one,
    which rounds differently.  Among those prefer empty ones, then those released longest ago.

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
    """The length in tokens of the common prefix of all prompts, without the last token of any prompt."""
    first = prompts[0]
    return min(min(common_prefix(first, prompt), len(prompt) - 1) for prompt in prompts)


def source(prompt: Tokens, held: int, caches: Sequence[Tokens], worth: int = WORTH_COPYING) -> tuple[int, int] | None:
    """The number of the cache to copy a prompt's beginning from, and of the tokens to copy; None if reading is faster.

    Args:
        held: number of tokens of the prompt that its own cache holds.
        worth: the least number of tokens to copy.
    """
    lengths = [min(common_prefix(prompt, cache), len(prompt) - 1) for cache in caches]
    if not lengths:
        return None
    best = max(range(len(caches)), key=lengths.__getitem__)
    n_more = lengths[best] - held
    if n_more < worth or _COPIED_PER_REUSED * n_more < len(caches[best]):
        return None
    return best, lengths[best]
