"""LoRA adapters and control vectors: a preference can be a prefix, an adapter or a vector, or all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import finish, write_control_vector, write_llama, write_lora

from pjlocal import Engine, Generation, PersonaJudge
from pjlocal.engine.engine import Engine as LiveEngine
from pjlocal.engine.lanes import Capacity
from pjlocal.errors import ModelError, UsageError

Make = Callable[..., PersonaJudge]


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "pirate.gguf")


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    return write_control_vector(tmp_path / "calm.gguf")


@pytest.fixture
def judge(tiny):
    """Makes judges on a tiny llama, closed in the end."""
    made = []

    def make(*wishes: str, kind: str = "llama", engine: Engine = Engine(n_threads=1), **settings: Any) -> PersonaJudge:
        made.append(PersonaJudge(tiny(kind), prefer=wishes, engine=engine, generation=Generation(**settings)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ids(judge: PersonaJudge, prompt: str = "Hello there", **changes: Any) -> list[int]:
    return [event.id for event in judge.stream(prompt, seed=1, max_tokens=16, ignore_end=True, **changes)]


@pytest.mark.parametrize("kind", ["lora", "control_vector"])
def test_an_adapter_changes_the_text_and_at_scale_0_it_does_not(judge: Make, lora, vector, kind: str) -> None:
    file = lora if kind == "lora" else vector
    one = judge("vivid", "creative")
    plain = ids(one)
    changed = ids(one, **{kind: (str(file),)})
    assert changed != plain
    assert ids(one, **{kind: (f"{file}:0",)}) == plain
    assert ids(one, **{kind: (str(file), f"{file}:-1")}) == plain, "scales of the same file add up"
    assert ids(one, **{kind: (f"{file}:0.5", f"{file}:0.5")}) == changed
    assert ids(one) == plain, "and it is gone with the answer that asked for it"


def test_several_adapters_are_a_soup(tiny, tmp_path: Path, judge: Make) -> None:
    """Their sum, each at its scale, is what one adapter of both ranks together is."""
    import gguf

    files = [write_lora(tmp_path / f"{i}.gguf", seed=i, names=("blk.0.attn_q.weight",), alpha=4.0) for i in (1, 2)]
    halves = [[tensor.data for tensor in gguf.GGUFReader(file).tensors] for file in files]
    both = gguf.GGUFWriter(tmp_path / "both.gguf", "llama")
    both.add_type("adapter")
    both.add_string("adapter.type", "lora")
    both.add_float32("adapter.lora.alpha", 8.0)  # as large as its rank, as of each
    a = np.concatenate([0.5 * halves[0][0], 0.25 * halves[1][0]])
    both.add_tensor("blk.0.attn_q.weight.lora_a", a.astype(np.float32))
    both.add_tensor("blk.0.attn_q.weight.lora_b", np.concatenate([halves[0][1], halves[1][1]], axis=1))
    finish(both)
    one = judge("vivid", "creative")
    soup = ids(one, lora=(f"{files[0]}:0.5", f"{files[1]}:0.25"))
    assert soup == ids(one, lora=(str(tmp_path / "both.gguf"),)) != ids(one, lora=(str(files[0]),))


@pytest.mark.parametrize("layout", ["contexts", "batched", "auto"])
def test_adapters_of_every_view_are_the_same_in_every_layout(judge: Make, lora, vector, layout: str) -> None:
    settings = {"lora": (str(lora),), "control_vector": (f"{vector}:0.5",)}
    texts = [ids(judge("vivid", "creative", engine=Engine(layout=x), **settings)) for x in ("contexts", layout)]
    assert texts[0] == texts[1]


def test_a_single_view_has_its_own_adapter(judge: Make, lora: Path) -> None:
    """With the same prefix in both views, nothing is ever rejected, but for the adapter."""
    same = judge("vivid", "vivid", mode="judge")
    assert same("Hello", seed=1, max_tokens=24, ignore_end=True).statistics.acceptance_rate == 1
    result = same("Hello", seed=1, max_tokens=24, ignore_end=True, lora_b=(str(lora),))
    assert result.statistics.acceptance_rate < 1
    assert result.as_dict()["adapters"] == [
        {"lora": {}, "control_vector": {}},
        {"lora": {str(lora): 1.0}, "control_vector": {}},
    ]
    roles = same.roles(same.request.replace(lora_b=(f"{lora}:0.5",)))
    assert roles.labels == {"a": ["vivid"], "b": ["vivid", "pirate.gguf:0.5"]}, "as the colours' legend has it"
    alone = [judge("vivid", "vivid", mode="base", lora_b=(str(lora),)), judge("vivid", mode="prompt")]
    assert ids(alone[0], lam=1) and ids(alone[1]), "the modes take them too"


def test_an_adapter_or_a_vector_of_one_view_is_a_preference_without_words(judge: Make, lora, vector) -> None:
    one = judge(lora_a=(str(lora),), control_vector_b=(str(vector),))
    result = one("Hello", seed=1, max_tokens=12, ignore_end=True)
    assert result.mode == "both" and result.statistics.rounds > 0
    pushed = one("Hello", seed=1, max_tokens=12, ignore_end=True, mode="both", strength="2")
    assert pushed.strengths == {"a": 2.0, "b": 2.0} and all(pushed.statistics.mean_pushes.values())
    assert len(pushed.statistics.prompt_tokens) == 4, "a joint view, and one without a preference has no adapter"
    assert pushed.adapters[3] == {"lora": {}, "control_vector": {}}


def test_mode_prompt_has_all_adapters_in_its_one_view_and_mode_plain_those_of_every_view(
    judge: Make, lora: Path, vector: Path
) -> None:
    one = judge("vivid", lora=(str(vector.parent / "pirate.gguf"),))
    named = {"lora_a": (f"{lora}:0.5",), "control_vector_b": (str(vector),)}
    [prompt] = one("Hello", max_tokens=4, mode="prompt", **named).adapters
    assert prompt == {"lora": {str(lora): 1.5}, "control_vector": {str(vector): 1.0}}
    [plain] = one("Hello", max_tokens=4, mode="plain").adapters
    assert plain == {"lora": {str(lora): 1.0}, "control_vector": {}}


def test_adapters_of_one_view_are_refused_with_the_layout_batched(judge: Make, lora: Path) -> None:
    one = judge("vivid", "creative", engine=Engine(layout="batched"))
    with pytest.raises(UsageError, match=r"--lora-a.*changes a whole context.*use --layout contexts"):
        ids(one, lora_a=(str(lora),))
    assert ids(one, mode="prompt", lora_a=(str(lora),)), "one view is alone in its batch"


def test_four_views_use_contexts_if_one_has_its_own_adapter(judge: Make, lora: Path) -> None:
    """Whatever the number of cores: four views without one live in a batch on two."""
    one = judge("vivid", "creative", mode="both", engine=Engine(n_threads=2))
    before = ids(one)
    assert one.layouts[4] == "batched"
    ids(one, lora_a=(str(lora),))
    assert one.layouts[4] == "contexts"
    assert ids(one) == before


def test_tokens_read_with_another_adapter_are_read_again(judge: Make, lora: Path) -> None:
    """And nothing else is: a view whose adapters stay keeps what it has read."""
    one = judge("vivid", "creative", lora_a=(f"{lora}:0.5",), mode="judge")
    fresh = ids(judge("vivid", "creative", lora_a=(f"{lora}:0.25",), mode="judge"))
    ids(one)
    before = one.decoder.lanes.n_fed
    answer = one.stream("Hello there", seed=1, max_tokens=16, ignore_end=True, lora_a=(f"{lora}:0.25",))
    assert [event.id for event in answer] == fresh
    assert one.decoder.lanes.n_fed - before == answer.statistics.prompt_tokens[0] + 1 + 2 * 15


def test_views_that_change_places_take_their_caches_along(judge: Make, lora: Path) -> None:
    one = judge("vivid", "creative", lora_a=(str(lora),), mode="judge")
    ids(one)
    before = one.decoder.lanes.n_fed
    one.prefer([["creative"], ["vivid"]])
    ids(one, lora_a=(), lora_b=(str(lora),))
    assert one.decoder.lanes.n_fed - before == 2 + 2 * 15


def test_the_question_is_not_shared_between_views_with_other_adapters(judge: Make, lora: Path, tiny) -> None:
    texts: list[list[int]] = []
    for _ in range(2):
        with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"]) as one:
            if texts:  # what was read without adapters is there now, and must not be taken
                ids(one, "the cat sees the dog " * 12)
            texts.append(ids(one, "the cat sees the dog " * 12, lora_b=(str(lora),)))
    assert texts[0] == texts[1]


def test_a_cache_that_grows_keeps_its_adapters(judge: Make, lora: Path) -> None:
    one = judge("vivid", "creative", lora_a=(str(lora),))
    ids(one)
    long = "the cat and the dog " * 16
    assert ids(one, long) == ids(judge("vivid", "creative", lora_a=(str(lora),)), long)


def test_adapters_are_refused_for_concurrent_answers(judge: Make, lora: Path) -> None:
    one = judge("vivid", "creative")
    with closing(LiveEngine(one.model, Engine(n_threads=1), one.interrupt, Capacity(2, 2, 256))) as engine:
        adapted, plain = (
            one.answer(
                one.plan_request("Hello", one.request.replace(seed=1, max_tokens=16, ignore_end=True, lora=files)),
                engine,
            )
            for files in ((str(lora),), ())
        )
        for each in (adapted, plain):
            engine.submit(each)
        while not engine.is_idle:
            engine.step()
    assert isinstance(adapted.error, UsageError) and "--parallel 1" in str(adapted.error)
    assert plain.error is None and plain.result.text == one("Hello", seed=1, max_tokens=16, ignore_end=True).text


def test_a_recurrent_model_and_one_with_a_sliding_window_take_adapters(tiny, tmp_path: Path) -> None:
    for kind, architecture, name in (
        ("recurrent", "mamba", "blk.0.ssm_in.weight"),
        ("sliding_window", "gemma3", "blk.0.attn_q.weight"),
    ):
        n_out = 256 if kind == "recurrent" else 64
        file = write_lora(tmp_path / f"{kind}.gguf", architecture=architecture, names=(name,), n_out=n_out)
        with PersonaJudge(tiny(kind), prefer=["vivid", "creative"]) as one:
            assert ids(one, lora_a=(str(file),)) != ids(one)


def test_a_rewritten_answer_has_the_adapters_of_every_view_twice(judge: Make, lora: Path) -> None:
    one = judge("vivid", mode="rewrite")
    changed = one("Hello", seed=1, max_tokens=8, ignore_end=True, lora=(str(lora),))
    assert changed.adapters == changed.draft.adapters == [{"lora": {str(lora): 1.0}, "control_vector": {}}]


# The command.


def test_the_command_accepts_adapters_and_reports_them(tiny, tmp_path: Path, lora, vector, pjlocal) -> None:
    result = pjlocal(
        "run", "-m", tiny("llama"), "-n", "4", "--json", "--lora-a", f"{lora}:0.5", "--control-vector", vector, "Hello"
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["mode"] == "both"
    assert [view["lora"] for view in report["adapters"]] == [{str(lora): 0.5}, {}]
    assert [view["control_vector"] for view in report["adapters"]] == [{str(vector): 1.0}] * 2


def test_a_wrong_adapter_gives_an_error(tiny, tmp_path: Path, lora: Path, pjlocal) -> None:
    for option, status, says in (
        (f"{lora}:9999", 2, "a scale is a number from -1000 to 1000"),
        ("gone.gguf", 1, "no such LoRA adapter"),
        (tiny("llama"), 1, "is not a LoRA adapter"),
    ):
        result = pjlocal("run", "-m", tiny("llama"), "--lora", option, "Hello")
        assert (result.returncode, result.stdout) == (status, "") and result.stderr.count("\n") == 1
        assert says in result.stderr


def test_a_file_is_checked_as_what_it_is_used_for(judge: Make, lora: Path) -> None:
    one = judge("vivid", lora=(str(lora),))
    with pytest.raises(ModelError, match=r"pirate.gguf is not a control vector"):
        ids(one, lora=(), control_vector=(str(lora),))


def test_a_vector_that_is_gone_leaves_no_adapter_in_force(judge: Make, lora: Path, vector: Path) -> None:
    plain = ids(judge("vivid", "formal"))
    one = judge("vivid", "formal", lora=(str(lora),), control_vector=(str(vector),))
    vector.unlink()
    with pytest.raises(ModelError):
        ids(one)
    assert ids(one, lora=(), control_vector=()) == plain


def test_an_adapter_for_a_larger_model_is_refused_before_the_model_is_loaded(tmp_path: Path, lora: Path) -> None:
    other = write_llama(tmp_path / "other.gguf", n_embd=32)
    with pytest.raises(ModelError, match=r"pirate.gguf does not fit the model other.gguf: its blk.0.attn_q.weight"):
        PersonaJudge(other, generation=Generation(lora=(str(lora),)))
