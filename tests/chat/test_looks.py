"""How answers look in a chat, on terminals of many kinds."""

from __future__ import annotations

import re
from math import log

import pytest
from terminal import MARKDOWN, numbered, words

# How answers look.


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 200])
def test_markdown_on_narrow_and_wide_screens(start, toy, says, columns: int) -> None:
    chat = start(*toy, *says(MARKDOWN), "--mode", "judge", columns=columns, PAGER="cat")
    shown = chat.say("Go")
    rows = shown.splitlines()
    assert words(shown) == words(
        "Rain Some soft words in a paragraph that is long enough to be folded on a screen of forty columns. "
        '• one item • another def fall(drops: int) -> str: return "drop " * drops '
        f"name value {next(row for row in rows if '──' in row)} rain wet The end."
    )
    assert rows[0] == "Rain"
    code = rows.index("def fall(drops: int) -> str:")
    assert rows[code + 1] == '    return "drop " * drops', "code can be copied as it is"
    assert len(set(chat.colors("def fall"))) > 1, "code is highlighted"
    assert set(chat.colors("The end.")) == {"default"}
    assert "\n\n\n" not in shown
    assert b"forty columns.\r\n" in chat.raw, "rows end where their text ends"
    numbers = r" · \d+ tok/s · \d+% accepted · context \d+/8192" if columns == 200 else ""
    assert re.fullmatch(rf"judge λ4 · a.*: vivid · b.*: creative{numbers}", chat.screen.display[-1].rstrip())
    assert re.search(r"^ *40 .*( +[ab])(( +\d\.\d{3}| +-)){3}", chat.say("/why"), re.MULTILINE)


@pytest.mark.slow
def test_the_text_view_shows_the_markup_and_blame_who_wrote_it(start, toy, says, sessions) -> None:
    chat = start(*toy, *says(MARKDOWN), "--mode", "judge", "--view", "text", columns=120, lines=60)
    chat.say("Go")
    assert MARKDOWN in chat.text
    chat.say("/view blame")
    chat.say("Again")
    *_, turn = sessions()[0].turns
    assert chat.shown("Again") == f"a: vivid  b: creative  resampled  bonus\n{MARKDOWN}"
    written = ["cyan" if event.writer == "a" else "magenta" for event in turn.events for _ in event.text]
    assert chat.colors("The end.") == written[-8:]
    chat.say("/view markdown")
    assert "# Rain" not in chat.say("And again")


@pytest.mark.slow
def test_the_push_view_shows_what_pulled_a_token_in(start, toy, says, sessions) -> None:
    chat = start(*toy, *says("rain and snow"), "--view", "push", "--mode", "both", columns=120)
    assert chat.say("Go") == "a: vivid  b: creative  more probable by it: ×1.1 ×2 ×10\nrain and snow"
    (turn,) = sessions()[0].turns
    styles = {"a": "cyan", "b": "magenta"}
    pulled = [max(event.pushes, key=event.pushes.get) for event in turn.events]
    expected = [
        styles[name] if event.pushes[name] >= log(1.1) else "default"
        for event, name in zip(turn.events, pulled, strict=True)
        for _ in event.text
    ]
    assert chat.colors("rain and snow") == expected
    why = chat.say("/why")
    assert re.search(r"^ *0 +.* [+-]\d\.\d\d +[+-]\d\.\d\d", why, re.MULTILINE) and "push a  push b" in why
    chat.say("/mode judge")
    assert chat.say("Again").startswith("no pushes: they need preferences with a strength")


@pytest.mark.slow
def test_no_color_removes_colours(start, toy, says) -> None:
    chat = start(*toy, *says(MARKDOWN), "--view", "blame", NO_COLOR="1", PAGER="cat")
    chat.say("Go")
    chat.say("/why")
    chat.say("/view markdown")
    chat.say("/regen")
    chat.say("/help")
    chat.leave()
    why = chat.raw.decode().partition("/why")[2].partition("/view")[0]
    assert re.search(r"\x1b\[(0;)?7m", why), "who wrote it shows all the same"
    codes = {code for codes in re.findall(rb"\x1b\[([\d;]*)m", chat.raw) for code in codes.split(b";")}
    assert codes <= {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"22", b"23", b"24", b"27"}


@pytest.mark.slow
def test_a_dumb_terminal_gets_prompts_and_bare_answers(start, toy, says) -> None:
    chat = start(*toy, *says("Rain *falls*."), ready=False, TERM="dumb")
    for line in ("Go", "/why", "And?"):
        chat.until(lambda: chat.text.endswith(">"))
        chat.type(f"{line}\r")
        chat.until(line)
    chat.until(lambda: chat.text.count("Rain *falls*.") == 3)
    chat.until(lambda: chat.text.endswith(">"))
    chat.type("\x04")
    assert chat.end() == 0
    assert b"\x1b" not in chat.raw
    assert chat.text.splitlines()[:3] == ["> Go", "Rain *falls*.", "> /why"]


