"""The saved chats over HTTP: what is answered there is written down while it is, where the terminal's chats are."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from saved_chats import a_turn, saved
from served import VIEWS, Served, serving, streamed
from waiting import when

from pjlocal.events import TokenEvent
from pjlocal.request import Request, place
from pjlocal.sessions.store import Store

OPTIONS = (*VIEWS, "--max-tokens", "12", "--cors", "*")
ANSWERS = "/api/answers"
ENDLESS = {"generation": {"max_tokens": 30_000, "ignore_end": True}}


def body(question: str, session: int | None = None, settings: Any = None, **chat: Any) -> dict[str, Any]:
    return {"chat": {"question": question, "id": session, **chat}, "settings": settings or {}}


def ask(served: Served, *question: Any, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The answer: its head, its token events and its result."""
    reply = served.http.post(ANSWERS, json=body(*question, **more))
    assert reply.status_code == 200, reply.text
    head, *tokens, end = streamed(reply.text.splitlines())
    return head["head"], [token["event"] for token in tokens], end["result"]


def refused(served: Served, asked: Any) -> tuple[int, str | None, str]:
    """The status, the code and the line by which a question is refused, before or in the stream."""
    reply = served.http.post(ANSWERS, json=asked)
    if reply.status_code != 200:
        error = reply.json()["error"]
        return reply.status_code, error["code"], error["message"]
    (error,) = streamed(reply.text.splitlines())
    return 200, error["code"], error["error"]


def test_a_turn_is_saved_as_the_terminal_saves_it(served: Served, store: Store) -> None:
    head, tokens, result = ask(served, "Why do cats purr?", settings={"mode": "judge", "seed": 3, "ignore_end": True})
    session = store.load(head["chat"])
    (turn,) = session.turns
    assert (session.title, turn.question, turn.answer) == ("Why do cats purr?", "Why do cats purr?", result["text"])
    assert turn.id == head["turn"] and turn.finish_reason == result["finish_reason"]
    assert [*map(TokenEvent.from_dict, tokens)] == turn.events
    assert turn.settings["mode"] == "judge" and turn.settings["seed"] == 3 and turn.settings["model"] == "llama.gguf"
    assert turn.settings["preferences"] == {"a": ["vivid"], "b": ["concise"]} == session.settings["preferences"]
    assert session.settings["model"].endswith("/llama.gguf") and session.settings["generation"]["max_tokens"] == 12
    assert turn.statistics["usage"]["completion_tokens"] == 12


def test_a_chat_continues_with_its_turns_and_settings(served: Served, store: Store) -> None:
    settings = {"generation": {"max_tokens": 5, "mode": "plain"}, "sampling": {"temperature": 0.1}}
    session = saved(store, "From the terminal", a_turn("Hello", "Hi you"), settings=settings)
    _, _, result = ask(served, "And you?", session.id, {"draft_prefer": ["vivid"], "judge_prefer": []})
    went_on = store.load(session.id)
    assert [turn.question for turn in went_on.turns] == ["Hello", "And you?"] and went_on.title == "From the terminal"
    assert result["statistics"]["completion_tokens"] == 5
    in_force = went_on.settings
    assert in_force["sampling"]["temperature"] == 0.1 and in_force["preferences"] == {"a": ["vivid"], "b": []}
    assert in_force["generation"]["mode"] is None, "the page names no mode: that of the preferences"
    longer = result["statistics"]["prompt_tokens"]
    alone = ask(served, "And you?", settings={"draft_prefer": ["vivid"], "judge_prefer": [], "max_tokens": 5})[2]
    shorter = alone["statistics"]["prompt_tokens"]
    assert [one > other for one, other in zip(longer, shorter, strict=True)] == [True, True]


def test_a_terminal_sends_all_settings_and_these_are_those_of_the_chat(served: Served, store: Store) -> None:
    session = saved(store, "endless", a_turn(), settings=ENDLESS)
    request = Request(place(["formal"])).replace(max_tokens=4, ignore_end=True, mode="plain", schedule="reference")
    asked = {"request": request.as_dict(), "chat": {"question": "And you?", "id": session.id}}
    head, *tokens, _ = streamed(served.http.post(ANSWERS, json=asked).text.splitlines())
    assert len(tokens) == 4 and head["head"]["chat"] == session.id
    assert Request().restore(store.load(session.id).settings) == Request().restore(request.as_dict())
    turn = store.load(session.id).turns[-1]
    assert (turn.settings["generation"]["schedule"], turn.settings["seed"]) == ("reference", head["head"]["seed"])


