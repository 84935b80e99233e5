"""An exported chat is read again as it was; a file of something else, or a broken one, gets one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from exported_chats import SETTINGS, accepted, bonus, chat, hostile_session, resampled
from saved_chats import a_turn, saved
from saved_chats import file as file
from saved_chats import store as store
from typer.testing import CliRunner

from pjlocal.cli.sessions import sessions_app
from pjlocal.errors import UsageError
from pjlocal.request import Request
from pjlocal.sessions.export import as_json
from pjlocal.sessions.importing import parse_export
from pjlocal.sessions.session import Session, Turn
from pjlocal.sessions.store import Store


def call(*args: str, input: str | None = None) -> tuple[str, str]:
    result = CliRunner().invoke(sessions_app, args, input=input, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def with_drafts() -> Session:
    """A chat with thoughts, a draft in force between others, an unfinished draft and an edited answer."""
    turns = [a_turn("One?", "First."), Turn("Two?", [accepted("A", 0), resampled("b", " so", 1)], SETTINGS)]
    for n in range(3):
        other = a_turn("Two?", f"Another {n}.", settings=SETTINGS | {"mode": "both"})
        other.join(turns[1])
    in_force = turns[1].drafts[2]
    in_force.put_in_force()
    settings = {"model": "toy.gguf", **Request((("vivid",), ("Be *brief*",))).as_dict()}
    return Session("Überblick", [turns[0], in_force], settings)


def test_export_import_export_is_equal(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = with_drafts()
    store.add_whole(session)
    first, second = tmp_path / "one.json", tmp_path / "two.json"
    call("export", "Überblick", str(first))
    monkeypatch.setenv("PJLOCAL_DATABASE", str(tmp_path / "other" / "chats.db"))
    assert call("import", str(first)) == (
        "", "pjlocal: Überblick is saved: pjlocal chat --session 1 continues it\n"
    )  # fmt: skip
    call("export", "1", str(second))
    assert second.read_text() == first.read_text()
    with Store() as other:
        (_, last) = other.load(1).turns
        assert last.drafts.index(last) == 2 and [draft.undone for draft in last.drafts] == [True, True, False, True]
        assert other.load(1).settings == session.settings


def test_a_chat_that_is_imported_again_is_not_added(store: Store, tmp_path: Path) -> None:
    store.add_whole(with_drafts())
    call("export", "Überblick", str(tmp_path / "one.json"))
    for again in (("-", (tmp_path / "one.json").read_text()), (str(tmp_path / "one.json"), None)):
        assert call("import", again[0], input=again[1]) == (
            "", "pjlocal: Überblick is saved already, and nothing was added: pjlocal chat --session 1 continues it\n"
        )  # fmt: skip
    store.add_turn(1, a_turn("Three?"))
    assert "--session 2 continues it" in call("import", str(tmp_path / "one.json"))[1], "the saved chat has gone on"
    assert call("list")[0].count("Überblick") == 2


@pytest.mark.parametrize(("written_in", "next_in"), [("judge", "judge"), ("both", None)])
def test_an_imported_chat_goes_on_in_the_mode_that_was_the_default_when_it_was_exported(written_in, next_in) -> None:
    settings = Request((("vivid",), ("formal",))).as_dict()
    turn = a_turn(settings=settings | {"mode": written_in})
    a_turn(settings=settings | {"mode": "both", "generation": settings["generation"] | {"mode": "both"}}).join(turn)
    imported = parse_export(as_json(Session("Old", [turn], settings)), "x.json")
    draft, compared = imported.turns[0].drafts
    assert [each["generation"]["mode"] for each in (imported.settings, draft.settings)] == [next_in, next_in]
    assert compared.settings["generation"]["mode"] == "both"


def test_an_error_in_standard_input_is_named_so() -> None:
    with pytest.raises(UsageError, match=r"^standard input is not a chat that pjlocal exported as JSON"):
        call("import", "-", input="x\n")


def test_every_text_comes_back(store: Store) -> None:
    for session in (hostile_session(), chat(accepted("Be"), bonus(" é", 1)), chat(), Session("Empty")):
        for turn in session.turns:
            turn.settings = turn.settings | {"seed": 7}  # a text is refused
            turn.events = [type(e)(n, *[getattr(e, f) for f in e.__slots__[1:]]) for n, e in enumerate(turn.events)]
        again = parse_export(as_json(session), "x.json")
        assert (again.title, again.turns) == (session.title, [*map(dated, session.turns)])
        assert as_json(again) == as_json(session)
        store.add_whole(again)


def dated(turn: Turn) -> Turn:
    """The turn with whole seconds, as an export has them."""
    turn.created = int(turn.created)
    return turn


def test_thoughts_are_found_in_exports_that_do_not_mark_them() -> None:
    texts = ["<think>", "Hm", "</think>", "So"]
    values = json.loads(as_json(chat(*(accepted(text, n) for n, text in enumerate(texts)))))
    for token in values["turns"][0]["tokens"]:
        del token["thought"]
    values["turns"][0]["answer"] = "So"
    (turn,) = parse_export(json.dumps(values), "x.json").turns
    assert (turn.thinking, turn.answer) == ("Hm", "So")


def test_a_chat_with_a_removed_setting_comes_back() -> None:
    session = chat(accepted("A"), mode="args", generation={"mode": "args", "rule": "push"})
    session.settings = session.turns[0].settings
    again = parse_export(as_json(session), "x.json")
    assert again.settings == session.settings and "mode args, which was removed" in again.notice


def changed(path: str, value: Any) -> str:
    """The JSON of a chat with a value changed, or removed."""
    session = chat(accepted("A"), resampled("b", " so", 1))
    a_turn("Why?", "Or else.").join(session.turns[0])
    values = json.loads(as_json(session))
    *keys, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    place: Any = values
    for key in keys:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x.json is not a chat that pjlocal exported as JSON \(Expecting value"),
        ("# A chat", "x.json is not a chat that pjlocal exported as JSON"),
        ("[" * 100_000, "x.json is not a chat that pjlocal exported as JSON"),
        ("[1]", "x.json is not a chat .*: pjlocal sessions export NAME FILE.json writes one"),
        ('{"title": "ChatGPT", "mapping": {}}', "x.json is not a chat that pjlocal exported as JSON"),
        ('{"spec": "chara_card_v2", "data": {"name": "Ada"}}', "x.json is a character card: pjlocal prefs import"),
        ('{"name": "Ada", "first_mes": "Hi"}', "x.json is a character card: pjlocal prefs import"),
        (changed("title", 3), "x.json is a broken export: the chat has no valid title"),
        (changed("created", "now"), "the chat has no valid created"),
        (changed("settings", {"sampling": {"top_k": "x"}}), "x.json is a broken export: "),
        (changed("settings", {"preferences": 3}), "the settings of the chat cannot be read"),
        (changed("settings", {"model": 3}), "the settings of the chat cannot be read"),
        (changed("turns.0", None), "turn 1 is not an object"),
        (changed("turns.0.question", ...), "turn 1 has no valid question"),
        (changed("turns.0.settings.preferences", "vivid"), "turn 1 has no valid preferences"),
        (changed("turns.0.drafts.0.settings.preferences", {"a": "vivid"}), "turn 1, draft 1 has no valid preferences"),
        (changed("turns.0.settings.generation", None), "turn 1 has no valid generation"),
        (changed("turns.0.settings.prompting", None), "turn 1 has no valid prompting"),
        (changed("turns.0.settings.sampling", []), "turn 1 has no valid sampling"),
        (changed("turns.0.settings.explicit", None), "turn 1 has no valid explicit"),
        (changed("turns.0.settings.explicit", [["a"]]), "turn 1 has no valid explicit"),
        (changed("turns.0.settings.seed", "7"), "turn 1 has no valid seed"),
        (changed("turns.0.settings.generation", {"max_tokens": "9"}), "turn 1 has no valid max_tokens"),
        (changed("turns.0.statistics.usage", 5), "turn 1 has no valid usage"),
        (changed("turns.0.statistics.usage", {"prompt_tokens": [5]}), "turn 1 has no valid completion_tokens"),
        (changed("turns.0.statistics.usage", {"prompt_tokens": [""], "completion_tokens": 1}), "valid prompt_tokens"),
        (changed("turns.0.statistics.timings", []), "turn 1 has no valid timings"),
        (changed("turns.0.statistics.timings", {"prefill_s": ""}), "turn 1 has no valid prefill_s"),
        (changed("turns.0.statistics.acceptance_rate", ""), "turn 1 has no valid acceptance_rate"),
        (changed("turns.0.drafts.0.statistics.pushes", {"a": "far"}), "turn 1, draft 1 has no valid a"),
        (changed("turns.0.answer", "Other"), "the answer of turn 1 differs from the text of its tokens"),
        (changed("turns.0.finish_reason", "bored"), "turn 1 has no valid finish_reason"),
        (changed("turns.0.drafts.0.tokens.1.p", ...), "turn 1, draft 1, token 1 has no valid p"),
        (changed("turns.0.tokens.0.q", ...), "turn 1, token 0 has no valid q"),
        (changed("turns.0.tokens.0.rejected", ...), "turn 1, token 0 has no valid rejected"),
        (changed("turns.0.drafts", "none"), "turn 1 has no valid drafts"),
        (changed("turns.0.tokens.1.rejected", {"id": 1}), "turn 1, token 1 has no valid text"),
        (changed("turns.0.tokens.1.position", 7), "turn 1, token 1 has no valid position"),
        (changed("turns.0.tokens.0.kind", []), "turn 1, token 0 has no valid kind"),
        (changed("turns.0.tokens.0.id", 2**70), "turn 1, token 0 has no valid id"),
        (changed("turns.0.tokens.0.p", float("nan")), "turn 1, token 0 has no valid p"),
        (changed("turns.0.tokens.0.pushes", {"a": "far"}), "turn 1, token 0 has no valid a"),
    ],
)
def test_a_broken_or_foreign_file_gets_one_line(file: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        parse_export(text, "x.json")
    assert "\n" not in str(raised.value)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError):
        call("import", str(tmp_path / "x.json"))
    assert not file.exists(), "no database is made for it"


def test_a_picture_is_sent_to_prefs_import(tmp_path: Path) -> None:
    (tmp_path / "ada.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(UsageError, match="is a picture: pjlocal prefs import saves a character card"):
        call("import", str(tmp_path / "ada.png"))
    with pytest.raises(UsageError, match=r"cannot read .*none.json: No such file"):
        call("import", str(tmp_path / "none.json"))


def test_a_chat_is_added_whole_or_not_at_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(store, "Before", a_turn())
    monkeypatch.setattr(Store, "_insert_tokens", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.add_whole(with_drafts())
    assert [summary.title for summary in store.summaries()] == ["Before"]
