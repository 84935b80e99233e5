"""Write the answers that are missing in a run's folder, several at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path

from ..answer import Answer
from ..client import RemoteAnswer, Server, WarningLog, as_finished
from ..engine.interrupt import Interrupt, Interrupted
from ..errors import UsageError
from ..events import Started, TokenEvent
from ..persona import PersonaJudge
from ..prompting.plan import Plan
from .records import AnswerRecord, Folder
from .run import Task


def generate(
    folder: Folder,
    tasks: Sequence[Task],
    parallel: int,
    interrupt: Interrupt,
    progress: Callable[[int, int], None],
    server: Server | None = None,
) -> None:
    """Write all missing answers, and save each when it is finished.

    Args:
        parallel: answers written at once; with 1, each has the same text as from ``pjlocal run``.
        progress: called with the number done and the total.
        server: writes the answers instead of this process.

    Raises:
        Interrupted: on request; finished answers are saved.
        UsageError: a prompt does not fit into the context (then no answer was written with that model), or the server
            refuses it or a setting.
        ModelError: a model cannot be used.
        ServerError: the server does not answer.
        OutputError: an answer cannot be saved.
    """
    have = folder.read(AnswerRecord)
    todo = [task for task in tasks if task.key not in have]
    done = len(tasks) - len(todo)
    progress(done, len(tasks))
    with closing(_on_server(todo, server, parallel) if server else _here(todo, parallel, interrupt)) as records:
        for record in records:
            folder.append(record)
            done += 1
            progress(done, len(tasks))


def _here(tasks: Sequence[Task], parallel: int, interrupt: Interrupt) -> Generator[AnswerRecord, None, None]:
    for _, of_model in groupby(sorted(tasks, key=_loaded), _loaded):
        together = list(of_model)
        engine = together[0].contestant.engine
        model = Path(together[0].contestant.model.name)
        with PersonaJudge(model, engine=engine, interrupt=interrupt) as judge:
            plans = plan_tasks(judge, together)
            events: dict[int, list[TokenEvent]] = {}
            for number, answer, new in judge.write(plans, parallel):
                so_far = events.setdefault(number, [])
                so_far += new
                if answer.is_done:
                    yield _record(together[number], answer, events.pop(number), min(parallel, len(together)))


def _on_server(tasks: Sequence[Task], server: Server, parallel: int) -> Generator[AnswerRecord, None, None]:
    requests = (task.request.replace(seed=0) for task in tasks)
    for request in {repr(request): request for request in requests}.values():
        server.check_can_write(request)
        server.check(request)
    yield from as_finished(partial(_write_on_server, server, WarningLog(), min(parallel, len(tasks))), tasks, parallel)


def _write_on_server(server: Server, on_started: Callable[[Started], None], n_at_once: int, task: Task) -> AnswerRecord:
    answer = server.answer_when_free(task.request, messages=[{"role": "user", "content": task.prompt.text}])
    answer.on_started = on_started
    try:
        return _record(task, answer, list(answer), n_at_once)
    except UsageError as error:
        raise UsageError(f"prompt {task.prompt.id}: {error}") from None


def _loaded(task: Task) -> tuple[str, str]:
    """A key of the model and its engine settings.  Tasks with the same key are written together."""
    return task.contestant.model.name, repr(task.contestant.engine)


def plan_tasks(judge: PersonaJudge, tasks: Sequence[Task]) -> list[Plan]:
    """Make the plans of all tasks, so that errors appear before the first answer is written.

    Raises:
        UsageError: a prompt does not fit into the context, or a setting cannot be used.
    """
    requests = [task.request for task in tasks]
    for request in {(each.sampling, each.generation.stop_token): each for each in requests}.values():
        judge.check(request)
    plans = []
    for task in tasks:
        try:
            plans.append(judge.plan_request(task.prompt.text, task.request))
        except UsageError as error:
            raise UsageError(f"prompt {task.prompt.id}: {error}") from None
    return plans


def _record(task: Task, answer: Answer | RemoteAnswer, events: Sequence[TokenEvent], n_at_once: int) -> AnswerRecord:
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
        n_written=result.n_written,
        n_at_once=n_at_once,
    )


def _pieces(events: Sequence[TokenEvent]) -> list[list[str | None]]:
    """The answer as runs of tokens of the same kind and view, each as [text, kind, writer]."""
    answer = [event for event in events if not event.thought]
    return [
        ["".join(event.text for event in of_one), kind, writer]
        for (kind, writer), of_one in groupby(answer, lambda event: (event.kind, event.writer))
    ]