@pytest.mark.slow
def test_the_oldest_exchanges_are_left_out_of_a_chat_that_does_not_fit(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    database = tmp_path / "chats.db"
    with serving(tiny("llama"), environment | {"PJLOCAL_DATABASE": str(database)}, "--ctx", "1024") as served:
        turns = [a_turn(f"Question {n}", "long " * 100) for n in range(12)]
        with Store(database) as store:
            session = saved(store, "long", a_turn("Very", "long" * 100_000), *turns)
            head, _, result = ask(served, "And now?", session.id, {"max_tokens": 3})
            assert 4 < head["first"] < 13
            assert result["statistics"]["prompt_tokens"][0] < 1024 * 3 / 4
            assert len(store.load(session.id).turns) == 14, "the chat keeps them"


def test_an_answer_that_is_asked_again_takes_the_place_of_the_last(served: Served, store: Store) -> None:
    head, _, _ = ask(served, "Who?", settings={"seed": 5})
    chat, first = head["chat"], head["turn"]
    again, _, _ = ask(served, "Who else?", chat, replacing=first)
    session = store.load(chat, with_undone=True)
    assert [turn.question for turn in store.load(chat).turns] == ["Who else?"]
    assert [(turn.id, turn.settings["seed"]) for turn in session.turns] == [(first, 5), (again["turn"], 6)]
    status, _, line = refused(served, body("Who?", chat, replacing=first))
    assert status == 400 and "load the chat again" in line


def test_a_compared_answer_is_saved_as_a_draft_with_the_seed_of_the_original(served, store) -> None:
    head, _, result = ask(served, "Which?", settings={"seed": 8})
    chat, turn = head["chat"], head["turn"]
    same = ask(served, "Which?", chat, replacing=turn, keep=False)
    other = ask(served, "Which?", chat, {"mode": "plain"}, replacing=turn, keep=False)
    assert same[2]["text"] == result["text"] and other[2]["seed"] == 8
    (one,) = store.load(chat).turns
    assert [draft.id for draft in one.drafts] == [turn, other[0]["turn"]], "the same answer again is no new draft"
    assert one.id == turn and one.drafts[1].answer == other[2]["text"]
    assert store.load(chat).settings["generation"]["mode"] is None, "the next answer has the settings of the chat"


def test_the_drafts_of_a_turn_are_listed_and_another_is_chosen(served: Served, store: Store) -> None:
    head, _, first = ask(served, "Who?", settings={"seed": 5})
    chat = head["chat"]
    again, _, second = ask(served, "Who?", chat, replacing=head["turn"], after=head["turn"])
    path = f"/api/chats/{chat}"
    (turn,) = served.http.get(path).json()["turns"]
    assert turn == served.http.get(f"{path}/turns/{turn['id']}").json()
    assert served.http.get(f"{path}/turns/{head['turn']}").status_code == 400, "it is a draft of that"
    assert turn["id"] == again["turn"] and turn["drafts"][1] == {"id": turn["id"]}
    assert "".join(event["text"] for event in turn["drafts"][0]["events"]) == first["text"]
    switched = served.http.post(f"{path}/draft", json={"turn": again["turn"], "draft": head["turn"]})
    assert switched.status_code == 200 and switched.json() == served.http.get(path).json()["turns"][0]
    (turn,) = store.load(chat).turns
    assert (turn.id, turn.answer, turn.drafts[1].answer) == (head["turn"], first["text"], second["text"])
    for wrong in ({"turn": again["turn"], "draft": head["turn"]}, {"turn": head["turn"], "draft": 99999}):
        reply = served.http.post(f"{path}/draft", json=wrong)
        assert reply.status_code == 400 and "load the chat again" in reply.json()["error"]["message"]
    assert store.load(chat).turns == [turn]
    for form, text in (("md", "Answer 1, draft 2"), ("html", "Draft 2")):
        replies = [served.http.get(f"{path}/export.{form}{query}").text for query in ("", "?drafts=true")]
        assert [text in reply for reply in replies] == [False, True]


def test_a_chat_is_forked_at_a_turn(served: Served, store: Store) -> None:
    session = saved(store, "Old", a_turn("One"), a_turn("Two"))
    path = f"/api/chats/{session.id}/fork"
    reply = served.http.post(path, json={"turn": session.turns[0].id}).json()
    forked = store.load(reply["id"])
    assert reply["title"] == forked.title == "Old (fork)" and forked.id != session.id
    assert [turn["id"] for turn in reply["turns"]] == [turn.id for turn in forked.turns] != [session.turns[0].id]
    assert [(turn.question, turn.answer) for turn in forked.turns] == [("One", "Because.")]
    assert len(store.load(session.id).turns) == 2
    assert served.http.post(path, json={"turn": 99999}).json()["error"]["code"] == "chat_gone_on"
    assert served.http.post("/api/chats/99999/fork", json={"turn": 1}).status_code == 404


def test_another_token_is_taken_from_those_that_the_views_find_probable(served: Served, store: Store) -> None:
    settings = {"seed": 5, "mode": "judge"}
    ask(served, "Hello", settings=settings)
    head, tokens, _ = ask(served, "Who?", settings=settings)
    chat, turn = head["chat"], head["turn"]
    path = f"/api/chats/{chat}/turns/{turn}/tokens"
    reply = served.http.get(f"{path}/3").json()
    assert reply["token"]["id"] == tokens[3]["id"] and len(reply["alternatives"]) >= 8
    assert reply["alternatives"][0]["p"].keys() == {"a", "b"}
    for wrong in (f"{path}/12", f"/api/chats/{chat}/turns/99999/tokens/1"):
        assert served.http.get(wrong).status_code == 400
    assert served.http.get("/api/chats/99999/turns/1/tokens/1").status_code == 404
    assert served.http.get(f"{path}/x").status_code == 404 and served.http.get(f"{path}/0").status_code == 200
    other = next(each for each in reply["alternatives"] if each["id"] != tokens[3]["id"] and each["text"].strip())
    takes = {"position": 3, "text": other["text"], "token": other["id"]}
    again, added, _ = ask(served, "Who?", chat, settings, replacing=turn, after=turn, takes=takes)
    (taken,) = store.load(chat).turns
    assert taken.id == again["turn"] and [draft.id for draft in taken.drafts] == [turn, again["turn"]]
    assert [event.id for event in taken.events[:4]] == [*(token["id"] for token in tokens[:3]), other["id"]]
    assert len(taken.events) == 4 + len(added) and taken.events[3].kind == "given"
    status, _, line = refused(served, body("Who?", chat, replacing=again["turn"], takes=takes | {"position": 99}))
    assert status == 400 and "there is no token 99" in line
    assert refused(served, body("Who?", chat, takes=takes))[0] == 400


def test_a_file_is_read_and_counted_as_it_goes_before_a_question(served: Served, store: Store) -> None:
    reply = served.http.post("/api/files", params={"name": "my notes.txt"}, content=b"the cat\r\nsees\n")
    file = reply.json()
    assert file["name"] == "my notes.txt" and file["head"] == '<file name="my notes.txt">\nthe cat\nsees\n</file>\n\n'
    n = int(file["size"].removeprefix("my notes.txt: ").removesuffix(" tokens"))
    with_file, alone = (ask(served, head + "Why?")[2] for head in (file["head"], ""))
    added = with_file["statistics"]["prompt_tokens"][0] - alone["statistics"]["prompt_tokens"][0]
    assert n < added < n + 100, "and its name"
    (turn,) = served.http.get(f"/api/chats/{store.latest() - 1}").json()["turns"]
    assert (turn["words"], turn["files"]) == ("Why?", [{"name": file["name"], "head": file["head"]}])
    for content, says in (
        (b"GIF89a\x01\0\x01\0", "b.gif is a picture"),
        (b"", "b.gif is empty"),
        (b"the cat " * 40_000, "too long"),
    ):
        refusal = served.http.post("/api/files", params={"name": "b.gif"}, content=content)
        assert refusal.status_code == 400 and says in refusal.json()["error"]["message"]
    assert served.http.post("/api/files", content=b"a" * (9 << 20)).status_code == 413


@pytest.mark.parametrize(
    ("dial", "preference"),
    [
        ({"preference": "vivid", "more": True}, "vivid:2"),  # auto is about 1.5
        ({"preference": "Be brief: now", "more": True, "settings": {"mode": "judge"}}, "Be brief: now:1.5"),
        ({"preference": "vivid:0.5", "more": False}, ""),
        ({"preference": "vivid", "more": True, "settings": {"strength": "2"}}, "vivid:2.5"),
        ({"preference": "vivid", "more": False, "settings": {"mode": "both"}}, "vivid:1"),
    ],
)
def test_a_preference_becomes_stronger_or_weaker_as_more_and_less_make_it(served, dial: Any, preference: str) -> None:
    assert served.http.post("/api/dials", json=dial).json() == {"preference": preference}


def test_a_dial_beyond_the_limits_or_of_no_preset_is_refused_in_a_line(served: Served) -> None:
    for preference, says in (("vivid:10", "strength"), ("vivd", "vivid"), ("@notes.txt", "files")):
        reply = served.http.post("/api/dials", json={"preference": preference, "more": True})
        assert reply.status_code == 400 and says in reply.json()["error"]["message"]


def test_a_question_of_the_page_gives_preferences_of_several_strengths_in_a_view_one_each(
    served: Served, store: Store
) -> None:
    def views_of(chat: int | None, *preferences: str) -> dict[str, list[str]]:
        ask(served, "Why?", chat, {"draft_prefer": preferences, "judge_prefer": ["formal"], "max_tokens": 2})
        views: dict[str, list[str]] = store.load(chat or store.latest()).turns[-1].settings["preferences"]
        return views

    assert views_of(None, "vivid:2", "warm") == {"a": ["vivid:2"], "b": ["formal"], "c": ["warm"]}
    assert views_of(store.latest(), "vivid", "warm") == {"a": ["vivid", "warm"], "b": ["formal"]}
    old = Request(place(["vivid", "warm", "formal"])).as_dict()
    session = saved(store, "old", a_turn(), settings=old | {"generation": old["generation"] | {"panel": True}})
    assert views_of(session.id, "vivid", "warm") == {"a": ["vivid", "warm"], "b": ["formal"]}


def test_the_last_turn_can_be_undone_and_no_other(served: Served, store: Store) -> None:
    session = saved(store, "undone", a_turn("One"), a_turn("Two"))
    first, last = (turn.id for turn in store.load(session.id).turns)
    path = f"/api/chats/{session.id}"
    assert served.http.post(f"{path}/undo", json={"turn": first}).json()["error"]["code"] == "chat_gone_on"
    assert served.http.post(f"{path}/undo", json={"turn": last}).status_code == 204
    assert [turn.question for turn in store.load(session.id).turns] == ["One"]
    turns = [len(served.http.get(f"{path}{query}").json()["turns"]) for query in ("", "?undone=true")]
    assert turns == [1, 2]
    assert served.http.post("/api/chats/99999/undo", json={"turn": last}).status_code == 404


def test_a_chats_settings_can_be_changed_without_a_question(served: Served, store: Store) -> None:
    session = saved(store, "settings", a_turn(), settings=ENDLESS)
    path = f"/api/chats/{session.id}"
    settings = {"model": "llama.gguf", **Request(place(["formal"])).as_dict()}
    assert served.http.patch(path, json={"settings": settings}).status_code == 200
    assert store.load(session.id).settings == settings and store.load(session.id).title == "settings"
    wrong = {"settings": Request(place(["@/etc/passwd"])).as_dict()}
    assert served.http.patch(path, json=wrong).status_code == 400
    assert store.load(session.id).settings == settings
    other = {"settings": Request(place(["concise"])).as_dict(), "title": "7"}
    assert "a number cannot be a title" in served.http.patch(path, json=other).text
    assert store.load(session.id).settings == settings, "nothing changes where a part of the request is refused"
    known = ({"model": None}, settings | {"generation": {"rule": "push", "panel": False}})  # of earlier versions
    assert all(served.http.patch(path, json={"settings": one}).status_code == 200 for one in known)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.2}, "settings.temperature must be left out: there is no such field"),
        ({"model": 3}, "settings.model must be a string"),
        ({"preferences": {"c": ["vivid"]}}, "settings.preferences.c must be left out: there is no such field"),
        ({"preferences": {"a": ["vivd"]}}, "unknown preset 'vivd': did you mean vivid"),
        ({"preferences": {"a": "vivid"}}, "settings.preferences.a must be a list"),
        ({"sampling": {"temperatur": 0.2}}, "unknown setting 'temperatur' in sampling: did you mean temperature?"),
        ({"sampling": {"seed": 1}}, "unknown setting 'seed' in sampling"),
        ({"generation": {"avoid": ["formla"]}}, "unknown preset 'formla'"),
    ],
)
def test_settings_that_the_terminal_cannot_use_are_not_saved(
    served: Served, store: Store, settings: Any, message: str
) -> None:
    session = saved(store, "settings", a_turn(), settings=ENDLESS)
    reply = served.http.patch(f"/api/chats/{session.id}", json={"settings": settings})
    assert reply.status_code == 400 and message in reply.json()["error"]["message"]
    assert store.load(session.id).settings == ENDLESS


