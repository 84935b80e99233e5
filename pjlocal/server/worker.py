"""The one thread that has the model: takes orders, writes all answers side by side, and tells of every token."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..answer import Answer
from ..engine.engine import Writing
from ..engine.interrupt import Interrupt
from ..errors import PjlocalError, UsageError
from ..events import Result, TokenEvent
from ..prompting.prompt import Message
from ..request import Request
from .metrics import Metrics
from .near import Head, Step
from .planner import Planner
from .resident import Planned, Resident, Single, Talk, Token, TokenLogProbs

_STOPPING = "the server is stopping"


class Busy(PjlocalError):
    """Every place is taken, those to wait in too."""


class Stopping(PjlocalError):
    """The server takes no more orders, and ends those it has."""


@dataclass(frozen=True)
class Done:
    """An answer's end."""

    result: Result


#: What is told of an order: tokens, then its end, or what went wrong.
Told = Sequence[Token] | Done | Exception


@dataclass(eq=False)
class Order:
    """An answer that a client wants.

    said: the conversation; or a text that is to go on.
    top: alternatives to tell for each token; None for no probabilities.
    shortens: whether the oldest exchanges are left out where not all fits.
    tell: is called in the worker's thread, and must neither wait nor raise.
    """

    request: Request
    said: Sequence[Message] | str
    top: int | None
    tell: Callable[[Told], None]
    shortens: bool = False
    came: float = field(default_factory=time.monotonic)
    planned: Planned | None = None
    log_probs: TokenLogProbs | None = None
    answer: Answer | None = None
    begun: bool = False  # to tell of tokens


@dataclass(eq=False)
class SingleOrder:
    """An answer that is wanted exactly as `pjlocal run` and `pjlocal chat` write it.

    tell: as an `Order`'s; first the head, then tokens.
    """

    request: Request
    said: Sequence[Message] | str
    talk: Talk
    tell: Callable[[Head | Step | Done | Exception], None]
    came: float = field(default_factory=time.monotonic)
    single: Single | None = None
    begun: bool = False  # to tell of tokens


AnyOrder = Order | SingleOrder


