"""An exported page in a browser, where one is installed: nothing planted runs, and each token tells its numbers."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exported_chats import HOSTILE, accepted, bonus, chat, hostile_session, resampled

from pjlocal.sessions.export import write_export

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