@pytest.mark.slow
def test_a_preference_file_of_the_server_is_accepted_when_the_page_sends_it_back(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    style, own, other = (tmp_path / name for name in ("style.txt", "own.txt", "other.txt"))
    for file in (style, own, other):
        file.write_text("Answer in rhyme.")
    database = tmp_path / "chats.db"
    options = ("-p", f"@{style}", "--ctx", "1024", "--max-tokens", "3")
    with serving(tiny("llama"), environment | {"PJLOCAL_DATABASE": str(database)}, *options) as served:
        (shown,) = served.http.get("/api/model").json()["settings"]["preferences"]["a"]
        assert shown == f"@{style}"
        ask(served, "Why?", settings={"draft_prefer": [shown]})
        dialled = served.http.post("/api/dials", json={"preference": shown, "more": True}).json()["preference"]
        ask(served, "Why?", settings={"judge_prefer": [dialled]})
        with Store(database) as store:
            session = saved(store, "From the terminal", settings=Request(place([f"@{own}"])).as_dict())
        dial = {"preference": f"@{own}", "more": True}
        dialled = served.http.post("/api/dials", json={**dial, "chat": session.id}).json()["preference"]
        assert dialled.startswith(f"@{own}:") and served.http.post("/api/dials", json=dial).status_code == 400
        ask(served, "Why?", session.id, {"draft_prefer": [dialled]})
        for preference, chat in ((f"@{own}", None), (f"@{other}", session.id), (f"@{style}", session.id)):
            status, _, line = refused(served, body("Why?", chat, {"draft_prefer": [preference]}))
            assert status == 400 and line.startswith("a request cannot name the server's files")


def test_an_exported_chat_can_be_added(served: Served, store: Store) -> None:
    session = saved(store, "exported", a_turn("One", "Two words"), settings=ENDLESS)
    exported = served.http.get(f"/api/chats/{session.id}/export.json").json()
    reply = served.http.post("/api/chats", json=exported)
    assert reply.status_code == 200
    (turn,) = store.load(reply.json()["id"]).turns
    assert (turn.question, turn.events) == ("One", session.turns[0].events)
    files = Request(place(["@/etc/passwd"])).as_dict()
    (turn,) = exported["turns"]
    three = {"preferences": {"a": ["vivid"], "b": ["warm"], "c": ["@/etc/passwd"]}}
    in_turns = ([turn | {"settings": three}], [turn | {"drafts": [turn | {"settings": files}]}])
    of_files = [exported | {"settings": files}, *(exported | {"turns": turns} for turns in in_turns)]
    for wrong in (*of_files, [1], {"spec": "chara_card_v2"}):
        before = len(store.summaries())
        assert served.http.post("/api/chats", json=wrong).status_code == 400 and len(store.summaries()) == before


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "hung up"])
def test_the_text_of_a_stopped_answer_is_saved(served: Served, store: Store, stopped: bool) -> None:
    session = saved(store, "endless", settings=ENDLESS)
    with served.http.stream("POST", ANSWERS, json=body("hello", session.id)) as reply:
        events = streamed(reply.iter_lines())
        head = next(events)["head"]
        shown = [next(events)["event"]["id"] for _ in range(20)]
        (one,) = store.load(session.id).turns
        assert one.id == head["turn"] and [event.id for event in one.events][:20] == shown, "it is safe already"
        stop = f"{ANSWERS}/{reply.headers['X-Pjlocal-Answer']}/stop"
        if stopped:
            assert served.http.post(stop).status_code == 204
            *_, end = events
            assert end["result"]["finish_reason"] == "interrupted"
    when(lambda: store.load(session.id).turns[0].finish_reason)
    (one,) = store.load(session.id).turns
    assert one.finish_reason == "interrupted" and len(one.events) >= 20
    assert 0 <= one.statistics["acceptance_rate"] <= 1
    when(lambda: served.http.post(stop).status_code == 404)
    assert served.metric("pjlocal_answers_now") == 0


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "hung up"])
def test_text_that_may_begin_a_stop_string_is_saved_too(served: Served, store: Store, stopped: bool) -> None:
    session = saved(store, "held back", settings=ENDLESS)
    held = {"regex": "xy*", "stop": ["y" * 20 + "z"]}
    with served.http.stream("POST", ANSWERS, json=body("hello", session.id, settings=held)) as reply:
        events = streamed(reply.iter_lines())
        assert [next(events) for _ in range(9)]
        if stopped:
            served.http.post(f"{ANSWERS}/{reply.headers['X-Pjlocal-Answer']}/stop")
            assert "result" in [*events][-1]
    when(lambda: store.load(session.id).turns[0].finish_reason)
    (one,) = store.load(session.id).turns
    assert [event.position for event in one.events] == [*range(one.statistics["usage"]["completion_tokens"])]


