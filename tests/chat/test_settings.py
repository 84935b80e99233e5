"""What commands set in a chat is in force from then on, and what cannot be set changes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tiny_models
from talking import Talk, prompt_text, talk

from pjlocal.chat.status import status_line
from pjlocal.errors import UsageError
from pjlocal.prompting import preferences
from pjlocal.prompting.plan import make_roles
from pjlocal.request import Request
from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store
from pjlocal.settings import Sampling

# Settings.


def shown(chat: Talk, line: str) -> str:
    """What a command shows and says."""
    before = len(chat.screen.shown)
    said = chat.say(line)
    return chat.screen.shown[before:] + "\n".join(said)


@pytest.mark.parametrize(
    ("line", "group", "name", "value", "default"),
    [
        ("/set lambda 7", "generation", "lam", 7, 4),
        ("/lambda 2", "generation", "lam", 2, 4),
        ("/set -l 3", "generation", "lam", 3, 4),
        ("/set mode base", "generation", "mode", "base", None),
        ("/set decoding greedy", "generation", "decoding", "greedy", "sample"),
        ("/set max-tokens=50", "generation", "max_tokens", 50, 1024),
        ("/set ignore_end on", "generation", "ignore_end", True, False),
        ("/set min-tokens 5", "generation", "min_tokens", 5, 0),
        ("/set think-tokens 50", "generation", "think_tokens", 50, None),
        ("/set push-thoughts on", "generation", "push_thoughts", True, False),
        ("/set stop-token 42 '</s>'", "generation", "stop_token", ("42", "</s>"), ()),
        ("/set stop 'the end' .", "generation", "stop", ("the end", "."), ()),
        ("/set stop a=b", "generation", "stop", ("a=b",), ()),
        ("/set seed 12", "generation", "seed", 12, None),
        ("/set seed -1", "generation", "seed", None, None),
        ("/set temperature = 0.25", "sampling", "temperature", 0.25, 0.7),
        ("/set --top-p 0.5", "sampling", "top_p", 0.5, 0.9),
        ("/set top-k 0", "sampling", "top_k", 0, 20),
        ("/set top-n-sigma 1.5", "sampling", "top_n_sigma", 1.5, 0),
        ("/set logit-bias 5=-2.5 a=1", "sampling", "logit_bias", ("5=-2.5", "a=1"), ()),
        ("/set system Write a=b", "prompting", "system", "Write a=b", ""),
        ("/set placement user-turn", "prompting", "placement", "user-turn", "question"),
        ("/set think off", "prompting", "think", "off", "auto"),
        ("/set reasoning-effort low", "prompting", "reasoning_effort", "low", None),
        ("/strength 2", "generation", "strength", "2", None),
        ("/strength auto", "generation", "strength", "auto", None),
        ("/set floor 0.25", "generation", "floor", 0.25, 0.1),
        ("/set avoid formal:2 'Be dull'", "generation", "avoid", ("formal:2", "Be dull"), ()),
    ],
)
def test_set_takes_a_value_of_every_type_and_takes_it_back(lasting_chat, line, group, name, value, default) -> None:
    chat = lasting_chat
    assert shown(chat, line).strip()
    assert getattr(getattr(chat.judge.request, group), name) == value
    assert chat.conversation.settings()[group][name] == (list(value) if isinstance(value, tuple) else value)
    shown(chat, f"/set {name.replace('lam', 'lambda')} default")
    assert getattr(getattr(chat.judge.request, group), name) == default


def test_a_command_of_a_setting_takes_default_as_set_does(chat: Talk) -> None:
    before = chat.judge.request
    chat.say("/mode judge")
    chat.say("/think off")
    chat.say("/avoid formal")
    chat.say("/system Be brief.")
    assert [chat.say(f"/{name} default")[-1] for name in ("mode", "think", "avoid", "system")] == [
        "mode both", "think auto", "avoid: nothing", "system text: none"
    ]  # fmt: skip
    assert chat.judge.request == before


def test_set_reads_grammars_from_files(chat: Talk, tmp_path: Path) -> None:
    (tmp_path / "yes.gbnf").write_text('root ::= "yes"')
    (tmp_path / "broken.gbnf").write_text("root ::= (")
    chat.say(f"/set grammar {tmp_path}/yes.gbnf")
    chat.say("Well?")
    assert chat.screen.answers == ["yes"]
    assert "grammar" in chat.say(f"/set grammar {tmp_path}/broken.gbnf")[0]
    assert "no.gbnf" in chat.say(f"/set grammar {tmp_path}/no.gbnf")[0]
    assert "not JSON" in chat.say(f"/set json-schema {tmp_path}/yes.gbnf")[0]
    assert chat.judge.request.sampling.grammar == 'root ::= "yes"'
    chat.say("/set grammar default")
    assert chat.judge.request.sampling.grammar is None


def test_set_takes_a_schema_or_an_expression_and_refuses_what_cannot_be_kept(chat: Talk, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"const": "one"}')
    (tmp_path / "not.json").write_text('{"not": {"const": "one"}}')
    chat.say(f"/set json-schema {tmp_path}/one.json")
    chat.say("Well?")
    assert chat.say(f"/set json-schema {tmp_path}/not.json") == [
        "the JSON schema cannot be used: 'not' is not supported"
    ]
    chat.say("Well?")
    chat.say("/set regex two")  # takes the schema's place
    chat.say("Well?")
    assert chat.screen.answers == ['"one"', '"one"', "two"]
    assert chat.say("/set regex (") == ["the regular expression cannot be used: unclosed group"]
    assert chat.judge.request.sampling.regex == "two"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/set temperature hot", "temperature must be a number (not 'hot')"),
        ("/set temperature nan", "temperature must be a finite number (not nan)"),
        ("/set temperature -1", "temperature must be at least 0 (not -1.0)"),
        ("/set top-p 0", "top-p must be above 0 (not 0.0)"),
        ("/set top-p 2", "top-p must be at most 1 (not 2.0)"),
        ("/set top-k 1.5", "top-k must be a whole number (not '1.5')"),
        ("/lambda 0", "lambda must be at least 1 (not 0)"),
        ("/set mode loud", "mode must be one of judge, base, both, prompt, rewrite, plain (not 'loud')"),
        ("/set ignore-end maybe", "ignore-end must be on or off (not 'maybe')"),
        ("/set stop 'a", "a quotation mark is missing in 'a"),
        ("/set stop ''", "stop must not be empty: it would end every answer before its first token"),
        ("/set logit-bias the", "logit-bias"),
        ("/set stop-token 'two words'", "stop-token 'two words': 'two words' is "),
        ("/set stop-token 99999999", "stop-token '99999999': the model has tokens 0 to "),
        ("/set seed 9223372036854775808", "seed must be at most 9223372036854775807"),
        ("/set temprature 1", "no setting 'temprature': did you mean temperature?"),
        ("/set view blame", "no setting 'view': use /view"),
        ("/set qqq 1", "no setting 'qqq': /set lists them"),
        ("/set threads 3", "threads is fixed once the model is loaded: give it to pjlocal chat"),
        ("/mode loud", "mode must be one of judge, base, both, prompt, rewrite, plain (not 'loud')"),
        ("/strength hard", "a strength is a number from -10 to 10, or auto (not 'hard')"),
        ("/strength 11", "a strength is a number from -10 to 10, or auto (not '11')"),
        ("/set floor 1", "floor must be below 1 (not 1.0)"),
        ("/set rule mod", "no setting 'rule': it was removed, and mode both adds the pushes: leave it out"),
        ("/avoid formal:-1", "avoid formal:-1: its strength must be a number above 0"),
        ("/avoid frmal", "unknown preset 'frmal': did you mean formal"),
        ("/set panel on", "no setting 'panel': it was removed, and preferences of several strengths have a view each"),
        ("/persona nobody", "unknown persona 'nobody': pjlocal prefs save NAME saves one"),
        ("/undoo", "unknown command /undoo: did you mean /undo"),
        ("/help undoo", "unknown command /undoo: did you mean /undo"),
        ("/qqqqq", "unknown command /qqqqq: /help lists them"),
        ("/", "unknown command /: /help lists them"),
        ("/open 3", "unknown command /open: did you mean /load?"),
        ("/Reset", "unknown command /reset: did you mean /new?"),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line_and_changes_nothing(lasting_chat: Talk, line: str, says: str) -> None:
    chat = lasting_chat
    before, chat.chat.status = chat.conversation.settings(), 0
    (said,) = chat.say(line)
    assert said.startswith(says)
    assert chat.conversation.settings() == before
    assert chat.chat.status == 2


def test_the_best_of_several_needs_a_neutral_view(chat: Talk) -> None:
    chat.say("/mode judge")
    before = chat.conversation.settings()
    (said,) = chat.say("/set best 2")
    assert said.startswith(
        "best chooses by pushes, which need a neutral view, and mode judge at strength 1 has none: use mode both"
    )
    assert chat.conversation.settings() == before
    assert chat.say("/mode both") == ["mode both"] and chat.say("/set best 2") == []


def test_an_adapter_that_is_not_there_is_refused_at_once(lasting_chat: Talk) -> None:
    for name in ("lora", "lora-a", "control-vector-b"):
        (said,) = lasting_chat.say(f"/set {name} nowhere.gguf")
        assert "nowhere.gguf" in said and not lasting_chat.judge.request.generation.adapters()


def test_stats_names_each_layout_once(chat: Talk, monkeypatch) -> None:
    layouts = {4: "batched", 2: "batched", 3: "contexts"}
    monkeypatch.setattr(type(chat.judge), "layouts", layouts)
    expected = r"2 and 4 views in one batch, 3 views in contexts side by side$"
    assert re.search(expected, shown(chat, "/stats").strip(), re.MULTILINE)


def test_set_alone_lists_every_setting_and_a_name_shows_its_value(chat: Talk) -> None:
    table = shown(chat, "/set")
    for name in ("lambda", "temperature", "logit-bias", "json-schema", "placement", "think"):
        assert re.search(rf"^{name} ", table, re.MULTILINE), name
    assert "repeatable" not in table and not re.search(r"\s-(p|-seed)\b", table), "these are for the command line"
    assert re.search(r"^top-k +20 ", shown(chat, "/set top-k"), re.MULTILINE)
    assert re.search(r"^lambda +4 ", shown(chat, "/lambda"), re.MULTILINE)
    assert "shares max-tokens" in shown(chat, "/set think-tokens")


@pytest.mark.parametrize(
    ("lines", "a", "b"),
    [
        (["/prefer"], ["Be brief"], ["Be kind"]),
        (["/prefer vivid"], ["vivid"], []),
        (["/prefer vivid creative"], ["vivid"], ["creative"]),
        (["/prefer vivid, creative, touching"], ["vivid", "touching"], ["creative"]),
        (["/prefer b\u3000set vivid\u00a0creative"], ["Be brief"], ["vivid", "creative"]),
        (["/prefer vivid\u00a0'Begin with «\u202fOui\u00a0»'"], ["vivid"], ["Begin with «\u202fOui\u00a0»"]),
        (['/prefer "Don\'t say\u00a0no"\u00a0vivid'], ["Don't say\u00a0no"], ["vivid"]),
        (["/prefer Don't say\u00a0no, ever"], ["Don't say\u00a0no, ever"], []),
        (["/prefer set Vivid creative"], ["Vivid"], ["creative"]),
        (["/prefer 'Answer in rhyme' creative"], ["Answer in rhyme"], ["creative"]),
        (['/prefer "Answer, always, in rhyme"'], ["Answer, always, in rhyme"], []),
        (["/prefer Answer in rhyme"], ["Answer in rhyme"], []),
        (["/prefer 'o tom formal'"], ["o tom formal"], []),
        (["/prefer Don't be rude"], ["Don't be rude"], []),
        (['/prefer Say "Ahoy, mate" and "aye"'], ['Say "Ahoy, mate" and "aye"'], []),
        (["/prefer a vivid"], ["vivid"], ["Be kind"]),
        (["/prefer b set vivid creative"], ["Be brief"], ["vivid", "creative"]),
        (["/prefer set b vivid"], ["Be brief"], ["vivid"]),
        (["/prefer add vivid"], ["Be brief", "vivid"], ["Be kind"]),
        (["/prefer add vivid", "/prefer add creative"], ["Be brief", "vivid"], ["Be kind", "creative"]),
        (["/prefer add vivid creative touching"], ["Be brief", "vivid", "touching"], ["Be kind", "creative"]),
        (["/prefer add b vivid"], ["Be brief"], ["Be kind", "vivid"]),
        (["/prefer add vivid", "/prefer add vivid creative"], ["Be brief", "vivid"], ["Be kind", "creative"]),
        (["/prefer a add vivid", "/prefer a add vivid vivid"], ["Be brief", "vivid"], ["Be kind"]),
        (["/prefer vivid", "/prefer b add vivid"], ["vivid"], ["vivid"]),
        (["/prefer clear"], [], []),
        (["/prefer a clear"], [], ["Be kind"]),
        (["/prefer clear b"], ["Be brief"], []),
        (["/swap"], ["Be kind"], ["Be brief"]),
        (["/prefer clear b", "/swap"], [], ["Be brief"]),
    ],
)
def test_prefer_deals_sets_adds_and_clears(chat: Talk, lines: list[str], a: list[str], b: list[str]) -> None:
    for line in lines:
        said = chat.say(line)
    assert list(map(list, chat.judge.request.views)) == [a, b]
    assert said == [f"a: {', '.join(a) or 'no preference'}", f"b: {', '.join(b) or 'no preference'}"]
    cost = chat.ask("Why?")
    assert all(
        resolved in prompt_text(chat, cost, view)
        for view, wishes in enumerate([a, b][: len(cost.prompts)])
        for resolved in [preferences.resolve(wish) for wish in wishes]
    )
    n_views = 1 + bool(a) + bool(b) + bool(a and b)
    assert len(cost.prompts) == n_views, "the joint and the neutral view too, which is all of mode plain"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/prefer vivd", "unknown preset 'vivd': did you mean vivid"),
        ("/prefer \u201cvivid\u201d", "unknown preset '\u201cvivid\u201d': did you mean vivid"),
        ("/prefer it's", 'unknown preset "it\'s"'),
        ('/prefer "unclosed', "a quotation mark is not closed"),
        ('/prefer a "Be odd" vivd', "unknown preset 'vivd': did you mean vivid"),
        ("/prefer vivid creativ", "unknown preset 'creativ': did you mean creative"),
        ("/prefer a", "name a preference, as in /prefer a vivid, or use /prefer clear"),
        ("/prefer add", "name a preference"),
        ("/prefer c vivid", "there is no view c: a and b (put a text in quotes)"),
        ("/prefer add c vivid", "there is no view c: a and b (put a text in quotes)"),
        ("/prefer clear vivid", "/prefer clear takes a view or nothing"),
        ("/prefer @missing.txt", "cannot read preference file missing.txt: No such file"),
        ("/prefer ''", "a preference is empty"),
    ],
)
def test_a_preference_that_cannot_be_used_leaves_those_in_force(chat: Talk, line: str, says: str) -> None:
    (said,) = chat.say(line)
    assert said.startswith(says), said
    assert list(map(list, chat.judge.request.views)) == [["Be brief"], ["Be kind"]]


def test_a_mode_that_needs_preferences_says_so(chat: Talk) -> None:
    chat.say("/prefer clear")
    assert chat.say("/mode") == ["mode plain"]
    assert chat.say("/mode base") == ["mode base needs a preference, as in: /prefer vivid creative"]
    assert chat.say("/compare") == ["this chat has no questions yet"]
    chat.say("/prefer vivid")
    assert chat.say("/mode base") == ["mode base"]


def test_the_system_text_is_shown_set_and_cleared(chat: Talk) -> None:
    assert chat.say("/system") == ["system text: none"]
    assert chat.say("/system Answer in verse.") == ["system text: Answer in verse."]
    assert "Answer in verse.\n\nBe brief" in prompt_text(chat, chat.ask("Why?"))
    assert chat.say("/system clear") == ["system text: none"]


def test_a_line_may_begin_with_a_slash_and_be_a_message(chat: Talk) -> None:
    chat.say("//help me")
    chat.say("/etc/hosts is what?")
    assert [turn.question for turn in chat.turns] == ["/help me", "/etc/hosts is what?"]
    assert chat.say("   ") == [] and len(chat.turns) == 2


# Strengths and personas.


def test_preferences_may_have_strengths_which_the_status_line_shows(chat: Talk) -> None:
    chat.say("/prefer a vivid:2")
    chat.say("/avoid formal")
    chat.say("/strength 0.5")
    chat.say("/mode judge")
    line = status_line(chat.conversation, 200).plain
    assert line.startswith("judge λ4 ×0.5 · a: vivid:2 · b: Be kind · avoid: formal · ")
    chat.say("Why?")
    (turn,) = chat.turns
    assert set(turn.statistics["pushes"]) == {"a", "b", "avoid 1"}
    assert all(set(event.pushes) == {"a", "b", "avoid 1"} for event in turn.events)
    line = status_line(chat.conversation, 200).plain
    assert re.search(r" · push a [+-]\d\.\d\d b [+-]\d\.\d\d avoid 1 [+-]\d\.\d\d · ", line)
    assert "context" in line and "context" not in status_line(chat.conversation, 100).plain
    assert "push" in status_line(chat.conversation, 100).plain
    chat.say("/set mode default")
    chat.say("/strength default")
    assert status_line(chat.conversation, 200).plain.startswith("both λ4 ×auto · a")


def test_preferences_of_several_strengths_in_a_view_have_one_each_and_commands_know_them(chat: Talk) -> None:
    chat.say("/mode judge")
    assert chat.say("/prefer vivid formal 'Be odd:2'") == ["a: vivid", "b: formal", "c: Be odd:2"]
    cost = chat.ask("Why?")
    assert len(cost.prompts) == 4 and chat.turns[0].settings["preferences"]["c"] == ["Be odd:2"]
    assert [event.judge for event in cost.events] == ["bca"["abc".index(event.draft)] for event in cost.events]
    assert chat.say("/prefer c creative:2") == ["a: vivid", "b: formal", "c: creative:2"]
    assert chat.say("/prefer add 'Be odd'") == ["a: vivid", "b: formal", "c: creative:2", "d: Be odd"]
    assert chat.say("/prefer clear b") == ["a: vivid, Be odd", "b: creative:2"], "the strengths of a view are equal"
    assert chat.say("/more vivid") == ["a: vivid:1.5 · b: creative:2 · c: Be odd"]
    assert chat.say("/swap") == ["a: Be odd", "b: creative:2", "c: vivid:1.5"]
    assert chat.say("/mode base")[0].startswith("'Be odd' and 'vivid:1.5' share one view")
    assert chat.say("/prefer a vivid:2") == ["a: vivid:2", "b: creative:2", "c: vivid:1.5"]
    assert chat.say("/prefer vivid") == ["a: vivid", "b: no preference"]
    chat.say("/prefer a vivid:2 formal:3")
    assert chat.say("/swap") == ["a: formal:3", "b: vivid:2"]


@pytest.mark.parametrize(
    "given",
    [
        ["/prefer clear", "/prefer a vivid:2 formal simple:2"],
        ["/prefer vivid formal 'Be odd:2' creative"],
        ["/prefer a creative", "/prefer b vivid:2 formal simple:2"],
    ],
)
def test_swap_reverses_more_views_and_twice_restores_them(chat: Talk, given: list[str]) -> None:
    for line in given:
        chat.say(line)
    views = [*chat.conversation.views.values()]
    assert len(views) > 2
    chat.say("/swap")
    assert [*chat.conversation.views.values()] == views[::-1]
    chat.say("/swap")
    assert [*chat.conversation.views.values()] == views


def test_a_session_restores_strengths_and_older_ones_have_none(chat: Talk) -> None:
    for line in ("/mode both", "/strength 2", "/avoid formal", "/set floor 0.3"):
        chat.say(line)
    stored = json.loads(json.dumps(chat.conversation.settings()))
    generation = chat.judge.request.generation
    old = {name: stored["generation"][name] for name in ("lam", "seed", "max_tokens")}
    chat.conversation.open(Session(settings=stored | {"generation": old}))
    assert (chat.judge.request.generation.strength, chat.judge.request.generation.avoid) == (None, ())
    chat.conversation.open(Session(settings=stored))
    assert chat.judge.request.generation == generation
    gone = stored | {"generation": stored["generation"] | {"avoid": ["frmal"]}}
    with pytest.raises(UsageError, match="unknown preset 'frmal'"):
        chat.conversation.open(Session(settings=gone))
    assert chat.judge.request.generation == generation


def test_a_persona_is_put_on_in_a_chat_and_all_else_stays(chat: Talk, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "config.toml"
    monkeypatch.setenv("PJLOCAL_CONFIG", str(file))
    file.write_text(
        '[presets]\nnew = "Be new"\n[personas.odd]\nprefer = ["new:2", "formal"]\nmode = "both"\ntop_k = 5\n'
        '[personas.never]\nmode = "judge"\nbest = 2\n[personas.brief]\ndraft_prefer = ["concise"]\n'
    )
    chat.say("/set temperature 0.3")
    try:
        assert chat.say("/persona") == [
            'odd: prefer = ["new:2", "formal"], mode = "both", top_k = 5',
            'never: mode = "judge", best = 2',
            'brief: draft_prefer = ["concise"]',
        ]
        assert chat.say("/persona Odd") == ["a: new:2", "b: formal"]
        assert (chat.judge.request.generation.mode, chat.judge.request.sampling.top_k) == ("both", 5)
        assert chat.judge.request.sampling.temperature == 0.3 and chat.judge.request.generation.seed == 1
        assert chat.say("/persona brief") == ["a: concise", "b: formal"]
        before = chat.conversation.settings()
        assert chat.say("/persona never")[0].startswith("best chooses by pushes")
        assert chat.say("/persona od") == ["unknown persona 'od': did you mean odd?"]
        assert chat.say("/persona vivid") == ["'vivid' is a preset: use /prefer vivid"]
        assert chat.say("/prefer odd") == ["'odd' is a persona: use /persona odd"]
        assert chat.conversation.settings() == before
    finally:
        preferences.use_own({})


def test_the_status_line_names_the_mode_in_which_the_next_answer_is_written(chat: Talk) -> None:
    chat.say("/mode judge")
    chat.say("/prefer clear")
    assert chat.say("/mode") == ["mode plain"]
    assert status_line(chat.conversation, 80).plain.startswith("plain · ")
    chat.judge.request = chat.judge.request.replace(mode=None, lora_a=("x.gguf:0",)).as_defaults()
    assert status_line(chat.conversation, 80).plain.startswith("plain · "), "at scale 0 it is no preference"


def test_the_status_line_is_shown_although_a_setting_lacks_a_preference(chat: Talk) -> None:
    chat.say("/prefer clear")
    chat.judge.request = chat.judge.request.replace(strength="2", avoid=("formal",), mode=None)
    assert status_line(chat.conversation, 80).plain.startswith("plain · ")


def test_compare_leaves_out_the_mode_that_the_strengths_cannot_have(chat: Talk) -> None:
    chat.say("/set max-tokens 2")
    chat.say("/prefer a vivid:2")
    chat.say("/prefer b creative")
    chat.ask("hi")
    said = chat.say("/compare")
    assert [line.partition(":")[0] for line in said] == ["mode prompt is left out"]
    chat.say("/prefer a vivid:2 formal")
    (said,) = [line for line in chat.say("/compare") if line.startswith("mode base is left out: ")]
    assert said.endswith(": give all of them the same"), "mode both is compared anyway"


# The model's own filters.


def test_the_filters_of_a_models_file_are_put_on_and_taken_off_and_go_with_the_model(tmp_path: Path) -> None:
    first = tiny_models.write_llama(tmp_path / "first.gguf", recommends={"temp": 0.6, "top_k": 40})
    other = tiny_models.write_llama(tmp_path / "other.gguf", recommends={"temp": 1.0})
    with talk(first) as chat:
        chat.say("/set top-k 5")
        assert re.search(r"sampling +model ", shown(chat, "/set sampling model"))
        assert (chat.judge.request.sampling.temperature, chat.judge.request.sampling.top_k) == (0.6, 5)
        chat.say(f"/model {other}")
        assert (chat.judge.request.sampling.temperature, chat.judge.request.sampling.top_k) == (1.0, 5)
        chat.say("/set temperature 0.3")
        chat.say(f"/model {first}")
        assert (chat.judge.request.sampling.temperature, chat.judge.request.sampling.top_k) == (0.3, 5)
        chat.say("/set temperature 0.6")  # by chance the model's value, but set by the user
        chat.say("/set sampling own")
        assert (chat.judge.request.sampling.temperature, chat.judge.request.sampling.top_k) == (0.6, 5)
        chat.say("/set temperature default")
        assert (chat.judge.request.sampling.temperature, chat.judge.request.sampling.top_k) == (0.7, 5)


@pytest.mark.parametrize("setting", ["/strength 2", "/mode judge", "/avoid formal", "/set best 2"])
def test_settings_that_need_preferences_rest_while_there_are_none(tiny, store: Store, setting: str) -> None:
    with talk(tiny("llama"), store=store) as chat:
        before = chat.judge.request.generation
        chat.say(setting)
        chosen = chat.judge.request.generation
        chat.say("/prefer clear")
        chat.say("Why?")
        chat.say("/set temperature 1")
        assert len(chat.turns) == 1 and chat.judge.request.sampling.temperature == 1
        saved = chat.conversation.session.settings
        chat.say("/prefer a vivid")
        chat.say("/prefer b concise")
        chat.say("And now?")
        assert len(chat.turns) == 2 and chat.judge.request.generation == chosen != before
    reopened = Request().restore(saved).as_defaults()
    assert make_roles(reopened).mode == "plain"


def test_default_gives_the_models_own_value_back(tmp_path: Path) -> None:
    path = tiny_models.write_llama(tmp_path / "m.gguf", recommends={"temp": 0.3})
    with talk(path, sampling=Sampling(defaults="model")) as chat:
        assert chat.judge.request.sampling.temperature == 0.3
        chat.say("/set temperature 1")
        chat.say("/set temperature default")
        assert chat.judge.request.sampling.temperature == 0.3
        assert "temperature" not in chat.judge.request.explicit


def test_the_form_of_a_switch_that_turns_it_off_names_no_setting(lasting_chat: Talk) -> None:
    said = lasting_chat.say("/set no-push-thoughts on")
    assert not lasting_chat.judge.request.generation.push_thoughts and "no setting" in said[0]


def test_more_and_less_take_several_preferences(chat: Talk) -> None:
    chat.say("/prefer vivid concise")
    assert chat.say("/more vivid, formal")[-1] == "a: vivid:2 · b: concise · c: formal"
    assert chat.say('/less formal "Mention the sea"')[-1].endswith("c: formal:1 · avoid: Mention the sea:0.5")
    assert "did you mean concise?" in chat.say("/less conccise vivid")[-1]


def test_more_and_less_refuse_a_strength(chat: Talk) -> None:
    assert "leave it out of vivid:3" in chat.say("/more vivid:3")[-1]
    assert "leave it out of Mention the sea:2" in chat.say('/less "Mention the sea:2"')[-1]


def test_prefer_refuses_a_strength_outside_its_limits_also_in_a_list(chat: Talk) -> None:
    assert "a strength is a number from -10 to 10" in chat.say("/prefer vivid:11 creative")[-1]
