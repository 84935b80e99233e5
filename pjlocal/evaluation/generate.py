"""Writes the answers that a run wants and its folder does not have yet, several at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ..answer import Answer
from ..engine.interrupt import Interrupt, Interrupted
from ..engine.model import Model
from ..engine.seats import Seat, SharedContext
from ..errors import UsageError
from ..events import TokenEvent
from ..persona import PersonaJudge
from ..prompting.plan import Plan
from ..prompting.prompt import ChatTemplate
from ..scheduler import Job, Scheduler, write_all
from ..settings import Engine
from .records import AnswerRecord, Folder
from .run import Task
from .scoring import Progress


@dataclass(eq=False)
class Planned:
    """A task with its prompts' tokens."""

    task: Task
    judge: PersonaJudge
    plan: Plan

    @property
    def room(self) -> int:
        """Tokens that each of its sequences needs."""
        n_prompt = max(map(len, self.plan.prompts))
        return min(n_prompt + self.plan.request.generation.max_tokens, self.judge.context_limit)

    @property
    def limited(self) -> Plan:
        """The plan for no more tokens than the context has room for, however large the one is that several share."""
        n_tokens = self.room - max(map(len, self.plan.prompts))
        return replace(self.plan, request=self.plan.request.replace(max_tokens=n_tokens))


def generate(folder: Folder, tasks: Sequence[Task], parallel: int, interrupt: Interrupt, progress: Progress) -> None:
    """Write every answer that the folder lacks; each is kept as soon as it is done.

    Args:
        parallel: answers at once; one alone is written as ``pjlocal run`` does.

    Raises:
        Interrupted: on request; what was done is kept.
        UsageError: a prompt that does not fit into the context; nothing has been generated on that model.
        ModelError: a model that cannot be used.
        OutputError: an answer that cannot be kept.
    """
    have = folder.read(AnswerRecord)
    todo = [task for task in tasks if task.key not in have]
    done = len(tasks) - len(todo)
    progress(done, len(tasks))
    for _, of_model in groupby(sorted(todo, key=_loaded), _loaded):
        together = list(of_model)
        engine = together[0].contestant.engine
        model = Model(Path(together[0].contestant.model), engine, interrupt)
        with ExitStack() as stack:
            stack.callback(model.close)
            planned = plan_tasks(model, engine, together, interrupt, stack)
            for record in _written(planned, engine, parallel, interrupt):
                folder.append(record)
                done += 1
                progress(done, len(tasks))


def _loaded(task: Task) -> tuple[str, str]:
    """The model and its engine settings: tasks that share them are written together."""
    return task.contestant.model, repr(task.contestant.engine)


def plan_tasks(
    model: Model, engine: Engine, tasks: Sequence[Task], interrupt: Interrupt, stack: ExitStack
) -> list[Planned]:
    """The prompts of every task, before the first one is answered.

    Raises:
        UsageError: one does not fit into the context.
    """
    judges: dict[tuple[str, str], PersonaJudge] = {}
    template = ChatTemplate(model)
    stack.callback(template.close)
    planned = []
    for task in tasks:
        who = (task.contestant.system.name, task.objectives.name)
        request = task.request
        if who not in judges:
            judge = PersonaJudge(model, request=request, engine=engine, interrupt=interrupt, template=template)
            judges[who] = stack.enter_context(judge)
        try:
            planned.append(Planned(task, judges[who], judges[who].plan(task.prompt.text, request)))
        except UsageError as error:
            raise UsageError(f"prompt {task.prompt.id}: {error}") from None
    return planned


def _written(planned: Sequence[Planned], engine: Engine, parallel: int, interrupt: Interrupt) -> Iterator[AnswerRecord]:
    """Several at once, but for those that are two answers each."""
    together = [item for item in planned if parallel > 1 and item.plan.roles.mode != "rewrite"]
    if together:
        yield from _together(together, engine, parallel, interrupt)
    yield from _one_by_one([item for item in planned if parallel == 1 or item.plan.roles.mode == "rewrite"])


def _one_by_one(planned: Sequence[Planned]) -> Iterator[AnswerRecord]:
    for item in planned:
        answer = item.judge.answer(item.plan)
        events = list(answer)
        yield _record(item.task, answer, events)


def _together(
    planned: Sequence[Planned], engine: Engine, parallel: int, interrupt: Interrupt
) -> Iterator[AnswerRecord]:
    most_views = max(len(item.plan.prompts) for item in planned)
    n_ctx = -(-max(item.room for item in planned) // 256) * 256
    n_rows = 1 + max(item.plan.request.generation.lookahead for item in planned)
    shared = SharedContext(planned[0].judge.model, engine, parallel * most_views, n_ctx, interrupt, n_rows)
    try:
        written: dict[Job, tuple[Planned, list[TokenEvent]]] = {}

        def jobs() -> Iterator[Job]:
            for item in planned:
                job = Job(len(item.plan.prompts), lambda seat, item=item: _seated(seat, item))  # type: ignore[misc]
                written[job] = item, []
                yield job

        for job, events in write_all(Scheduler(shared), jobs(), ahead=parallel):
            item, so_far = written[job]
            so_far += events
            if not job.done:
                continue
            del written[job]
            if job.error:
                raise job.error
            assert job.answer
            yield _record(item.task, job.answer, so_far)
    finally:
        shared.close()


def _seated(seat: Seat, item: Planned) -> Answer:
    return Answer(seat, item.limited, 0.0)


def _record(task: Task, answer: Answer, events: Sequence[TokenEvent]) -> AnswerRecord:
    result = answer.result
    if result.finish_reason == "interrupted":
        raise Interrupted
    statistics = result.statistics
    return AnswerRecord(
        key=task.key,
        objectives=task.objectives.name,
        system=task.contestant.system.name,
        prompt_id=task.prompt.id,
        prompt=task.prompt.text,
        seed=task.seed,
        text=result.text,
        finish_reason=result.finish_reason,
        tokens=statistics.completion_tokens,
        prefill_s=statistics.prefill_s,
        decode_s=statistics.decode_s,
        acceptance_rate=statistics.acceptance_rate,
        pushes=statistics.mean_pushes,
        pieces=_pieces(events),
    )


def _pieces(events: Sequence[TokenEvent]) -> list[list[str | None]]:
    """The text in pieces of the same kind by the same view."""
    return [
        ["".join(event.text for event in of_one), kind, writer]
        for (kind, writer), of_one in groupby(events, lambda event: (event.kind, event.writer))
    ]
