"""Ctrl-C at any line of a chat's code: what runs may stop, the chat goes on, and the next answer is right."""

from __future__ import annotations

import itertools
import math
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from talking import LAYOUTS, Talk, talk

import pjlocal
import pjlocal.engine.lanes
from pjlocal import Engine
from pjlocal.chat.loop import handle
from pjlocal.engine.context import Context
from pjlocal.engine.engine import Engine as Decoder
from pjlocal.engine.interrupt import on_sigint
from pjlocal.engine.lanes import Lanes, LaneSet
from pjlocal.engine.model import Model
from pjlocal.engine.sequence import Lane
from pjlocal.engine.sequence import Sequence as CacheSequence
from pjlocal.engine.slot import Slot
from pjlocal.engine.worker import Worker
from pjlocal.prompting.jinja import TemplateProcess
from pjlocal.sessions.store import Store

CODE = str(Path(pjlocal.__file__).parent)
LONG = "Tell me " + "much " * 200
GROWING = ("/mode judge", "/set lookahead 4", "hello")  # contexts with room for more logits take the place of others


@contextmanager
def pressed_at(numbers: set[int]) -> Iterator[list[int]]:
    """Ctrl-C before the lines of pjlocal's own code that run as those numbers; counts lines in a list of one."""
    count = [0]

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line":
            count[0] += 1
            if count[0] in numbers:
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(None)


@contextmanager
def signals(chat: Talk) -> Iterator[None]:
    with on_sigint(chat.judge.interrupt, patience=math.inf):
        yield


def right_answer(chat: Talk, text: str) -> bool:
    """Whether a chat without a history answers as one that was never stopped."""
    chat.screen.answers.clear()
    chat.say("/new")
    chat.say("/mode judge")
    chat.conversation.prefer([["Be brief"], ["Be kind"]])
    assert chat.say("hello") == []
    return chat.screen.answers == [text]


AT_CLOSING = [(LaneSet, "close"), (Worker, "close"), (Decoder, "_release"), (Store, "finish_turn")]
ELSEWHERE = [
    (Decoder, "writing"),
    (Decoder, "_clean_up"),
    (Decoder, "submit"),
    (Decoder, "_admit"),
    (Decoder, "step"),
    (Decoder, "cancel"),
    (Lanes, "for_answer"),
    (Lanes, "_make"),
    (Lanes, "place"),
    (Lanes, "start"),
    (Lanes, "wait"),
    (Lanes, "recover"),
    (Slot, "start"),
    (Slot, "start_next_stage"),
    (Slot, "feed"),
    (Slot, "close"),
    (Lane, "read"),
    (Lane, "feed"),
    (CacheSequence, "fill"),
    (CacheSequence, "release"),
    (CacheSequence, "recover"),
    (Worker, "submit"),
    (Worker, "wait"),
    (pjlocal.engine.lanes, "in_thread"),
    (Context, "close"),
    (Context, "decode"),
    (TemplateProcess, "_exchange"),
    (Store, "add_turn"),
    (Store, "add_token"),
    (Store, "set_undone"),
    (Store, "put_in_force"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "method"), [*AT_CLOSING, *(pytest.param(*one, marks=pytest.mark.slow) for one in ELSEWHERE)]
)
def test_a_press_while_something_is_closed_changed_or_saved_does_not_end_the_chat(
    tiny, store: Store, monkeypatch: pytest.MonkeyPatch, where: object, method: str
) -> None:
    """Before it, the next time behind it, and so on."""
    engine = Engine(n_ctx=2048, n_threads=1, layout="contexts")
    with talk(tiny("llama"), store=store, engine=engine, mode="judge") as chat, signals(chat):
        chat.say("hello")
        text = chat.screen.answers[-1]
        original = getattr(where, method)
        before = itertools.cycle([True, False])
        pressed = []

        def pressing(*args: Any, **options: Any) -> Any:
            first = next(before)
            pressed.append(first)
            if first:
                signal.raise_signal(signal.SIGINT)
            try:
                return original(*args, **options)
            finally:
                if not first:
                    signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(where, method, pressing)
            for line in (LONG, *["/regen"] * 2, "/mode both", *["hello", "/undo"] * 2, "/compare", *GROWING):
                chat.say(line)
        assert {*pressed} == {True, False}
        assert right_answer(chat, text)


def test_ctrl_c_held_down_while_the_model_changes_leaves_the_one_before(
    tiny, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with talk(tiny("llama"), store=store, mode="judge") as chat, signals(chat):
        chat.conversation.model = str(tiny("llama"))
        chat.say("hello")
        text = chat.screen.answers[-1]
        original = Model._load

        def pressing(*args: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(Model, "_load", pressing)
            assert chat.say(f"/model {tiny('qwen2')}") == ["(stopped)"]
        assert right_answer(chat, text)


def lines(chat: Talk, tmp_path: Path, model: Path) -> list[str]:
    return [
        LONG,
        "/regen",
        "/mode plain",
        "hello",
        "/mode judge",
        "/compare",
        "/title A name",
        f"/export {tmp_path / 'chat.md'}",
        "/swap",
        "/swap",
        f"/model {model}",
        "/load 1",
        "/undo",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_press_at_any_line_of_code_does_not_end_the_chat_and_the_next_answer_is_right(
    tiny, store: Store, tmp_path: Path, layout: str
) -> None:
    """Hundreds of presses, one or two at a time."""
    model = tiny("llama")
    chance = random.Random(layout)
    with (
        talk(model, store=store, engine=Engine(n_ctx=2048, n_threads=1, layout=layout), mode="judge") as chat,
        signals(chat),
    ):
        chat.say("hello")
        text = chat.screen.answers[-1]
        todo = lines(chat, tmp_path, model)
        for line in todo:
            with pressed_at(set()) as count:
                handle(chat.chat, line)
            for _ in range(12):
                if line.startswith(("/undo", "/regen", "/compare")) or not chat.turns:
                    chat.say("A question")
                at = chance.randrange(1, count[0] + 1)
                with pressed_at({at, at + chance.choice([0, 1, 2, 20, 200])}):
                    handle(chat.chat, line)
                assert right_answer(chat, text), f"{line[:20]}, stopped at line {at} of {count[0]}"
