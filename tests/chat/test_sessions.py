"""A session goes on later with its turns, preferences and settings, and with another model too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from commandline import PREFER, configure, one_line
from talking import QUESTIONS, Talk, plain_event, prompt_text, talk

from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store

# Sessions.


def test_a_session_continues_with_its_settings(tiny, store: Store) -> None:
    with talk(tiny("llama"), store=store) as chat:
        chat.say("Why?")
        for line in ("/set temperature 0.3", "/lambda 2", "/system Be exact", "/prefer b vivid", "/title My talk"):
            chat.say(line)
        in_force = chat.conversation.settings()
        chat.say("/new")
        assert chat.turns == [] and chat.conversation.settings() == in_force
        chat.say("Something else?")
        chat.say("/set temperature 1.5")
        chat.say("/prefer clear")
        assert chat.say("/load my talk") == []
        assert chat.conversation.settings() == in_force
        assert [turn.question for turn in chat.turns] == ["Why?"]
        chat.say("How?")
        assert chat.say("/load nothing") == ["there is no saved chat 'nothing': /sessions shows them"]
        assert [turn.question for turn in chat.turns] == ["Why?", "How?"]
    session = store.load(store.find("My talk"))
    assert [turn.question for turn in session.turns] == ["Why?", "How?"]
    assert session.settings == in_force
    assert session.turns[1].settings["sampling"]["temperature"] == 0.3
    assert session.turns[0].settings["preferences"] == {"a": ["Be brief"], "b": ["Be kind"]}
    other = store.load(store.find("Something else?"))
    assert [turn.question for turn in other.turns] == ["Something else?"]
    assert other.settings["sampling"]["temperature"] == 1.5 and other.settings["preferences"] == {"a": [], "b": []}


def test_a_first_question_that_is_stopped_and_not_kept_leaves_neither_title_nor_count(tiny, store: Store) -> None:
    with talk(tiny("llama"), store=store) as chat:
        before = chat.conversation.progress()
        writing = chat.conversation.ask("A question that is stopped?")
        chat.judge.interrupt.set()
        assert list(writing) == []
        chat.judge.interrupt.clear()
        assert (chat.turns, chat.conversation.session.title, chat.conversation.progress()) == ([], "", before)
        assert store.summaries() == [], "an empty chat would be the last one, which --continue opens"
        chat.say("Why?")
        count = chat.conversation.progress()
        writing = chat.conversation.ask("Another that is stopped, and longer?")
        chat.judge.interrupt.set()
        assert list(writing) == [] and chat.conversation.progress() == count
        chat.judge.interrupt.clear()
        assert chat.conversation.session.title == "Why?"
        chat.say("/undo")
        assert chat.conversation.progress() == before
    assert [summary.title for summary in store.summaries()] == ["Why?"]


def test_a_loaded_session_is_read_once_and_then_only_what_is_new(tiny, store: Store) -> None:
    with talk(tiny("llama"), store=store) as chat:
        costs = [chat.ask(question) for question in QUESTIONS[:3]]
        number = chat.conversation.session.id
    with talk(tiny("llama"), store=store, session=store.load(number)) as chat:
        first, second = chat.ask(QUESTIONS[3]), chat.ask(QUESTIONS[4])
    assert all(prompt[: len(held)] == held for held, prompt in zip(costs[-1].held, first.prompts, strict=True)), (
        "the answers are the tokens that they were written with"
    )
    assert first.fed == first.new_to([[]] * 4) and second.fed == second.new_to(first.held)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preferences": {}},
        {"preferences": {"a": ["vivid"], "c": ["creative"]}, "dial": 3},
        {"generation": {"lam": 2, "warp": 9}, "sampling": {"temperature": 0.1, "spin": [1, 2]}, "prompting": {"x": 1}},
    ],
)
def test_a_session_of_another_version_loads(chat: Talk, store: Store, settings: dict) -> None:
    """What it does not say stays as it is; what is not known here is passed over."""
    before = chat.conversation.settings()
    turn = Turn("Old?", [plain_event(0)], {}, "stop")
    old = Session("Old", [turn], settings)
    store.add_session(old)
    store.add_turn(old.id, turn)
    assert chat.say("/load Old") == []
    now = chat.conversation.settings()
    assert now["generation"]["lam"] == settings.get("generation", before["generation"]).get("lam", 4)
    assert now["sampling"]["temperature"] == settings.get("sampling", before["sampling"])["temperature"]
    wishes = settings.get("preferences", before["preferences"])
    assert now["preferences"] == {view: wishes.get(view, []) for view in "ab"}
    for line in ("/why", "/stats", "/compare", "/regen", "How?", "/undo"):
        said = chat.say(line)
        assert said == [] or line == "/undo", (line, said)
    assert chat.chat.status == 0 and [turn.question for turn in chat.turns] == ["Old?"]


_DEFAULT = "its next answers take the default, unless you choose another mode"


@pytest.mark.parametrize(
    ("gone", "name", "now"),
    [
        ({"mode": "args"}, "mode args", _DEFAULT),
        ({"mode": "both", "rule": "mod"}, "the rule mod", _DEFAULT),
        ({"mode": "both", "panel": True}, "the setting panel", "its preferences now share two views"),
    ],
)
def test_a_session_with_a_removed_setting_loads_and_says_so(
    chat: Talk, store: Store, tiny, gone: dict[str, Any], name: str, now: str
) -> None:
    chat.say("/prefer vivid formal simple")
    views = {"a": ["vivid"], "b": ["formal"], "c": ["simple"]}
    settings = {"generation": chat.judge.request.generation.as_dict() | gone, "mode": gone["mode"]}
    turn = Turn("Why?", [plain_event("Because.")], settings | {"preferences": views}, "stop")
    store.add_whole(Session("old", [turn], chat.conversation.settings() | settings))
    says = f"this chat was saved with {name}, which was removed: {now}"
    assert chat.say("/load old") == [says]
    with talk(tiny("llama"), session=store.load(store.find("old"))) as continued:
        assert continued.screen.said == [says]
    assert chat.say("/why 0")[-1:] == [f"{name} was removed: ask again without it"], "nothing can compute it again"
    chat.say("How?")
    session = store.load(store.find("old"))
    assert [turn.settings["mode"] for turn in session.turns] == [gone["mode"], "both"]
    assert session.notice == "" and chat.say("/load old") == []


def test_a_session_that_cannot_be_had_leaves_the_one_in_use(chat: Talk, store: Store) -> None:
    """Its preset is gone, say."""
    chat.say("Why?")
    before, session = chat.conversation.settings(), chat.conversation.session
    gone = {"preferences": {"a": ["mine"], "b": []}, "sampling": {"temperature": 0.1}}
    store.add_session(Session("Gone", settings=gone))
    (said,) = chat.say("/load Gone")
    assert said.startswith("unknown preset 'mine'")
    assert chat.conversation.settings() == before and chat.conversation.session is session


def test_regen_with_a_seed_gives_another_answer_and_the_seed_stays_in_force(chat: Talk) -> None:
    chat.say("/set seed 9223372036854775807")
    chat.say("Why?")
    chat.say("/regen")
    chat.say("/regen")
    assert len({*chat.screen.answers}) == 3
    assert chat.turns[0].settings["seed"] == 1 and chat.judge.request.generation.seed == 2**63 - 1


def test_another_model_continues_the_conversation(chat: Talk, tiny) -> None:
    chat.say("Why?")
    chat.say("/set temperature 0.3")
    said = chat.say(f"/model {tiny('recurrent')}")
    assert said[0].startswith("recurrent.gguf: mamba") and chat.judge.model.name == "recurrent.gguf"
    cost = chat.ask("How?")
    assert "Why?" in prompt_text(chat, cost) and chat.judge.request.sampling.temperature == 0.3
    assert chat.turns[1].settings["model"] == "recurrent.gguf" and chat.turns[0].settings["model"] == "llama.gguf"
    assert chat.say("/model /no/such.gguf") == ["no such model file: /no/such.gguf"]
    assert chat.say("And?") == [] and chat.turns[2].settings["model"] == "recurrent.gguf"


@pytest.mark.slow
def test_a_chat_continues_with_a_model_of_another_vocabulary(smollm2: Path, tiny, tmp_path: Path) -> None:
    with talk(smollm2) as chat:
        chat.say("Why?")
        chat.say(f"/model {tiny('llama')}")
        chat.say("How?")
        assert [turn.settings["model"] for turn in chat.conversation.session.turns] == [smollm2.name, "llama.gguf"]
        assert chat.conversation.session.turns[1].events


def test_a_title_has_one_line_with_single_spaces(chat: Talk) -> None:
    assert chat.say("/title Of  rain \t and") == ["title: Of rain and"]


def test_a_number_is_not_a_title(chat: Talk) -> None:
    chat.say("Why?")
    assert "a number cannot be a title" in chat.say("/title 7")[0]


def test_an_unsaved_chat_cannot_list_sessions(tiny, tmp_path: Path) -> None:
    with talk(tiny("llama")) as chat:
        for line in ("Why?", "/title Mine", "/undo", "/lambda 3", "How?", "/new"):
            chat.say(line)
        for line in ("/sessions", "/load 1"):
            assert chat.say(line) == ["this chat is not saved: start it with --save to use saved chats"]


@pytest.mark.parametrize("config", ["", "save = false"])
def test_continuing_a_chat_needs_saving(pjlocal, environment, config: str) -> None:
    configure(environment, config)
    result = pjlocal("chat", "--continue", *["--no-save"] * (not config))
    assert one_line(result.stderr) == "pjlocal: --continue and --session need saved chats: give --save"


# Sessions, on a terminal.


@pytest.mark.slow
def test_a_chat_continues_with_its_turns_preferences_and_settings(start, toy, toy_model, says, sessions) -> None:
    chat = start(*toy, *says("Rain."), "--session", "Weather")
    chat.say("Go")
    for line in ("/prefer humorous concise", "/set temperature 0.3", "/lambda 2", "/mode base", "/system Be kind."):
        chat.say(line)
    chat.leave()
    for again in (("--continue",), ("--session", "weather")):
        chat = start(*again)
        assert chat.text.startswith("toy.gguf · /help lists the commands\n\nWeather: 1 turn\n\n> Go\nRain.")
        assert "base λ2 · a: humorous · b: concise" in chat.text
        assert re.search(r"temperature +0.3 ", chat.say("/set temperature"))
        assert chat.say("/system") == "system text: Be kind."
        chat.leave()
    chat = start("--continue", "-l", "3", "-p", "formal")
    assert "base λ3 · a: formal · b: no preference" in chat.text
    chat.say("And?")
    assert len(sessions()) == 1 and len(sessions()[0].turns) == 2


@pytest.mark.slow
def test_a_chat_that_is_not_saved_leaves_no_file(start, toy, environment) -> None:
    chat = start(*toy, "-n", "2", "--no-save")
    chat.say("Go")
    assert chat.say("/sessions") == "this chat is not saved: start it with --save to use saved chats"
    chat.type("\x1b[A")
    chat.at_prompt("/sessions")
    chat.type("\x03")
    chat.at_prompt()
    chat.leave()
    assert not Path(environment["XDG_DATA_HOME"]).exists()


@pytest.mark.slow
def test_a_missing_model_leaves_the_old_one_in_use(start, smollm2, toy, tmp_path) -> None:
    (tmp_path / "models" / "broken.gguf").write_text("not a model")
    chat = start(*PREFER, "-n", "3", "--ignore-end", columns=120)
    for name, says in (("nowhere", "there is no model 'nowhere'"), ("broken", "is not a GGUF file")):
        assert says in chat.say(f"/model {name}")
        assert chat.say("/model").startswith("SmolLM2-135M-Instruct")
    assert "cut off after 3 tokens" in chat.say("Hello")
    assert chat.say("/model toy").startswith("toy.gguf")
    assert "cut off after 3 tokens" in chat.say("Hello")


def test_an_option_for_one_view_leaves_the_saved_preference_of_the_other(pjlocal, tiny, environment) -> None:
    chat = ("chat", "-m", str(tiny("llama")), "-n", "2", "--session", "s")
    assert pjlocal(*chat, "--draft-prefer", "vivid", "--judge-prefer", "formal", stdin="Why?\n").returncode == 0
    done = pjlocal(*chat, "--judge-prefer", "concise", stdin="/prefer\nHow?\n")
    assert done.stderr.splitlines()[:2] == ["pjlocal: a: vivid", "pjlocal: b: concise"]


def test_a_session_option_continues_the_chat_with_this_very_title_or_begins_one(pjlocal, tiny, sessions) -> None:
    chat = ("chat", "-m", str(tiny("llama")), "-n", "2", "--session")
    for title in ("Rain one", "Rain  two", "rain ", "RAIN  TWO"):
        assert pjlocal(*chat, title, stdin="Why?\n").returncode == 0
    assert [(session.title, len(session.turns)) for session in sessions()] == [
        ("Rain one", 1), ("Rain two", 2), ("rain", 1)
    ]  # fmt: skip
    for name, says in ((" 12 ", "there is no saved chat '12'"), ("a" * 201, "at most 200 characters")):
        done = pjlocal(*chat, name, stdin="Why?\n")
        assert done.returncode == 2 and says in one_line(done.stderr)


@pytest.mark.slow
def test_a_chat_goes_on_with_its_model_unless_another_is_named(pjlocal, environment, tiny, sessions) -> None:
    environment["PJLOCAL_MODEL"] = str(tiny("space_prefix"))
    for options in (("-m", str(tiny("llama"))), ("--continue",), ("--continue", "-m", str(tiny("space_prefix")))):
        assert pjlocal("chat", *options, "-n", "2", stdin="Why?\n").returncode == 0
    assert [turn.settings["model"] for turn in sessions()[0].turns] == ["llama.gguf"] * 2 + ["space_prefix.gguf"]