def test_two_windows_on_one_chat_lose_nothing(served: Served, store: Store) -> None:
    session = saved(store, "two windows", settings=ENDLESS)
    with served.http.stream("POST", ANSWERS, json=body("first", session.id)) as reply:
        events = streamed(reply.iter_lines())
        next(events)
        ask(served, "second", session.id, {"max_tokens": 2})
        served.http.post(f"{ANSWERS}/{reply.headers['X-Pjlocal-Answer']}/stop")
        assert "result" in [*events][-1]
    turns = store.load(session.id).turns
    assert [(turn.question, turn.finish_reason) for turn in turns] == [("first", "interrupted"), ("second", "length")]


def test_chats_are_listed_searched_opened_and_exported(served: Served, store: Store) -> None:
    session = saved(store, "Lighthouse", a_turn("Where is the keeper?", "He is asleep upstairs."))
    assert served.http.get("/api/chats").json()["chats"][0]["title"] == "Lighthouse"
    (hit,) = served.http.get("/api/chats", params={"q": "upstairs"}).json()["hits"]
    assert hit["session_id"] == session.id and "asleep upstairs" in hit["snippet"]
    opened = served.http.get(f"/api/chats/{session.id}").json()
    assert opened["turns"][0]["question"] == "Where is the keeper?"
    assert [event["writer"] for event in opened["turns"][0]["events"]] == ["a"] * 4
    for form, start in (("md", "# Lighthouse"), ("json", "{"), ("html", "<!doctype html>")):
        reply = served.http.get(f"/api/chats/{session.id}/export.{form}")
        assert reply.text.startswith(start) and "attachment" in reply.headers["content-disposition"]
    for path in ("/api/chats/99999", f"/api/chats/{session.id}/export.exe"):
        assert served.http.get(path).status_code == 404
    assert refused(served, body("x", 99999))[:2] == (404, "chat_not_found")


