"""SIGKILL at random moments while a turn is written: `python tests/tools/kill9.py --moments 50`, for people.

Kills a chat on a terminal, which loads the model itself, and a server that writes a turn of a saved chat, so many times
each.  Every token that was shown, on the screen or to the client, must be in the database.  Exit status 1 where one is
not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_models
from commandline import environment_in
from served import BIG, serving, streamed
from terminal import Terminal, database, numbered

from pjlocal.sessions.session import Turn
from pjlocal.sessions.store import Store

_WORDS = 600
_LONGEST_S = 0.5  # from the first token that is shown to the kill
LONG = ("-n", "30000", "--ignore-end")


def squeezed(text: str) -> str:
    return "".join(text.split())


def last_turn(environment: dict[str, str]) -> Turn:
    """The last turn that is saved, in a database that is whole."""
    with Store(database(environment)) as store:
        assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        latest = store.latest()
        assert latest is not None
        return store.load(latest).turns[-1]


def kill_chat(model: Path, environment: dict[str, str], folder: Path, after_s: float) -> tuple[int, int]:
    """Kill a chat on a terminal; the characters that its screen showed of the answer, and those of them not saved."""
    grammar = folder / "answer.gbnf"
    grammar.write_text(f"root ::= {json.dumps(numbered(_WORDS))}\n")
    options = ("-m", str(model), "--threads", "1", "-n", "8000", "--ctx", "8192", "--view", "text", "-p", "vivid")
    terminal = Terminal(environment | {"TERM": "xterm"}, folder, (*options, "--grammar", str(grammar)), 100, 40)
    terminal.at_prompt()
    terminal.type("Go\r")
    terminal.until("word0")
    time.sleep(after_s)
    terminal.child.kill(signal.SIGKILL)
    terminal.end()
    shown = squeezed(terminal.text.rpartition("> Go")[2].partition("both λ")[0])
    answer = squeezed(last_turn(environment).answer)
    n_saved = next((n for n in range(len(shown)) if shown[: n + 1] != answer[: n + 1]), len(shown))
    return len(shown), len(shown) - n_saved


def kill_server(model: Path, environment: dict[str, str], after_s: float) -> tuple[int, int]:
    """Kill a server; the tokens of a turn that its client got, and those of them not saved."""
    body = {"settings": {}, "chat": {"id": None, "question": "Go"}}
    tokens: list[tuple[int, int]] = []
    with (
        serving(model, environment, *BIG, *LONG, "-p", "vivid", "-p", "creative") as served,
        served.http.stream("POST", "/api/answers", json=body) as reply,
        suppress(httpx2.HTTPError),
    ):
        for told in streamed(reply.iter_lines()):
            if "event" in told:
                if not tokens:
                    threading.Timer(after_s, served.process.kill).start()
                tokens.append((told["event"]["position"], told["event"]["id"]))
    saved = {(event.position, event.id) for event in last_turn(environment).events}
    return len(tokens), len([token for token in tokens if token not in saved])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=50, help="of the chat, and as many of the server")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, n_lost = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = environment_in(folder)
        model = tiny_models.write_llama(folder / "tiny.gguf", n_ctx_train=32768)
        for what, kill in (
            ("characters on the screen of a chat", lambda s: kill_chat(model, environment, folder, s)),
            ("tokens that a server has sent", lambda s: kill_server(model, environment, s)),
        ):
            counts = [kill(chance.uniform(0, _LONGEST_S)) for _ in range(given.moments)]
            shown, lost = map(sum, zip(*counts, strict=True))
            n_lost += lost
            least, most = (extreme(n for n, _ in counts) for extreme in (min, max))
            print(f"{given.moments} kills: {shown} {what} ({least} to {most} a kill), {lost} of them not saved")
    return int(n_lost > 0)


if __name__ == "__main__":
    sys.exit(main())
