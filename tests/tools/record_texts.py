"""Record what a fixed list of answers says, to compare two versions of the package token by token.

    python tests/tools/record_texts.py write before.json [--model qwen.gguf ...]
    python tests/tools/record_texts.py compare before.json after.json

The list crosses modes, placements, layouts, schedules, look-ahead, forms and chats (turns with swapped preferences,
other modes and a growing context) on the embedded model, on tiny random models of every kind of memory, and on the
models that are named.  Layouts are always given, so that a change of the automatic choice changes no text.

Run both versions on the same idle machine with the same number of cores: llama.cpp rounds differently with another
number of threads.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_models

from pjlocal import Engine, Generation, Message, PersonaJudge, Prompting, Sampling
from pjlocal.gguf.locate import embedded_model

PREFER = ["vivid", "concise"]
QUESTIONS = ["How do planes fly?", "Give me three names for a cat.", "Repeat after me: tick tock tick tock tick tock."]
LAYOUTS = ("contexts", "batched")
PLACEMENTS = ("question", "system", "user-turn")
TINY = ("llama", "sliding_window", "gemma3", "recurrent", "mamba", "jamba", "lfm2", "qwen35", "qwen3moe")

#: Settings by name, each with an answer of its own for every question and layout.
GENERATIONS: dict[str, dict[str, Any]] = {
    "judge": {"mode": "judge"},
    "judge, strength 2": {"mode": "judge", "strength": "2"},
    "judge, greedy drafts": {"mode": "judge", "decoding": "greedy", "lam": 2},
    "judge, reference": {"mode": "judge", "schedule": "reference"},
    "judge, look-ahead": {"mode": "judge", "lookahead": 5},
    "base": {"mode": "base"},
    "both": {"mode": "both"},
    "both, strength 1.5, look-ahead": {"mode": "both", "strength": "1.5", "lookahead": 3},
    "both, reference": {"mode": "both", "schedule": "reference"},
    "both, avoid": {"mode": "both", "avoid": ("humorous",)},
    "prompt": {"mode": "prompt"},
    "rewrite": {"mode": "rewrite"},
    "plain": {"mode": "plain"},
}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "penalties": {"repeat_penalty": 1.3, "dry_multiplier": 0.8, "top_k": 0},
    "regex": {"regex": r"[a-z ]{5,40}\."},
    "schema": {"json_schema": '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}}}'},
}

Recorded = dict[str, list[int]]


def tokens(judge: PersonaJudge, prompt: str | list[Message], **changes: Any) -> list[int]:
    return [event.id for event in judge.stream(prompt, **changes)]


def single_answers(model: Path, layout: str, n: int, generations: dict[str, dict[str, Any]]) -> Iterator[Recorded]:
    """Answers to single questions under each setting."""
    engine = Engine(layout=layout, n_ctx=1024)
    for placement in PLACEMENTS:
        with PersonaJudge(model, prefer=PREFER, engine=engine, prompting=Prompting(placement=placement)) as judge:
            for (name, changes), (seed, question) in product(generations.items(), enumerate(QUESTIONS)):
                if placement != "question" and (seed or name not in ("judge", "both")):
                    continue  # the other placements: one question in two modes
                yield {
                    f"{placement} | {name} | {question}": tokens(judge, question, seed=seed, max_tokens=n, **changes)
                }


def sampled_answers(model: Path, layout: str, n: int) -> Iterator[Recorded]:
    """Answers under other filters and forms."""
    for (name, changes), mode in product(SAMPLINGS.items(), ("judge", "both")):
        engine = Engine(layout=layout, n_ctx=1024)
        with PersonaJudge(model, prefer=PREFER, engine=engine, sampling=Sampling(**changes)) as judge:
            yield {f"{name} | {mode}": tokens(judge, QUESTIONS[0], seed=7, max_tokens=n, mode=mode)}


def chat(model: Path, layout: str, n: int) -> Iterator[Recorded]:
    """One chat: swapped preferences, other modes, another number of views, and a context that grows."""
    generation = Generation(mode="judge", max_tokens=n)
    with PersonaJudge(model, prefer=PREFER, engine=Engine(layout=layout, n_ctx=4096), generation=generation) as judge:
        said: list[Message] = []
        views = [["vivid"], ["concise"]]
        turns: list[tuple[str, dict[str, Any]]] = [
            (QUESTIONS[0], {}),
            ("And birds?", {}),
            ("swap", {}),
            ("Why is the sky blue? " * 30, {}),
            ("Say that again.", {"mode": "both"}),
            ("Shorter.", {"mode": "plain"}),
            ("swap", {}),
            ("Once upon a time there was a cat. " * 40, {"mode": "both"}),
            ("Go on.", {"mode": "judge", "lookahead": 3}),
        ]
        for number, (question, changes) in enumerate(turns):
            if question == "swap":
                views.reverse()
                judge.prefer(views)
                continue
            said.append(Message("user", question))
            ids = tokens(judge, said, seed=number, **changes)
            said.append(Message("assistant", judge.model.text([i for i in ids if not judge.model.is_end(i)])))
            yield {f"turn {number} | {changes}": ids}


def record(models: dict[str, Path]) -> Recorded:
    recorded: Recorded = {}
    for (name, model), layout in product(models.items(), LAYOUTS):
        is_tiny = name in TINY
        n = 12 if is_tiny else 16
        generations = GENERATIONS
        if is_tiny:  # a memory that cannot be truncated has no reference schedule; a few settings tell the rest
            generations = {key: GENERATIONS[key] for key in ("judge", "judge, look-ahead", "both", "plain")}
        started = time.monotonic()
        parts = [single_answers(model, layout, n, generations), chat(model, layout, n)]
        if not is_tiny:
            parts.append(sampled_answers(model, layout, n))
        for part in parts:
            for one in part:
                recorded |= {f"{name} | {layout} | {key}": ids for key, ids in one.items()}
        print(f"{name}, {layout}: {time.monotonic() - started:.1f} s, {len(recorded)} in all", file=sys.stderr)
    return recorded


def compare(before: Recorded, after: Recorded) -> int:
    """Print every difference; the number of them."""
    differing = [key for key in before.keys() & after.keys() if before[key] != after[key]]
    for key in sorted(differing):
        pairs = zip(before[key], after[key], strict=False)
        at = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(before[key]), len(after[key])))
        print(f"{key}: differs from token {at} on")
    missing = before.keys() ^ after.keys()
    for key in sorted(missing):
        print(f"{key}: only in one of them")
    print(f"{len(before.keys() & after.keys()) - len(differing)} of {len(before)} answers are the same")
    return len(differing) + len(missing)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("file", type=Path)
    writing.add_argument("--model", type=Path, action="append", default=[])
    comparing = commands.add_parser("compare")
    comparing.add_argument("files", type=Path, nargs=2)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        before, after = (json.loads(file.read_text()) for file in arguments.files)
        return 1 if compare(before, after) else 0
    embedded = embedded_model()
    assert embedded, "the extra smollm2 brings the embedded model"
    with tempfile.TemporaryDirectory() as folder:
        models = {"smollm2": embedded} | {path.name: path for path in arguments.model}
        for kind in TINY:
            models[kind] = Path(folder, f"{kind}.gguf")
            getattr(tiny_models, f"write_{kind}")(models[kind])
        arguments.file.write_text(json.dumps(record(models), indent=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
