"""The saved chats over HTTP: what is answered there is written down while it is, where the terminal's chats are."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from saved_chats import a_turn, saved
from served import Served, serving, when

from pjlocal.events import TokenEvent
from pjlocal.sessions.store import Store

OPTIONS = ("--max-tokens", "12", "--cors", "*")
TURNS = "/api/turns"
ENDLESS = {"generation": {"max_tokens": 30_000, "ignore_end": True}}


def ask(served: Served, question: str, **more: Any) -> tuple[httpx2.Headers, str, list[dict[str, Any]]]:
    """What is answered: the headers, the text and the choices of all chunks."""
    reply = served.http.post(TURNS, json={"question": question, **more})
    assert reply.status_code == 200, reply.text
    data = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert data.pop() == "[DONE]"
    choices = [json.loads(one)["choices"][0] for one in data]
    return reply.headers, "".join(choice["delta"].get("content", "") for choice in choices), choices


def test_a_turn_is_saved_as_the_terminal_saves_it(served: Served, store: Store) -> None:
    headers, text, choices = ask(served, "Why do cats purr?", pjlocal={"mode": "judge", "seed": 3})
    session = store.load(int(headers["X-Pjlocal-Chat"]))
    (turn,) = session.turns
    assert (session.title, turn.question, turn.answer) == ("Why do cats purr?", "Why do cats purr?", text)
    assert turn.id == int(headers["X-Pjlocal-Turn"]) and turn.finish_reason == choices[-1]["finish_reason"]
    told = [event for choice in choices for event in choice.get("pjlocal", {}).get("events", [])]
    assert [TokenEvent.from_dict({k: e[k] for k in e if k != "writer"}) for e in told] == turn.events
    assert turn.settings["mode"] == "judge" and turn.settings["seed"] == 3 and turn.settings["model"] == "llama.gguf"
    assert turn.settings["preferences"] == {"a": ["vivid"], "b": ["concise"]} == session.settings["preferences"]
    assert session.settings["model"].endswith("/llama.gguf") and session.settings["generation"]["max_tokens"] == 12
    assert turn.statistics["usage"]["completion_tokens"] == 12


def test_a_chat_goes_on_with_what_was_said_and_what_is_in_force_there(served: Served, store: Store) -> None:
    settings = {"generation": {"max_tokens": 5, "mode": "plain"}, "sampling": {"temperature": 0.1}}
    session = saved(store, "From the terminal", a_turn("Hello", "Hi you"), settings=settings)
    _, _, choices = ask(served, "And you?", session=session.id, pjlocal={"draft_prefer": ["vivid"], "judge_prefer": []})
    went_on = store.load(session.id)
    assert [turn.question for turn in went_on.turns] == ["Hello", "And you?"] and went_on.title == "From the terminal"
    assert choices[-1]["pjlocal"]["usage"]["completion_tokens"] == 5
    in_force = went_on.settings
    assert in_force["sampling"]["temperature"] == 0.1 and in_force["preferences"] == {"a": ["vivid"], "b": []}
    assert in_force["generation"]["mode"] is None, "the page names no mode: that of the preferences"
    longer = choices[-1]["pjlocal"]["usage"]["prompt_tokens"]
    alone = ask(served, "And you?", pjlocal={"draft_prefer": ["vivid"], "max_tokens": 5})[2]
    shorter = alone[-1]["pjlocal"]["usage"]["prompt_tokens"]
    assert [one > other for one, other in zip(longer, shorter, strict=True)] == [True, True]


@pytest.mark.slow
def test_where_a_chat_no_longer_fits_its_oldest_exchanges_are_left_out(
    tiny: Callable[[str], Path], environment: dict[str, str], tmp_path: Path
) -> None:
    database = tmp_path / "chats.db"
    with serving(tiny("llama"), environment | {"PJLOCAL_DATABASE": str(database)}, "--ctx", "1024") as served:
        turns = [a_turn(f"Question {n}", "long " * 100) for n in range(12)]
        with Store(database) as store:
            session = saved(store, "long", a_turn("Very", "long" * 100_000), *turns)
            headers, _, choices = ask(served, "And now?", session=session.id, pjlocal={"max_tokens": 3})
            assert 4 < int(headers["X-Pjlocal-Left-Out"]) < 13
            assert choices[-1]["pjlocal"]["usage"]["prompt_tokens"][0] < 1024 * 3 / 4
            assert len(store.load(session.id).turns) == 14, "the chat keeps them"


def test_an_answer_that_is_asked_again_takes_the_place_of_the_last(served: Served, store: Store) -> None:
    headers, _, _ = ask(served, "Who?", pjlocal={"seed": 5})
    chat, first = (int(headers[f"X-Pjlocal-{name}"]) for name in ("Chat", "Turn"))
    again, _, _ = ask(served, "Who else?", session=chat, replacing=first)
    session = store.load(chat, with_undone=True)
    assert [turn.question for turn in store.load(chat).turns] == ["Who else?"]
    assert [(turn.id, turn.settings["seed"]) for turn in session.turns] == [
        (first, 5),
        (int(again["X-Pjlocal-Turn"]), 6),
    ]
    stale = served.http.post(TURNS, json={"question": "Who?", "session": chat, "replacing": first})
    assert stale.status_code == 400 and "load the chat again" in stale.text


def test_what_is_only_compared_is_not_saved_and_has_the_seed_of_what_it_is_compared_with(served, store: Store) -> None:
    headers, text, _ = ask(served, "Which?", pjlocal={"seed": 8})
    chat, turn = (int(headers[f"X-Pjlocal-{name}"]) for name in ("Chat", "Turn"))
    same = ask(served, "Which?", session=chat, replacing=turn, keep=False)
    other = ask(served, "Which?", session=chat, replacing=turn, keep=False, pjlocal={"mode": "plain"})
    assert same[1] == text and "X-Pjlocal-Turn" not in same[0]
    assert other[2][-1]["pjlocal"]["seed"] == 8
    assert [one.id for one in store.load(chat, with_undone=True).turns] == [turn]


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "hung up"])
def test_what_was_written_until_it_was_stopped_is_saved(served: Served, store: Store, stopped: bool) -> None:
    session = saved(store, "endless", settings=ENDLESS)
    body = {"question": "hello", "session": session.id}
    with served.http.stream("POST", TURNS, json=body) as reply:
        lines = reply.iter_lines()
        for _ in range(20):
            next(lines)
        turn = int(reply.headers["X-Pjlocal-Turn"])
        assert [one.id for one in store.load(session.id).turns] == [turn], "its beginning is safe already"
        if stopped:
            assert served.http.post(f"{TURNS}/{turn}/stop").status_code == 204
            assert [line for line in lines if line][-1] == "data: [DONE]"
    while (one := store.load(session.id).turns[0]).finish_reason is None:
        pass
    assert one.finish_reason == "interrupted" and len(one.events) > 5
    assert 0 <= one.statistics["acceptance_rate"] <= 1
    assert served.http.post(f"{TURNS}/{turn}/stop").status_code == 404
    assert served.metric("pjlocal_answers_now") == 0


def test_two_windows_on_one_chat_lose_nothing(served: Served, store: Store) -> None:
    session = saved(store, "two windows", settings=ENDLESS)
    with served.http.stream("POST", TURNS, json={"question": "first", "session": session.id}) as reply:
        lines = reply.iter_lines()
        next(lines)
        ask(served, "second", session=session.id, pjlocal={"max_tokens": 2, "ignore_end": False})
        served.http.post(f"{TURNS}/{reply.headers['X-Pjlocal-Turn']}/stop")
        assert [line for line in lines if line][-1] == "data: [DONE]"
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
    assert served.http.post(TURNS, json={"question": "x", "session": 99999}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"question": ""}, {"question": 3}, {"question": "x", "session": "1"}, {"question": "x", "mode": "both"},
     {"question": "x", "pjlocal": {"mode": "none"}}, {"question": "x", "pjlocal": {"prefer": ["@/etc/passwd"]}},
     {"question": "x", "replacing": 1}, {"question": "x", "pjlocal": {"draft_prefer": ["unheardof"]}}],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_a_line_and_leaves_nothing(served: Served, store: Store, body: Any) -> None:
    before = store.summaries()
    reply = served.http.post(TURNS, json=body)
    assert reply.status_code == 400 and reply.json()["error"]["message"]
    assert store.summaries() == before


def test_web_pages_of_others_read_no_chats_even_where_they_may_ask_for_answers(served: Served) -> None:
    evil = {"Origin": "https://evil.example"}
    assert served.http.get("/v1/models", headers=evil).status_code == 200
    assert served.http.get("/api/chats", headers=evil).status_code == 403
    assert served.http.post(TURNS, json={"question": "x"}, headers=evil).status_code == 403
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


def test_of_a_chat_that_is_gone_a_line_says_so_whatever_is_wanted_of_it(served: Served, store: Store) -> None:
    session = saved(store, "gone", a_turn())
    store.remove(session.id)
    for path in (f"/api/chats/{session.id}", "/api/chats/999", "/api/chats/99999999999999999999999"):
        for reply in (served.http.patch(path, json={"title": "x"}), served.http.delete(path), served.http.get(path)):
            assert "there is no saved chat" in reply.json()["error"]["message"] and reply.status_code == 404
    path = f"/api/chats/{session.id}"
    for reply in (
        served.http.get(path),
        served.http.patch(path, json={"title": "x"}),
        served.http.delete(path),
        served.http.post(TURNS, json={"question": "x", "session": session.id}),
    ):
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (404, "chat_not_found") and "\n" not in error["message"]


@pytest.mark.parametrize(
    "number", ["9" * 5000, "9" * 19, "9" * 20, str(2**63), "-1", "0", "1.0", "x", "²", "١", "1e3", "%00"]
)
def test_a_number_that_no_chat_can_have_is_a_chat_that_there_is_not(served: Served, number: str) -> None:
    path = f"/api/chats/{number}"
    for reply in (
        served.http.get(path),
        served.http.delete(path),
        served.http.patch(path, json={"title": "x"}),
        served.http.get(f"{path}/export.md"),
        served.http.post(f"{TURNS}/{number}/stop"),
    ):
        assert reply.status_code == 404 and len(reply.text) < 300, reply.text


@pytest.mark.parametrize("number", [-(2**63) - 1, -(2**63), -1, 0, 2**63 - 1, 2**63, 10**40])
def test_a_question_in_a_chat_that_cannot_be_is_refused(served: Served, store: Store, number: int) -> None:
    reply = served.http.post(TURNS, json={"question": "x", "session": number})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "chat_not_found")
    session = saved(store, "numbers", a_turn())
    for field in ("after", "replacing"):
        reply = served.http.post(TURNS, json={"question": "x", "session": session.id, field: number})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "chat_gone_on")


@pytest.mark.slow
def test_a_chat_that_is_deleted_while_it_is_answered_takes_the_answer_with_it(served: Served, store: Store) -> None:
    session = saved(store, "endless", settings=ENDLESS)
    with served.http.stream("POST", TURNS, json={"question": "hello", "session": session.id}) as reply:
        lines = reply.iter_lines()
        next(lines)
        assert served.http.delete(f"/api/chats/{session.id}").status_code == 204
        said = json.loads([line for line in lines if line][-1].removeprefix("data: "))["error"]
    assert said["code"] == "chat_not_found" and "the chat was removed" in said["message"]
    while served.metric("pjlocal_answers_now"):
        pass
    assert session.id not in [summary.id for summary in store.summaries()]


def test_a_chat_that_is_renamed_while_it_is_answered_keeps_its_new_title(served: Served, store: Store) -> None:
    session = saved(store, "endless", settings=ENDLESS)
    with served.http.stream("POST", TURNS, json={"question": "hello", "session": session.id}) as reply:
        lines = reply.iter_lines()
        next(lines)
        served.http.patch(f"/api/chats/{session.id}", json={"title": "Endless indeed"})
        served.http.post(f"{TURNS}/{reply.headers['X-Pjlocal-Turn']}/stop")
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert store.load(session.id).title == "Endless indeed" and len(store.load(session.id).turns) == 1


def test_what_was_said_elsewhere_is_seen_before_a_chat_goes_on(served: Served, store: Store) -> None:
    session = saved(store, "two windows", settings=ENDLESS)
    body = {"question": "second", "session": session.id, "pjlocal": {"max_tokens": 2, "ignore_end": False}}
    with served.http.stream("POST", TURNS, json={"question": "first", "session": session.id, "after": 0}) as reply:
        lines = reply.iter_lines()
        next(lines)
        first = int(reply.headers["X-Pjlocal-Turn"])
        unseen = served.http.post(TURNS, json=body | {"after": 0})
        assert (unseen.status_code, unseen.json()["error"]["code"]) == (400, "chat_gone_on")
        for where in ({"after": first}, {"replacing": first}):
            early = served.http.post(TURNS, json=body | where)
            assert early.status_code == 400 and "still being written" in early.text
        served.http.post(f"{TURNS}/{first}/stop")
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert served.http.post(TURNS, json=body | {"after": first}).status_code == 200
    assert [turn.question for turn in store.load(session.id).turns] == ["first", "second"]


def test_a_question_counts_from_when_it_is_accepted(served: Served, store: Store) -> None:
    """Both places are taken: the first question waits for its first token when the second comes."""
    session = saved(store, "two tabs", a_turn("Hello", "Hi you"))
    (last,) = (turn.id for turn in store.load(session.id).turns)
    body = {"session": session.id, "after": last, "pjlocal": {"max_tokens": 2}}
    long = {"messages": [{"role": "user", "content": "go on"}], "stream": True, "max_tokens": 30_000}
    long |= {"pjlocal": {"ignore_end": True}}
    with ThreadPoolExecutor() as pool, ExitStack() as holding:
        held = [
            holding.enter_context(served.http.stream("POST", "/v1/chat/completions", json=long)).iter_lines()
            for _ in range(2)
        ]
        assert all(map(next, held))
        first = pool.submit(served.http.post, TURNS, json=body | {"question": "first"})
        when(lambda: first.done() or served.metric("pjlocal_answers_now") == 3)
        assert not first.done(), first.result().text
        for where in ({}, {"replacing": last}, {"after": None, "replacing": last}):
            second = served.http.post(TURNS, json=body | {"question": "second"} | where)
            assert (second.status_code, second.json()["error"]["code"]) == (400, "chat_gone_on"), where
        assert not first.done()
        holding.close()
        assert first.result().status_code == 200
    assert [turn.question for turn in store.load(session.id).turns] == ["Hello", "first"]
    body["after"] = store.load(session.id).turns[-1].id
    assert served.http.post(TURNS, json=body | {"question": "second"}).status_code == 200


def test_a_question_that_finds_no_place_leaves_its_chat_free(served: Served, store: Store) -> None:
    session = saved(store, "free", a_turn("Hello", "Hi you"))
    body = {"question": "first", "session": session.id, "after": store.load(session.id).turns[-1].id}
    refused = served.http.post(TURNS, json=body | {"pjlocal": {"regex": "("}})
    assert refused.status_code == 400, refused.text
    assert served.http.post(TURNS, json=body).status_code == 200
