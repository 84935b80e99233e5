"""A conversation that outgrows the context goes on: the oldest exchanges leave, and it is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from talking import Cost, Talk, model_with, prompt_text, talk
from tiny_models import CHATML

from pjlocal import Engine, Prompting
from pjlocal.errors import UsageError
from pjlocal.sessions.store import Store

# A full context.


def exchanges(chat: Talk, cost: Cost) -> list[str]:
    """The questions in view a's prompt, behind its preference."""
    head, *rest = re.split(r"<\|im_start\|>user\n", prompt_text(chat, cost))
    assert head == "<|im_start|>system\nBe exact\n\nBe brief<|im_end|>\n", "system text and preference stay, whole"
    assert all(part.count("<|im_start|>assistant\n") == 1 for part in rest), "and exchanges are whole"
    return [part.split("<|im_end|>")[0] for part in rest]


def test_when_the_context_is_full_the_oldest_exchanges_leave_in_whole(tmp_path: Path, store: Store) -> None:
    engine, prompting = Engine(n_ctx=320, n_threads=1), Prompting(system="Be exact", placement="system")
    with talk(model_with(tmp_path, CHATML), engine=engine, prompting=prompting, store=store, max_tokens=16) as chat:
        seen, asked, held, n_whole = [], [], [[]] * 4, 0
        for n in range(12):
            asked.append(f"Question {n} of twelve?")
            cost = chat.ask(asked[-1])
            seen.append(exchanges(chat, cost))
            assert cost.fed == cost.new_to(held), "what stays in front is not read again"
            n_whole += len(seen[-1]) == n + 1
            held = cost.held
            assert max(map(len, cost.prompts)) + 16 <= 320
        assert all(questions == asked[n + 1 - len(questions) : n + 1] for n, questions in enumerate(seen))
        assert 3 <= n_whole < 12
        said = chat.screen.said
        left = [n + 1 - len(questions) for n, questions in enumerate(seen)]
        leaving = [b for a, b in zip([0, *left], left, strict=False) if b > a]
        assert [re.findall(r"oldest (?:(\d+) exchanges|(exchange))", line) for line in said] == [
            [("", "exchange")] if n == 1 else [(str(n), "")] for n in leaving
        ], "a notice each time that some leave, which says how many are gone"
        assert len(leaving) <= 4, "which is not each turn"
        assert said[0].startswith("the context of 320 tokens is full: the model no longer sees the oldest")
        assert [turn.question for turn in store.load(chat.conversation.session.id).turns] == asked


def test_a_message_that_cannot_fit_is_refused_and_says_by_how_much(tmp_path: Path, store: Store) -> None:
    engine = Engine(n_ctx=256, n_threads=1)
    with talk(model_with(tmp_path, CHATML), engine=engine, store=store) as chat:
        before = chat.ask("Why?")
        fed, saved = chat.n_fed(), store.load(chat.conversation.session.id)
        (line,) = chat.say("x" * 300)
        too_long = re.fullmatch(
            r"the prompt is too long: (\d+) tokens, and a context of 256 has room for 255 and an answer\. "
            r"Shorten it by (\d+) tokens, or give a larger --ctx",
            line,
        )
        assert too_long and int(too_long[1]) - int(too_long[2]) == 255
        assert chat.n_fed() == fed and len(chat.turns) == 1
        assert store.load(chat.conversation.session.id) == saved
        cost = chat.ask("And?")
        assert cost.fed == cost.new_to(before.held)
        assert chat.say("x" * (300 - int(too_long[2]))) == [
            "the context of 256 tokens is full: the model no longer sees the oldest 2 exchanges. The chat keeps them"
        ]
        assert len(chat.conversation.last.events) == 1, "that many fewer do fit"
        before = list(chat.turns)
        with pytest.raises(UsageError, match="Shorten it by"):
            chat.conversation.ask("y" * 300, replacing=chat.conversation.last)
        assert chat.turns == before


def test_undoing_a_long_message_restores_the_turns_that_it_displaced(tmp_path: Path) -> None:
    with talk(model_with(tmp_path, CHATML), engine=Engine(n_ctx=320, n_threads=1)) as chat:
        first = [chat.ask("Why?"), chat.ask("How?")]
        assert "oldest 2 exchanges" in chat.say("x" * 230)[0]
        assert chat.say("/undo") != []
        cost = chat.ask("And?")
        assert cost.prompts[0][: len(first[1].held[0])] == first[1].held[0]


def test_comparing_pushes_nothing_out(tmp_path: Path) -> None:
    """In prompt mode both preferences stand in one prompt, which is longer."""
    prefer = ("Be " + "very " * 8 + "brief", "Be " + "very " * 8 + "kind")
    with talk(model_with(tmp_path, CHATML), prefer=prefer, engine=Engine(n_ctx=320, n_threads=1)) as chat:
        cost = chat.ask("And?")
        while max(map(len, cost.prompts)) < 240:
            cost = chat.ask("And?")
        assert chat.say("/compare") == []
        assert chat.ask("", chat.conversation.regenerate()).prompts == cost.prompts
