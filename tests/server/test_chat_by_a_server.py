"""`pjlocal chat` by a server of the same user: turn for turn what the model would write, loaded here."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from commandline import PJLOCAL
from served import BIG, ENGINE, LONG, Served, serving
from waiting import when

from pjlocal import Engine, Generation, TokenEvent
from pjlocal.chat.conversation import Conversation
from pjlocal.chat.judges import Judge, make_judge
from pjlocal.chat.loop import _warnings_in_chat_words
from pjlocal.client import ServerError
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import ModelError, UsageError
from pjlocal.request import Request, deal, place
from pjlocal.sessions.recorder import Recorder
from pjlocal.sessions.session import Session

pytestmark = pytest.mark.usefixtures("here")

OPTIONS = ()


@contextmanager
def chatting(model: Path, server: bool = True, engine: Engine = ENGINE, **settings: Any) -> Iterator[Conversation]:
    said: list[str] = []
    generation = Generation(**{"max_tokens": 12, "seed": 1, "ignore_end": True} | settings)
    request = Request(place(["vivid", "creative"]), generation)
    judge = make_judge(str(model), finds=server, engine=engine, interrupt=Interrupt(), request=request)
    assert (judge.server is not None) is server
    session = Session()

    def load(name: str | None, finds: bool) -> Judge:
        return make_judge(name, finds=finds, engine=engine, interrupt=judge.interrupt)

    conversation = Conversation(judge, session, Recorder(None, session, said.append), str(model), said.append, load)
    try:
        yield conversation
    finally:
        conversation.close()


def said(conversation: Conversation, question: str) -> list[TokenEvent]:
    return list(conversation.ask(question))


@pytest.mark.slow
def test_each_turn_is_that_of_a_model_loaded_here(served: Served, model: Path) -> None:
    turns = []
    for server in (True, False):
        with chatting(model, server, seed=2) as chat:
            answers = [said(chat, LONG), said(chat, "And then?")]
            progress = chat.progress()
            answers.append(list(chat.regenerate()))
            chat.swap()
            chat.judge.request = chat.judge.request.with_group(
                chat.judge.request.generation.replace(mode="both", strength="1.5", avoid=("formal",))
            )
            answers.append(said(chat, "Go on."))
            chat.undo()
            chat.judge.request = chat.judge.request.with_group(
                chat.judge.request.generation.replace(mode="plain", stop=("e",), lookahead=4)
            )
            answers.append(said(chat, "Once more."))
            compared = [started.answer.result.text for started in chat.compare() if list(started.answer)]
            settings = [turn.settings for turn in chat.session.turns]
            turns.append((answers, compared, settings, progress.used, progress.acceptance_rate))
    assert turns[0][0][:3] == turns[1][0][:3] and turns[0][1:] == turns[1][1:]
    for there, here in zip(turns[0][0], turns[1][0], strict=True):  # other views: read in other batches
        assert ids([there]) == ids([here])
        assert [event.p for event in there] == pytest.approx([event.p for event in here], rel=0.01)


def test_the_server_reads_only_new_tokens(served: Served, model: Path) -> None:
    with chatting(model, server=False) as chat:
        said(chat, LONG)
        lanes = chat.judge.decoder.lanes
        before = lanes.n_fed
        said(chat, "And then?")
        expected = lanes.n_fed - before
    with chatting(model) as chat:
        said(chat, LONG)
        before = int(served.metric("pjlocal_tokens_fed_total"))
        said(chat, "And then?")
        assert served.metric("pjlocal_tokens_fed_total") - before <= expected


def test_a_stopped_answer_does_not_change_the_next_one(served: Served, model: Path) -> None:
    answers = []
    for server in (True, False):
        with chatting(model, server, max_tokens=3000) as chat:
            writing = iter(chat.ask(LONG))
            events = [next(writing) for _ in range(5)]
            chat.judge.interrupt.set()
            events += writing
            assert chat.session.turns[-1].finish_reason == "interrupted" and len(events) < 3000
            chat.judge.interrupt.clear()
            chat.undo()
            chat.judge.request = chat.judge.request.replace(max_tokens=12)
            answers.append(said(chat, "And then?"))
    there, here = answers  # read in other batches
    assert ids([there]) == ids([here])
    assert [event.p for event in there] == pytest.approx([event.p for event in here], rel=0.01)


def test_an_abandoned_answer_ends_on_the_server_and_the_chat_continues(served: Served, model: Path) -> None:
    with chatting(model, max_tokens=3000) as chat:
        writing = iter(chat.ask(LONG))
        next(writing)
        writing.close()  # type: ignore[attr-defined]
        chat.judge.request = chat.judge.request.replace(max_tokens=12)
        assert len(said(chat, "And then?")) == 12 and chat.judge.server
    when(lambda: served.metric("pjlocal_answers_now") == 0)


def test_a_refused_question_is_reported_and_changes_nothing(served: Served, model: Path) -> None:
    with chatting(model) as chat:
        said(chat, "One.")
        with pytest.raises(UsageError, match="nosuch"):
            chat.prefer([["@nosuch"], []])
        with pytest.raises(UsageError):
            said(chat, "word " * 9000)
        assert len(said(chat, "Two.")) == 12 and len(chat.session.turns) == 2 and chat.judge.server


@pytest.mark.parametrize("change", [{"mode": "rewrite"}, {"avoid": ("@wish",)}])
def test_answers_that_no_server_writes_come_from_the_model_loaded_here(
    served: Served, model: Path, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wish").write_text("Rhyme.")
    if "mode" in change:
        change = {**change, "aligner": str(model)}
    answers = []
    for server in (True, False):
        with chatting(model, server) as chat:
            answers.append(said(chat, LONG))
            chat.judge.request = chat.judge.request.with_group(
                chat.judge.request.generation.replace(mode="both").replace(**change)
            )
            with caplog.at_level(logging.WARNING), _warnings_in_chat_words():
                answers.append(said(chat, "And then?"))
            assert not chat.judge.server
    assert answers[:2] == answers[2:]
    assert caplog.text.count("the model is loaded here") == 1 and "--aligner" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_when_the_server_ends_the_chat_keeps_its_turns_and_continues(
    tmp_path: Path, server_environment: dict[str, str], signum: int, caplog: pytest.LogCaptureFixture
) -> None:
    engine = ENGINE.replace(n_ctx=32768)
    model = tiny_models.write_llama(tmp_path / "llama.gguf", n_ctx_train=32768)  # no warning about the context
    with serving(model, server_environment, *BIG) as dying, chatting(model, engine=engine, max_tokens=30_000) as chat:
        writing = iter(chat.ask(LONG))
        events = [next(writing) for _ in range(5)]
        dying.process.send_signal(signum)
        with pytest.raises(ServerError, match="/regen asks again"):
            events += writing
        turn = chat.session.turns[-1]
        assert turn.finish_reason == "interrupted" and len(turn.events) >= 5
        dying.wait()
        chat.judge.request = chat.judge.request.replace(max_tokens=12)
        with caplog.at_level(logging.WARNING):
            again = list(chat.regenerate())
        assert len(again) == 12 and not chat.judge.server
        assert caplog.messages == ["the model is loaded here: the server has stopped"]


@pytest.mark.slow
def test_a_chat_that_has_loaded_the_model_goes_back_to_a_server_with_the_command_model(
    model: Path, server_environment: dict[str, str]
) -> None:
    engine = ENGINE.replace(n_batch=302)

    with chatting_after_its_server_has_gone(model, server_environment, engine) as chat:
        assert not chat.judge.server
        with serving(model, server_environment, "--batch-size", "302"):
            said(chat, "Two.")
            assert not chat.judge.server, "it holds the conversation, which a server would have to read again"
            chat.switch_model(str(model))
            assert chat.judge.server and len(said(chat, "Three.")) == 12


@contextmanager
def chatting_after_its_server_has_gone(
    model: Path, environment: dict[str, str], engine: Engine
) -> Iterator[Conversation]:
    options = ("--batch-size", str(engine.n_batch))
    with serving(model, environment, *options) as dying, chatting(model, engine=engine) as chat:
        dying.end()
        said(chat, "One.")
        yield chat


def test_an_adapter_that_is_not_there_is_refused_at_once(served: Served, model: Path) -> None:
    with chatting(model) as chat:
        with pytest.raises(ModelError, match="nowhere"):
            chat.put_in_force(chat.judge.request.replace(lora_a=("nowhere.gguf",)))
        assert not chat.judge.request.generation.adapters() and chat.judge.server


@pytest.mark.slow
def test_ctrl_c_works_whatever_the_server_does(model: Path, server_environment: dict[str, str]) -> None:
    engine = ENGINE.replace(n_ctx=32768, n_batch=300)
    options = (*BIG, "--batch-size", "300")
    with (
        serving(model, server_environment, *options) as frozen,
        chatting(model, engine=engine, max_tokens=9000) as chat,
    ):
        writing = iter(chat.ask(LONG))
        events = [next(writing) for _ in range(5)]
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            chat.judge.interrupt.set()
            events += writing  # which ends while the server stands still
            assert chat.session.turns[-1].finish_reason == "interrupted"
        finally:
            frozen.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("server", [True, False])
def test_the_layouts_of_a_servers_views_are_known(served: Served, model: Path, server: bool) -> None:
    with chatting(model, server) as chat:
        assert chat.judge.layouts == {}
        said(chat, "One.")
        assert chat.judge.layouts == {4: "batched"}


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_here_is_tried_again_with_the_next_question(
    model: Path, server_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise ModelError("no memory")

    engine = ENGINE.replace(n_batch=301)
    with serving(model, server_environment, "--batch-size", "301") as dying, chatting(model, engine=engine) as chat:
        said(chat, "One.")
        dying.end()
        with monkeypatch.context() as patch:
            patch.setattr("pjlocal.persona.Model.__init__", fail)
            with pytest.raises(ModelError, match="no memory"):
                said(chat, "Two.")
        assert len(said(chat, "Two.")) == 12 and not chat.judge.server


@pytest.mark.slow
def test_a_restarted_server_continues_the_chat(model: Path, server_environment: dict[str, str]) -> None:
    engine = ENGINE.replace(n_batch=32)  # rounds alike, whatever is read together
    with chatting(model, server=False, engine=engine) as chat:
        expected = [said(chat, LONG), said(chat, "And then?")]
    with serving(model, server_environment, "--batch-size", "32") as first, chatting(model, engine=engine) as chat:
        answers = [said(chat, LONG)]
        first.end()  # which a chat that says nothing does not hold up
        with serving(model, server_environment, "--batch-size", "32") as second:
            answers.append(said(chat, "And then?"))
            assert chat.judge.server and second.metric("pjlocal_tokens_fed_total") > 0
    assert answers == expected


@pytest.mark.slow
def test_an_unloaded_model_is_loaded_again(model: Path, server_environment: dict[str, str]) -> None:
    options = ("--batch-size", "300", "--unload-after", "0.2")
    with (
        serving(model, server_environment, *options) as served,
        chatting(model, engine=ENGINE.replace(n_batch=300)) as chat,
    ):
        said(chat, LONG)
        when(lambda: served.metric("pjlocal_model_loaded") == 0)
        assert len(said(chat, "And then?")) == 12 and chat.judge.server


@pytest.mark.parametrize(("prefer", "change"), [(["vivid"], {"best": 9}), ([*["vivid"] * 8, "vivid:2"], {})])
def test_an_answer_for_which_the_server_has_no_room_loads_the_model(
    model: Path, server_environment: dict[str, str], prefer: list[str], change: dict[str, Any]
) -> None:
    engine = ENGINE.replace(n_batch=303)
    with serving(model, server_environment, "--batch-size", "303", "--queue", "1"):
        with chatting(model, engine=engine) as chat:
            said(chat, "One.")
            assert chat.judge.server
            chat.put_in_force(chat.judge.request.replace(views=deal(prefer), **change))
            said(chat, "Two.")
            assert not chat.judge.server
        request = chat.judge.request
        with closing(
            make_judge(str(model), finds=True, engine=engine, interrupt=Interrupt(), request=request)
        ) as judge:
            assert not judge.server


@pytest.mark.slow
def test_several_chats_and_runs_at_once_do_not_mix(served: Served, model: Path) -> None:
    """Their prompts are then read in pieces, and llama.cpp rounds otherwise: of this model of random weights an answer
    may part where two tokens are all but equally probable."""

    def talk(question: str, server: bool, into: dict[str, Any]) -> None:
        with chatting(model, server) as chat:
            into[question] = [said(chat, question), said(chat, "And then?")]

    expected: dict[str, Any] = {}
    found: dict[str, Any] = {}
    questions = [f"What of {n}?" for n in range(4)]
    for question in questions:
        talk(question, False, expected)
    threads = [threading.Thread(target=talk, args=(question, True, found)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same = [ids(found[question]) == ids(expected[question]) for question in questions]
    assert sum(same) >= len(questions) - 1
    for question in questions:
        assert found[question][0][0].p == pytest.approx(expected[question][0][0].p, rel=0.01)


def ids(turns: list[list[TokenEvent]]) -> list[list[int]]:
    return [[event.id for event in events] for events in turns]


def chat(model: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [*PJLOCAL, "chat", "-m", str(model), "--threads", "1", "-p", "vivid", "-p", "creative", *options]
    lines = "One.\n/mode both\nTwo.\n/stats\n"
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, input=lines)


@pytest.mark.slow
def test_the_command_finds_the_server_and_says_the_same(
    served: Served, model: Path, server_environment: dict[str, str]
) -> None:
    options = ("--seed", "1", "-n", "12", "--no-save")
    fed = served.metric("pjlocal_tokens_fed_total")
    by_server = chat(model, server_environment, *options)
    more = served.metric("pjlocal_tokens_fed_total")
    assert more > fed
    alone = chat(model, server_environment, *options, "--no-server")
    assert served.metric("pjlocal_tokens_fed_total") == more
    assert by_server.returncode == alone.returncode == 0
    assert by_server.stderr == alone.stderr
    times = re.compile(r"[\d.]+ s\b|\b\d+\.\d\b")
    assert times.sub("", by_server.stdout).split() == times.sub("", alone.stdout).split()
    saving = chat(model, server_environment, *options[:-1], "--save-cache")  # which only a cache of its own can be
    assert saving.returncode == 0 and served.metric("pjlocal_tokens_fed_total") == more
