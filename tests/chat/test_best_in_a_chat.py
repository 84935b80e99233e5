"""``best`` in a chat: the best answer is the turn's, and the others are its drafts."""

from __future__ import annotations

import pytest
from talking import ENDLESS, Talk, talk

from pjlocal.sessions.store import Store


@pytest.fixture
def chat(tiny, store: Store):
    with talk(tiny("llama"), store=store, sampling=ENDLESS, mode="both", best=3) as chat:
        yield chat


def seeds(chat: Talk) -> list[int]:
    return sorted(draft.settings["seed"] for draft in chat.turns[-1].drafts)


def assert_saved(chat: Talk, store: Store) -> None:
    session = store.load(chat.conversation.session.id)
    assert session.turns == chat.turns
    assert [turn.drafts for turn in session.turns] == [turn.drafts for turn in chat.turns]
    hidden = [draft.undone for turn in session.turns for draft in turn.drafts if draft is not turn]
    assert all(hidden) and not any(turn.undone for turn in session.turns)


def test_the_others_are_drafts_which_can_be_put_in_force(chat: Talk, store: Store) -> None:
    chat.say("Hello")
    turn = chat.turns[0]
    assert seeds(chat) == [1, 2, 3] and turn.drafts[0] is turn
    assert len({draft.answer for draft in turn.drafts}) == 3
    assert all(draft.statistics["pushes"] and draft.finish_reason == "length" for draft in turn.drafts)
    assert_saved(chat, store)
    chat.say("/drafts 3")
    assert chat.turns == [turn.drafts[2]]
    assert_saved(chat, store)
    chat.say("Why?")
    assert len(chat.turns) == 2
    assert_saved(chat, store)


def test_an_answer_asked_for_again_has_seeds_that_none_of_them_had(chat: Talk, store: Store) -> None:
    chat.say("Hello")
    chat.say("/regen")
    assert seeds(chat) == [1, 2, 3, 4, 5, 6]
    assert_saved(chat, store)


def test_a_continued_answer_has_drafts_that_begin_like_it(chat: Talk, store: Store) -> None:
    chat.say("Hello")
    before = chat.turns[0]
    chat.say("/continue 4")
    continued = chat.turns[0].drafts[3:]
    assert len(continued) == 3 and all(draft.answer.startswith(before.answer) for draft in continued)
    assert [event.position for event in continued[-1].events] == [*range(len(before.events) + 4)]
    assert_saved(chat, store)


def test_answers_that_are_alike_are_one_draft(chat: Talk, store: Store) -> None:
    chat.say("/set temperature 0")
    chat.say("Hello")
    assert len(chat.turns[0].drafts) == 1
    assert_saved(chat, store)


def test_stopped_while_they_are_written_nothing_is_lost(chat: Talk, store: Store) -> None:
    chat.say("Hello")
    writing = chat.conversation.ask("Why?")
    writing.answer.on_progress = lambda text: "4 of 8" in text and chat.judge.interrupt.set()
    list(writing)
    chat.judge.interrupt.clear()
    assert len(chat.turns) == 2 and chat.turns[1].finish_reason == "interrupted" and chat.turns[1].answer
    assert_saved(chat, store)


def test_modes_are_compared_by_one_answer_each(chat: Talk, store: Store) -> None:
    chat.say("Hello")
    chat.say("/compare")
    modes = [draft.settings["mode"] for draft in chat.turns[0].drafts]
    assert modes.count("both") in (3, 4) and modes.count("judge") == modes.count("plain") == 1
    assert_saved(chat, store)


def test_settings_without_a_neutral_view_are_refused_and_change_nothing(chat: Talk) -> None:
    assert "has none" in chat.say("/set mode judge")[-1]
    assert chat.judge.request.generation.mode == "both"
    chat.say("/set best 1")
    chat.say("/set mode judge")
    assert "has none" in chat.say("/set best 2")[-1]
    assert chat.judge.request.generation.best == 1
