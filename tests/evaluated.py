"""Evaluations made by hand, for the tests of reports, screens and votes."""

from __future__ import annotations

import io
import os
from pathlib import Path

from rich.console import Console, RenderableType

from pjlocal.evaluation.records import AnswerRecord, Score, Verdict, key_of
from pjlocal.evaluation.suite import Objectives, Suite, System

SUITE = Suite(
    name="small",
    title="A small one",
    objectives=(Objectives("bright", ("vivid", "creative")), Objectives("sea", ("Talk like a pirate.", "concise"))),
    systems=(
        System("prompt", {"mode": "prompt"}),
        System("judge", {"mode": "judge"}),
        System("both", {"mode": "both"}),
    ),
    baseline="prompt",
)

#: Where a process finds this file and the package.
IN_TESTS = {"PYTHONPATH": os.pathsep.join(str(folder) for folder in Path(__file__).parents[:2])}

#: What a model or a file could hold against those who read it.
HOSTILE = (
    "</script><script>document.title='pwned'</script>",
    "</div></article><img src=x onerror=\"document.title='pwned'\">",
    "<svg onload=alert(1)> & \" ' &lt;",
    "\x1b[31m\x1b]0;pwned\x07 \u202egnp.exe \ud800 [bold]",
    "<style>*{display:none}</style> ]]> --> \x00",
)


def answer(system: str, prompt: int, text: str = "", objectives: str = "bright", seed: int = 0, **more) -> AnswerRecord:
    """One answer; of a judge in pieces of its two views, where nothing else is given."""
    text = text or f"{system} says that {prompt} is a number."
    if "pieces" not in more and system != "prompt":
        words = text.split(" ")
        kinds = (("accepted", "a"), ("accepted", "b"), ("resampled", "b"), ("bonus", "a"), ("resampled", None))
        more["pieces"] = [[word if n == 0 else f" {word}", *kinds[n % len(kinds)]] for n, word in enumerate(words)]
    return AnswerRecord(
        key=f"{objectives}-{system}-{prompt}-{seed}",
        objectives=objectives,
        system=system,
        prompt_id=f"p{prompt}",
        prompt=f"What is {prompt}?",
        seed=seed,
        text=text,
        finish_reason="length" if prompt % 3 == 0 else "stop",
        tokens=len(text.split()),
        prefill_s=0.5,
        decode_s=1.0 + prompt,
        acceptance_rate=None if system == "prompt" else 0.6,
        **{"n_at_once": 1} | more,
    )


def make_answer(text: str, *, system: str = "judge", prompt: str = "Why do cats purr?", **changes) -> AnswerRecord:
    """An answer whose key depends on all its values."""
    values = {
        "objectives": "o",
        "system": system,
        "prompt_id": prompt,
        "prompt": prompt,
        "seed": 0,
        "text": text,
        "finish_reason": "stop",
        "tokens": len(text.split()),
        "prefill_s": 0.1,
        "decode_s": 0.1,
    } | changes
    return AnswerRecord(**{"key": key_of(**values)} | values)


def answers(prompts: int = 4, objectives: tuple[str, ...] = ("bright", "sea"), **more) -> list[AnswerRecord]:
    return [
        answer(system.name, prompt, objectives=name, **more)
        for name in objectives
        for prompt in range(1, prompts + 1)
        for system in reversed(SUITE.systems)
    ]


def verdict(first: AnswerRecord, second: AnswerRecord, *p: float, aspect: str = "vivid", by: str = "m") -> Verdict:
    """A verdict with the probabilities of the three replies, or with that of the first answer alone."""
    p_first, p_second, p_tie = p if len(p) == 3 else (*p, 1 - p[0], 0.0)
    return Verdict(
        f"{first.key}/{second.key}/{aspect}/{by}", first.key, second.key, aspect, by, p_first, p_second, p_tie
    )


def score(of: AnswerRecord, metric: str, value: float, by: str = "m") -> Score:
    return Score(f"{of.key}/{metric}/{by}", of.key, metric, value, by)


def printed(*renderables: RenderableType, width: int = 120, **options: object) -> str:
    """The text that a console gets."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False, **options)
    for renderable in renderables:
        console.print(renderable)
    return file.getvalue()
