"""``pjlocal run`` writes the answer of a reasoning model, and its thinking where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models

CUT = "pjlocal: the model was cut off after 5 tokens while thinking, without an answer: a larger --max-tokens (-n)"


@pytest.fixture
def thinker(tmp_path: Path) -> list[str]:
    """A command line with a model whose template opens the thinking, and whose answers are three letters."""
    template = tiny_models.CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
    added = ["<think>", "</think>"]
    model = tiny_models.write_llama(tmp_path / "m.gguf", chat_template=template, add_bos=False, added=added)
    bias = ["--logit-bias", "</s>=-20", "--logit-bias", "<|im_end|>=-20"]
    return ["--no-server", "-m", str(model), "--seed", "1", "--regex", "[a-z]{3}", *bias]


def test_a_pipe_gets_the_answer_alone(pjlocal, thinker: list[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    run = ["run", *thinker, "--think-tokens", "6"]
    told = json.loads(pjlocal(*run, "--json", "--trace", str(trace), "Why?").stdout)
    assert len(told["text"]) == 3 and told["thinking"] and "think>" not in told["thinking"]
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert sum(event["thought"] for event in events) == told["usage"]["thinking_tokens"] == len(events) - 4
    assert events[6]["text"] + events[7]["text"] == "\n</think>"
    hidden = pjlocal(*run, "Why?")
    assert (hidden.stdout, hidden.stderr) == (f"{told['text']}\n", "")
    shown = pjlocal(*run, "--thoughts", "show", "Why?")
    assert shown.stdout.endswith(f"\n\n{told['text']}\n") and len(shown.stdout) > 8
    cut = pjlocal(*run, "-n", "2", "Why?")  # as many as -n allows, without the thinking's
    assert cut.stderr.startswith("pjlocal: the answer was cut off after 2 tokens: ")
    apart = pjlocal(*run, "--thoughts", "stderr", "Why?")
    assert apart.stdout == hidden.stdout and apart.stderr.rstrip()


def test_an_answer_cut_off_while_thinking_is_empty_and_a_line_says_so(pjlocal, thinker: list[str]) -> None:
    result = pjlocal("run", *thinker, "-n", "5", "Why?")
    assert result.stdout == "" and result.stderr.startswith(CUT)
    assert "--think-tokens" in result.stderr and "--think off" in result.stderr


def test_a_saved_chat_shows_the_thinking_apart(pjlocal, thinker: list[str], tmp_path: Path) -> None:
    answers = pjlocal("chat", *thinker, "--think-tokens", "6", stdin="Why?\nAnd?\n").stdout.split()
    export = tmp_path / "chat.json"
    pjlocal("sessions", "export", "Why?", export)
    turns = json.loads(export.read_text())["turns"]
    assert [turn["answer"] for turn in turns] == answers and all(turn["thinking"] for turn in turns)
    text = pjlocal("sessions", "show", "Why?").stdout
    assert text.index("### Thinking 1") < text.index("### Answer 1") and text.endswith(f"\n\n{answers[1]}\n")
    page = tmp_path / "chat.html"
    pjlocal("sessions", "export", "Why?", page)
    assert page.read_text().count("<details>") == 2