@pytest.mark.slow
def test_thinking_is_one_line_with_a_count_until_it_is_unfolded(start, toy, says, sessions) -> None:
    chat = start(*toy, *says("<think>\nLet me *see*.\n</think>\n\nIt *rains*."), "--mode", "judge")
    shown = chat.say("Go")
    (turn,) = sessions()[0].turns
    n_thoughts = sum(event.thought for event in turn.events)
    line = f"Thought for {n_thoughts} tokens"
    assert shown.splitlines() == [line, "It rains."]
    assert f"\x1b[2m{line}".encode() in chat.raw and b"\x1b[2mThinking\xe2\x80\xa6 " in chat.raw
    assert chat.say("/thoughts") == "Let me *see*."
    assert chat.say("/view text") and chat.say("/regen").splitlines() == [line, "It *rains*."]
    assert chat.say("/load Go").endswith(f"> Go\n{line}\nIt *rains*.")

    chat.say("/thoughts on")
    assert chat.say("/regen").splitlines() == ["Let me *see*.", "", "It *rains*."]
    chat.say("/view markdown")
    assert chat.say("/regen").splitlines() == ["Let me *see*.", "", "It rains."], "thoughts are no Markdown"
    dimmed = re.findall(rb"\x1b\[2m([^\x1b]*)", chat.raw)
    assert b"Let" in b"".join(dimmed) and not any(b"rains" in text for text in dimmed)
    chat.say("/view blame")
    colored = chat.say("/regen")
    assert colored.splitlines()[1:] == ["Let me *see*.", "", "It *rains*."]
    *_, turn = sessions()[0].turns
    written = ["cyan" if event.writer == "a" else "magenta" for event in turn.events for _ in event.text]
    at = "".join(event.text for event in turn.events).index("Let me")
    assert chat.colors("Let me") == written[at : at + 6], "thought tokens have their writers' colours"
    chat.say("/thoughts off")
    assert chat.say("/regen").splitlines()[1:] == [line, "It *rains*."]


@pytest.mark.slow
def test_an_answer_cut_off_or_stopped_while_thinking_says_so(start, slow_toy, says) -> None:
    chat = start(*slow_toy, *says(f"<think>{numbered(300)}</think>Yes"))
    chat.say("/set max-tokens 20")
    cut = "(cut off after 20 tokens while thinking, without an answer: /continue goes on, /set max-tokens allows more, "
    cut += "/set think-tokens limits the thinking)"
    assert " ".join(chat.say("Go").split()) == f"Thought for 20 tokens {cut}"
    chat.say("/set max-tokens 4000")
    chat.type("/regen\r")
    chat.until(lambda: re.search(r"Thinking… [2-9]\d tokens", chat.text))
    chat.until(lambda: any(row.startswith("both · ") for row in chat.screen.display))  # it goes on below
    chat.type("\x03")
    chat.at_prompt()
    assert re.fullmatch(r"Thought for \d+ tokens\n\(stopped while thinking, without an answer\)", chat.shown("/regen"))


@pytest.mark.slow
def test_finished_parts_can_be_scrolled_to_during_an_answer(start, toy, says) -> None:
    items = "".join(f"- item {i}\n" for i in range(40))
    lines = "".join(f"def f{i}():\n    pass\n\n\n" for i in range(20))
    chat = start(*toy, *says(f"{items}\n```python\n{lines}```\n\n{numbered(100)}"), lines=12)
    chat.type("Go\r")
    chat.until(lambda: "item 30" in chat.text)
    assert "item 1\n" in chat.text
    chat.until(lambda: "f15" in chat.text)
    assert "def f1():\n    pass\n\n\ndef f2():" in chat.text
    chat.at_prompt()
    for i in range(20):
        assert chat.text.count(f"item {i}\n") == chat.text.count(f"def f{i}():\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("view", ["text", "blame", "push", "markdown"])
def test_the_status_line_stands_alone_while_an_answer_streams(start, slow_toy, says, view: str) -> None:
    chat = start(*slow_toy, *says(numbered(60)), "--view", view)
    chat.type("Go\r")
    for n in range(5, 60, 10):
        chat.until(lambda: f"word{n}" in chat.text.replace("\n", ""))
        rows = [row for row in chat.screen.display if "both λ4 ×auto · " in row]
        assert all(row.startswith("both λ4 ×auto · a") and "word" not in row for row in rows)
    chat.at_prompt()
    assert numbered(60).replace(" ", "") in re.sub(r"\s", "", chat.text)