class Worker:
    """Writes the orders' answers; everything but `load` may be called from any thread.

    Args:
        load: brings the model into memory.
        places: orders that are written or wait, at most.
        unload_after: seconds without an order after which the model leaves the memory; None keeps it.
        interrupt: stops what is under way; `load` heeds it too.
    """

    def __init__(
        self,
        load: Callable[[], Resident],
        places: int,
        unload_after: float | None,
        interrupt: Interrupt,
        metrics: Metrics,
    ) -> None:
        self.places = places
        self._load = load
        self._unload_after = unload_after
        self._interrupt = interrupt
        self._metrics = metrics
        self._resident: Resident | None = None
        self._changed = threading.Condition()  # guards what follows
        self._coming: deque[AnyOrder] = deque()
        self._gone: deque[AnyOrder] = deque()
        self._wanted: set[AnyOrder] = set()  # all that are not at their end
        self._planned: deque[tuple[AnyOrder, Planned | Single | Exception]] = deque()
        self._left: deque[Talk] = deque()
        self._stopping = False
        self._orders: dict[Writing, Order] = {}  # planned, of this thread alone
        self._singles: list[SingleOrder] = []  # as well
        self._fault: Exception | None = None  # that nobody foresaw: the context may be in any state
        self._planning: set[AnyOrder] = set()  # what the planner has, and is still wanted
        self._talks: set[Talk] = set()  # that may have contexts
        self._planner = Planner()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pjlocal-serve")

    def load(self) -> Resident:
        """Bring the model into memory before the first order.  Raises what loading raises."""
        self._resident = self._load()
        self._metrics.loaded.set(1)
        return self._resident

    def start(self) -> None:
        self._planner.start()
        self._thread.start()

    def submit(self, orders: Sequence[AnyOrder]) -> None:
        """Write them when their turn has come: all of them, or none.

        Raises:
            UsageError: there will never be as many places.
            Busy: there are not now.
            Stopping: nothing is written any more.
        """
        if len(orders) > self.places:
            raise UsageError(f"{len(orders)} answers are more than the {self.places} that the server has places for")
        with self._changed:
            if self._stopping:
                raise Stopping(_STOPPING)
            if len(self._wanted) + len(orders) > self.places:
                raise Busy(f"the server is busy: {len(self._wanted)} answers are written or wait. Try again soon")
            self._wanted |= set(orders)
            self._metrics.orders.set(len(self._wanted))
            self._coming += orders
            self._changed.notify()

    def cancel(self, orders: Sequence[AnyOrder]) -> None:
        """Write no more of them; their places are free before the next token is read."""
        _interrupt(orders)
        with self._changed:
            self._gone += orders
            self._changed.notify()

    def leave(self, talk: Talk) -> None:
        """Nobody talks there any more: free what is kept for it."""
        with self._changed:
            self._left.append(talk)
            self._changed.notify()

    def stop(self, patience: float) -> None:
        """Take no more orders, and stop what is not written after so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if patience:
            timer = threading.Timer(patience, self._interrupt_all)
            timer.daemon = True
            timer.start()
        else:
            self._interrupt_all()

    def _interrupt_all(self) -> None:
        self._interrupt.set()
        with self._changed:
            _interrupt(self._wanted)

    @property
    def alive(self) -> bool:
        """Whether orders are taken."""
        return self._thread.is_alive() and not self._stopping

    def join(self, timeout: float) -> None:
        """Wait until all is written and the model is gone."""
        self._thread.join(timeout)

    # In the thread.

    def _run(self) -> None:
        try:
            self._work()
        finally:  # where it ends by something that nobody foresaw too
            with self._changed:
                self._stopping = True
                left = list(self._wanted)
            for order in left:
                self._end(order, Stopping(_STOPPING))
            self._unload()
            self._planner.end()

    def _work(self) -> None:
        """Until it shall stop and nothing is left."""
        while True:
            with self._changed:
                idles = self._resident and not self._planning
                awake = self._changed.wait_for(self._has_work, self._unload_after if idles else None)
            if not awake:
                self._unload()
                continue
            self._look()
            if self._orders:
                self._step()
            for single in list(self._singles):
                if single.single and not self._fault:
                    self._step_alone(single)
            if self._fault:
                self._fail_all(self._fault)
            if self._stopping and not (self._planning or self._orders or self._singles):
                return

    def _look(self) -> None:
        """Take note of what has come from other threads."""
        with self._changed:
            coming, gone, planned = list(self._coming), list(self._gone), list(self._planned)
            left = list(self._left)
            for queue in (self._coming, self._gone, self._planned, self._left):
                queue.clear()
        for order in coming:
            self._begin(order)
        for order in gone:
            self._drop(order)
        for order, made in planned:
            self._take(order, made)
        for talk in left:
            talk.left = True
            self._forget(talk)

    def _has_work(self) -> bool:
        to_do = self._coming or self._gone or self._planned or self._left or self._orders or self._singles
        return bool(to_do or (self._stopping and not self._planning))

    def _begin(self, order: AnyOrder) -> None:
        """Have an answer planned."""
        try:
            resident = self._resident or self.load()
        except Exception as error:
            self._end(order, error)
            return
        if isinstance(order, SingleOrder):
            self._talks.add(order.talk)
            order.talk.n_planning += 1
            self._plan(order, partial(resident.single, order.request, order.said, order.talk))
        else:
            self._plan(order, partial(resident.planned, order.request, order.said, order.shortens))

    def _plan(self, order: AnyOrder, make: Callable[[], Planned | Single]) -> None:
        def take(made: Planned | Single | Exception) -> None:
            with self._changed:
                self._planned.append((order, made))
                self._changed.notify()

        self._planning.add(order)
        self._planner.submit(make, take)

    def _take(self, order: AnyOrder, made: Planned | Single | Exception) -> None:
        """Have an answer written that is planned, where it is still wanted."""
        if isinstance(order, SingleOrder):
            order.talk.n_planning -= 1
            self._forget(order.talk)
        if order not in self._planning:
            return
        self._planning.remove(order)
        try:
            if isinstance(made, Exception):
                raise made
            if isinstance(order, SingleOrder):
                assert isinstance(made, Single)
                order.single = made
                self._singles.append(order)
            else:
                assert isinstance(made, Planned) and self._resident
                self._write(self._resident, order, made)
        except Exception as error:
            self._end(order, error)

    def _write(self, resident: Resident, order: Order, planned: Planned) -> None:
        if order.top is not None:
            ignore_end = planned.plan.request.generation.ignore_end
            order.log_probs = TokenLogProbs(resident.model, order.top, ignore_end)
        answer = planned.judge.answer(planned.plan, resident.engine, order.log_probs)
        resident.engine.submit(answer)
        order.planned, order.answer = planned, answer
        self._orders[answer] = order

    def _drop(self, order: AnyOrder) -> None:
        """Write no more of it, where it is not at its end."""
        if isinstance(order, Order) and order.answer and self._resident:
            self._resident.engine.cancel(order.answer)
        if order in self._wanted:
            self._end(order, None)

    def _step(self) -> None:
        """One more token of every answer that has a seat."""
        assert self._resident
        engine = self._resident.engine
        n_fed, n_decodes = engine.lanes.n_fed, engine.lanes.n_decodes
        try:
            told = engine.step(others_wait=bool(self._singles))
        except Exception as error:
            self._fault = error
            return
        self._metrics.fed.inc(engine.lanes.n_fed - n_fed)
        self._metrics.decodes.inc(engine.lanes.n_decodes - n_decodes)
        for answer, events in told:
            order = self._orders[answer]
            if events:
                self._tell(order, events)
            if answer.is_done:
                self._finish(order)

    def _fail_all(self, fault: Exception) -> None:
        """End all answers in hand, and begin the next with the model loaded anew."""
        in_hand: list[AnyOrder] = [*self._orders.values(), *self._singles, *self._planning]
        for order in in_hand:
            self._end(order, fault)
        self._unload()
        self._fault = None

    def _step_alone(self, order: SingleOrder) -> None:
        """One more token of an answer that is written by itself, or a piece of its prompt."""
        assert order.single
        single = order.single
        try:
            steps = single.step(others_wait=bool(self._orders) or len(self._singles) > 1)
        except Exception as error:
            self._end(order, error)
            return
        if (single.has_begun or single.is_done) and not order.begun:
            order.begun = True
            self._metrics.first_token.observe(time.monotonic() - order.came)
            order.tell(single.head)
        for step in steps:
            order.tell(step)
        if single.is_done:
            fed, decodes = single.work
            self._metrics.fed.inc(fed)
            self._metrics.decodes.inc(decodes)
            self._metrics.count(single.result, 0)
            self._end(order, Done(single.result))

    def _tell(self, order: Order, events: Sequence[TokenEvent]) -> None:
        if not order.begun:
            self._metrics.first_token.observe(time.monotonic() - order.came)
        order.begun = True
        order.tell(order.log_probs.take(events) if order.log_probs else list(map(Token, events)))

    def _finish(self, order: Order) -> None:
        answer = order.answer
        assert answer
        if answer.error:
            self._end(order, answer.error)
            return
        self._metrics.count(answer.result, answer.n_held)
        self._end(order, Done(answer.result))

    def _end(self, order: AnyOrder, told: Done | Exception | None) -> None:
        """Give its place to others; None where nobody is there any more to be told."""
        self._planning.discard(order)
        if isinstance(order, SingleOrder):
            self._close(order)
        elif order.answer:
            del self._orders[order.answer]
            order.answer = None
        with self._changed:
            self._wanted.discard(order)
            self._metrics.orders.set(len(self._wanted))
        self._metrics.ended(_how(told))
        if told is not None:
            order.tell(told)

    def _close(self, order: SingleOrder) -> None:
        if order.single:
            self._singles.remove(order)
            order.single.close()
            order.single = None

    def _forget(self, talk: Talk) -> None:
        """Free what is kept for a talk that was left, where nothing is being planned on it."""
        if talk.left and not talk.n_planning:
            talk.close()
            self._talks.discard(talk)

    def _unload(self) -> None:
        if self._resident:
            self._planner.wait()  # which may be using it for what nobody wants any more
            self._metrics.loaded.set(0)
            for talk in self._talks:
                talk.close()
            self._resident.close()
            self._resident = None


def _interrupt(orders: Iterable[AnyOrder]) -> None:
    for order in orders:
        if isinstance(order, SingleOrder):
            order.talk.interrupt.set()


def _how(told: Done | Exception | None) -> str:
    """How an answer ended, in a word."""
    if isinstance(told, Done):
        return told.result.finish_reason
    return "cancelled" if told is None else "error"
