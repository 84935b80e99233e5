"""Two schedules of the same text: *lockstep*, the default, and *Algorithm 1* of the paper.

Both are generators of decisions over the protocol `Views`, so they run on toy distributions in tests and on llama.cpp.
Random numbers are indexed by position (`judge.Uniforms`): with the same seed both give the same text, token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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

    Their logits may have any type that the filters accept.
    """

    def start(self, prompts: Sequence[Sequence[int]]) -> None:
        """Make each view's cache hold its prompt and nothing else."""

    def feed(self, tokens: Sequence[int]) -> None:
        """Append the same tokens to every view."""

    def logits(self, view: int, row: int = 0) -> Any:
        """The logits after the ``row``-th of the tokens fed last; valid until the view is fed again."""

    def rewind(self, n_tokens: int) -> None:
        """Remove the last ``n_tokens`` tokens of every view."""

    def read(self, view: int, tokens: Sequence[int], rows: int) -> list[Any]:
        """Append tokens to one view in one batch.  Returns the logits after each of the last ``rows`` tokens."""

    def rewind_view(self, view: int, n_tokens: int) -> None:
        """Remove the last ``n_tokens`` tokens of one view."""


#: Maps the number of a view to its logits of the next token.
Rows = Callable[[int], Any]


class Policy(Protocol):
    """A map from the logits of one or several views to the distribution of the next token.

    It may have state that depends on the emitted tokens.
    """

    @property
    def views(self) -> Sequence[int]:
        """The views whose logits the policy reads."""

    def __call__(self, rows: Rows, /) -> Distribution: ...

    def accept(self, token: int) -> None:
        """Update the state with an emitted token."""

    def clone(self) -> Policy:
        """A copy, to try tokens on."""


#: The push of each preference on a token, and the token's log-probability in the neutral view.
Meter = Callable[[Rows, int], tuple[tuple[float, ...], float]]
#: Called with the policy that decided a token, and the logits, which are valid only during the call.
Observer = Callable[[Policy, Rows, Decision], None]


@dataclass(frozen=True)
class Policies:
    """The policies of an answer.

    ``drafts[i]`` proposes while preference i drafts, and ``judges[j]`` decides while preference j judges.  One policy
    may do both.  With a single policy, decoding is ordinary sampling.
    """

    drafts: Sequence[Policy]
    judges: Sequence[Policy]
    meter: Meter | None = None
    observer: Observer | None = None

    def observe(self, decision: Decision, rows: Rows, policy: Policy) -> Decision:
        if self.observer:
            self.observer(policy, rows, decision)
        return decision

    def with_pushes(self, decision: Decision, rows: Rows) -> Decision:
        self.observe(decision, rows, self.judges[decision.judge or 0])
        if self.meter is None:
            return decision
        pushes, neutral = self.meter(rows, decision.token)
        return replace(decision, pushes=pushes, neutral=neutral)

    def accept(self, token: int) -> None:
        for policy in {id(policy): policy for policy in (*self.drafts, *self.judges)}.values():
            policy.accept(token)


class Guesser(Protocol):
    """A source of guesses of the next tokens."""

    def accept(self, token: int) -> None:
        """Add an emitted token to the text."""

    def guess(self) -> list[int]:
        """Tokens that may follow the last one; may be empty."""


class Phase(Protocol):
    """The part of the answer that the next token belongs to.

    Tokens of some parts, such as thinking, are written outside the rounds: they neither begin nor end a round.
    """

    @property
    def policy(self) -> Policy | None:
        """The policy that decides the next token outside the rounds; None within the rounds."""

    @property
    def limit(self) -> int:
        """The most tokens that the answer may have, as far as is known now."""

    @property
    def may_change(self) -> bool:
        """True if the next token may end the phase.  A draft then stops after that token."""

    def accept(self, token: int) -> None:
        """Update the phase with an emitted token, before the policies are updated."""


@dataclass(frozen=True)
class Rules:
    """The settings that the schedules need."""

    lam: int
    swap: bool
    strategy: Strategy
    limit: int
    is_end: Callable[[int], bool]
    phase: Phase

    def accept(self, token: int, policies: Policies) -> None:
        """Update the phase and the policies with an emitted token."""
        self.phase.accept(token)
        policies.accept(token)

    def is_last(self, n_tokens: int, token: int) -> bool:
        """True if ``token``, the last one of ``n_tokens``, ends the answer."""
        return n_tokens >= self.most or self.is_end(token)

    @property
    def most(self) -> int:
        """The most tokens that the answer may have, as far as is known now."""
        return min(self.limit, self.phase.limit)


def lockstep(
    views: Views,
    prompts: Sequence[Sequence[int]],
    policies: Policies,
    rules: Rules,
    uniforms: Uniforms,
    guesser: Guesser | None = None,
) -> Iterator[Decision]:
    """Decide each token from the logits of all views, and feed it to all views at once.

    A rejection wastes no work and rolls no cache back; λ only determines when the roles swap.  ``guesser`` may guess
    the next tokens, which are fed in the same batch.  Decisions are then made from their logits while the guess is
    right, so a guess changes the speed and never the text.

    With a single view this is ordinary decoding.  The call itself starts reading the prompts.  Each step of the
    iterator makes a decision and feeds its token, which is decoded together with the tokens of other answers.
    """
    views.start(prompts)
    return _decisions(views, policies, rules, uniforms, guesser)


