"""Sessions to export: with every kind of token, and with hostile texts everywhere."""

from __future__ import annotations

from typing import Any

from pjlocal.events import RejectedToken, TokenEvent
from pjlocal.sessions.session import Session, Turn

SETTINGS = {
    "model": "toy.Q4_K_M.gguf",
    "mode": "judge",
    "preferences": {"a": ["vivid"], "b": ["creative", "Answer *in rhyme*"]},
    "seed": 7,
    "generation": {"mode": "judge", "lam": 4, "max_tokens": 128},
}
STATISTICS = {"acceptance_rate": 0.75, "rounds": 2, "timings": {"tokens_per_second": 12.34}}
WHEN = 1_700_000_000.5  # 2023-11-14 22:13:20 UTC

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


def accepted(text: str, position: int = 0) -> TokenEvent:
    return TokenEvent(position, 11, text, "accepted", 0, "a", 0.125, 0.25, 0.5, judge="b")


def resampled(text: str, instead: str = "", position: int = 0) -> TokenEvent:
    rejected = RejectedToken(99, instead, 0.0625, 0.875)
    return TokenEvent(position, 12, text, "resampled", 0, "a", 0.3125, 0.03125, 0.0714, rejected, "b")


def bonus(text: str, position: int = 0) -> TokenEvent:
    return TokenEvent(position, 13, text, "bonus", 1, "b", 0.4375, None, None, judge="a")


def chat(*events: TokenEvent, question: str = "Why?", title: str = "A chat", **settings: Any) -> Session:
    turn = Turn(question, list(events), SETTINGS | settings, "stop", STATISTICS, WHEN)
    return Session(title, [turn], created=WHEN)


def hostile_session() -> Session:
    """Every hostile text everywhere that a text can stand."""
    turns = []
    for text in HOSTILE:
        settings = SETTINGS | {"model": text, "mode": text, "seed": text, "preferences": {"a": [text], "b": [text]}}
        events = [accepted(text), resampled(text, instead=text), bonus(text)]
        turns.append(Turn(text, events, settings, "stop", STATISTICS, WHEN))
    return Session(" ".join(HOSTILE[:-1]), turns, created=WHEN)
