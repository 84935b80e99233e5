"""Texts of any length and kind become tokens, and none of them ends the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from waiting import PATIENCE_S

from pjlocal import Engine
from pjlocal.engine import worker
from pjlocal.engine.interrupt import Interrupt, Interrupted, on_sigint
from pjlocal.engine.model import Model

LONG = 30_000  # characters: enough to fill 8 MiB of stack

PROSE = "The cat sees the dog.\nAnd the dog, it doesn't see 1,234 cats! "


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> Iterator[Model]:
    with closing(Model(tiny("tekken"), Engine(), Interrupt())) as model:
        yield model


def test_a_chat_continues_after_a_refused_run_of_letters(pjlocal, tiny: Callable[[str], Path]) -> None:
    result = pjlocal("chat", "-m", tiny("tekken"), "-n", "4", stdin="A" * LONG + "\nhello\n")
    assert "the prompt is too long" in result.stderr and result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["A", "Aa", " ", "\n", "\r\n", "9", ".", "あ", "日", "😀", "e\u0301", "\u0301", "\0"])
def test_no_run_of_any_character_ends_the_process(model: Model, unit: str) -> None:
    text = unit * 100_000
    tokens = model.tokenize(text, special=True)
    assert model.text(tokens) == text


@pytest.mark.parametrize(
    "text", [PROSE * 800, "한국어 문장입니다. 고양이가 개를 본다\n" * 2000, "猫在看狗。狗在睡觉，" * 4000]
)
def test_a_text_cut_where_words_end_has_the_tokens_of_the_whole(model: Model, text: str) -> None:
    """The whole at once has room on this stack: its words are short."""
    assert len(text) > 35_000
    assert model.tokenize(text, special=True) == model._tokenizer._tokens(text, True, False)


def test_pieces_of_a_text_get_no_spaces_of_their_own(tiny: Callable[[str], Path]) -> None:
    """SentencePiece's vocabularies put one before every text."""
    with closing(Model(tiny("space_prefix"), Engine(), Interrupt())) as model:
        for text in (PROSE * 800, "あ" * 40_000):
            assert model.tokenize(text, special=True) == model._tokenizer._tokens(text, True, False)


def test_a_control_token_is_never_cut_in_two(model: Model) -> None:
    for before in range(16_384 - 12, 16_384 + 2):
        tokens = model.tokenize("A" * before + "<|im_end|>" + "B" * 20_000, special=True)
        assert tokens.count(4) == 1


def test_a_thread_with_a_small_stack_can_split_texts(model: Model) -> None:
    """As those of a server, or of other systems: 512 KiB on macOS."""
    lengths: list[int] = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(
            target=lambda: lengths.extend(len(model.tokenize("A" * n, special=True)) for n in (256, LONG))
        )
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert lengths == [64, LONG // 4]


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["A", " ", "あ"])
@pytest.mark.parametrize("vocabulary", ["tekken", "space_prefix"])
def test_llama_cpp_gets_pieces_of_one_length_however_long_the_text_is(
    tiny: Callable[[str], Path], vocabulary: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that ten times the text takes ten times the time."""
    model = Model(tiny(vocabulary), Engine(), Interrupt())
    lengths: list[int] = []
    split = model._tokenizer._split

    def counted(text: str, special: bool) -> list[int]:
        lengths.append(len(text))
        return split(text, special)

    monkeypatch.setattr(model._tokenizer, "_split", counted)
    model.tokenize(unit * 300_000, special=True)
    assert max(lengths) <= 16_385 and 300_000 <= sum(lengths) < 300_100
    model.close()


def test_ctrl_c_stops_it_between_two_pieces_and_leaves_nothing_running(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt = Interrupt()
    begun: list[str] = []
    ended: list[str] = []
    waits = threading.Event()

    def pressed(text: str, special: bool, continues: bool) -> list[int]:
        begun.append(text)
        if len(begun) == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert waits.wait(PATIENCE_S)
        ended.append(text)
        return []

    def wait_for(end: threading.Event) -> None:
        waits.set()
        end.wait()

    monkeypatch.setattr(worker, "_wait_for", wait_for)
    monkeypatch.setattr(model._tokenizer, "_tokens", pressed)
    with on_sigint(interrupt), pytest.raises(Interrupted), interrupt.at_once():
        model.tokenize("A" * 1_000_000, special=True)
    assert len(begun) == 2 and ended == begun, "the model could be closed while it is read"
