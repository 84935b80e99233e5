"""The settings of one answer: overrides, and conversion to JSON and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pjlocal.errors import UsageError
from pjlocal.request import Overrides, Request, deal, in_turn, place
from pjlocal.sessions.session import refuse_removed, removed_setting
from pjlocal.settings import Generation, Prompting, Sampling

REQUEST = Request(
    (("vivid", "formal"), ("creative",)),
    Generation(mode="both", avoid=("humorous",), lora_a=("/x/pirate.gguf:0.5",), seed=3),
    Sampling(temperature=0.5, logit_bias=("5=1",)),
    Prompting(system="Be brief.", placement="system"),
    frozenset({"temperature"}),
)


def test_json_gives_the_request_back() -> None:
    saved = json.loads(json.dumps(REQUEST.as_dict()))
    assert Request().restore(saved) == REQUEST


def test_saved_settings_override_and_missing_ones_stay() -> None:
    restored = REQUEST.restore({"preferences": {"a": ["concise"]}, "sampling": {"top_k": 5}})
    assert restored.views == (("concise",), ())
    assert restored.sampling == Sampling(top_k=5), "a table was saved whole"
    assert (restored.generation, restored.prompting) == (REQUEST.generation, REQUEST.prompting)


@pytest.mark.parametrize(
    ("saved", "name", "mode"),
    [
        ({"mode": "args", "rule": "push"}, "mode args", None),
        ({"mode": "both", "rule": "mod"}, "the rule mod", "both"),
        ({"mode": "both", "rule": "push"}, "", "both"),
        ({"mode": "both", "panel": True}, "the setting panel", "both"),
        ({"mode": "both", "panel": False}, "", "both"),
        ({"mode": "prompt", "panel": True}, "", "prompt"),
    ],
)
def test_a_removed_setting_of_an_earlier_version_is_named_and_left_out(saved: dict[str, str], name: str, mode) -> None:
    preferences = {"a": ["vivid", "simple"], "b": ["formal"]}
    values = {"preferences": preferences, "generation": REQUEST.generation.as_dict() | saved}
    assert removed_setting(values) == name
    assert REQUEST.restore(values).generation == REQUEST.generation.replace(mode=mode)
    if name:
        with pytest.raises(UsageError, match=f"^{name} was removed: ask again without it$"):
            refuse_removed(values)


@pytest.mark.parametrize(
    ("preferences", "has_changed"),
    [
        ({"a": ["vivid:1.5", "simple"], "b": ["formal"]}, False),
        ({"a": ["vivid:auto", "simple"], "b": ["formal:2"]}, True),  # each of the two views has one strength
        ({"a": ["vivid"], "b": ["formal:2"], "c": ["simple"]}, False),  # of a turn
        ({"a": ["vivid"], "b": ["formal"], "c": ["simple"]}, True),
    ],
)
def test_preferences_of_several_strengths_do_not_miss_the_panel(
    preferences: dict[str, list[str]], has_changed: bool
) -> None:
    values = {"preferences": preferences, "generation": {"mode": "both", "panel": True}}
    assert bool(removed_setting(values)) == has_changed


def test_files_are_named_by_their_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = Request((("@a.txt",), ()), Generation(lora=("b.gguf:2",), avoid=("@c.txt",))).as_dict()
    assert saved["preferences"]["a"] == [f"@{tmp_path}/a.txt"]
    assert saved["generation"]["lora"] == [f"{tmp_path}/b.gguf:2"]
    assert saved["generation"]["avoid"] == [f"@{tmp_path}/c.txt"]


def test_overrides_set_what_they_name_and_nothing_else() -> None:
    overrides = Overrides(prefer=("concise", "simple", "formal"), generation={"lam": 2}, sampling={"top_k": 0})
    made = REQUEST.override(overrides)
    assert made.views == (("concise", "formal"), ("simple",))
    assert made.generation == REQUEST.generation.replace(lam=2)
    assert made.sampling == REQUEST.sampling.replace(top_k=0)
    assert made.prompting == REQUEST.prompting
    assert made.explicit == {"temperature", "prefer", "lam", "top_k"}
    assert REQUEST.override(Overrides()) == REQUEST


def test_a_setting_takes_back_those_that_it_excludes() -> None:
    made = Request(sampling=Sampling(regex="a+")).override(Overrides(sampling={"grammar": "root ::= 'b'"}))
    assert made.sampling == Sampling(grammar="root ::= 'b'")
    file = Overrides(prefer=("vivid",), sampling={"regex": "a+", "top_k": 3})
    assert file.without({"draft_prefer", "lark"}) == Overrides(sampling={"top_k": 3})


def test_an_empty_list_of_preferences_leaves_those_of_each_view() -> None:
    overrides = Overrides(prefer=(), draft_prefer=("vivid",), judge_prefer=("formal",))
    assert Request().override(overrides).views == (("vivid",), ("formal",))
    assert REQUEST.override(Overrides(prefer=())).views == ((), ())


@pytest.mark.parametrize(
    ("given", "views"),
    [
        ({"judge_prefer"}, (("vivid", "formal"), ("concise",))),
        ({"draft_prefer"}, (("simple",), ("creative",))),
        ({"draft_prefer", "judge_prefer"}, (("simple",), ("concise",))),
        ({"prefer"}, (("simple",), ("concise",))),
    ],
)
def test_a_preference_of_one_view_leaves_the_other_view_as_it_is(given: set[str], views: tuple) -> None:
    options = Request((("simple",), ("concise",)))
    picked = options.pick(given)
    assert REQUEST.override(picked).views == REQUEST.replace(**picked.top()).views == views


def test_picked_settings_win_over_what_is_restored() -> None:
    saved = REQUEST.as_dict()
    options = Request((("concise",), ()), Generation(lam=7), Sampling(temperature=0.1))
    made = options.restore(saved).override(options.pick({"prefer", "lam", "temperature"}))
    assert made.views == (("concise",), ())
    assert made.generation == REQUEST.generation.replace(lam=7)
    assert made.sampling == REQUEST.sampling.replace(temperature=0.1)
    assert options.restore(saved).override(options.pick(())) == REQUEST


def test_swapping_exchanges_preferences_and_adapters() -> None:
    swapped = REQUEST.swap()
    assert swapped.views == (("creative",), ("vivid", "formal"))
    assert (swapped.generation.lora_a, swapped.generation.lora_b) == ((), ("/x/pirate.gguf:0.5",))
    again = swapped.swap()
    assert (again.views, again.generation) == (REQUEST.views, REQUEST.generation)


def test_a_change_is_checked_and_counts_as_set() -> None:
    made = REQUEST.replace(top_p=0.5, mode="judge")
    assert (made.sampling.top_p, made.generation.mode) == (0.5, "judge") and made.explicit >= {"top_p", "mode"}
    with pytest.raises(UsageError, match="top_p must be at most 1"):
        REQUEST.replace(top_p=2.0)
    with pytest.raises(TypeError, match=r"'temprature': did you mean temperature\?"):
        REQUEST.replace(temprature=1)


def test_preferences_are_dealt_in_turn_or_placed() -> None:
    dealt = deal(["a", "b", "c"])
    assert dealt == [["a", "c"], ["b"]] and in_turn(dealt) == ["a", "b", "c"]
    assert place(["a", "b"]) == (("a",), ("b",)) and place([], ["a"], ["b", "c"]) == (("a",), ("b", "c"))
    with pytest.raises(UsageError, match="use one"):
        place(["a"], ["b"])


def test_one_form_of_the_answer_takes_the_place_of_another() -> None:
    as_regex = Request().replace(json_schema="{}").replace(regex="a+")
    assert (as_regex.sampling.json_schema, as_regex.sampling.regex) == (None, "a+")
    assert as_regex.replace(json_schema=None).sampling == as_regex.sampling, "what is only reset takes no place"
    with pytest.raises(UsageError, match="exclude each other"):
        Request().replace(json_schema="{}", regex="a+")


def test_settings_of_a_request_count_as_set_if_they_differ_from_the_defaults() -> None:
    request = Request(sampling=Sampling(top_p=0.5), generation=Generation(max_tokens=5))
    assert request.explicit == {"top_p", "max_tokens"}
    assert request.with_model_defaults({"top_p": 0.9}).sampling.top_p == 0.5


def test_preferences_can_be_unset() -> None:
    assert REQUEST.unset(["prefer"]).views == ((), ())
    assert REQUEST.unset(["judge_prefer"]).views == (("vivid", "formal"), ())


def test_restored_settings_count_as_set_only_if_they_did_when_they_were_saved() -> None:
    """Else a chat with preferences would make its mode an error in the next one, which has none."""
    with_mode = Request().replace(mode="both", top_k=5, views=[["vivid"], []])
    saved = Request().replace(mode="judge", begin="So").as_defaults().as_dict()
    restored = with_mode.restore(saved)
    assert restored.explicit.isdisjoint({"mode", "top_k"}) and restored.generation.mode == "judge"
