"""The views in use on one model: made when an answer needs them, kept from answer to answer, growing as needed."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol
from weakref import WeakSet

from ..errors import UsageError
from ..settings import Engine, FixedLayout
from .adapters import Adapters
from .backend import check_process
from .context import check_memory, context_limit
from .interrupt import Interrupt
from .machine import physical_cores
from .model import Model
from .shortlist import NotNumbers
from .views import ModelViews, dealt


class Writer(Protocol):
    """What feeds views until it is closed."""

    def close(self) -> None:
        """Feed no more.  Raises UsageError where another thread feeds."""

    def end(self) -> None:
        """Feed no more, whichever thread feeds; waits for it to stop."""


_open: WeakSet[ViewPool] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Have a daemon thread that is writing an answer stop: llama.cpp crashes where the process ends meanwhile."""
    for pool in list(_open):
        with suppress(Exception):
            pool.check_open()
            pool.close()


class ViewPool:
    """Views of one model by their number: a mode of one view leaves the caches of several alone.

    In contexts of their own, more views or fewer take over what those in use have read, which are freed.  Where either
    live in one batch, both are kept: llama.cpp hands no sequence's memory to a context with another number of them.

    Args:
        model: stays open when this is closed.
        interrupt: stops a decode under way.
    """

    def __init__(self, model: Model, engine: Engine, interrupt: Interrupt) -> None:
        self.model = model
        self.engine = engine
        self.interrupt = interrupt
        self.context_limit = context_limit(model, engine)
        self._views: dict[int, ModelViews] = {}
        self._writer: Writer | None = None
        _open.add(self)
        self._opening = threading.Lock()  # guards what follows and the writer, where another thread closes
        self.meanwhile: Callable[[], bool] | None = None  # see `ModelViews`
        self.closed = False

    def close(self) -> None:
        """End the answer being written, in whichever thread, then free the contexts."""
        with self._opening:
            self.closed = True
            writer = self._writer
        if writer:
            with self.interrupt.stopping():
                writer.end()
        self._free()

    def _free(self) -> None:
        """Free the contexts with all that they have read."""
        for views in self._views.values():
            views.close()
        self._views.clear()

    def check_open(self) -> None:
        """Refuse to answer.

        Raises:
            UsageError: the pool is closed.
            ModelError: llama.cpp cannot be used in this process.
        """
        check_process()
        if self.closed:
            raise UsageError("this PersonaJudge is closed: make another")

    @contextmanager
    def writing(self, writer: Writer) -> Iterator[None]:
        """While this one feeds the views.  One that was left unfinished ends: both would write into the same caches.

        Raises:
            UsageError: the pool is closed, or another thread is writing.
        """
        self.check_open()
        if self._writer:
            self._writer.close()
        with self._opening:
            self.check_open()
            self._writer = writer
        try:
            yield
        except NotNumbers:
            self._free()
            raise
        finally:
            self._writer = None

    def views(
        self,
        n_views: int,
        n_ctx: int,
        prompts: Sequence[Sequence[int]] = (),
        adapters: Sequence[Adapters] = (),
        n_rows: int = 1,
    ) -> ModelViews:
        """Views with these adapters, room for ``n_ctx`` tokens each, and for logits behind ``n_rows`` fed at a time.

        Those in use are kept when they are large enough.  Else they make room for twice as many tokens, and keep what
        they have read: a conversation that grows is not read again.  Where those of another number are taken over, each
        gets the cache that holds most of its prompt.

        Raises:
            ModelError: there is not enough memory, or an adapter cannot be loaded.
            UsageError: views with other adapters are asked for in one batch.
        """
        apart = len(set(adapters)) > 1
        self._make_way(n_views, adapters, apart)
        views = self._large_enough(n_views, n_ctx, prompts, apart, n_rows)
        views.adapters = [*adapters] or [Adapters()] * n_views
        views.meanwhile = self.meanwhile
        return views

    def _make_way(self, n_views: int, adapters: Sequence[Adapters], apart: bool) -> None:
        """Load the adapters, and free the contexts that cannot have them."""
        layout = self.layout(n_views, apart)
        missing = [file for each in adapters for file, _ in each.loras if not self.model.has_lora(file)]
        for n, views in list(self._views.items()):
            if missing or (n == n_views and apart and views.layout != layout):  # they must be there before contexts are
                self.in_use(n)
                del self._views[n]
                views.close()
        for file in missing:
            self.model.lora(file)

    def _large_enough(
        self, n_views: int, n_ctx: int, prompts: Sequence[Sequence[int]], apart: bool, n_rows: int
    ) -> ModelViews:
        views = self.in_use(n_views)
        if views and views.n_ctx >= n_ctx and views.n_rows >= n_rows:
            return views
        before = views or self._several(n_views)
        room = before.n_ctx if before else 0
        if views:
            n_rows = max(n_rows, views.n_rows)
            room *= 2 if views.n_ctx < n_ctx else 1
        most = max(self.context_limit, n_ctx)
        n_ctx = min(-(-max(n_ctx, room) // 256) * 256, most)
        check_memory(self.model, self.engine, n_views, n_ctx)
        states = before.state() if before else []
        if before:
            del self._views[before.n_views]
            before.close()
        layout = self.layout(n_views, apart)
        made = ModelViews(self.model, self.engine, n_views, n_ctx, layout, self.interrupt, n_rows)
        self._views[n_views] = made
        made.restore(states if views else dealt(states, prompts))
        return made

    def _several(self, n_views: int) -> ModelViews | None:
        """The views in use of which so many others take over the caches."""
        if n_views == 1 or self.layout(n_views) != "contexts":
            return None
        return next((self.in_use(n) for n, views in self._views.items() if n > 1 and views.layout == "contexts"), None)

    @property
    def living(self) -> dict[int, FixedLayout]:
        """The layout of the views in use, by how many they are; not of a single one."""
        return {n: views.layout for n, views in sorted(self._views.items()) if n > 1}

    def in_use(self, n_views: int) -> ModelViews | None:
        """The views of that number, where an answer has needed them; done with what it fed last."""
        views = self._views.get(n_views)
        if views:
            with suppress(Exception):  # of an answer that was left, was stopped or has failed, and has told so
                views.wait()
        return views

    def layout(self, n_views: int, apart: bool = False) -> FixedLayout:
        """The layout of ``n_views`` views.

        ``auto`` is contexts where a CPU decodes two views with one thread each: no thread waits for another then, which
        is 12 to 29 % faster on 2 cores.  Elsewhere it is one batch, which reads the weights once.

        Views with adapters of their own stand ``apart``, in contexts: llama.cpp puts adapters on a whole context.

        More than two contexts need a core each to decode side by side: on 2 cores, three views of SmolLM2 take 22 ms a
        step in contexts and 15 in one batch.
        """
        wanted = self.engine.layout
        n_threads = self.engine.n_threads or physical_cores()
        if apart:
            if wanted == "batched":
                raise UsageError(
                    "an adapter of one view (--lora-a, --control-vector-a, ...) changes a whole context, and in one "
                    "batch all views share it: use --layout contexts"
                )
            return "contexts"
        if wanted == "auto":
            a_thread_each = n_views == n_threads == 2 and not self.model.offload.n_gpu_layers
            return "contexts" if a_thread_each else "batched"
        return "batched" if n_views > max(2, n_threads) else wanted
