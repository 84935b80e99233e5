"""A `PersonaJudge` whose answers a server of the same user writes: it has the model in memory already (see `near`).

Only the vocabulary is loaded here: prompts are made and counted with it, so a chat is in all else as it would be with
the model.  What no server writes, and what it no longer can, the model writes, loaded here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..answer import Answer, Observer
from ..engine.engine import Engine as Decoder
from ..engine.interrupt import Interrupt, Interrupted
from ..engine.model import Model
from ..errors import ModelError
from ..events import Result, Statistics, TokenEvent
from ..gguf.fit import Offload
from ..gguf.locate import find_model
from ..persona import PersonaJudge
from ..prompting.plan import Plan
from ..request import Request
from ..settings import Engine, FixedLayout, Sampling
from .near import Gone, Lost, Talk, connect, kept_from_servers

log = logging.getLogger("pjlocal")

_ALL_FILTERS = frozenset(f.name for f in fields(Sampling))


def make_judge(model: str | None, *, server: bool, engine: Engine, interrupt: Interrupt, **others: Any) -> PersonaJudge:
    """A judge on a model by name: one whose answers a server writes where there is one and it may, else with the model.

    Raises what `PersonaJudge` raises.
    """
    if server:
        try:
            path = find_model(model)
        except ModelError:  # which is told where it is loaded, after what else may be wrong
            path = None
        talk = path and connect(path, engine, interrupt)
        if path and talk:
            try:
                return ServedJudge(talk, path, engine=engine, interrupt=interrupt, **others)
            except Lost:
                talk.close()
            except BaseException:
                talk.close()
                raise
    return PersonaJudge(model, engine=engine, interrupt=interrupt, **others)


class ServedJudge(PersonaJudge):
    """A judge on a server's model.

    Args:
        talk: is closed with it.
        path: the model file.
        others: what else `PersonaJudge` takes.

    Raises:
        Lost: the server is gone.
    """

    def __init__(self, talk: Talk, path: Path, *, engine: Engine, interrupt: Interrupt, **others: Any) -> None:
        about = talk.about()
        self._talk: Talk | None = talk
        self._answer: ServedAnswer | None = None  # the last one
        self._layouts: dict[int, FixedLayout] = {}
        self._vocabulary = Model(path, engine, interrupt, trusted=True, vocab_only=True)
        self._vocabulary.offload = Offload(**about.offload)
        self._vocabulary.description = about.description
        try:
            super().__init__(self._vocabulary, engine=engine, interrupt=interrupt, **others)
        except BaseException:
            self._vocabulary.close()
            raise
        self.decoder.lanes.context_limit = about.context_limit

    @property
    def served(self) -> bool:  # type: ignore[override]
        return self._talk is not None

    @property
    def layouts(self) -> dict[int, FixedLayout]:
        return self._layouts if self._talk else super().layouts

    def close(self) -> None:
        """Hang up, and free what is in memory here."""
        if self._talk:
            self._talk.close()
        super().close()
        if self.model is not self._vocabulary:
            self.model.close()
        self._vocabulary.close()

    def answer(self, plan: Plan, engine: Decoder | None = None, observer: Observer | None = None) -> Answer:
        """The answer that was planned, token by token.  Raises what `PersonaJudge.answer` does."""
        if self._talk:
            try:
                return self._served(plan)
            except Lost as lost:
                self._load(str(lost))
        return super().answer(plan, engine, observer)

    def _served(self, plan: Plan) -> Answer:
        """Raises Lost: no server writes it."""
        if why := kept_from_servers(plan.request):
            raise Lost(why)
        if self._answer:
            self._answer.close()
        answer = ServedAnswer(self.decoder, plan, self.load_s)
        # The filters are settled here: the server must not take others from the model's file.
        request = replace(plan.request.replace(seed=answer.seed), explicit=_ALL_FILTERS)
        assert self._talk and self._file
        try:
            answer.ask(self._talk, request, self._layouts)
        except Lost:  # it may have been started anew meanwhile
            self._talk.close()
            talk = connect(self._file, self.engine, self.interrupt)
            if talk is None:
                raise Lost("the server is gone") from None
            self._talk = talk
            try:
                answer.ask(talk, request, self._layouts)
            except Gone:
                raise Lost("the server does not answer") from None
        self._answer = answer
        return answer

    def _load(self, why: str) -> None:
        """Have the model here from now on."""
        log.warning("the model is loaded here: %s", why)
        assert self._talk and self._file
        self._talk.close()
        self.model = Model(self._file, self.engine, self.interrupt)  # else the next answer tries all again
        self._talk = None
        self.decoder.close()
        self.decoder = Decoder(self.model, self.engine, self.interrupt)


class ServedAnswer(Answer):
    """An answer that a server writes."""

    _talk: Talk | None = None
    _living: dict[int, FixedLayout] | None = None

    def ask(self, talk: Talk, request: Request, living: dict[int, FixedLayout]) -> None:
        """Have it written, and ``living`` told where its views lived.

        Raises:
            Lost: the server does not write it.
        """
        talk.ask(request, self.plan.conversation)
        self._talk, self._layouts = talk, living

    def _run(self) -> Generator[TokenEvent]:
        talk = self._talk
        assert talk
        with self.engine.writing(self):
            self._thread = threading.get_ident()
            try:
                for said in talk.said():
                    if "so_far" in said:
                        self.statistics = Statistics(**said["so_far"])
                    if "event" in said:
                        event = TokenEvent.from_dict(said["event"])
                        self._texts.append(event.text)
                        yield event
                    if "result" in said:
                        self._end(talk, Result.from_whole(said["result"]))
            except Interrupted:
                self.finish_reason = "interrupted"
            except GeneratorExit:  # what still comes of it must not be taken for the next one's
                talk.leave()
                raise
            except Lost as lost:
                talk.close()
                raise Gone(f"{str(lost).partition(':')[0]}: /regen asks again") from None

    def _end(self, talk: Talk, result: Result) -> None:
        self.statistics, self.layout = result.statistics, result.layout
        if result.layout and self._layouts is not None:
            self._layouts[len(self.plan.prompts)] = result.layout
        talk.check_end(result)
        self.finish_reason = result.finish_reason
