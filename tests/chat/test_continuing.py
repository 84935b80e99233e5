"""/continue and /edit answer: the turn is replaced by the longer or the edited one, and caches are kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from saved_chats import resampled, token
from talking import ENDLESS, Talk, plain_event, talk

from pjlocal import Sampling
from pjlocal.attachments import Attachment, with_attachments
from pjlocal.chat.screen import TerminalScreen
from pjlocal.events import TokenEvent
from pjlocal.sessions.export import as_html, as_markdown
from pjlocal.sessions.session import Turn
from pjlocal.sessions.store import Store


@pytest.fixture
def chat(tiny, store: Store) -> Iterator[Talk]:
    with talk(tiny("llama"), store=store, sampling=ENDLESS) as chat:
        yield chat


def saved(store: Store, with_undone: bool = False) -> list[Turn]:
    return store.load(1, with_undone).turns


def test_a_cut_answer_continues_where_it_was_cut_and_reads_nothing_again(chat: Talk, store: Store) -> None:
    first = chat.ask("Why do cats purr?")
    (before,) = chat.turns
    more = chat.ask("", chat.conversation.continue_answer(5))
    (turn,) = chat.turns
    assert turn.events[:8] == before.events == first.events and more.events == turn.events
    assert len(turn.events) == 13 and turn.finish_reason == "length", "5 more"
    assert [event.position for event in turn.events] == list(range(13))
    assert more.prompts == [[*prompt, *first.ids] for prompt in first.prompts]
    assert more.fed == len(first.prompts) * (1 + 4), "each view reads the last token, then the new ones"
    assert saved(store) == [turn], "the longer answer is saved in its place"
    assert [len(old.events) for old in saved(store, with_undone=True)] == [8, 13]
    after = chat.ask("And dogs?")
    assert after.prompts[0][: len(more.prompts[0]) + 5] == [*more.prompts[0], *more.ids[8:]]


def test_the_command_shows_the_whole_answer(chat: Talk) -> None:
    chat.say("Why do cats purr?")
    chat.say("/continue 3")
    assert chat.screen.answers[1].startswith(chat.screen.answers[0])
    assert len(chat.turns[0].events) == 11
    assert chat.turns[0].settings["generation"]["max_tokens"] == 3
    assert chat.conversation.settings()["generation"]["max_tokens"] == 8
    assert chat.say("/continue many") == ["/continue takes a number of tokens (not 'many')"]


def test_an_answer_that_has_ended_gets_a_new_paragraph(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    chat.turns[0].finish_reason = "stop"
    text = chat.turns[0].answer
    chat.say("/continue")
    (turn,) = chat.turns
    assert turn.answer.startswith(f"{text}\n\n") and turn.answer != f"{text}\n\n"
    assert [(event.text, event.kind) for event in turn.events if event.kind == "given"] == [("\n\n", "given")]
    assert saved(store) == [turn]


def test_an_answer_to_which_nothing_is_added_stays(chat: Talk, store: Store) -> None:
    chat.say("Why do cats purr?")
    (before,) = chat.turns
    ends = Sampling(logit_bias=("2=1000",), temperature=0)
    chat.judge.request = chat.judge.request.with_group(ends)
    assert chat.say("/continue") == ["the model added nothing: the answer is unchanged"]
    assert chat.turns == [before] == saved(store)


def test_a_stopped_answer_continues_and_keeps_its_text_if_stopped_again(tiny) -> None:
    with talk(tiny("llama"), sampling=ENDLESS, max_tokens=100) as chat:
        chat.screen.on_event = lambda n: n == 4 and chat.judge.interrupt.set()
        chat.say("Why do cats purr?")
        n_first = len(chat.turns[0].events)
        assert chat.turns[0].finish_reason == "interrupted"
        chat.screen.on_event = lambda n: n == n_first + 4 and chat.judge.interrupt.set()
        chat.say("/continue")
        assert chat.turns[0].finish_reason == "interrupted"
        assert n_first + 4 < len(chat.turns[0].events) < 100
        assert len(chat.turns) == 1


def test_there_must_be_an_answer(chat: Talk) -> None:
    assert chat.say("/continue") == ["this chat has no questions yet"]
    chat.say("Why do cats purr?")
    chat.say("/mode rewrite")
    before = list(chat.turns)
    (said,) = chat.say("/continue")
    assert said.startswith("mode rewrite corrects a whole answer") and chat.turns == before


def test_the_setting_begin_begins_every_answer(chat: Talk, store: Store) -> None:
    chat.say("/set begin the cat")
    chat.say("Why do cats purr?")
    before = chat.n_fed()
    chat.say("And dogs?")
    assert [turn.answer[:7] for turn in chat.turns] == ["the cat"] * 2
    assert saved(store) == chat.turns
    assert chat.n_fed() - before < 4 * 60, "the tokens of the first answer are not read again"


# /edit answer.


def events(*texts: str) -> list[TokenEvent]:
    return [TokenEvent(n, n + 9, text, "plain", 0, None, 0.5, None, None) for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("answer", "kept", "given", "finish_reason"),
    [
        ("The cat sat", ["The", " cat", " sat"], [], "stop"),
        ("The dog sat", ["The", " sat"], [" dog"], "stop"),
        ("The cat", ["The", " cat"], [""], "interrupted"),
        ("The cat sat down", ["The", " cat", " sat"], [" down"], "interrupted"),
        (" cat sat", [" cat", " sat"], [], "stop"),
        ("The sat", ["The", " sat"], [], "stop"),
        ("So", [], ["So"], "interrupted"),
    ],
)
def test_tokens_that_stay_are_still_the_models(answer: str, kept, given, finish_reason: str) -> None:
    turn = Turn("Q", events("The", " cat", " sat", ""), finish_reason="stop").edited(answer)
    assert turn.answer == answer and turn.finish_reason == finish_reason
    assert [event.text for event in turn.events if event.kind == "plain"] == kept
    assert [event.text for event in turn.events if event.kind == "given"] == given
    assert [event.position for event in turn.events] == list(range(len(turn.events)))


def test_statistics_of_an_edited_answer_are_those_of_the_tokens_that_stay() -> None:
    told = {"usage": {"completion_tokens": 4}, "acceptance_rate": 0.75, "pushes": {"vivid": 1.0}}
    tokens = [token(0, "The"), resampled(1, " cat"), token(2, " sat"), token(3, " down")]
    turn = Turn("Q", tokens, {"generation": {"max_tokens": 4}}, "length", told)
    assert turn.edited("The cat ran").statistics == {"acceptance_rate": 0.5}
    assert turn.edited("Something else").statistics == {"acceptance_rate": None}
    file = io.StringIO()
    TerminalScreen(file).show_turn(turn.edited("The down"), "text")
    assert "cut off" in file.getvalue() and "the context is full" not in file.getvalue()


def test_an_edited_answer_is_saved_and_read_by_the_model(chat: Talk, store: Store, edited) -> None:
    chat.say("Why do cats purr?")
    old = chat.turns[0].answer
    edited("the sun sees")
    chat.say("/edit answer")
    assert [turn.answer for turn in chat.turns] == ["the sun sees"]
    assert saved(store) == chat.turns and [turn.answer for turn in saved(store, True)] == [old, "the sun sees"]
    cost = chat.ask("And dogs?")
    assert "the sun sees" in chat.judge.model.text(cost.prompts[0])
    chat.say("/undo")
    chat.say("/continue 2")
    assert chat.turns[0].answer.startswith("the sun sees") and len(chat.turns[0].events) == 3


def test_an_edited_question_is_shown_without_the_texts_of_its_files(chat: Talk, edited, monkeypatch) -> None:
    greeted: list[str] = []
    monkeypatch.setattr(chat.screen, "greet", greeted.append)
    chat.say("Why?")
    edited(with_attachments([Attachment("notes.txt", "the cat")], "How?"))
    chat.say("/edit")
    assert greeted == ["> [notes.txt] How?"] and "the cat" in chat.turns[0].question


def test_an_answer_whose_end_the_user_wrote_is_shown_as_complete(chat: Talk, edited) -> None:
    chat.say("Why?")
    edited("It is so.")
    chat.say("/edit answer")
    file = io.StringIO()
    TerminalScreen(file).show_turn(chat.turns[0], "text")
    assert file.getvalue().endswith("It is so.\n"), "nothing below the answer"
    assert all("interrupted" not in form(chat.conversation.session) for form in (as_markdown, as_html))


def test_an_answer_whose_process_was_killed_is_shown_as_unfinished_and_can_be_continued(chat: Talk) -> None:
    chat.say("Why?")
    (turn,) = chat.turns
    turn.finish_reason, turn.statistics = None, {}
    file = io.StringIO()
    TerminalScreen(file).show_turn(turn, "text")
    assert file.getvalue().endswith("\n(unfinished: /continue goes on)\n")
    chat.say("/continue 3")
    assert len(chat.turns[0].events) == len(turn.events) + 3


def test_an_answer_whose_end_the_user_removed_is_shown_as_complete_and_can_be_continued(
    chat: Talk, store: Store, edited
) -> None:
    chat.say("Why?")
    shorter = "".join(event.text for event in chat.turns[0].events[:-2])
    edited(shorter)
    chat.say("/edit answer")
    assert chat.turns[0].answer == shorter and chat.turns[0].ending == "stop"
    assert saved(store) == chat.turns
    chat.say("/continue 2")
    assert chat.turns[0].answer.startswith(shorter) and chat.turns[0].ending == "length"


def test_an_unchanged_answer_in_the_editor_changes_nothing(chat: Talk, edited) -> None:
    chat.say("Why do cats purr?")
    before = list(chat.turns)
    edited(chat.turns[0].answer.strip())
    assert chat.say("/edit answer") == ["the answer is unchanged"]
    for what in ("question", "answer"):
        edited("")
        assert chat.say(f"/edit {what}") == [f"the {what} is empty: nothing is changed"] and chat.turns == before
    assert chat.say("/edit title") == ["/edit must be one of question, answer (not 'title')"]


def test_an_answer_that_was_cut_off_while_thinking_goes_on_thinking(tmp_path: Path) -> None:
    template = tiny_models.CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
    added = ["<think>", "</think>"]
    model = tiny_models.write_llama(tmp_path / "m.gguf", chat_template=template, add_bos=False, added=added)
    with talk(model, sampling=ENDLESS) as chat:
        chat.say("Why?")
        cut = chat.turns[0].events
        assert cut[-1].thought and not chat.turns[0].answer
        assert chat.say("/continue 5") == []
        assert chat.turns[0].events[:8] == cut and len(chat.turns[0].events) == 13
        assert all(event.thought for event in chat.turns[0].events)


def test_an_edited_answer_keeps_its_tokens_although_editors_keep_no_white_space_around_a_text(
    chat: Talk, edited
) -> None:
    events = [plain_event(n, text) for n, text in enumerate((" Cats", " purr", " softly", ".\n"))]
    chat.say("Why?")
    chat.turns[0].events = events
    edited("Cats purr loudly.")
    chat.say("/edit answer")
    (turn,) = chat.turns
    assert turn.answer == " Cats purr loudly.\n"
    assert [event.kind for event in turn.events] == ["plain", "plain", "given", "plain"]
    chat.say("/why")
    rows = [line.split() for line in chat.screen.shown.splitlines() if re.match(r" *[0-3] ", line)]
    assert [(row[2], row[4]) for row in rows[1:3]] == [("plain", "1.000"), ("given", "-")]
    assert re.search(r'data-tip="[^"]*loudly\s+given"', as_html(chat.conversation.session))
    turn.events = events
    edited("Cats purr")
    chat.say("/edit answer")
    assert chat.turns[0].answer == " Cats purr", "no end of a line behind another end"
    chat.turns[0].events = [plain_event(0, " \n")]
    edited("Cats purr loudly.")
    chat.say("/edit answer")
    assert chat.turns[0].answer == " \nCats purr loudly."
