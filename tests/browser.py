"""A headless Chromium that tests drive."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE_S, when


class Page:
    """A tab of a browser.

    Args:
        send: sends a command to the page, and waits for its result.
    """

    def __init__(self, send: Callable[..., dict[str, Any]], session: str) -> None:
        self._send_to = send
        self._session = session
        self("Page.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; returns its result."""
        return self._send_to(method, self._session, **params)

    def open(self, page: Path | str) -> None:
        """Load a file, or what is at an address, from the beginning."""
        self("Page.navigate", url="about:blank")
        self("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def front(self) -> None:
        """Turn to this page: keys go to the one in front."""
        self("Page.bringToFront")

    def eval(self, expression: str) -> Any:
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"]["exception"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        when(lambda: self.eval(f"Boolean({expression})"), lambda: (expression, self.eval("document.body.innerText")))

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key of the keyboard, by its name; modifiers: 8 is Shift."""
        text = {"Enter": "\r"}.get(key, "")
        down = {"type": "keyDown", "key": key, "modifiers": modifiers, "text": text}
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}
        for event in (down, {"type": "keyUp", "key": key, "modifiers": modifiers}):
            self("Input.dispatchKeyEvent", windowsVirtualKeyCode=codes.get(key, 0), **event)

    def type(self, text: str) -> None:
        """Text, to where the focus is."""
        self("Input.insertText", text=text)

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


class Chromium(Page):
    """A headless Chromium and its first page, driven by its DevTools protocol through pipes."""

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
        (page,) = (one for one in self._send("Target.getTargets", None)["targetInfos"] if one["type"] == "page")
        super().__init__(self._send, self._attach(page["targetId"]))

    @contextmanager
    def tab(self) -> Iterator[Page]:
        """A second page, in front of the first; until the block is left."""
        target = self._send("Target.createTarget", None, url="about:blank")["targetId"]
        yield Page(self._send, self._attach(target))
        self._send("Target.closeTarget", None, targetId=target)
        self.front()

    def _attach(self, target: str) -> str:
        return self._send("Target.attachToTarget", None, targetId=target, flatten=True)["sessionId"]

    def _send(self, method: str, session: str | None, **params: Any) -> dict[str, Any]:
        """Send a command to a page, or, where none is named, to the browser; returns its result."""
        self._number += 1
        to = {"sessionId": session} if session else {}
        order = {"id": self._number, "method": method, "params": params} | to
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        answer = self._wait(lambda message: message.get("id") == self._number)
        assert "error" not in answer, answer
        return answer["result"]

    def _wait(self, wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
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

    def close(self) -> None:
        os.close(self._orders)  # its end of the pipe: it quits
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._answers)
