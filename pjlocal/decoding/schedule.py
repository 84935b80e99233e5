"""Two schedules of the same text: *lockstep*, which users get, and *Algorithm 1* as the paper writes it.

Both are generators of decisions over anything that looks like views of a model, so they can be tested on toy
distributions and run on llama.cpp alike.  Randomness is indexed by position (`judge.Uniforms`), and therefore both
give the same text, token for token, for the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .judge import (
    Decision,
    Distribution,
    Round,
    Strategy,
    Uniforms,
    bonus_token,
    judge_token,
    plain_token,
    propose,
)


class Views(Protocol):
    """Views of one model over the same conversation, numbered from 0, each with a KV cache of its own.

    What they give as logits is whatever the filters take.
    """

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Bring each view's cache to exactly its prompt."""

    def feed(self, tokens: Sequence[int]) -> None:
        """Append the same tokens to every view."""

    def logits(self, view: int, row: int = 0) -> Any:
        """The logits behind the row-th of the tokens fed last; valid until the view is fed again."""

    def rewind(self, n_tokens: int) -> None:
        """Forget the last tokens of every view."""

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        """Append tokens to one view in one batch; the logits behind each of the last ``rows`` tokens."""

    def rewind_view(self, view: int, n_tokens: int) -> None:
        """Forget the last tokens of one view."""


class Filter(Protocol):
    """One view's filters: logits in, the distribution that survives out.  May remember the emitted tokens."""

    def __call__(self, logits: Any, /) -> Distribution: ...

    def accept(self, token: int) -> None:
        """Tell the filters of an emitted token."""

    def clone(self) -> Filter:
        """A copy to look ahead with."""


class Guesser(Protocol):
    """Proposes the tokens to come."""

    def accept(self, token: int) -> None:
        """Tell it of an emitted token."""

    def guess(self) -> list[int]:
        """Tokens that may follow the last one; none is a good answer."""


@dataclass(frozen=True)
class Rules:
    """What the schedules need to know of the settings."""

    lam: int
    swap: bool
    strategy: Strategy
    limit: int
    is_end: Callable[[int], bool]


def lockstep(
    views: Views,
    prompts: Sequence[Sequence[int]],
    filters: Sequence[Filter],
    rules: Rules,
    uniforms: Uniforms,
    guesser: Guesser | None = None,
) -> Iterator[Decision]:
    """Decide every token with both views at hand; feed it to both at once.

    Nothing behind a rejection is wasted and nothing is rolled back; λ only says when the roles swap.  ``guesser`` may
    propose the tokens to come: they are fed in the same batch, and the same decisions are replayed over their logits
    for as long as they agree with the guess, so it changes the speed and never the text.

    With one view this is ordinary decoding.
    """
    views.start(prompts)
    round = Round(rules.lam, rules.swap)
    ahead: list[int] = []  # the guess that the views were fed behind the last token
    row = 0  # of the logits behind the text, among those of the last feed
    for position in range(rules.limit):
        decision = _decide(views, row, filters, rules, round, position, uniforms[position])
        round.advance(decision.kind)
        for f in filters:
            f.accept(decision.token)
        if guesser:
            guesser.accept(decision.token)
        last = position + 1 == rules.limit or rules.is_end(decision.token)
        if row < len(ahead) and ahead[row] == decision.token:
            row += 1
        elif not last:  # fed before it is shown: another view already reads it meanwhile
            if row < len(ahead):
                views.rewind(len(ahead) - row)
            ahead = guesser.guess()[: rules.limit - position - 1] if guesser else []
            views.feed([decision.token, *ahead])
            row = 0
        yield decision
        if last:
            return


def _decide(
    views: Views,
    row: int,
    filters: Sequence[Filter],
    rules: Rules,
    round: Round,
    position: int,
    u: list[float],
) -> Decision:
    def distribution(view: int) -> Distribution:
        return filters[view](views.logits(view, row))

    if len(filters) == 1:
        return plain_token(position, distribution(0), u, rules.strategy)
    p = distribution(round.judge)
    if round.bonus_due:
        return bonus_token(position, round, p, u)
    q = distribution(round.draft)
    return judge_token(position, round, propose(q, u[0], rules.strategy), p, q, u)


def algorithm1(
    views: Views,
    prompts: Sequence[Sequence[int]],
    filters: Sequence[Filter],
    rules: Rules,
    uniforms: Uniforms,
) -> Iterator[Decision]:
    """Algorithm 1 as written: draft λ tokens one by one, verify them in one batch, roll both caches back.

    Kept as the plain reference that `lockstep` is compared with.  It needs a KV cache that can be trimmed.
    Between rounds neither cache holds the last token of its view's text: reading it gives the round's first logits.
    """
    if len(prompts) == 1:
        yield from lockstep(views, prompts, filters, rules, uniforms)
        return
    views.start([prompt[:-1] for prompt in prompts])
    text: list[int] = []
    unread = [[prompt[-1]] for prompt in prompts]
    round = Round(rules.lam, rules.swap)
    while True:
        draft, judge, start = round.draft, round.judge, len(text)

        # Draft: t_i ~ q_i for i = 1..λ.
        look_ahead = filters[draft].clone()
        drafted: list[int] = []
        qs: list[Distribution] = []
        to_read = unread[draft]
        while len(drafted) < min(rules.lam, rules.limit - start):
            position = start + len(drafted)
            (logits,) = views.read(draft, to_read, rows=1)
            qs.append(look_ahead(logits))
            drafted.append(propose(qs[-1], uniforms[position][0], rules.strategy))
            look_ahead.accept(drafted[-1])
            to_read = drafted[-1:]
            if rules.is_end(drafted[-1]):
                break
        # Judge: p_1..p_{λ+1} in one batch.
        rows = views.read(judge, unread[judge] + drafted, rows=len(drafted) + 1)

        # Accept while the ratio allows, then resample or add the bonus token.
        emitted = 0
        while True:
            position, u = start + emitted, uniforms[start + emitted]
            p = filters[judge](rows[emitted])
            if round.bonus_due:
                decision = bonus_token(position, round, p, u)
            else:
                decision = judge_token(position, round, drafted[emitted], p, qs[emitted], u)
            emitted += 1
            text.append(decision.token)
            round.advance(decision.kind)
            for f in filters:
                f.accept(decision.token)
            done = len(text) == rules.limit or rules.is_end(decision.token)
            if done or decision.kind != "accepted":
                break
            yield decision

        # Roll back: both caches keep what was accepted, without the round's last token.
        in_cache = {draft: len(drafted) - 1, judge: len(drafted)}
        for view, n_tokens in in_cache.items():
            keep = min(emitted - 1, n_tokens)
            views.rewind_view(view, n_tokens - keep)
            unread[view] = text[start + keep :]
        yield decision
        if done:
            return
