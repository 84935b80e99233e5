"""A model in one thread that writes submitted answers side by side, and saves those of chats."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from ..answer import ViewTokens
from ..engine.engine import Submission
from ..engine.interrupt import Interrupt
from ..engine.log_probs import TokenLogProbs
from ..errors import NoRoom, PjlocalError
from ..events import Result, Started, TokenEvent
from ..gguf.sampling import model_defaults_in_words
from ..prompting.tools import CallSupport
from ..sessions.asking import turn_settings
from ..sessions.faults import RemovedError, StoreError
from ..sessions.recorder import Recorder, Recording
from ..sessions.store import Store
from .jobs import Busy, Checked, Job, PreparedRequest, SavedTurn, Stopping, Token
from .loaded import LoadedModel
from .metrics import Metrics

log = logging.getLogger("pjlocal")

_STOPPING = "the server is stopping"


class Service:
    """Writes the answers of jobs.  Every method is callable from any thread.

    Two threads do the work.  One runs the engine.  The other prepares requests, because a template or a long text takes
    time, and running answers must not wait for it.

    Args:
        load: loads the model; the given interrupt stops its engine.
        places: the most jobs that are written or wait.
        unload_after: seconds without a job after which the model is unloaded; None keeps it loaded.
        interrupt: stops loading and preparing.
    """

    def __init__(
        self,
        load: Callable[[Interrupt], LoadedModel],
        places: int,
        unload_after: float | None,
        interrupt: Interrupt,
        metrics: Metrics | None = None,
    ) -> None:
        self.places = places
        self._load = load
        self._unload_after = unload_after
        self._interrupt = interrupt
        self._stop_engine = Interrupt()
        self._metrics = metrics or Metrics()
        self._model: LoadedModel | None = None
        #: How the chat template shows functions and writes calls; known after the first load.
        self.call_support = CallSupport()
        self._changed = threading.Condition()  # guards the fields below
        self._unfinished: set[Job] = set()  # jobs that have not ended
        self._calls: list[Callable[[], None]] = []  # for the engine's thread, in order
        self._only_job: Job | None = None  # the only job that the engine decodes for
        self._is_stopping = self._stops_now = False
        # Used only in the engine's thread:
        self._preparing: set[Job] = set()
        self._writing: dict[Submission, Job] = {}
        self._to_prepare: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._preparer = threading.Thread(target=self._prepare_all, daemon=True, name="pjlocal-prepare")
        self._thread = threading.Thread(target=self._run, daemon=True, name="pjlocal-service")

    def load(self) -> LoadedModel:
        """Load the model before the first job.  Raises the errors of loading."""
        self._model = self._load(self._stop_engine)
        self.call_support = self._model.judge.template.call_support
        self._metrics.loaded(True)
        return self._model

    def start(self) -> None:
        self._preparer.start()
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs: all of them, or none.

        Raises:
            NoRoom: the service can never write so many answers, or answers with so many views.
            UsageError: the preferences exclude each other.
            Busy: too few places are free now.
            Stopping: the service is ending.
        """
        self._check_places(n := sum(job.n_answers for job in jobs))
        for job in jobs:
            if not job.text:
                self._check_places(job.roles.n_answers)  # also of a request that is only checked
                if model := self._model:
                    model.check_room(job.roles)
        with self._changed:
            if self._is_stopping:
                raise Stopping(_STOPPING)
            n_unfinished = sum(job.n_answers for job in self._unfinished)
            if n_unfinished + n > self.places:
                raise Busy(f"the server is busy: {n_unfinished} answers are being written or waiting. Try again soon")
            self._unfinished |= set(jobs)
            self._metrics.jobs(len(self._unfinished))
            self._calls += [partial(self._begin, job) for job in jobs]
            self._changed.notify()

    def _check_places(self, n_answers: int) -> None:
        if n_answers > self.places:
            raise NoRoom(
                f"the server takes at most {self.places} answers at once (not {n_answers}): ask for fewer, or start it "
                "with a larger --queue"
            )

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs without further news.  Their places are free before the next token is decoded."""
        for job in jobs:
            job.is_cancelled = True
        self._enqueue(self._cancel, jobs)

    def stop(self, jobs: Sequence[Job]) -> None:
        """End jobs as interrupted."""
        self._enqueue(self._interrupt_job, jobs)

    def _enqueue(self, call: Callable[[Job], None], jobs: Sequence[Job]) -> None:
        with self._changed:
            self._calls += [partial(call, job) for job in jobs]
            if self._only_job in jobs:
                self._stop_engine.set()
            self._changed.notify()

    def progress(self, job: Job) -> str:
        """A line about the work before a job's first event, such as "read 512 of 900" tokens; empty without any."""
        model, answer = self._model, job.answer
        if model is None or answer is None:
            return ""
        reading = model.engine.reading(answer)
        return answer.progress or ("read {} of {}".format(*reading) if reading else "")

    def end(self, patience: float) -> None:
        """Take no more jobs, and interrupt those that are unfinished after ``patience`` seconds."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if patience:
            timer = threading.Timer(patience, self._stop_now)
            timer.daemon = True
            timer.start()
        else:
            self._stop_now()

    def _stop_now(self) -> None:
        self._interrupt.set()
        with self._changed:
            self._stops_now = True
            self._stop_engine.set()

    @property
    def is_open(self) -> bool:
        """True if the service takes jobs."""
        return self._thread.is_alive() and not self._is_stopping

    def join(self, timeout: float) -> None:
        """Wait until all jobs have ended and the model is unloaded."""
        self._thread.join(timeout)

    # The thread that prepares requests.

    def _prepare_all(self) -> None:
        while work := self._to_prepare.get():
            work()

    def _prepare(self, model: LoadedModel, job: Job) -> None:
        if job.is_cancelled:
            return  # its place is free, and nobody waits for it
        prepared: PreparedRequest | Checked | Exception
        try:
            if job.text:
                prepared = Checked(model.count(job.text))
            elif job.prompt is None:
                model.check(job)
                prepared = Checked()
            else:
                prepared = model.prepare(job)
        except Exception as error:
            prepared = error
        except BaseException as error:  # it would end the thread, and all other jobs would wait for ever
            prepared = PjlocalError(f"preparing ended: {error!r}")
        with self._changed:
            self._calls.append(partial(self._receive, job, prepared))
            self._changed.notify()

    def _wait_for_preparer(self) -> None:
        done = threading.Event()
        self._to_prepare.put(done.set)
        done.wait()

    # The thread that runs the engine.

    def _run(self) -> None:
        try:
            self._work()
        finally:  # also after an unforeseen error
            with self._changed:
                self._is_stopping = True
                left = list(self._unfinished)
            for job in left:
                self._end(job, Stopping(_STOPPING))
            self._unload()
            self._to_prepare.put(None)

    def _work(self) -> None:
        """Write answers until the service is stopped and no job is left."""
        while True:
            with self._changed:
                idles = self._model and not self._preparing
                awake = self._changed.wait_for(self._has_work, self._unload_after if idles else None)
                calls, self._calls = self._calls, []
            if not awake:
                self._unload()
                continue
            for call in calls:
                call()
            if self._writing:
                self._step()
            if self._is_stopping and not (self._preparing or self._writing):
                return

    def _has_work(self) -> bool:
        return bool(self._calls or self._writing or (self._is_stopping and not self._preparing))

    def _begin(self, job: Job) -> None:
        """Give a request to the preparing thread."""
        try:
            model = self._model or self.load()
        except Exception as error:
            self._end(job, error)
            return
        self._preparing.add(job)
        self._to_prepare.put(lambda: self._prepare(model, job))

    def _receive(self, job: Job, prepared: PreparedRequest | Checked | Exception) -> None:
        """Start writing a prepared answer, unless its job was cancelled."""
        if job not in self._preparing:
            return
        self._preparing.remove(job)
        if not isinstance(prepared, PreparedRequest):
            self._end(job, prepared)
            return
        try:
            self._write(job, prepared)
        except Exception as error:
            self._end(job, error)

    def _write(self, job: Job, prepared: PreparedRequest) -> None:
        assert self._model
        self._model.engine.submit(prepared.answer)
        job.prepared, job.answer = prepared, prepared.answer
        self._writing[prepared.answer] = job
        if job.is_stopped:
            self._interrupt_job(job)

    def _cancel(self, job: Job) -> None:
        if job.answer and self._model:
            self._model.engine.cancel(job.answer)
        if job in self._unfinished:
            self._end(job, None)

    def _interrupt_job(self, job: Job) -> None:
        """End a job as interrupted.  The next engine step removes an answer that is being written."""
        job.is_stopped = True
        if not job.answer or not self._model:
            return
        job.answer.interrupt()
        if not self._model.engine.is_in_flight(job.answer):
            self._model.engine.cancel(job.answer)
            self._take(job, job.answer.publish([]))

    def _step(self) -> None:
        """Write one more token of every answer that has a slot."""
        assert self._model
        engine = self._model.engine
        n_fed, n_decodes = engine.lanes.n_fed, engine.lanes.n_decodes
        with self._changed:
            if self._calls:
                return
            self._only_job = next(iter(self._writing.values())) if len(self._writing) == 1 else None
        try:
            news = engine.step()
        except Exception as error:  # unforeseen: the contexts may be in any state
            self._fail_all(error)
            return
        finally:
            with self._changed:
                self._only_job = None
                if not self._stops_now:
                    self._stop_engine.clear()
        self._metrics.decoded(engine.lanes.n_fed - n_fed, engine.lanes.n_decodes - n_decodes)
        for answer, events in news:
            job = self._writing[answer]
            if job.is_cancelled and not job.recording:  # during the step
                self._cancel(job)
            else:
                self._take(job, events)

    def _take(self, job: Job, events: Sequence[TokenEvent]) -> None:
        """Emit the new events of a job's answer, and its result if it is done."""
        answer = job.answer
        assert answer and self._model
        try:
            if events:
                self._emit_tokens(job, events)
            if job.is_cancelled:
                self._cancel(job)
            elif answer.is_done:
                self._finish(job)
        except Exception as error:  # the turn cannot be saved
            self._model.engine.cancel(answer)
            self._end(job, error)

    def _fail_all(self, fault: Exception) -> None:
        """End all current answers, and unload the model: the next job loads it again."""
        for job in [*self._writing.values(), *self._preparing]:
            self._end(job, fault)
        self._unload()

    def _emit_tokens(self, job: Job, events: Sequence[TokenEvent]) -> None:
        """Emit tokens, after saving them."""
        assert job.answer
        if not job.has_started:
            self._metrics.started(time.monotonic() - job.arrived)
            if job.saved:
                self._record(job, job.saved)
            self._start(job)
        statistics = replace(job.answer.statistics, pushed=dict(job.answer.statistics.pushed))
        observer = job.answer.observer
        log_probs = observer if isinstance(observer, TokenLogProbs) else None
        if job.recording:
            for event in events:
                job.recording.add(event)
        n_given = job.answer.n_given
        n_shown = len(events)  # without the tokens of a stop string, or a stop token
        while job.answer.finish_reason == "stop" and n_shown and not events[n_shown - 1].text:
            n_shown -= 1
        alternatives = observer.alternatives if isinstance(observer, ViewTokens) else ()
        job.emit(
            [
                Token(
                    event,
                    statistics,
                    log_probs.take(event.position - n_given) if log_probs and number < n_shown else None,
                    alternatives,
                )
                for number, event in enumerate(events)
            ]
        )

    def _start(self, job: Job) -> None:
        """Emit the facts about an answer, before its first token."""
        job.has_started = True
        assert job.prepared and job.answer and self._model
        answer, prepared = job.answer, job.prepared
        saved = job.saved if job.recording else None
        job.emit(
            Started(
                mode=answer.mode,
                labels=answer.labels,
                pushing=answer.pushing,
                preferences=answer.plan.roles.preferences,
                strengths=answer.plan.roles.strengths,
                seed=answer.seed,
                followed_sampling=model_defaults_in_words(prepared.request.sampling, self._model.judge.recommended),
                placed=self._model.judge.placed,
                warnings=prepared.warnings,
                first=prepared.first,
                layout=answer.layout,
                request=prepared.request.as_dict(),
                chat=saved.session.id if saved else None,
                turn=saved.turn.id if saved else None,
                title=saved.session.title if saved else None,
                drafted=tuple(answer.drafted),
                model=self._model.model.name,
            )
        )

    def _record(self, job: Job, saved: SavedTurn) -> None:
        """Begin to save a turn."""
        assert job.prepared and job.answer
        roles, request = job.answer.plan.roles, job.prepared.request
        request = request.with_group(request.generation.replace(seed=saved.seed))
        settings = {"model": saved.model.lasting, **request.as_dict()}
        saved.turn.settings = turn_settings(settings, request, roles, saved.model.file, job.answer.seed)
        job.store = Store()
        recorder = Recorder(job.store, saved.session, None)
        job.recording = Recording(recorder, saved.turn, saved.replacing, keep=saved.keep)
        job.recording.begin(settings)

    def _finish(self, job: Job) -> None:
        answer = job.answer
        assert answer
        if answer.error:
            self._end(job, answer.error)
            return
        self._metrics.wrote(answer.result, answer.n_held)
        if not job.has_started:
            self._start(job)
        self._save_end(job)
        self._end(job, answer.result)

    def _save_end(self, job: Job) -> None:
        """Save the end of a turn.  A turn without a token was not saved."""
        recording, job.recording = job.recording, None
        try:
            if recording and job.answer:
                for event in job.answer.parts[0].release():  # those of a cancelled answer
                    recording.add(event)
                recording.finish(job.answer.result)
        finally:
            if job.store:
                job.store.close()
                job.store = None

    def _end(self, job: Job, news: Result | Checked | Exception | None) -> None:
        """End a job, which frees its place, and emit the news, unless it is None."""
        try:
            self._save_end(job)
        except RemovedError:
            pass  # the user removed the chat and with it this answer
        except PjlocalError as error:
            if not isinstance(news, StoreError):  # else the news report it
                log.error("%s", error)
        self._preparing.discard(job)
        if job.answer:
            self._writing.pop(job.answer, None)
        job.answer = job.prepared = None
        self._metrics.ended(_outcome(news))  # first: with no answer left, all are counted
        with self._changed:
            self._unfinished.discard(job)
            self._metrics.jobs(len(self._unfinished))
        if news is not None:
            job.emit(news)

    def _unload(self) -> None:
        if self._model:
            self._wait_for_preparer()  # it may still use the model for a cancelled job
            self._metrics.loaded(False)
            self._model.close()
            self._model = None


def _outcome(news: Result | Checked | Exception | None) -> str:
    """The outcome of a job, as a word for the metrics."""
    if isinstance(news, Result):
        return news.finish_reason
    if isinstance(news, Checked):
        return "checked"
    return "cancelled" if news is None else "error"
