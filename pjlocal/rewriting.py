"""A first answer without preferences, and a second one that corrects it under them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import replace

from .answer import Answer
from .engine.interrupt import Interrupted
from .engine.pool import ViewPool
from .events import Result, TokenEvent
from .prompting.plan import Plan


class Rewriting(Answer):
    """Mode rewrite: what Aligner (arXiv 2402.02416) does, by a model that takes instructions.

    Its events, `result` and `plan` are those of the correction; `drafted` and `Result.draft` tell of the first answer,
    which is written before the first event.  Where that is stopped, or says nothing, there is nothing to correct.

    Args:
        draft: the first answer, of which nothing is written yet.
        plan: what was asked; the correction is written under its request.
        pool: of the model that corrects it.
        correct: plans the correction of the first answer, of which it gets the text and the tokens.
    """

    def __init__(
        self,
        draft: Answer,
        plan: Plan,
        pool: ViewPool,
        load_s: float,
        correct: Callable[[str, tuple[int, ...]], Plan],
    ) -> None:
        request = plan.request.replace(seed=draft.seed)
        super().__init__(pool, replace(plan, request=request), load_s)
        self._draft = draft
        self._correct = correct

    @property
    def result(self) -> Result:
        return replace(super().result, draft=self._draft.result)

    def _run(self) -> Generator[TokenEvent]:
        self._thread = threading.get_ident()
        for event in self._draft:
            self.drafted.append(event)
        draft = self._draft.result
        if draft.finish_reason == "interrupted" or not draft.text.strip():
            self.finish_reason = draft.finish_reason
            return
        try:
            plan = self._correct(draft.text, tuple(event.id for event in self.drafted))
        except Interrupted:
            self.finish_reason = "interrupted"
            return
        roles = replace(self.plan.roles, adapters=plan.roles.adapters)
        self.plan = replace(plan, request=self.plan.request, roles=roles)
        yield from super()._run()
