"""`PersonaJudge` in a Python program: its arguments, and errors that name them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from pjlocal import Engine, Generation, Message, PersonaJudge, Result, Sampling
from pjlocal.errors import UsageError, explain
from pjlocal.request import Request

HI = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def judge(tiny) -> Iterator[PersonaJudge]:
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], max_tokens=4, seed=1, ignore_end=True) as judge:
        yield judge


@pytest.fixture
def preferring(judge: PersonaJudge) -> Iterator[PersonaJudge]:
    before = judge.preferences
    yield judge
    judge.prefer(before)


@pytest.mark.parametrize(
    "prompt",
    [
        HI,
        [HI],
        (HI,),
        Message("user", "Hi"),
        [Message("user", "Hi")],
        [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}], "name": None}],
    ],
)
def test_a_prompt_is_a_text_or_messages_in_any_form(judge: PersonaJudge, prompt: Any) -> None:
    assert text_and_prompt_tokens(judge(prompt)) == text_and_prompt_tokens(judge("Hi"))


def text_and_prompt_tokens(result: Result) -> tuple[str, list[int]]:
    return result.text, result.statistics.prompt_tokens


@pytest.mark.parametrize("n_read", [1, 4])
def test_an_answer_may_be_closed_after_its_thread_has_ended(judge: PersonaJudge, n_read: int) -> None:
    answer = judge.stream("Hi")
    thread = threading.Thread(target=lambda: [*islice(answer, n_read)])
    thread.start()
    thread.join()
    assert len(judge("Hi").text) > 0, "it ends the other answer"
    answer.close()


def test_an_answer_that_has_ended_may_be_closed_by_any_thread(judge: PersonaJudge) -> None:
    answer, closed = judge.stream("Hi"), []
    assert len([*answer]) == 4
    thread = threading.Thread(target=lambda: closed.append(answer.close()))
    thread.start()
    thread.join()
    assert closed == [None]


def test_messages_may_come_from_a_generator(judge: PersonaJudge) -> None:
    assert text_and_prompt_tokens(judge(message for message in [HI])) == text_and_prompt_tokens(judge("Hi"))


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_is_the_system_text_of_this_answer(judge: PersonaJudge, role: str) -> None:
    given = judge([{"role": role, "content": "Be nice."}, HI])
    assert text_and_prompt_tokens(given) == text_and_prompt_tokens(judge("Hi", system="Be nice."))
    assert given.statistics.prompt_tokens[0] > judge("Hi").statistics.prompt_tokens[0]


def test_any_setting_may_be_changed_for_one_answer(judge: PersonaJudge) -> None:
    before = judge("Hi", seed=5).text
    greedy = {judge("Hi", seed=seed, temperature=0, top_k=np.int64(1)).text for seed in range(3)}
    assert len(greedy) == 1
    assert judge("Hi", json_schema={"type": "integer", "maximum": 9, "minimum": 0}).text.isdigit()
    assert judge("Hi", stop="a", logit_bias={5: -1.0}, max_tokens=np.int32(2), temperature=None).text is not None
    assert judge("Hi", seed=5).text == before


def test_preferences_may_be_changed_for_one_answer(judge: PersonaJudge) -> None:
    before = judge.preferences
    assert judge("Hi", prefer=["concise", "vivid"]).preferences == {"a": ["concise"], "b": ["vivid"]}
    assert judge("Hi", draft_prefer="concise", judge_prefer=["vivid"]).preferences == {"a": ["concise"], "b": ["vivid"]}
    assert judge("Hi", prefer=None).mode == "plain"
    assert judge("Hi", draft_prefer="concise").preferences == {"a": ["concise"], "b": ["creative"]}, "b keeps its own"
    assert judge.preferences == before


def test_settings_may_be_given_by_name_when_the_model_is_loaded(tiny) -> None:
    named = {"temperature": np.float32(0.5), "stop": ["x", "y"], "n_ctx": 300, "system": "Be nice.", "strength": 2}
    with PersonaJudge(str(tiny("llama")), [["vivid"], ["formal"]], sampling=Sampling(top_k=7), **named) as judge:
        assert (judge.request.sampling.temperature, judge.request.sampling.top_k) == (0.5, 7)
        assert judge.request.generation == Generation(stop=("x", "y"), strength="2")
        assert judge.engine == Engine(n_ctx=300) and judge.request.prompting.system == "Be nice."
        assert judge.preferences == [["vivid"], ["formal"]]


@pytest.mark.parametrize(
    ("prefer", "views"),
    [
        ("concise", [["concise"], []]),
        (["concise"], [["concise"], []]),
        (("vivid", "concise", "formal"), [["vivid", "formal"], ["concise"]]),
        ([["vivid"], ["concise", "formal"]], [["vivid"], ["concise", "formal"]]),
        ([["vivid"]], [["vivid"], []]),
        ([], [[], []]),
        (None, [[], []]),
    ],
)
def test_preferences_are_texts_that_are_dealt_out_or_a_list_for_each_view(preferring, prefer, views) -> None:
    preferring.prefer(prefer)
    assert preferring.preferences == views
    preferring.prefer("formal")
    assert preferring.preferences == [["formal"], []]
    preferring.prefer = prefer
    assert preferring.preferences == views
    assert preferring("Hi").preferences == {"a": views[0], "b": views[1]}


@pytest.mark.parametrize(
    ("prefer", "error", "says"),
    [
        ([["a b"], ["c d"], ["e f"]], UsageError, "give at most two lists of preferences, one for each view (not 3)"),
        (["vivdi"], UsageError, "unknown preset 'vivdi': did you mean vivid?"),
        (5, TypeError, "preferences must be texts, not int"),
        (["vivid", ["formal"]], TypeError, "preferences must be texts, or two lists of texts: one for each view"),
        ([["vivid"], [5]], TypeError, "a preference must be a text, not int"),
    ],
)
def test_preferences_that_cannot_be_are_refused_and_those_in_force_stay(preferring, prefer, error, says) -> None:
    before = preferring.preferences
    with pytest.raises(error) as raised:
        preferring.prefer(prefer)
    assert str(raised.value).startswith(says)
    assert preferring.preferences == before


@pytest.mark.parametrize(
    ("prompt", "changes", "error", "says"),
    [
        ("Hi", {"temprature": 0}, TypeError, "unexpected keyword argument 'temprature': did you mean temperature?"),
        ("Hi", {"n_ctx": 100}, TypeError, "n_ctx belongs to the model: give it to PersonaJudge"),
        ("Hi", {"stop": ""}, UsageError, "stop must not be empty"),
        (
            "Hi",
            {"prefer": [], "mode": "judge"},
            UsageError,
            "mode judge needs a preference, as in: prefer=['vivid', 'c",
        ),
        ("Hi", {"stop": 5}, UsageError, "stop must be a text or a list of texts (not 5)"),
        ("Hi", {"avoid": {"a": 2}}, UsageError, "avoid must be a text or a list of texts (not {'a': 2})"),
        ("Hi", {"top_k": -1}, UsageError, "top_k must be at least 0 (not -1)"),
        ("Hi", {"top_k": "many"}, UsageError, "top_k must be a whole number (not 'many')"),
        ("Hi", {"temperature": True}, UsageError, "temperature must be a number (not True)"),
        ("Hi", {"temperature": 10**400}, UsageError, "temperature must be a number"),
        ("Hi", {"mode": "best"}, UsageError, "mode must be one of judge, base"),
        ("Hi", {"regex": "a", "lark": "b"}, UsageError, "regex and lark exclude each other: give one"),
        ("Hi", {"regex": "a("}, UsageError, "the regular expression cannot be used: unclosed group"),
        ("Hi", {"json_schema": {"type": {1}}}, UsageError, "json_schema cannot be used"),
        ("word " * 9000, {}, UsageError, "the prompt is too long"),
        ("", {}, UsageError, "the prompt is empty"),
        ([], {}, UsageError, "the prompt is empty"),
        (None, {}, TypeError, "a prompt must be a text or a list of messages, not NoneType"),
        (b"Hi", {}, TypeError, "a prompt must be a text or a list of messages, not bytes"),
        (Path("Hi"), {}, TypeError, "a prompt must be a text or a list of messages, not PosixPath"),
        (["Hi"], {}, TypeError, "a message must be a Message, or a dict as in"),
        ([("user", "Hi")], {}, TypeError, "a message must be a Message, or a dict as in"),
        (
            [{"content": "Hi"}],
            {},
            UsageError,
            "a message's role must be user, assistant, system or developer (not None)",
        ),
        ([{"role": "tool", "content": "Hi"}], {}, UsageError, "a message's role must be user, assistant, system or"),
        ([HI | {"tool_calls": [1]}], {}, UsageError, "a message has only a role and a content: leave out tool_calls"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, UsageError, "a message's content must be a text"),
        ([{"role": "assistant", "content": "Ho"}], {}, UsageError, "the prompt is empty"),
    ],
)
def test_errors_of_values_use_python_names(judge, prompt, changes, error, says) -> None:
    with pytest.raises(error) as raised:
        judge(prompt, **changes)
    assert str(raised.value).startswith(says) and "--" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (
            {"prefer": "vivid", "draft_prefer": "formal"},
            UsageError,
            "prefer excludes draft_prefer and judge_prefer",
        ),
        ({"temp": 1}, TypeError, "unexpected keyword argument 'temp': did you mean temperature?"),
        ({"tempature": 1}, TypeError, "unexpected keyword argument 'tempature': did you mean temperature?"),
        ({"threads": 1}, TypeError, "unexpected keyword argument 'threads': did you mean n_threads?"),
        ({"ctx": 100}, TypeError, "unexpected keyword argument 'ctx': did you mean n_ctx?"),
        ({"top_p": 0}, UsageError, "top_p must be above 0"),
        ({"n_gpu_layers": "some"}, UsageError, "n_gpu_layers must be auto, all or a number of layers"),
        (
            {"panel": True},
            TypeError,
            "unexpected keyword argument 'panel': it was removed, and preferences of several ",
        ),
    ],
)
def test_wrong_values_are_refused_while_loading_too(tiny, arguments, error, says) -> None:
    with pytest.raises(error) as raised:
        PersonaJudge(tiny("llama"), **arguments)
    assert str(raised.value).startswith(says)
    if error is UsageError:
        assert explain(raised.value)[0].startswith("--"), "the command line names its options"


def test_a_request_and_preferences_beside_it_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="a request has its own preferences"):
        PersonaJudge("none.gguf", prefer="vivid", request=Request())
    with pytest.raises(TypeError, match=r"leave .* sampling and generation out"):
        PersonaJudge("none.gguf", request=Request(), sampling=Sampling(temperature=0.0))


def test_a_model_is_a_name_or_a_path() -> None:
    with pytest.raises(TypeError, match="model must be a name or a path, not int"):
        PersonaJudge(5)  # type: ignore[arg-type]


PROGRAM = """
from pathlib import Path
from pjlocal import Generation, Message, PersonaJudge, Result, Sampling

