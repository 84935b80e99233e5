"""The page and a chat on a terminal, in one saved chat of one server: neither continues after unseen turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Chromium
from commandline import PJLOCAL
from on_the_page import ENDLESS, SETTINGS, TOKENS, WRITTEN, ask, click
from saved_chats import a_turn, saved, texts
from served import VIEWS, Served
from terminal import Terminal
from waiting import when

from pjlocal.sessions.store import Store

OPTIONS = (*VIEWS, "--parallel", "2")
SHORT = SETTINGS | {"generation": {"max_tokens": 6, "ignore_end": True}}
TROUBLE = "document.getElementById('trouble').textContent"
QUESTIONS = "[...document.querySelectorAll('.question')].map((one) => one.textContent)"

pytestmark = pytest.mark.slow


@pytest.fixture(params=["by --server", "found by itself"])
def terminal(
    request: pytest.FixtureRequest,
    served: Served,
    model: Path,
    database: Path,
    server_environment: dict[str, str],
    tmp_path: Path,
) -> Iterator[Callable[[int], Terminal]]:
    """Opens a saved chat on a terminal, whose answers that server writes."""
    started: list[Terminal] = []

    def chat(number: int) -> Terminal:
        named = request.param == "by --server"
        where = ("--server", served.page()) if named else ("-m", str(model), "--threads", "1", "--ctx", "32768")
        environment = server_environment | {"PJLOCAL_DATABASE": str(database), "TERM": "xterm-256color"}
        started.append(
            Terminal(environment, tmp_path, (*PJLOCAL, "chat", *where, "--session", str(number)), columns=200, lines=40)
        )
        started[-1].at_prompt()
        assert "answers come from" in started[-1].text
        return started[-1]

    yield chat
    for one in started:
        one.close()


def asked(store: Store, number: int) -> list[str]:
    return [question for question, _ in texts(store, store.load(number))]


def test_the_terminal_continues_a_chat_of_the_page_and_the_page_sees_it(page, terminal, store: Store) -> None:
    number = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SHORT).id
    chromium: Chromium = page(f"#{number}")
    ask(chromium, "From the page")
    chromium.wait_for(WRITTEN)
    chat = terminal(number)
    assert "cut off after 6" in chat.say("From the terminal")
    assert asked(store, number) == ["Hello", "From the page", "From the terminal"]
    chromium.eval("question.value = 'And now?'; document.getElementById('ask').requestSubmit()")
    chromium.wait_for(TROUBLE)
    assert "new turn from elsewhere" in chromium.eval(TROUBLE) and chromium.eval("question.value") == "And now?"
    assert chromium.eval(QUESTIONS) == asked(store, number)
    chromium.eval("document.getElementById('ask').requestSubmit()")
    chromium.wait_for(f"document.querySelectorAll('article').length === 4 && {WRITTEN}")
    assert asked(store, number) == ["Hello", "From the page", "From the terminal", "And now?"]


def test_the_page_continues_a_chat_of_the_terminal_and_the_terminal_says_so(page, terminal, store: Store) -> None:
    number = saved(store, "shared", a_turn("Hello", "Hi you"), settings=SHORT).id
    chat = terminal(number)
    assert "cut off after 6" in chat.say("From the terminal")
    chromium: Chromium = page(f"#{number}")
    chromium.wait_for(WRITTEN)
    ask(chromium, "From the page")
    chromium.wait_for(f"document.querySelectorAll('article').length === 3 && {WRITTEN}")
    assert chat.say("And now?") == f"the chat has new turns from elsewhere: /load {number} shows it"
    assert "3 turns" in chat.say(f"/load {number}") and "> From the page" in chat.text
    assert "cut off after 6" in chat.say("And now?")
    assert asked(store, number) == ["Hello", "From the terminal", "From the page", "And now?"]


def test_the_second_of_two_simultaneous_questions_is_refused_in_one_line(page, terminal, store: Store) -> None:
    number = saved(store, "shared", a_turn("Hello", "Hi you"), settings=ENDLESS).id
    chat = terminal(number)
    chromium: Chromium = page(f"#{number}")
    chromium.wait_for(WRITTEN)
    ask(chromium, "From the page")
    chromium.wait_for(f"{TOKENS} > 5")
    assert f"/load {number} shows it" in chat.say("At once")
    click(chromium, "Stop")
    chromium.wait_for(WRITTEN)
    assert "2 turns" in chat.say(f"/load {number}")
    chat.type("At once\r")
    when(lambda: len(asked(store, number)) == 3)
    chromium.eval("question.value = 'Too'; document.getElementById('ask').requestSubmit()")
    chromium.wait_for(TROUBLE)
    assert chromium.eval("question.value") == "Too"
    chat.type("\x03")
    chat.at_prompt()
    chromium.wait_for(f"document.querySelectorAll('article').length === 3 && {WRITTEN}")
    assert asked(store, number) == chromium.eval(QUESTIONS) == ["Hello", "From the page", "At once"]
