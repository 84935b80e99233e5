"""Adapters in a chat: set, exchanged, saved with it, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from talking import QUESTIONS, TEXT_ONLY, Talk, talk
from tiny_models import write_llama, write_lora

from pjlocal.chat.status import status_line
from pjlocal.sessions.cache import load_cache, save_cache
from pjlocal.sessions.session import Session


@pytest.fixture
def lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_lora(tmp_path / "pirate.gguf")


@pytest.fixture
def chat(tiny) -> Iterator[Talk]:
    with talk(tiny("llama"), sampling=TEXT_ONLY) as chat:
        yield chat


def test_an_adapter_is_in_force_from_the_next_answer_on_and_all_is_read_again(chat: Talk, lora: Path) -> None:
    before = chat.ask(QUESTIONS[0])
    chat.say("/set lora-a pirate.gguf:0.5")
    assert "pirate.gguf:0.5" in status_line(chat.conversation, 100).plain
    chat.say("/undo")
    changed = chat.ask(QUESTIONS[0])
    assert changed.ids != before.ids and changed.fed == changed.new_to([[]] * 4)
    following = chat.ask(QUESTIONS[1])
    assert following.fed == following.new_to(changed.held), "and then only what is new"


def test_swap_exchanges_the_views_adapters_too_and_reads_nothing_again(chat: Talk, lora: Path) -> None:
    chat.say("/set lora-a pirate.gguf")
    first = chat.ask(QUESTIONS[0])
    chat.say("/swap")
    assert (chat.judge.request.generation.lora_a, chat.judge.request.generation.lora_b) == ((), ("pirate.gguf",))
    second = chat.ask(QUESTIONS[1])
    a, b, *others = first.held
    assert second.fed == second.new_to([b, a, *others])


def test_a_comparison_leaves_out_mode_rewrite_without_a_preference_in_words(chat: Talk, lora: Path) -> None:
    chat.say("/set lora-a pirate.gguf")
    chat.say("/prefer clear")
    chat.say("Why?")
    assert "mode rewrite is left out: it needs a preference in words" in chat.say("/compare")
    assert [draft.settings["mode"] for draft in chat.turns[-1].drafts] == ["both", "judge", "base", "prompt", "plain"]


def test_a_session_names_its_adapters_as_they_are_from_every_folder(chat: Talk, lora: Path) -> None:
    chat.say("/set lora pirate.gguf:0.5")
    assert chat.conversation.settings()["generation"]["lora"] == [f"{lora}:0.5"]
    settings = chat.conversation.settings()
    lora.unlink()
    said = chat.say("/set lora default") + chat.say("/set lora pirate.gguf:0.5")
    assert "no such LoRA adapter" in said[-1] and chat.judge.request.generation.lora == ()
    with pytest.raises(Exception, match="no such LoRA adapter"):
        chat.conversation.open(Session(settings=settings))
    assert chat.judge.request.generation.lora == ()


def test_a_model_that_the_adapters_are_not_made_for_is_not_loaded(chat: Talk, lora: Path, tmp_path: Path) -> None:
    chat.say("/set lora pirate.gguf")
    other = write_llama(tmp_path / "other.gguf", n_embd=32)
    loaded = chat.judge.model
    assert "pirate.gguf does not fit the model other.gguf" in chat.say(f"/model {other}")[-1]
    assert chat.judge.model is loaded


def test_a_saved_cache_is_taken_by_views_with_the_same_adapters_alone(tiny, lora, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PJLOCAL_DATABASE", str(tmp_path / "chats.db"))
    session = Session(id=7)
    with talk(tiny("llama"), session=session, lora_a=(str(lora),)) as chat:
        before = chat.ask(QUESTIONS[0])
        assert save_cache(chat.judge.decoder, session) > 0
    for adapters, held in ({"lora_a": (str(lora),)}, before.held), ({}, [[]] * 4):
        with talk(tiny("llama"), session=session, **adapters) as chat:
            load_cache(chat.judge.decoder, session, chat.judge.roles(chat.judge.request).adapters)
            cost = chat.ask(QUESTIONS[1])
            assert cost.fed == cost.new_to(held)
            chat.conversation.session.turns.pop()
