"""The drafts of a turn: every answer that its question has got is kept, and can be put in force again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from commandline import PJLOCAL
from talking import ENDLESS, Talk, talk
from terminal import numbered

from pjlocal import Sampling
from pjlocal.sessions.export import as_html, as_json, as_markdown
from pjlocal.sessions.session import Session, Turn, fork_title
from pjlocal.sessions.store import Store
from pjlocal.visible import visible


@pytest.fixture
def chat(tiny, store: Store):
    with talk(tiny("llama"), store=store, sampling=ENDLESS) as chat:
        yield chat


def answers(turn: Turn) -> list[str]:
    return [draft.answer for draft in turn.drafts]


def assert_saved(chat: Talk, store: Store) -> Session:
    """The chat, which is in the database as it is, with its drafts."""
    session = store.load(chat.conversation.session.id)
    assert session.turns == chat.turns
    assert [turn.drafts for turn in session.turns] == [turn.drafts for turn in chat.turns]
    assert [[draft.undone for draft in turn.drafts] for turn in session.turns] == [
        [draft is not turn for draft in turn.drafts] for turn in session.turns
    ]
    return session


def test_every_answer_of_a_question_is_kept_and_can_be_put_in_force(chat: Talk, store: Store, edited) -> None:
    chat.say("Hello")
    chat.say("Why do cats purr?")
    first = chat.turns[1]
    chat.say("/regen")
    chat.say("/continue 3")
    edited("So it is")
    chat.say("/edit answer")
    chat.screen.on_event = lambda n: n == 2 and chat.judge.interrupt.set()
    chat.say("/regen")
    assert len(chat.turns[1].drafts) == 5 and chat.turns[1].finish_reason == "interrupted", "a stopped answer too"
    assert answers(chat.turns[1])[3] == "So it is"
    assert len(chat.turns[1].drafts[2].events) == 11, "the continued one"
    assert_saved(chat, store)
    for number in (1, 4, 2, 5):
        assert chat.say(f"/drafts {number}") == [f"draft {number} is in force"]
        assert chat.turns[1] is first.drafts[number - 1]
        assert_saved(chat, store)
    assert chat.say("/drafts 5") == ["this draft is in force already"]
    assert chat.say("/drafts 6") == ["/drafts takes a number from 1 to 5, or a mode: both (not '6')"]


def test_a_kill_at_any_moment_leaves_one_turn_with_its_drafts(chat: Talk, store: Store, edited) -> None:
    """Whatever is committed before each statement is what a killed process leaves."""
    chat.say("Hello")
    in_force: list[list[str]] = []
    with Store(store.path) as other:

        def look(statement: str) -> None:
            session = other.load(chat.conversation.session.id)
            in_force.append([turn.question for turn in session.turns])
            assert sum(not draft.undone for draft in session.turns[0].drafts) == 1

        store._db.set_trace_callback(look)
        edited("So it is")
        for line in ("/regen", "/continue 3", "/edit answer", "/drafts 1", "/compare", "/take both", "/regen"):
            chat.say(line)
        store._db.set_trace_callback(None)
    assert len(in_force) > 50 and all(questions == ["Hello"] for questions in in_force)
    assert len(assert_saved(chat, store).turns) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kill -9, and a pipe of a given size")
def test_kill_9_in_regen_leaves_one_turn_and_the_answer_that_was_being_written(tiny, environment, tmp_path) -> None:
    import fcntl

    environment = environment | {"PJLOCAL_DATABASE": str(tmp_path / "chats.db")}
    command = [*PJLOCAL, "chat", "-m", str(tiny("llama")), "-n", "8000", "--ctx", "8192", "--threads", "1"]
    grammar = tmp_path / "answer.gbnf"
    grammar.write_text(f"root ::= {json.dumps(numbered(700))}\n")
    command += ["--grammar", str(grammar)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, bufsize=0) as process:
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # the rest of an answer waits until it is read
        process.stdin.write(b"Hello\n")
        process.stdout.readline()
        process.stdin.write(b"/regen\n")
        shown = process.stdout.read(30)
        process.kill()
        shown += process.stdout.read()
    with Store(tmp_path / "chats.db") as store:
        (turn,) = store.load(store.latest()).turns
    first, second = turn.drafts
    assert turn is first and first.finish_reason == "stop" and second.finish_reason is None
    assert visible(second.answer).encode().startswith(shown)


def test_the_next_question_follows_the_chosen_draft(chat: Talk) -> None:
    chat.say("Why do cats purr?")
    chat.say("/regen")
    chat.say("/drafts 1")
    cost = chat.ask("And dogs?")
    assert chat.turns[0].events[0].id != chat.turns[0].drafts[1].events[0].id
    ids = [event.id for event in chat.turns[0].events]
    assert any(cost.prompts[0][n : n + len(ids)] == ids for n in range(len(cost.prompts[0])))


def test_a_list_names_the_drafts_and_marks_the_one_in_force(chat: Talk) -> None:
    chat.say("Why do cats purr?")
    chat.say("/mode judge")
    chat.say("/prefer vivid concise")
    chat.say("/regen")
    chat.say("/drafts")
    _, first, second = chat.screen.shown.splitlines()[-3:]
    assert first.split()[:6] == ["1", "both", "Be", "brief,", "Be", "kind"]
    assert second.split()[:5] == ["*", "2", "judge", "vivid,", "concise"]
    chat.say("/mode plain")
    chat.say("/regen")
    chat.say("/drafts")
    assert chat.screen.shown.splitlines()[-1].split()[:4] == ["*", "3", "plain", "8"], "its preferences had no effect"


def test_compared_answers_are_drafts_and_one_of_them_can_be_taken(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    first, settings = chat.turns[0], dict(chat.conversation.session.settings)
    chat.say("/compare")
    assert chat.turns == [first] and chat.conversation.session.settings == settings
    modes = [draft.settings["mode"] for draft in first.drafts]
    assert modes == ["both", "judge", "base", "prompt", "rewrite", "plain"], "and both only once"
    assert_saved(chat, store)
    chat.say("/compare")
    assert len(chat.turns[0].drafts) == 6, "the same answers again are no new drafts"
    assert chat.say("/take judge") == ["draft 2 is in force"]
    assert chat.turns[0].settings["mode"] == "judge"
    assert_saved(chat, store)
    chat.say("And dogs?")
    assert chat.turns[1].settings["mode"] == "both", "the settings of the next answer stay"


def test_a_comparison_does_not_warn_of_modes_that_nobody_chose(chat: Talk, caplog) -> None:
    chat.say("/prefer vivid")
    chat.say("Why?")
    chat.say("/compare")
    assert caplog.messages == []
    chat.say("/mode base")
    chat.say("/regen")
    assert "view b, which has no preference" in caplog.text


def test_an_empty_answer_is_not_a_draft(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    before = chat.turns[0]
    chat.judge.request = chat.judge.request.with_group(Sampling(logit_bias=("2=1000",), temperature=0))
    assert chat.say("/continue") == ["the model added nothing: the answer is unchanged"]
    assert chat.turns == [before] and before.drafts == [before]
    assert_saved(chat, store)


def test_a_turn_that_is_undone_goes_with_its_drafts(chat: Talk, store: Store) -> None:
    chat.say("Hello")
    chat.say("Why do cats purr?")
    chat.say("/regen")
    chat.say("/undo")
    assert [turn.question for turn in assert_saved(chat, store).turns] == ["Hello"]
    assert len(store.load(chat.conversation.session.id, with_undone=True).turns) == 3


def test_a_chat_is_saved_again_with_its_drafts(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    chat.say("/regen")
    chat.say("/drafts 1")
    for file in store.path.parent.glob(f"{store.path.name}*"):
        file.unlink()
    chat.say("And dogs?")
    chat.say("/regen")
    session = assert_saved(chat, store)
    assert [len(turn.drafts) for turn in session.turns] == [2, 2]


def test_a_chat_continued_elsewhere_neither_compares_nor_switches_drafts(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    chat.say("/regen")
    with Store(store.path) as other:
        other.add_turn(chat.conversation.session.id, Turn("And?"))
    (said,) = chat.say("/drafts 1")
    assert "new turns from elsewhere" in said and chat.turns[0] is chat.turns[0].drafts[1]
    assert "new turns from elsewhere" in chat.say("/compare")[0] and len(chat.turns[0].drafts) == 2


def test_exports_hold_drafts(chat: Talk) -> None:
    chat.say("Why do cats purr?")
    chat.say("/regen")
    chat.say("/drafts 1")
    session = chat.conversation.session
    first, second = answers(chat.turns[0])
    (turn,) = json.loads(as_json(session))["turns"]
    assert turn["answer"] == first and [draft["answer"] for draft in turn["drafts"]] == [second]
    assert "draft" not in as_markdown(session).lower() and "Draft" not in as_html(session)
    assert "### Answer 1, draft 2" in as_markdown(session, drafts=True)
    assert '<summary class="facts">Draft 2</summary>' in as_html(session, drafts=True)
    chat.turns[0].drafts[1].question = "Why do dogs bark?"
    for text in (as_markdown(session, drafts=True), as_html(session, drafts=True)):
        assert "question: Why do dogs bark?" in text


def test_the_chat_exports_drafts_where_that_is_asked_for(chat: Talk, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    chat.say("Why do cats purr?")
    chat.say("/regen")
    for line, name, has_drafts in (
        ("/export", "why-do-cats-purr.md", False),
        ("/export drafts", "why-do-cats-purr-2.md", True),
        ("/export html drafts", "why-do-cats-purr.html", True),
        ('/export "my chat.md" --drafts', "my chat.md", True),
    ):
        assert chat.say(line) == [f"written to {name}"]
        assert ("draft 1" in Path(name).read_text().lower()) == has_drafts


# Forks.


def test_a_fork_begins_another_chat_with_the_same_turns_and_reads_nothing_again(chat: Talk, store: Store) -> None:
    for line in ("Hello", "Why do cats purr?", "/regen"):
        chat.say(line)
    old = assert_saved(chat, store)
    chat.say("/fork")
    new = assert_saved(chat, store)
    assert new.id != old.id and (old.title, new.title) == ("Hello", "Hello (fork)")
    assert [turn.answer for turn in new.turns] == [turn.answer for turn in old.turns]
    assert len(new.turns[1].drafts) == 2 and {turn.id for turn in new.turns}.isdisjoint(t.id for t in old.turns)
    before = chat.n_fed()
    chat.say("And dogs?")
    assert chat.n_fed() - before < 4 * 40
    assert len(assert_saved(chat, store).turns) == 3 and store.load(old.id).turns == old.turns


def test_a_fork_may_begin_at_an_earlier_turn(chat: Talk, store: Store) -> None:
    for line in ("Hello", "/regen", "Why do cats purr?", "And dogs?"):
        chat.say(line)
    assert chat.say("/fork 4") == ["/fork takes the number of a turn, from 1 to 3 (not '4')"]
    chat.say("/fork 1")
    chat.say("/drafts 1")
    assert [turn.question for turn in assert_saved(chat, store).turns] == ["Hello"]
    assert chat.turns[0] is chat.turns[0].drafts[0]


def test_a_chat_that_is_not_saved_has_drafts_and_forks(tiny) -> None:
    with talk(tiny("llama"), sampling=ENDLESS) as chat:
        for line in ("Hello", "/regen", "/fork", "/drafts 1"):
            chat.say(line)
        assert chat.turns[0] is chat.turns[0].drafts[0] and len(chat.turns[0].drafts) == 2


@pytest.mark.parametrize(
    ("title", "forked"),
    [
        ("Cats", "Cats (fork)"),
        ("Cats (fork)", "Cats (fork 2)"),
        ("Cats (fork 9)", "Cats (fork 10)"),
        ("", " (fork)"),
        (f"{'a' * 192} bcdefg", f"{'a' * 192} (fork)"),
        (f"{'a' * 191} (fork 9)", f"{'a' * 190} (fork 10)"),
    ],
)
def test_the_title_of_a_fork(title: str, forked: str) -> None:
    assert fork_title(title) == forked


# Another token.


def test_a_tokens_alternatives_are_those_that_the_views_had(chat: Talk) -> None:
    chat.judge.request = chat.judge.request.with_group(Sampling(temperature=1, top_k=0, top_p=1, min_p=0))
    chat.say("/mode judge")
    chat.say("Hello")
    chat.say("Why do cats purr?")
    turn = chat.turns[1]
    before = chat.n_fed()
    for event in turn.events[:3]:
        found = chat.conversation.alternatives(event.position)
        assert len(found) >= 8 and list(found[0].p) == ["a", "b"]
        assert [max(each.p.values()) for each in found] == sorted((max(e.p.values()) for e in found), reverse=True)
        written = next((each for each in found if each.id == event.id), None)
        if written and event.kind == "accepted":
            assert written.p[event.draft] == pytest.approx(event.q, rel=1e-3)
            assert written.p[event.judge] == pytest.approx(event.p, rel=1e-3)
    assert chat.n_fed() - before <= 2 * (3 + 3), "the prompts are in the caches"
    assert chat.turns[1] is turn


def test_the_alternatives_of_preferences_of_several_strengths_are_those_of_each_view(chat: Talk) -> None:
    chat.say("/prefer b clear")
    assert chat.say("/prefer a vivid formal:2 'Be odd'") == ["a: vivid", "b: formal:2", "c: Be odd"]
    chat.say("Why?")
    chat.say("/prefer vivid")
    assert list(chat.conversation.alternatives(0)[0].p) == ["a", "b", "c", "joint", "neutral"]


def test_after_a_change_of_the_model_the_alternatives_are_its_own(chat: Talk, tiny) -> None:
    chat.say("Why do cats purr?")
    before = chat.conversation.alternatives(3)
    assert chat.conversation.alternatives(3) is before
    chat.say(f"/model {tiny('qwen2')}")
    assert chat.conversation.alternatives(3) != before


def test_why_shows_alternatives_and_continues_with_one(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    turn = chat.turns[0]
    chat.say("/why 3")
    head, first, *_ = chat.screen.shown.splitlines()
    assert head.split() == ["#", "token", "a", "b", "joint", "neutral"] and first.lstrip("* ").startswith("1 ")
    found = chat.conversation.alternatives(3)
    chosen = next(n for n, each in enumerate(found) if each.id != turn.events[3].id and each.text.strip())
    assert chat.say(f"/why 3 {chosen + 1}") == []
    taken = chat.turns[0]
    assert taken.events[:3] == turn.events[:3] and len(taken.events) == 3 + 1 + 8
    assert (taken.events[3].id, taken.events[3].kind) == (found[chosen].id, "given")
    assert taken.drafts == [turn, taken]
    assert_saved(chat, store)


def test_a_plain_answer_has_alternatives_whatever_settings_its_preferences_had(chat: Talk) -> None:
    chat.say("/strength 2")
    chat.say("/mode plain")
    chat.ask("Why?")
    assert chat.conversation.alternatives(0)


@pytest.mark.parametrize("mode", ["prompt", "plain"])
def test_alternatives_do_not_warn_of_a_setting_again(chat: Talk, caplog, mode: str) -> None:
    chat.judge.request = chat.judge.request.replace(mode=mode, lam=2)
    chat.ask("Why?")
    assert f"--lambda has no effect in mode {mode}" in caplog.messages
    caplog.clear()
    assert chat.conversation.alternatives(0)
    assert caplog.messages == []


def test_why_continues_with_a_text(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    turn = chat.turns[0]
    chat.say("/why 2 the cat")
    chat.say('/why 0 "The sun"')
    one, other = chat.turns[0].drafts[1:]
    assert one.answer.startswith("".join(event.text for event in turn.events[:2])) and "the cat" in one.answer
    assert other.answer.startswith("The sun") and len(other.events) == 1 + 8
    assert_saved(chat, store)


def test_a_token_that_ends_the_answer_at_once_leaves_what_was_taken(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    chat.judge.request = chat.judge.request.with_group(Sampling(logit_bias=("2=1000",), temperature=0))
    chat.say('/why 0 "So it is."')
    assert chat.turns[0].answer == "So it is." and len(chat.turns[0].drafts) == 2
    assert_saved(chat, store)


def test_a_token_of_the_thinking_can_be_taken_too(tmp_path: Path) -> None:
    template = tiny_models.CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
    added = ["<think>", "</think>"]
    model = tiny_models.write_llama(tmp_path / "m.gguf", chat_template=template, add_bos=False, added=added)
    with talk(model, sampling=ENDLESS, think_tokens=6) as chat:
        chat.say("Why?")
        turn = chat.turns[0]
        assert [event.thought for event in turn.events[:3]] == [True] * 3 and turn.answer
        row = chat.conversation.alternatives(2)
        chat.judge.request = chat.judge.request.replace(think_tokens=None)
        chat.conversation._alternatives = None
        assert chat.conversation.alternatives(2) == row, "a limit of the thinking changes no token of it"
        chat.judge.request = chat.judge.request.replace(think_tokens=6)
        chat.say('/why 2 " so"')
        taken = chat.turns[0]
        assert taken.events[:2] == turn.events[:2] and taken.events[2].thought and " so" in taken.thinking
        assert taken.answer, "the thinking ends by itself, or in its time"


def test_what_could_begin_an_answer_stands_in_the_place_of_its_given_beginning(chat: Talk) -> None:
    chat.say("Why?")
    first = chat.conversation.alternatives(0)
    chat.say("/set begin Ahoy")
    chat.say("/regen")
    assert [each.id for each in chat.conversation.alternatives(0)] == [each.id for each in first]


def test_a_wrong_token_number_is_refused_in_one_line(chat: Talk) -> None:
    assert chat.say("/why 1") == ["this chat has no questions yet"]
    chat.say("Why do cats purr?")
    assert chat.say("/why 8") == ["there is no token 8: the answer has tokens 0 to 7"]
    assert chat.say("/why eight") == ["/why takes the number of a token (not 'eight')"]
    found = chat.conversation.alternatives(0)
    if silent := [n for n, each in enumerate(found, 1) if not each.text]:
        assert chat.say(f"/why 0 {silent[0]}")[0].startswith("this token has no text")
    assert all(each.text == chat.judge.model.text([each.id]) for each in found if each.text)
    (said,) = chat.say("/why 1 99")
    assert said.startswith("/why 1 lists") and len(chat.turns[0].drafts) == 1
    chat.say("/mode rewrite")
    (said,) = chat.say("/why 1 x")
    assert said.startswith("mode rewrite corrects a whole answer") and len(chat.turns[0].drafts) == 1
