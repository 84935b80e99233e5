"""A chat's first screen, earlier turns, lists and long figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console
from talking import Talk
from terminal import MARKDOWN, numbered, words

from pjlocal.chat import figures
from pjlocal.chat.commands.table import COMMANDS
from pjlocal.settings import Mode


@pytest.mark.slow
@pytest.mark.parametrize("view", ["markdown", "text", "blame"])
def test_a_chat_that_is_opened_again_shows_its_last_answer_as_it_was_shown_when_it_was_written(
    start, toy, says, view: str
) -> None:
    chat = start(*toy, *says(f"<think>\nLet me see.\n</think>\n\n{MARKDOWN}"), "--view", view, lines=50)
    assert "/prefer changes the preferences" in chat.text
    shown, written = chat.say("Go\\?"), chat.colors("The end.")
    for line in ("/new", "/load Go"):
        again = chat.say(line)
    assert again.split("\n> Go\\?\n")[1] == shown and chat.colors("The end.") == written
    chat.say("/set max-tokens 3")
    cut = chat.say("/regen")
    assert "cut off after 3 tokens" in cut and chat.say("/load Go").endswith(cut)
    chat.leave()
    chat = start("--continue", "--view", view, lines=50)
    assert "1 turn\n\n> Go\\?\n" in chat.text and "cut off after 3 tokens" in chat.text
    assert "/prefer" not in chat.text


@pytest.mark.slow
def test_the_first_screen_says_how_to_set_preferences_and_nothing_is_shown_as_a_bare_header(start, toy) -> None:
    chat = start("-m", "toy.gguf", "-n", "3", lines=200)
    assert "/prefer sets preferences, as in /prefer vivid creative" in chat.text
    assert chat.say("/sessions") == "there are no saved chats yet"
    assert chat.say("/stats").startswith("this chat has no questions yet\n")
    assert re.match(r"strength +value +$|setting +value *\nstrength +1 \(automatic\) ", chat.say("/strength"))
    chat.say("/prefer vivid creative")
    chat.say("/mode both")
    assert re.search(r"strength +auto \(automatic\) ", chat.say("/strength"))
    assert not re.search(r"^[a-z-]+ +- ", chat.say("/set"), re.MULTILINE)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_the_help_breaks_a_usage_line_after_bars_and_words(width: int) -> None:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(figures.commands([(c.usage, c.help) for c in COMMANDS.values()], width))
    shown = capture.get()
    assert max(map(len, shown.split("\n"))) <= width
    usages = " ".join(line[: 34 if width >= 60 else width].strip() for line in shown.split("\n"))
    for command in COMMANDS.values():
        for choice in re.findall(r"[^\s|]+", command.usage):
            assert choice in usages


@pytest.mark.slow
def test_compare_shows_each_answer_as_it_is_written(start, slow_toy, says) -> None:
    chat = start(*slow_toy, *says(numbered(12)), lines=60)
    chat.say("Go")
    chat.type("/compare\r")
    chat.until(lambda: re.search("─ base ─+\nword0", chat.text))
    assert "─ plain ─" not in chat.text
    first = chat.text.partition("─ judge ─")[2].partition("─ base ─")[0]
    assert numbered(12) in " ".join(words(first)) and re.search(r"^\d+ tokens · \d+% accepted", first, re.MULTILINE)
    chat.at_prompt()
    assert words(chat.shown("/compare")).count("word11") == len(get_args(Mode))


@pytest.mark.slow
def test_why_is_paged_if_it_does_not_fit_on_the_screen(start, toy, says) -> None:
    chat = start(*toy, *says(numbered(30)), "--mode", "judge", lines=24, PAGER="head -4")
    chat.say("Go")
    why = chat.say("/why")
    assert why.startswith("a: vivid  b: creative") and len(why.splitlines()) == 4
    chat.say("/set max-tokens 3")
    chat.say("/regen")
    assert len(chat.say("/why").splitlines()) > 4, "it fits"


def test_an_export_to_a_folder_that_does_not_exist_is_refused(chat: Talk, pjlocal, tmp_path: Path) -> None:
    chat.say("Why?")
    for target in (tmp_path / "nowhere" / "chat.md", tmp_path / "nowhere" / "deeper" / "chat.html"):
        assert chat.say(f"/export {target}") == [f"cannot write {target}: the folder {target.parent} does not exist"]
        assert chat.chat.status == 1
    assert not (tmp_path / "nowhere").exists()
    assert chat.say(f"/export {tmp_path}/chat.md") == [f"written to {tmp_path}/chat.md"]