with PersonaJudge(Path("a.gguf"), prefer=["vivid", "creative"], temperature=0, stop="x") as judge:
    result: Result = judge("Hi", temperature=0, top_k=1)
    print(result.text, result.finish_reason, result.statistics.tokens_per_second)
    judge([{"role": "user", "content": "Hi"}])
    judge([Message("user", "Hi")])
    judge({"role": "user", "content": "Hi"})
    judge.prefer("concise")
    judge.prefer(["concise"])
    judge.prefer([["concise"], ["vivid"]])
    judge.prefer(["concise", Path("pirate.txt")])
    judge("Hi", prefer=["concise"])
    for event in judge.stream("Hi", seed=1):
        print(event.text, event.p)
PersonaJudge("smollm2", "vivid", sampling=Sampling(top_k=1), generation=Generation(max_tokens=5))
PersonaJudge(5)
"""


@pytest.mark.slow
def test_a_strict_type_checker_takes_what_runs(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    house = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", house / "pyproject.toml", tmp_path / "program.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(house), "PATH": "", "HOME": str(tmp_path)},
    )
    (error,) = [line for line in result.stdout.splitlines() if line.startswith("program.py")]
    assert 'error: Argument 1 to "PersonaJudge"' in error, result.stdout + result.stderr


def test_defaults_of_one_answer_bring_the_models_sampling_or_pjlocals(tmp_path: Path) -> None:
    path = tiny_models.write_llama(tmp_path / "m.gguf", recommends={"temp": 0.3, "top_k": 7})
    with PersonaJudge(path, top_k=5) as judge:
        theirs = judge.stream("Why?", defaults="model").plan.request.sampling
        assert (theirs.temperature, theirs.top_k) == (0.3, 5), "what was set stays"
    with PersonaJudge(path, defaults="model") as judge:
        assert judge.stream("Why?", defaults="own").plan.request.sampling == Sampling()


def test_mode_rewrite_has_no_alternatives(tiny: Callable[[str], Path]) -> None:
    with (
        PersonaJudge(tiny("llama"), prefer=["vivid"], mode="rewrite") as judge,
        pytest.raises(UsageError, match="rewrite"),
    ):
        judge.next_tokens(judge.plan_request("Why?", judge.request))


def test_preferences_push_the_thinking_in_mode_prompt_too(tiny: Callable[[str], Path], caplog) -> None:
    with PersonaJudge(tiny("llama"), prefer=["vivid"], mode="prompt", strength="2", push_thoughts=True) as judge:
        judge("Why?", max_tokens=1)
    assert "no effect" not in caplog.text
