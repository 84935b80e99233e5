"""Make the policies of an answer from its plan: filters, constraint and the combination of its views."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .decoding.schedule import Observer, Policies
from .engine.constraint import make_constraint
from .engine.echo import Echo
from .engine.filters import FilterChain, against_repetition
from .engine.model import Model
from .engine.policies import Floor, PushMeter, SingleView, Steered, Strengths, Weight, pulling_views
from .prompting.plan import Plan, Roles
from .prompting.thinking import ThinkingPhase
from .settings import Sampling


class PolicyMaker:
    """Makes the policies that propose and decide.

    In mode both, the judge combines all preferences, whichever drafts.  In other modes each preference has its own
    policy, pushed away from neutral if its strength is not 1.

    Args:
        plan: the plan of this pass; mode rewrite has two.
        roles: the roles of the whole answer.
        seed: the answer's seed.
        beginning: the tokens of the answer, without its thinking, that precede the first written one.
        spelled: the tokens that spell this beginning for a constraint or grammar.
        stop_tokens: further tokens that end the answer.

    Raises:
        UsageError: the answer cannot begin so, or a setting cannot be used with this model.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        roles: Roles,
        seed: int,
        phase: ThinkingPhase,
        beginning: Sequence[int],
        spelled: Sequence[int],
        stop_tokens: Collection[int],
    ) -> None:
        self._model = model
        self._prompts = plan.prompts
        self._generation, self._sampling = plan.request.generation, plan.request.sampling
        self._roles = roles
        self._weights = list(roles.weights.values())
        self._avoided = [weight for weight in self._weights if weight.view >= roles.n_speakers]
        self._seed = seed
        self._phase = phase
        self._beginning, self._spelled = beginning, spelled
        self._strengths = Strengths()
        self._constraint = make_constraint(model, self._sampling, self._generation.min_tokens, stop_tokens)
        if self._constraint:
            self._constraint.begin(spelled)

    def make(self, observer: Observer | None) -> Policies:
        """Make the policies, and the one that decides the thinking."""
        roles, sampling = self._roles, self._sampling
        if roles.neutral is not None and not self._generation.push_thoughts:
            chain = self._chain(roles.neutral, -1, sampling)
            self._phase.thinker = SingleView(roles.neutral, chain, reads_early=False)
        speakers = range(roles.n_speakers)
        drafts: list[SingleView | Steered]
        judges: list[SingleView | Steered]
        if roles.mode == "both":
            # Only one of the drafts is needed for a token, so its filters are applied then.
            drafts = [SingleView(view, self._chain(view, view, sampling), reads_early=False) for view in speakers]
            adjusted = sampling if self._phase.is_constrained else against_repetition(sampling)
            chain = self._chain(0, roles.n_speakers, adjusted)
            judges = [self._combined(self._weights, chain, roles.joint)] * roles.n_speakers
        else:
            drafts = judges = [self._own(view) for view in speakers]
        meter = None
        if roles.neutral is not None:
            echoes = {one.view: judge.echo for judge in judges if isinstance(judge, Steered) for one in judge.weights}
            meter = PushMeter(self._weights, roles.neutral, echoes, self._strengths)
        return Policies(drafts, judges, meter, observer)

    def _own(self, view: int) -> SingleView | Steered:
        """The policy of one preference."""
        weights = [weight for weight in self._weights if weight.view == view] + self._avoided
        chain = self._chain(view, view, self._sampling)
        if all(weight.is_identity for weight in weights):
            return SingleView(view, chain)
        return self._combined(weights, chain, joint=None)

    def _combined(self, weights: Sequence[Weight], chain: FilterChain, joint: int | None) -> Steered:
        neutral, share = self._roles.neutral, self._generation.floor
        pulling = pulling_views(weights, neutral, joint)
        echo = None
        if neutral is not None:
            echo = Echo(self._model, {view: self._roles.prefixes[view] for view in pulling})
            for token in self._beginning:
                echo.accept(token)
        floor = Floor(pulling, share) if share else None
        return Steered(weights, neutral, joint, floor, chain, echo, self._strengths)

    def _chain(self, view: int, number: int, sampling: Sampling) -> FilterChain:
        """The filters of a view; ``number`` gives each chain random numbers of its own."""
        counted = None if sampling is self._sampling else self._phase.answer
        prompt, randomness = self._prompts[view], (self._seed, 1 + number)
        filters = FilterChain(self._model, sampling, prompt, randomness, self._constraint, self._phase.answer, counted)
        filters.begin(self._beginning, self._spelled)
        return filters
