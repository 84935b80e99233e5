"""Make the policies of an answer from its plan: filters, constraint and the combination of its views."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .decoding.schedule import Observer, Policies
from .engine.constraint import make_constraint
from .engine.echo import Echo
from .engine.filters import FilterChain, against_repetition
from .engine.model import Model
from .engine.policies import PushMeter, SingleView, Steered, Weight, pulling_views
from .prompting.plan import Plan
from .prompting.thinking import ThinkingPhase
from .settings import Sampling


def make_policies(
    model: Model,
    plan: Plan,
    seed: int,
    phase: ThinkingPhase,
    beginning: Sequence[int],
    spelled: Sequence[int],
    stop_tokens: Collection[int],
    observer: Observer | None,
) -> Policies:
    """Make the policies that propose and decide, and the one that decides the thinking.

    In mode both, the judge combines all preferences, whichever drafts.  In other modes each preference has its own
    policy, pushed away from neutral if its strength is not 1.

    Args:
        seed: the answer's seed.
        beginning: the tokens of the answer, without its thinking, that precede the first written one.
        spelled: the tokens that spell this beginning for a constraint or grammar.
        stop_tokens: further tokens that end the answer.

    Raises:
        UsageError: the answer cannot begin so, or a setting cannot be used with this model.
    """
    roles, generation, sampling = plan.roles, plan.request.generation, plan.request.sampling
    neutral = roles.neutral
    weights = list(roles.weights.values())
    constraint = make_constraint(model, sampling, generation.min_tokens, stop_tokens)
    if constraint:
        constraint.begin(spelled)

    def chain_of(view: int, number: int, settings: Sampling) -> FilterChain:
        """The filters of a view; ``number`` gives each chain random numbers of its own."""
        counted = None if settings is sampling else phase.answer
        chain = FilterChain(model, settings, plan.prompts[view], (seed, 1 + number), constraint, phase.answer, counted)
        chain.begin(beginning, spelled)
        return chain

    def combined(weights: Sequence[Weight], chain: FilterChain, joint: int | None) -> Steered:
        pulling = pulling_views(weights, neutral, joint)
        echo = None
        if neutral is not None:
            echo = Echo(model, {view: roles.prefixes[view] for view in pulling})
            for token in beginning:
                echo.accept(token)
        return Steered(weights, neutral, joint, pulling, generation.floor, chain, echo)

    def own(view: int) -> SingleView | Steered:
        """The policy of one preference."""
        used = [weight for weight in weights if weight.view == view or weight.view >= roles.n_speakers]
        chain = chain_of(view, view, sampling)
        return SingleView(view, chain) if all(each.is_identity for each in used) else combined(used, chain, None)

    if neutral is not None and not generation.push_thoughts:
        phase.thinker = SingleView(neutral, chain_of(neutral, -1, sampling))
    speakers = range(roles.n_speakers)
    drafts: list[SingleView | Steered]
    judges: list[SingleView | Steered]
    if roles.mode == "both":
        drafts = [SingleView(view, chain_of(view, view, sampling)) for view in speakers]
        adjusted = sampling if phase.is_constrained else against_repetition(sampling)
        judges = [combined(weights, chain_of(0, roles.n_speakers, adjusted), roles.joint)] * roles.n_speakers
    else:
        drafts = judges = [own(view) for view in speakers]
    meter = None
    if neutral is not None:
        echoes = {one.view: judge.echo for judge in judges if isinstance(judge, Steered) for one in judge.weights}
        meter = PushMeter(weights, neutral, echoes)
    return Policies(drafts, judges, meter, observer)
