"""A session as Markdown, JSON and HTML, in files that are their owner's alone."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from exported_chats import HOSTILE, SETTINGS, STATISTICS, accepted, bonus, chat, hostile_session, resampled

from pjlocal import __version__
from pjlocal.errors import OutputError, UsageError
from pjlocal.events import TokenEvent
from pjlocal.html import source
from pjlocal.sessions.export import FORMATS, as_html, as_json, as_markdown, write_export
from pjlocal.sessions.session import Session, Turn

# JSON


def test_json_holds_everything_and_its_tokens_make_the_events_again() -> None:
    session = chat(accepted("Be"), resampled("cause", instead=" so"), bonus(" é\n"))
    read = json.loads(as_json(session))
    assert read["pjlocal"] == __version__ and read["title"] == "A chat"
    assert read["created"] == "2023-11-14T22:13:20+00:00"
    (turn,) = read["turns"]
    assert [TokenEvent.from_dict(token) for token in turn.pop("tokens")] == session.turns[0].events
    assert turn == {
        "question": "Why?",
        "thinking": "",
        "answer": "Because é\n",
        "created": "2023-11-14T22:13:20+00:00",
        "settings": SETTINGS,
        "finish_reason": "stop",
        "statistics": STATISTICS,
        "drafts": [],
    }


def test_json_keeps_odd_characters_exactly_without_escape_sequences() -> None:
    odd = 'a\x1b[2J\x00\x7f\x9b31m\u202e\u2028 "\\ \ud800 é 日本 🎂'
    text = as_json(chat(accepted(odd), question=odd, title=odd))
    assert "é 日本 🎂" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028\ud800-\udfff]", text)
    read = json.loads(text)
    assert read["title"] == read["turns"][0]["question"] == read["turns"][0]["answer"] == odd


# Edited answers


def test_an_answer_in_which_the_user_wrote_is_edited_and_what_nobody_chose_has_no_probability() -> None:
    begun = [TokenEvent.given(0, "Be", token=5), accepted("cause")]
    turn = chat(*begun).turns[0]
    for edited, answer in ((turn.continued(), False), (turn.edited("Become"), True), (turn.taking(1, "come"), True)):
        session = Session(turns=[replace(edited, settings=SETTINGS)])
        assert ("edited · toy" in as_markdown(session)) is answer
        html = as_html(session)
        assert ("<bdi>edited</bdi>" in html) is answer and ">Be</span>" in html
        assert not re.search(r"given\n[^<]*p ", html)


def test_the_beginning_from_the_settings_is_not_edited_although_a_vocabulary_has_a_token_0() -> None:
    events = [TokenEvent.given(0, "Ahoy", token=5), TokenEvent.given(1, "!", token=0), accepted(" Yes")]
    turn = Turn("Q", events, {"prompting": {"begin": "Ahoy!"}})
    assert not turn.is_edited
    assert turn.edited("Ahoy! No").is_edited and turn.edited("Yes").is_edited


# Thinking


def thoughtful() -> Session:
    texts = [("<think>", True), ("\nHm `x", True), ("</think>", True), ("\n\n", True), ("Yes", False), (".", False)]
    return chat(*(replace(accepted(text), thought=thought) for text, thought in texts))


def test_every_format_shows_the_thinking_apart() -> None:
    (turn,) = json.loads(as_json(thoughtful()))["turns"]
    assert (turn["thinking"], turn["answer"]) == ("Hm `x", "Yes.")
    assert [token["thought"] for token in turn["tokens"]] == [True] * 4 + [False] * 2
    text = as_markdown(thoughtful())
    assert "\n\n### Thinking 1\n\nHm `x\n\n### Answer 1\n\n" in text and text.endswith("\n\nYes.\n")
    html = as_html(thoughtful())
    folded, _, rest = html.partition("</details>")
    assert "Thinking: 4 tokens</summary>" in folded and ">\nHm `x</span>" in folded.partition("<details>")[2]
    assert ">Yes</span>" in rest and "Hm" not in rest
    assert "<details" not in as_html(chat(accepted("Yes.")))


def test_thinking_without_an_answer_is_shown_as_thinking() -> None:
    cut = chat(replace(accepted("<think>Hm"), thought=True))
    html = as_html(cut)
    assert "Thinking: 1 token</summary>" in html and "no answer" in html.partition("</details>")[2]
    assert json.loads(as_json(cut))["turns"][0]["answer"] == ""


# Markdown


def test_markdown_has_the_title_and_each_question_settings_and_answer() -> None:
    session = chat(accepted("Because **it** is.\n"), bonus("\n- So."), question="Why?\n\n# Really")
    session.turns.append(Turn("And then?", [accepted("Then")], {}, "length"))
    assert as_markdown(session) == (
        f"# A chat\n\npjlocal {__version__}, 2023-11-14 22:13 UTC\n\n"
        "### Question 1\n\n> Why?\n>\n> # Really\n\n### Answer 1\n\n"
        "toy.Q4_K_M.gguf · judge mode · λ 4 · seed 7 · 75% accepted · 12.3 tokens/s"
        " · a: vivid · b: creative, Answer \\*in rhyme\\*\n\n"
        "Because **it** is.\n\n- So.\n\n"
        "### Question 2\n\n> And then?\n\n### Answer 2\n\ncut at the length limit\n\nThen\n"
    )


def test_markdown_ends_a_code_block_that_the_answer_left_open() -> None:
    def tail(answer: str) -> str:
        return as_markdown(chat(accepted(answer))).partition("tokens/s")[2].partition("\n\n")[2]

    assert tail("```python\nx = 1") == "```python\nx = 1\n```\n"
    assert tail("~~~~\n```\n~~~\n") == "~~~~\n```\n~~~\n~~~~\n"
    assert tail("```\nx\n```\ny") == "```\nx\n```\ny\n"
    assert tail("```x``` y") == "```x``` y\n"


def test_markdown_has_no_escape_sequences_and_keeps_one_line_texts_on_one_line() -> None:
    text = as_markdown(chat(accepted("c\x1b[2J\u202ed\ud800"), question="a\r\nb\x9b", title="<b>one\ntwo_3_</b>\x1b"))
    assert text.startswith("# \\<b>one two_3\\_\\</b>␛\n")
    assert "> a\n> b<U+009B>\n" in text
    assert text.endswith("\n\nc␛[2J<U+202E>d\ufffd\n")


# HTML


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def tokens(self) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if "data-tip" in attributes]


def test_html_shows_every_token_with_its_writer_kind_and_numbers() -> None:
    page = Page(as_html(chat(accepted("Be"), resampled(" cause", instead=" so"), accepted(""), bonus("."))))
    assert "Be cause." in page.text
    first, second, third = page.tokens
    assert first["class"] == "t a accepted" and second["class"] == "t b resampled" and third["class"] == "t a bonus"
    assert re.findall(r"[\d.]+\d", first["data-tip"]) == ["0.1250", "0.2500", "0.5000"]
    assert "accepted, drafted by a, judged by b" in first["data-tip"]
    assert re.findall(r"[\d.]+\d", second["data-tip"]) == ["0.3125", "0.0312", "0.0625", "0.8750", "0.0714"]
    assert "␣cause" in second["data-tip"] and "in place of ␣so, drafted by a and rejected" in second["data-tip"]
    assert re.findall(r"[\d.]+\d", third["data-tip"]) == ["0.4375"]
    assert "bonus from a" in third["data-tip"]
    for fact in ("toy.Q4_K_M.gguf", "judge mode", "λ 4", "seed 7", "75% accepted", "12.3 tokens/s"):
        assert fact in page.text
    assert "a wrote 67%, b 33%" in page.text


def test_html_says_the_preferences_once_where_all_turns_share_them() -> None:
    session = chat(accepted("Yes"))
    session.turns *= 2
    assert as_html(session).count("creative, Answer *in rhyme*") == 1
    session.turns.append(chat(accepted("No"), preferences={"a": ["formal"], "b": []}).turns[0])
    text = Page(as_html(session)).text
    assert text.count("creative, Answer *in rhyme*") == 2 and text.count("formal") == 1


def test_html_needs_nothing_from_outside_and_runs_nothing() -> None:
    html = as_html(chat(accepted("Yes")))
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in html
    assert not {"script", "link", "img", "iframe", "a"} & {tag for tag, _ in Page(html).tags}
    assert "url(" not in html and "@import" not in html and "://" not in html


def test_html_escapes_untrusted_text() -> None:
    html = as_html(hostile_session())
    plain = Page(as_html(chat(accepted("x"), resampled("x"), bonus("x"))))
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, attributes in page.tags for name in attributes} == {
        name for _, attributes in plain.tags for name in attributes
    }
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    for text in HOSTILE[:7]:
        assert text in page.text and text[:60].replace(" ", "␣") in page.tokens[HOSTILE.index(text) * 3]["data-tip"]
    assert "␛]0;title␇␛[2J<U+009B>31m␀" in page.text and "<U+202E>gnp.exe" in page.text
    html.encode()


def test_html_keeps_a_character_of_several_tokens_together() -> None:
    events = [
        accepted("e"), bonus("\u0301 "), accepted("👩"), bonus("\u200d"), accepted("🚀"),
        accepted(" 🇩"), bonus("🇪"), accepted("🇫"), bonus("🇷"), accepted("👍"), bonus("🏽"), accepted("\u0301"),
    ]  # fmt: skip
    html = as_html(chat(*events))
    texts = re.findall(r'data-tip="[^"]*">([^<]*)</span>', html)
    assert texts == ["e\u0301 ", "👩\u200d🚀", " 🇩🇪", "🇫🇷", "👍🏽\u0301"]
    assert "accepted" in Page(html).tokens[0]["data-tip"] and "bonus" in Page(html).tokens[0]["data-tip"]


def test_plain_tokens_have_a_probability_alone() -> None:
    page = Page(as_html(chat(TokenEvent(0, 5, "Hi", "plain", 0, None, 0.5, None, None), mode="plain", preferences={})))
    assert page.tokens[0]["class"] == "t plain"
    assert page.tokens[0]["data-tip"].split() == ["Hi", "plain", "p", "0.5000", "━" * 10 + "─" * 10]
    assert "λ 4" not in page.text and "no preference" not in page.text


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "session",
    [
        Session(),
        Session("", [Turn("")]),
        Session("x", [Turn("interrupted at once", [], SETTINGS, "interrupted")]),
        Session(
            "x", [Turn("old", [accepted("x")], {"preferences": None, "generation": None}, "stop", {"timings": {}})]
        ),
        Session(
            "x", [Turn("old", [accepted("x")], {"preferences": {"a": ["vivid"]}}, None, {"acceptance_rate": None})]
        ),
    ],
)
def test_turns_may_lack_tokens_settings_and_statistics(session: Session, form: str) -> None:
    assert FORMATS[form](session).endswith("\n")


# Files


@pytest.mark.parametrize(("name", "form"), [("x.md", "md"), ("x.json", "json"), ("x.HTML", "html")])
def test_the_ending_chooses_the_format_and_a_new_file_is_its_owners_alone(tmp_path: Path, name: str, form: str) -> None:
    write_export(hostile_session(), tmp_path / name)
    assert (tmp_path / name).read_bytes().decode() == FORMATS[form](hostile_session())
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x", "x.txt", ".html", "html"])
def test_an_unknown_file_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"has no known format: end the name in \.md, \.json or \.html"):
        write_export(Session(), tmp_path / name, force=True)
    assert not os.listdir(tmp_path)


def test_an_existing_file_is_overwritten_by_force_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists already: choose another name"):
        write_export(Session(), path)
    assert path.read_text() == "precious"
    write_export(Session("New"), path, force=True)
    assert path.read_text().startswith("# New\n")


def test_a_failed_write_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "loop.md").symlink_to("loop.md")
    for target in ("file/x.md", "folder.md", "loop.md", f"{'n' * 300}.md", "\0.md"):
        with pytest.raises(OutputError, match=r"^cannot write .+: "):
            write_export(Session(), tmp_path / target, force=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.md", "loop.md"]


# Strengths, more views, and a judge that is all views at once.


def pushed(text: str, **values: object) -> TokenEvent:
    return replace(resampled(text, instead=" so"), pushes={"a": 0.6931, "b": -0.25}, **values)


def test_a_token_that_all_views_judged_says_so_and_how_far_each_pushed_it() -> None:
    events = [
        pushed("Be", kind="accepted", judge=None),
        pushed("cause", judge=None),
        pushed(".", kind="bonus", judge=None),
    ]
    settings = SETTINGS["generation"] | {"strength": "1.5", "rule": "mod", "avoid": ["formal:2"], "floor": 0.1}
    session = chat(*events, mode="both", generation=settings)
    session.turns[0].statistics = STATISTICS | {"pushes": {"a": 0.31, "b": 0.12}}
    page = Page(as_html(session))
    assert [token["class"] for token in page.tokens] == ["t a accepted", "t resampled", "t bonus"]
    tips = [token["data-tip"] for token in page.tokens]
    assert "drafted by a, judged by all" in tips[0] and re.search(r"^all +p +0\.3125 ", tips[1], re.MULTILINE)
    assert re.findall(r"^push (\S+) +(\S+)  (\S+)$", tips[1], re.MULTILINE) == [
        ("a", "+0.69", "×2"),
        ("b", "-0.25", "×0.779"),
    ]
    assert "bonus from all, after the λ that a had drafted and all accepted" in tips[2]
    for text in (page.text, as_markdown(session)):
        for fact in ("strength 1.5", "rule mod", "avoid formal:2", "floor 0.1", "push a +0.31 b +0.12"):
            assert fact in text
    assert "a wrote 33%, b 0%, all 67%" in page.text and "what they agree on" in page.text
    (turn,) = json.loads(as_json(session))["turns"]
    assert [TokenEvent.from_dict(token) for token in turn["tokens"]] == events


def test_each_of_many_views_has_a_colour_and_a_line() -> None:
    wishes = {name: [f"wish {name}"] for name in "abcdefg"}
    events = [replace(accepted(f"{name} "), draft=name, judge="a") for name in wishes]
    page = Page(as_html(chat(*events, preferences=wishes)))
    assert [token["class"] for token in page.tokens] == [f"t {name} accepted" for name in "abcdefa"]
    assert "a wrote 14%, b 14%, c 14%" in page.text and "wish g" in page.text


def test_exports_of_older_versions_say_who_judged() -> None:
    old = accepted("x").as_dict()
    del old["judge"], old["pushes"]
    assert TokenEvent.from_dict(old) == accepted("x")
    assert TokenEvent.from_dict(old | {"draft": "b"}).judge == "a"
    assert TokenEvent.from_dict(old | {"draft": None}).judge is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colour_blind_can_read_and_distinguish_the_colours_of_views(scheme: str) -> None:
    """WCAG AA as text on the page and on a card; and CIE76 distances of 20 for the three kinds of colour blindness
    (Machado 2009, complete)."""
    light, dark = re.findall(r":root \{(.*?)\}", source("blame.css") + source("sessions/export.css"), re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#\w+)", light)) | (
        dict(re.findall(r"--(\w+): (#\w+)", dark)) if scheme == "dark" else {}
    )
    views = [linear(colors[name]) for name in "abcdef"]
    for view in views:
        for ground in (linear(colors["page"]), linear(colors["card"])):
            low, high = sorted((float(view @ LUMINANCE), float(ground @ LUMINANCE)))
            assert (high + 0.05) / (low + 0.05) >= 4.5
    for eyes in SIGHT:
        for one, other in combinations(views[2:], 2):
            assert np.linalg.norm(lab(eyes @ one) - lab(eyes @ other)) > 20
        for one, other in combinations(views[:4], 2):
            assert np.linalg.norm(lab(eyes @ one) - lab(eyes @ other)) > 13


LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
SIGHT = [
    np.eye(3),
    np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
]


def linear(color: str) -> np.ndarray:
    digits = color[1:] if len(color) == 7 else "".join(digit * 2 for digit in color[1:])
    c = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
