"""A session as Markdown, JSON and HTML; the HTML also in a browser, where one is installed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pjlocal import __version__
from pjlocal.errors import OutputError, UsageError
from pjlocal.events import RejectedToken, TokenEvent
from pjlocal.sessions.export import FORMATS, as_html, as_json, as_markdown, write_export
from pjlocal.sessions.session import Session, Turn

SETTINGS = {
    "model": "toy.Q4_K_M.gguf",
    "mode": "judge",
    "preferences": {"a": ["vivid"], "b": ["creative", "Answer *in rhyme*"]},
    "seed": 7,
    "generation": {"lam": 4, "max_tokens": 128},
}
STATISTICS = {"acceptance_rate": 0.75, "rounds": 2, "timings": {"tokens_per_second": 12.34}}
WHEN = 1_700_000_000.5  # 2023-11-14 22:13:20 UTC


def accepted(text: str, position: int = 0) -> TokenEvent:
    return TokenEvent(position, 11, text, "accepted", 0, "a", 0.125, 0.25, 0.5)


def resampled(text: str, instead: str = "", position: int = 0) -> TokenEvent:
    rejected = RejectedToken(99, instead, 0.0625, 0.875)
    return TokenEvent(position, 12, text, "resampled", 0, "a", 0.3125, 0.03125, 0.0714, rejected)


def bonus(text: str, position: int = 0) -> TokenEvent:
    return TokenEvent(position, 13, text, "bonus", 1, "b", 0.4375, None, None)


def chat(*events: TokenEvent, question: str = "Why?", title: str = "A chat", **settings: Any) -> Session:
    turn = Turn(question, list(events), SETTINGS | settings, "stop", STATISTICS, WHEN)
    return Session(title, [turn], created=WHEN)


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
        "answer": "Because é\n",
        "created": "2023-11-14T22:13:20+00:00",
        "settings": SETTINGS,
        "finish_reason": "stop",
        "statistics": STATISTICS,
    }


def test_json_keeps_odd_characters_exactly_and_gives_a_terminal_no_orders() -> None:
    odd = 'a\x1b[2J\x00\x7f\x9b31m\u202e\u2028 "\\ \ud800 é 日本 🎂'
    text = as_json(chat(accepted(odd), question=odd, title=odd))
    assert "é 日本 🎂" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028\ud800-\udfff]", text)
    read = json.loads(text)
    assert read["title"] == read["turns"][0]["question"] == read["turns"][0]["answer"] == odd


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


def test_markdown_takes_no_orders_and_its_one_line_texts_stay_on_their_lines() -> None:
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


HOSTILE = [
    "<script>document.title='pwned'</script>",
    "</title></style></textarea><script>document.title='pwned'</script>",
    "<img src=x onerror=\"document.title='pwned'\">",
    '" onmouseover="document.title=\'pwned\'" x="',
    "' onfocus='document.title=1' autofocus='",
    "<a href=\"javascript:document.title='pwned'\">x</a>",
    "&lt;b&gt; &#106;avascript:1 <!-- ]]> --!>",
    "\x1b]0;title\x07\x1b[2J\x9b31m\x00",
    "\u202egnp.exe\u2066\u200f",
    "half a pair \ud83d and \udc00",
    "long" * 5000,
]


def hostile_session() -> Session:
    """Every hostile text everywhere that a text can stand."""
    turns = []
    for text in HOSTILE:
        settings = SETTINGS | {"model": text, "mode": text, "seed": text, "preferences": {"a": [text], "b": [text]}}
        events = [accepted(text), resampled(text, instead=text), bonus(text)]
        turns.append(Turn(text, events, settings, "stop", STATISTICS, WHEN))
    return Session(" ".join(HOSTILE[:-1]), turns, created=WHEN)


def test_html_makes_untrusted_text_neither_tags_nor_attributes_nor_orders() -> None:
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


def test_html_keeps_a_character_together_whose_parts_are_tokens() -> None:
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
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"names no format: end it in \.md, \.json or \.html"):
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


def test_what_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "loop.md").symlink_to("loop.md")
    for target in ("file/x.md", "folder.md", "loop.md", f"{'n' * 300}.md", "\0.md"):
        with pytest.raises(OutputError, match=r"^cannot write .+: "):
            write_export(Session(), tmp_path / target, force=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.md", "loop.md"]


# In a browser


class Chromium:
    """A headless Chromium with one page, driven by its DevTools protocol through pipes."""

    def __init__(self, executable: str, profile: Path) -> None:
        answers, their_output = os.pipe()
        their_input, self._orders = os.pipe()
        # Chromium reads the protocol from descriptor 3 and writes it to 4.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (their_input, their_output)]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}', executable, "--remote-debugging-pipe",
             "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (*ends, their_input, their_output):
            os.close(end)
        self._answers = answers
        self._read = b""
        self._number = 0
        self._session: dict[str, str] = {}
        (page,) = (target for target in self("Target.getTargets")["targetInfos"] if target["type"] == "page")
        attached = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self("Page.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; returns its result."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": params} | self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        answer = self._wait(lambda message: message.get("id") == self._number)
        assert "error" not in answer, answer
        return answer["result"]

    def _wait(self, wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + 30
        while True:
            while b"\0" not in self._read:
                assert select.select([self._answers], [], [], end - time.monotonic())[0], "Chromium says nothing"
                chunk = os.read(self._answers, 65536)
                assert chunk, "Chromium has ended"
                self._read += chunk
            line, _, self._read = self._read.partition(b"\0")
            message = json.loads(line)
            if wanted(message):
                return message

    def open(self, path: Path) -> None:
        self("Page.navigate", url=path.as_uri())
        while self.eval("document.readyState") != "complete" or self.eval("location.href") == "about:blank":
            time.sleep(0.05)

    def eval(self, expression: str) -> Any:
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def size(self, width: int, height: int) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def hover(self, selector: str) -> tuple[float, float]:
        """Point at the middle of an element's middle line; returns where in the window that is."""
        x, y = self.eval(
            f"var token = document.querySelector({json.dumps(selector)}); token.scrollIntoView({{block: 'center'}});"
            " var lines = token.getClientRects(), box = lines[lines.length >> 1];"
            " [box.x + box.width / 2, box.y + box.height / 2]"
        )
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def tip(self) -> tuple[str, list[float]] | None:
        """The text of the panel that is shown, and where: x, y, width, height on the page."""
        shot = self("DOMSnapshot.captureSnapshot", computedStyles=[])
        layout, strings = shot["documents"][0]["layout"], shot["strings"]
        nodes = shot["documents"][0]["nodes"]
        pseudo = zip(nodes["pseudoType"]["index"], nodes["pseudoType"]["value"], strict=True)
        after = {
            node
            for node, kind in pseudo
            if strings[kind] == "after" and strings[nodes["nodeName"][nodes["parentIndex"][node]]] == "SPAN"
        }
        text, box = "", []
        for node, what, bounds in zip(layout["nodeIndex"], layout["text"], layout["bounds"], strict=True):
            if node in after and what < 0:
                assert not box, "one panel at a time"
                box = bounds
            elif node in after or nodes["parentIndex"][node] in after:
                text += strings[what]
        return (text, box) if box else None

    def close(self) -> None:
        os.close(self._orders)  # its end of the pipe: it quits
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._answers)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not executable:
        pytest.skip("no Chromium is installed")
    browser = Chromium(executable, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_in_a_browser_nothing_that_was_planted_runs(chromium: Chromium, tmp_path: Path) -> None:
    session = hostile_session()
    write_export(session, tmp_path / "page.html")
    chromium.size(1000, 800)
    chromium.open(tmp_path / "page.html")
    for selector in (".question", ".t.accepted", ".t.resampled", ".t.bonus"):
        for number in range(1, len(session.turns) + 1):
            chromium.hover(f"article:nth-of-type({number}) {selector}")
    assert chromium.eval("document.title").startswith("<script>document.title='pwned'</script> </title>")
    assert chromium.eval("document.querySelectorAll('script, img, a, iframe').length") == 0
    assert chromium.eval("document.querySelectorAll('.t').length") == 3 * len(HOSTILE)


@pytest.mark.parametrize("width", [1400, 1000, 400])
def test_in_a_browser_a_tokens_numbers_show_where_one_points_and_stay_in_the_window(
    chromium: Chromium, tmp_path: Path, width: int
) -> None:
    events = [accepted("Be"), resampled(" cause", instead=" so"), *[bonus(f" and{n}", n) for n in range(400)]]
    session = chat(*events, accepted(" " + "wide" * 3000), accepted(" end"))
    write_export(session, tmp_path / "page.html")
    chromium.size(width, 700)
    chromium.open(tmp_path / "page.html")
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert chromium.tip() is None
    numbers = {1: "0.5000", 2: "in place of ␣so", 9: "0.4375", 200: "␣and197", 403: "␣widewide", 404: "␣end"}
    for n, expected in numbers.items():
        chromium.hover(f".t:nth-child({n})")
        assert_inside(chromium, expected)
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert chromium.tip() is None
    assert chromium.eval("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_in_a_browser_tab_goes_to_the_next_resampled_token_and_pointing_wins(chromium, tmp_path: Path) -> None:
    events = [accepted("Be"), resampled(" cause"), *[bonus("\n and") for _ in range(9)], resampled(" so")]
    write_export(chat(*events), tmp_path / "page.html")
    chromium.size(1000, 700)
    chromium.open(tmp_path / "page.html")
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    for text in ("␣cause", "␣so"):
        for kind in ("rawKeyDown", "keyUp"):
            chromium("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert_inside(chromium, text)
    _, y = chromium.hover(".t.accepted")
    top = assert_inside(chromium, "accepted, drafted by a")
    assert 0 < top - chromium.eval("scrollY") - y < 40, "beside the token that is pointed at"


def assert_inside(chromium: Chromium, expected: str) -> float:
    """The panel shows the text, and is within the window; returns where on the page it begins."""
    tip = chromium.tip()
    assert tip
    text, (x, top_of_panel, width, height) = tip
    left, top, right, bottom = chromium.eval(
        "[scrollX, scrollY, scrollX + document.documentElement.clientWidth, scrollY + innerHeight]"
    )
    assert expected in text
    assert left <= x and x + width <= right
    assert top <= top_of_panel and top_of_panel + height <= bottom
    return top_of_panel
