"""The views of every mode, their strengths, and settings that exclude each other."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from tiny_models import write_lora

from pjlocal import PersonaJudge
from pjlocal.engine.policies import Weight
from pjlocal.errors import UsageError
from pjlocal.prompting.plan import EVERYTHING, expected_views, make_roles, unused
from pjlocal.prompting.preferences import PRESETS, split_strength
from pjlocal.request import Request, deal, in_turn
from pjlocal.settings import DEFAULT_VIEWS, Generation


def roles_of(*prefer: str, **generation: Any):
    return make_roles(Request().replace(views=deal(prefer), **generation))


def test_a_request_that_names_no_mode_is_written_in_mode_both_with_preferences_and_plain_without() -> None:
    roles = roles_of("vivid", "formal")
    assert roles == roles_of("vivid", "formal", mode="both")
    assert (roles.n_speakers, roles.joint, roles.neutral, len(roles.prefixes)) == (2, 2, 3, DEFAULT_VIEWS)
    vivid, formal = PRESETS["vivid"], PRESETS["formal"]
    assert roles.prefixes == [vivid, formal, f"{vivid}\n{formal}", ""]
    assert roles.view_names == ["a", "b", "joint", "neutral"]
    assert roles_of().mode == "plain"


def test_settings_of_preferences_that_are_defaults_apply_only_where_there_are_preferences() -> None:
    given = {"mode": "judge", "strength": "2", "avoid": ("formal",), "best": 4, "lam": 2}
    defaults = Request().replace(**given).as_defaults()
    roles = make_roles(defaults)
    assert roles == roles_of()
    assert unused(defaults, roles, EVERYTHING) == []
    preferring = defaults.replace(views=deal(["vivid", "creative"]))
    plain = preferring.as_defaults().replace(mode="plain")
    assert unused(plain, make_roles(plain), EVERYTHING) == []
    assert make_roles(preferring) == roles_of("vivid", "creative", **given)
    assert make_roles(preferring).n_answers == 4


@pytest.mark.parametrize("views", [[["vivid"], []], [[], ["vivid"]]])
def test_in_the_default_mode_a_view_without_a_preference_is_the_neutral_one(views) -> None:
    roles = make_roles(Request(views))
    [(name, weight)] = roles.weights.items()
    assert (name, weight.strength) == ("ab"[weight.view], None) and roles.prefixes[weight.view] == PRESETS["vivid"]
    assert len(roles.prefixes) == 2 and roles.neutral == 1 - weight.view


def test_memory_is_planned_for_the_views_of_the_mode_and_without_one_for_those_of_the_default() -> None:
    def expected(*prefer: str, **generation: Any) -> int:
        return expected_views(Request(deal(prefer), Generation(**generation)))

    assert [expected(), expected("vivid"), expected("vivid", "formal")] == [4, 4, 4]
    assert [expected(mode="judge"), expected("vivid", "formal", mode="judge")] == [2, 2]
    assert expected("vivid", mode="prompt") == expected(mode="plain") == 2
    assert expected("vivid", "formal", mode="judge", strength="2") == 3
    assert expected("vivid", "formal", "concise:2") == 5


def test_in_mode_judge_two_preferences_at_strength_1_need_no_neutral_view() -> None:
    roles = roles_of("vivid", "formal", mode="judge")
    assert (roles.mode, roles.n_speakers, roles.neutral) == ("judge", 2, None)
    assert roles.prefixes == [PRESETS["vivid"], PRESETS["formal"]]
    assert roles.weights == {"a": Weight(0, 1.0), "b": Weight(1, 1.0)}


def test_strengths_of_all_and_of_each_bring_a_neutral_view() -> None:
    roles = roles_of("vivid:2", "formal", strength="0.5")
    assert roles.weights == {"a": Weight(0, 2.0), "b": Weight(1, 0.5)}
    assert roles.prefixes[roles.neutral] == "" and len(roles.prefixes) == 4
    assert roles_of("vivid", "formal", mode="judge", strength="2").prefixes[2:] == [""]
    assert roles_of("vivid:2e0", "formal").weights["a"] == Weight(0, 2.0)
    assert roles_of("vivid", "formal", strength="auto").weights["a"] == Weight(0, None)
    assert roles_of("vivid", "formal", mode="both").weights["b"] == Weight(1, None)


def test_a_view_without_a_preference_is_the_neutral_one() -> None:
    roles = roles_of("vivid", strength="2")
    assert roles.prefixes == [PRESETS["vivid"], ""] and roles.neutral == 1


def test_only_mode_both_has_a_view_with_all_preferences_that_are_not_avoided() -> None:
    def joint(*prefer: str, **generation: Any) -> str | None:
        roles = roles_of(*prefer, **generation)
        return None if roles.joint is None else roles.prefixes[roles.joint]

    vivid, formal, simple = (PRESETS[name] for name in ("vivid", "formal", "simple"))
    assert joint("vivid", "formal", "simple") == f"{vivid}\n{simple}\n{formal}"
    assert joint("vivid", "formal", "simple:2") == f"{vivid}\n{formal}\n{simple}"
    assert joint("vivid", "formal:-1", "simple:0") is None
    assert joint("vivid", "formal", avoid=("simple",)) == f"{vivid}\n{formal}"
    assert joint("vivid") is joint("vivid", "formal", mode="judge", strength="2") is None


def test_preferences_at_strength_1_are_those_of_the_joint_view_alone() -> None:
    roles = roles_of("vivid", "formal", strength="1")
    assert (roles.joint, roles.neutral, len(roles.prefixes)) == (2, None, 3)


def test_an_avoided_preference_is_a_view_that_writes_no_tokens() -> None:
    roles = roles_of("vivid", "formal", avoid=("humorous:2", "Use long words"))
    assert roles.n_speakers == 2 and roles.prefixes[2:4] == [PRESETS["humorous"], "Use long words"]
    assert (roles.weights["avoid 1"], roles.weights["avoid 2"]) == (Weight(2, -2.0), Weight(3, -1.0))
    assert (roles.joint, roles.neutral) == (4, 5)
    assert roles.view_names == ["a", "b", "avoid 1", "avoid 2", "joint", "neutral"]


@pytest.mark.parametrize("mode", [None, "judge"])
def test_preferences_of_several_strengths_in_a_view_have_views_of_their_own_in_the_order_given(mode) -> None:
    wishes = ["vivid", "formal", "concise:2", "simple"]
    roles = roles_of(*wishes, mode=mode)
    assert roles.preferences == {name: [wish] for name, wish in zip("abcd", wishes, strict=True)}
    assert roles.n_speakers == 4 and in_turn(deal(wishes)) == wishes
    assert roles.strengths == {name: 2.0 if name == "c" else 1.0 if mode else "auto" for name in "abcd"}
    assert roles_of("vivid:2", "formal", "concise:2.0", mode=mode).preferences["a"] == ["vivid:2", "concise:2.0"]
    assert [*roles_of(*wishes, mode=mode, strength="2").preferences] == ["a", "b"], "the strength of the others"
    one = make_roles(Request().replace(draft_prefer=["vivid:2", "formal"], mode=mode))
    assert one.preferences == {"a": ["vivid:2"], "b": ["formal"]}
    assert roles_of(*wishes, mode="plain").preferences == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("prefer", "generation", "says"),
    [
        ([], {"mode": "both"}, "mode both needs a preference, as in: -p vivid"),
        ([], {"avoid": ("formal",)}, "--avoid needs a preference, as in: -p vivid"),
        ([], {"strength": "2"}, "--strength needs a preference"),
        ([], {"mode": "rewrite"}, "mode rewrite needs a preference, as in: -p vivid"),
        (["frmal"], {"mode": "rewrite"}, "unknown preset 'frmal'"),
        (["vivid"], {"mode": "rewrite", "avoid": ("frmal",)}, "unknown preset 'frmal'"),
        (["vivid:2"] + ["formal"] * 26, {}, "preferences of several strengths have a view each: give at most 26, or "),
        (["vivid:11"], {}, "the preference 'vivid:11': a strength is a number from -10 to 10, or auto (not '11')"),
        (["vivid:1e9"], {}, "the preference 'vivid:1e9': a strength is a number from -10 to 10, or auto (not '1e9')"),
        (["Vivid:x"], {}, "the preference 'Vivid:x': a strength is a number from -10 to 10, or auto (not 'x')"),
        (["vivid:"], {}, "the preference 'vivid:': a strength is a number from -10 to 10, or auto (not '')"),
        (["vivid:nan"], {}, "the preference 'vivid:nan': a strength is a number"),
        (["vivid"], {"avoid": ("formal:1,5",)}, "the preference 'formal:1,5': a strength is a number"),
        (["vivid\uff0c"], {}, "unknown preset 'vivid\uff0c': did you mean vivid"),
        (["vivid\u2026"], {}, "unknown preset 'vivid\u2026': did you mean vivid"),
        (["vivd:x"], {}, "unknown preset 'vivd:x': did you mean vivid"),
        (["@"], {}, "the file name is empty: name a file"),
        (["@:2"], {}, "the file name is empty"),
        (
            ["vivid:2", "formal", "simple:3"],
            {"mode": "base"},
            "'vivid:2' and 'simple:3' share one view, which has one strength: give all of them the same, or use --mode",
        ),
        (
            ["vivid:2", "formal:2", "simple:3"],
            {"mode": "prompt"},
            "'vivid:2', 'simple:3' and 'formal:2' share one view",
        ),
        (["vivid"], {"avoid": ("formal:-2",)}, "--avoid formal:-2: its strength must be a number above 0"),
        (["vivid"], {"avoid": ("frmal",)}, "unknown preset 'frmal'"),
        ([], {"mode": "both", "lora_a": ("a.gguf:0",)}, "mode both needs a preference, as in: -p vivid"),
        ([], {"strength": "2", "control_vector_b": ("a.gguf:0",)}, "--strength needs a preference"),
    ],
)
def test_settings_that_exclude_each_other_give_an_error(prefer, generation, says: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(says)) as error:
        roles_of(*prefer, **generation)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"strength": "hard"}, "a strength is a number from -10 to 10, or auto (not 'hard')"),
        ({"strength": 11}, "a strength is a number from -10 to 10, or auto (not '11')"),
        *(
            ({"strength": wrong}, f"a strength is a number from -10 to 10, or auto (not '{wrong}')")
            for wrong in ("nan", "", "1e999")
        ),
        ({"floor": 1.0}, "floor must be below 1 (not 1.0)"),
        ({"floor": math.nan}, "floor must be a finite number (not nan)"),
        ({"floor": -0.1}, "floor must be at least 0 (not -0.1)"),
    ],
)
def test_strengths_and_floors_have_limits(values, says: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(says)):
        Generation(**values)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("vivid:1.5", ("vivid", "1.5")),
        ("a ratio of 3:2", ("a ratio of 3:2", None)),
        ("Link to http://localhost:8080", ("Link to http://localhost:8080", None)),
        ("@notes 2:1.5", ("@notes 2", "1.5")),
        (" @my files/prompt2:auto", ("@my files/prompt2", "auto")),
    ],
)
def test_a_strength_follows_a_preset_a_text_or_the_name_of_a_file(spec: str, parts: tuple[str, str | None]) -> None:
    assert split_strength(spec) == parts


def test_strengths_that_are_the_same_number_are_the_same() -> None:
    roles = make_roles(Request((("vivid:1",), ("creative",)), Generation(mode="prompt")))
    assert roles.neutral is None
    with pytest.raises(UsageError, match=r"give all of them the same$"):
        make_roles(Request((("vivid:2",), ("creative",)), Generation(mode="prompt")))


@pytest.mark.parametrize("mode", ["judge", "base", "both", "prompt", "rewrite", "plain"])
def test_a_default_best_has_no_effect_without_pushes_and_one_that_was_set_is_refused(mode: str) -> None:
    changes = {"mode": mode, "strength": "1"}
    lasting = Request().replace(views=deal(["vivid", "concise"]), best=3).as_defaults().replace(**changes)
    roles = make_roles(lasting)
    assert roles.n_answers == 1 and make_roles(lasting.replace(mode="both", strength="2")).n_answers == 3
    warnings = [warning.removesuffix(" at strength 1") for warning in unused(lasting, roles, ["best"])]
    assert warnings == [f"best has no effect in mode {mode}"] * (mode != "plain"), "in mode plain it rests silently"
    with pytest.raises(UsageError, match="give --best 1"):
        make_roles(lasting.replace(best=3))


def test_a_warning_names_an_option_only_where_one_was_given() -> None:
    given = Request().replace(views=deal(["vivid"]), mode="base", strength="2", lam=2).replace(mode="prompt")
    for request, name in ((given, "--lambda"), (given.as_defaults(), "lam")):
        assert unused(request, make_roles(request), EVERYTHING) == [f"{name} has no effect in mode prompt"]


def test_settings_without_effect_give_one_warning(tiny, tmp_path, caplog) -> None:
    lora = (str(write_lora(tmp_path / "pirate.gguf")),)
    with PersonaJudge(tiny("llama"), prefer=["vivid:2"]) as judge:
        for settings, told in (
            ({"mode": "rewrite"}, "the strength of vivid:2 has no effect in mode rewrite"),
            ({"mode": "both"}, None),
            ({"mode": "base", "lora_b": lora}, None),
            ({"mode": "base"}, "mode base writes the text of view b, which has no preference: give it one with "),
            ({"mode": "base", "lora_a": lora}, None),
        ):
            judge("hello", max_tokens=1, **settings)
            assert [record.message.startswith(told or " ") for record in caplog.records] == [True] * (told is not None)
            caplog.clear()