def _decisions(
    views: Views, policies: Policies, rules: Rules, uniforms: Uniforms, guesser: Guesser | None
) -> Iterator[Decision]:
    round = Round(rules.lam, rules.swap, len(policies.judges))
    ahead: list[int] = []  # the guess that was fed after the last token
    row = 0  # the row of the last feed that has the logits of the next token

    def rows(view: int) -> Any:
        return views.logits(view, row)

    for position in range(rules.limit):
        if policy := rules.phase.policy:
            decision = _decide_outside(rows, policies, policy, rules, position, uniforms[position])
        else:
            decision = policies.with_pushes(_decide(rows, policies, rules, round, position, uniforms[position]), rows)
            round.advance(decision.kind)
        rules.accept(decision.token, policies)
        if guesser:
            guesser.accept(decision.token)
        last = rules.is_last(position + 1, decision.token)
        if row < len(ahead) and ahead[row] == decision.token:
            row += 1
        elif not last:  # feed before yielding, so that the engine can decode while the caller shows the token
            if row < len(ahead):
                views.rewind(len(ahead) - row)
            ahead = guesser.guess()[: rules.limit - position - 1] if guesser else []
            views.feed([decision.token, *ahead])
            row = 0
        yield decision
        if last:
            return


def _decide_outside(
    rows: Rows, policies: Policies, policy: Policy, rules: Rules, position: int, u: list[float]
) -> Decision:
    return policies.observe(plain_token(position, policy(rows), u, rules.strategy), rows, policy)


def _decide(rows: Rows, policies: Policies, rules: Rules, round: Round, position: int, u: list[float]) -> Decision:
    if len(policies.judges) == 1:
        return plain_token(position, policies.judges[0](rows), u, rules.strategy)
    p = policies.judges[round.judge](rows)
    if round.bonus_due:
        return bonus_token(position, round, p, u)
    q = policies.drafts[round.draft](rows)
    return judge_token(position, round, propose(q, u[0], rules.strategy), p, q, u)


class _Ahead:
    """The views' logits after each drafted token of a round, decoded when needed.

    ``rows[view][i]`` are a view's logits after i drafted tokens.
    """

    def __init__(self, views: Views, unread: Sequence[list[int]]) -> None:
        self.drafted: list[int] = []
        self.rows: dict[int, list[Any]] = {}
        self._views = views
        self._unread = unread

    def row(self, view: int, n_drafted: int) -> Any:
        """A view's logits after ``n_drafted`` drafted tokens.  Tokens not decoded yet are decoded in one batch."""
        known = self.rows.setdefault(view, [])
        if len(known) <= n_drafted:
            before = [] if known else self._unread[view]
            tokens = before + self.drafted[max(0, len(known) - 1) : n_drafted]
            known += self._views.read(view, tokens, rows=n_drafted + 1 - len(known))
        return known[n_drafted]

    def read(self, policy: Policy) -> None:
        """Decode all drafted tokens in the views of a policy."""
        for view in policy.views:
            self.row(view, len(self.drafted))

    def after(self, n_drafted: int) -> Rows:
        return lambda view: self.row(view, n_drafted)


def algorithm1(
    views: Views,
    prompts: Sequence[Sequence[int]],
    policies: Policies,
    rules: Rules,
    uniforms: Uniforms,
) -> Iterator[Decision]:
    """Run Algorithm 1 as written: draft λ tokens one by one, verify them in one batch, roll the caches back.

    `lockstep` is tested against it.  It needs a KV cache that can be truncated.  Between rounds no cache contains the
    last token of the text, because decoding that token gives the round's first logits.
    """
    views.start([prompt[:-1] for prompt in prompts])
    text: list[int] = []
    unread = [[prompt[-1]] for prompt in prompts]
    round = Round(rules.lam, rules.swap, len(policies.judges))
    while True:
        start = len(text)
        draft, judge = policies.drafts[round.draft], policies.judges[round.judge]
        ahead = _Ahead(views, unread)

        policy, one = rules.phase.policy, rules.phase.may_change
        most = 0 if policy or round.bonus_due else 1 if one else rules.lam - round.accepted

        # Draft: t_i ~ q_i for i = 1..λ.
        look_ahead = draft.clone()
        qs: list[Distribution] = []
        while len(qs) < min(most, rules.most - start):
            if qs:
                look_ahead.accept(ahead.drafted[-1])
            qs.append(look_ahead(ahead.after(len(qs))))
            ahead.drafted.append(propose(qs[-1], uniforms[start + len(qs) - 1][0], rules.strategy))
            if rules.is_end(ahead.drafted[-1]):
                break
        # Judge: p_1..p_{λ+1} in one batch.
        if not policy:
            ahead.read(judge)

        # Accept while the ratio allows, then resample or add the bonus token.
        emitted = 0
        while True:
            position, u, rows = start + emitted, uniforms[start + emitted], ahead.after(emitted)
            if policy:
                decision = _decide_outside(rows, policies, policy, rules, position, u)
            else:
                if round.bonus_due:
                    decision = bonus_token(position, round, judge(rows), u)
                else:
                    decision = judge_token(position, round, ahead.drafted[emitted], judge(rows), qs[emitted], u)
                decision = policies.with_pushes(decision, rows)
                round.advance(decision.kind)
            emitted += 1
            text.append(decision.token)
            rules.accept(decision.token, policies)
            done = rules.is_last(len(text), decision.token)
            if done or one or decision.kind != "accepted" or (emitted == len(qs) and not round.bonus_due):
                break
            yield decision

        # Roll back: the caches keep the accepted tokens, without the round's last token.
        for view in range(len(prompts)):
            if view in ahead.rows:
                n_tokens = len(ahead.rows[view]) - 1
                keep = min(emitted - 1, n_tokens)
                views.rewind_view(view, n_tokens - keep)
                unread[view] = text[start + keep :]
            else:
                unread[view] += text[start:]
        yield decision
        if done:
            return