WRONG: list[Any] = [
    {}, {"question": "x"}, body(""), body(3), body("x", "1"), {"chat": {"question": "x", "mode": "both"}, "mode": 3},
    body("x", settings={"mode": "none"}), body("x", settings={"prefer": ["@/etc/passwd"]}), body("x", replacing=1),
    body("x", settings={"draft_prefer": ["unheardof"]}), body("x", settings={"regex": "("}),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_refused_question_gets_one_line_and_saves_nothing(served: Served, store: Store, wrong: Any) -> None:
    before = store.summaries()
    status, _, line = refused(served, wrong)
    assert status in (200, 400) and line and "\n" not in line and "--" not in line
    assert store.summaries() == before


def test_foreign_web_pages_cannot_read_chats_even_if_they_may_ask_for_answers(served: Served) -> None:
    evil = {"Origin": "https://evil.example"}
    assert served.http.get("/v1/models", headers=evil).status_code == 200
    assert served.http.get("/api/chats", headers=evil).status_code == 403
    assert served.http.post(ANSWERS, json=body("x"), headers=evil).status_code == 403
    assert served.http.delete("/api/chats/1", headers=evil).status_code == 403
    assert served.http.get("/api/chats", headers={"Origin": served.url}).status_code == 200


def test_a_chat_gets_another_title_and_nothing_else_of_it_changes(served: Served, store: Store) -> None:
    session = store.load(saved(store, "Old", a_turn("Hello", "Hi you")).id)
    reply = served.http.patch(f"/api/chats/{session.id}", json={"title": " A   new\ntitle "})
    assert reply.json() == {"title": "A new title"}
    renamed = store.load(session.id)
    assert (renamed.title, renamed.updated, renamed.turns) == ("A new title", session.updated, session.turns)


@pytest.mark.parametrize(
    "body", [{}, {"title": ""}, {"title": " \n"}, {"title": "12"}, {"title": 3}, {"title": "a" * 201}]
)
def test_a_title_that_names_nothing_is_refused_in_a_line(served: Served, store: Store, body: Any) -> None:
    session = saved(store, "Old", a_turn())
    reply = served.http.patch(f"/api/chats/{session.id}", json=body)
    assert reply.status_code == 400 and "\n" not in reply.json()["error"]["message"]
    assert store.load(session.id).title == "Old"


def test_a_chat_is_deleted_with_its_caches_as_the_terminal_deletes_it(
    served: Served, store: Store, database: Path
) -> None:
    session = saved(store, "doomed", a_turn())
    cache = database.with_suffix(".caches") / f"{session.id}-0-0.kv"
    cache.parent.mkdir(exist_ok=True)
    cache.touch()
    assert served.http.delete(f"/api/chats/{session.id}").status_code == 204
    assert session.id not in [summary.id for summary in store.summaries()] and not cache.exists()


def test_every_request_for_a_removed_chat_is_refused_in_one_line(served: Served, store: Store) -> None:
    session = saved(store, "gone", a_turn())
    store.remove(session.id)
    for number in (session.id, 999, 99999999999999999999999):
        path = f"/api/chats/{number}"
        for reply in (
            served.http.get(path),
            served.http.patch(path, json={"title": "x"}),
            served.http.delete(path),
            served.http.post(ANSWERS, json=body("x", number)),
        ):
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (404, "chat_not_found")
            assert "no saved chat" in error["message"] and "\n" not in error["message"]


@pytest.mark.parametrize(
    "number", ["9" * 5000, "9" * 19, "9" * 20, str(2**63), "-1", "0", "1.0", "x", "²", "١", "1e3", "%00"]
)
def test_an_impossible_chat_number_is_an_unknown_chat(served: Served, number: str) -> None:
    path = f"/api/chats/{number}"
    for reply in (
        served.http.get(path),
        served.http.delete(path),
        served.http.patch(path, json={"title": "x"}),
        served.http.get(f"{path}/export.md"),
        served.http.post(f"{path}/undo", json={"turn": 1}),
        served.http.post(f"{ANSWERS}/{number}0000/stop"),
    ):
        assert reply.status_code == 404 and len(reply.text) < 300, reply.text


@pytest.mark.parametrize("number", [-(2**63) - 1, -(2**63), -1, 0, 2**63 - 1, 2**63, 10**40])
def test_a_question_in_a_chat_that_cannot_be_is_refused(served: Served, store: Store, number: int) -> None:
    assert refused(served, body("x", number))[:2] == (404, "chat_not_found")
    session = saved(store, "numbers", a_turn())
    for field in ("after", "replacing"):
        assert refused(served, body("x", session.id, **{field: number}))[:2] == (400, "chat_gone_on")


@pytest.mark.slow
def test_a_chat_that_is_deleted_while_it_is_answered_takes_the_answer_with_it(served: Served, store: Store) -> None:
    session = saved(store, "endless", settings=ENDLESS)
    with served.http.stream("POST", ANSWERS, json=body("hello", session.id)) as reply:
        events = streamed(reply.iter_lines())
        next(events)
        assert served.http.delete(f"/api/chats/{session.id}").status_code == 204
        *_, error = events
    assert error["code"] == "chat_not_found" and "the chat was removed" in error["error"]
    when(lambda: not served.metric("pjlocal_answers_now"))
    assert session.id not in [summary.id for summary in store.summaries()]


def test_a_chat_that_is_renamed_while_it_is_answered_keeps_its_new_title(served: Served, store: Store) -> None:
    session = saved(store, "endless", settings=ENDLESS)
    with served.http.stream("POST", ANSWERS, json=body("hello", session.id)) as reply:
        events = streamed(reply.iter_lines())
        next(events)
        served.http.patch(f"/api/chats/{session.id}", json={"title": "Endless indeed"})
        served.http.post(f"{ANSWERS}/{reply.headers['X-Pjlocal-Answer']}/stop")
        assert "result" in [*events][-1]
    assert store.load(session.id).title == "Endless indeed" and len(store.load(session.id).turns) == 1


def test_turns_added_elsewhere_are_seen_before_a_chat_continues(served: Served, store: Store) -> None:
    session = saved(store, "two windows", settings=ENDLESS)
    short = {"max_tokens": 2, "ignore_end": False}
    with served.http.stream("POST", ANSWERS, json=body("first", session.id, after=0)) as reply:
        events = streamed(reply.iter_lines())
        first = next(events)["head"]["turn"]
        assert refused(served, body("second", session.id, short, after=0))[:2] == (400, "chat_gone_on")
        for where in ({"after": first}, {"replacing": first}):
            status, _, line = refused(served, body("second", session.id, short, **where))
            assert status == 400 and "still being written" in line
        served.http.post(f"{ANSWERS}/{reply.headers['X-Pjlocal-Answer']}/stop")
        assert "result" in [*events][-1]
    ask(served, "second", session.id, short, after=first)
    assert [turn.question for turn in store.load(session.id).turns] == ["first", "second"]


def test_a_question_counts_from_when_it_is_accepted(served: Served, store: Store) -> None:
    """Both places are taken: the first question waits for its first token when the second comes."""
    session = saved(store, "two tabs", a_turn("Hello", "Hi you"))
    (last,) = (turn.id for turn in store.load(session.id).turns)
    short = {"max_tokens": 2}
    long = {"messages": [{"role": "user", "content": "go on"}], "stream": True, "max_tokens": 30_000}
    long |= {"pjlocal": {"ignore_end": True}}
    with ThreadPoolExecutor() as pool, ExitStack() as holding:
        held = [
            holding.enter_context(served.http.stream("POST", "/v1/chat/completions", json=long)).iter_lines()
            for _ in range(2)
        ]
        assert all(map(next, held))
        first = pool.submit(ask, served, "first", session.id, short, after=last)
        when(lambda: first.done() or served.metric("pjlocal_answers_now") == 3)
        assert not first.done()
        for where in ({"after": last}, {"after": last, "replacing": last}, {"replacing": last}):
            assert refused(served, body("second", session.id, short, **where))[:2] == (400, "chat_gone_on"), where
        assert not first.done()
        holding.close()
        assert first.result()
    assert [turn.question for turn in store.load(session.id).turns] == ["Hello", "first"]
    assert ask(served, "second", session.id, short, after=store.load(session.id).turns[-1].id)


def test_a_question_refused_for_lack_of_places_does_not_lock_its_chat(served: Served, store: Store) -> None:
    session = saved(store, "free", a_turn("Hello", "Hi you"))
    last = store.load(session.id).turns[-1].id
    assert "regular expression" in refused(served, body("first", session.id, {"regex": "("}, after=last))[2]
    assert ask(served, "first", session.id, after=last)


@pytest.mark.slow
def test_a_server_that_is_killed_has_saved_every_token_that_was_shown(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    database = tmp_path / "chats.db"
    moments = random.Random(7)
    for _ in range(8):
        shown = []
        with serving(tiny("llama"), environment | {"PJLOCAL_DATABASE": str(database)}, "--ctx", "32768") as served:
            asked = body("hello", settings={"max_tokens": 30_000, "ignore_end": True})
            with served.http.stream("POST", ANSWERS, json=asked) as reply, suppress(httpx2.TransportError):
                events = streamed(reply.iter_lines())
                head = next(events)["head"]
                for number, event in enumerate(events):
                    shown.append(event["event"]["id"])
                    if number == 3:
                        threading.Timer(moments.random() / 2, served.process.kill).start()
            served.process.wait()
        with Store(database) as store:
            (turn,) = store.load(head["chat"]).turns
        assert turn.id == head["turn"] and turn.finish_reason is None
        assert len(shown) > 3 and [event.id for event in turn.events][: len(shown)] == shown
