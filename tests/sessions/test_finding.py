"""A saved chat is found by its number, its title or the words in it."""

from __future__ import annotations

import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from saved_chats import a_turn, saved, token
from saved_chats import file as file
from saved_chats import store as store

from pjlocal.errors import UsageError
from pjlocal.sessions.finding import Summary
from pjlocal.sessions.remote import RemoteStore
from pjlocal.sessions.session import Turn

# Finding a session.


def test_the_summaries_are_newest_first(store) -> None:
    old = saved(store, "Old", settings={"model": "smollm2"}, updated=10.0)
    new = saved(store, "New", updated=20.0)
    assert store.summaries() == [Summary(new.id, "New", 0, None, 20.0), Summary(old.id, "Old", 0, "smollm2", 10.0)]
    assert store.latest() == new.id
    store.add_turn(old.id, a_turn())
    assert store.latest() == old.id and store.summaries()[0].updated == pytest.approx(time.time(), abs=5)
    store.add_turn(new.id, Turn("And?"))
    assert store.latest() == new.id


def test_the_latest_session_is_found_without_a_list_of_all(store, monkeypatch) -> None:
    session = saved(store, "Cats")
    monkeypatch.setattr(type(store), "summaries", None)
    assert store.latest() == session.id


def test_without_sessions_there_is_no_latest_session(store) -> None:
    assert store.latest() is None and store.summaries() == []


def test_a_session_is_found_by_id_title_or_how_only_one_title_begins(store) -> None:
    story = saved(store, "A story of the sea", updated=1)
    older, newer = saved(store, "Straße", updated=2), saved(store, "STRASSE", updated=3)
    number = saved(store, "2024", updated=4)
    saved(store, "", updated=5)
    assert store.find(f" {story.id} ") == story.id
    assert store.find("a Story Of the sea") == store.find("a st") == story.id
    assert store.find("straße") == newer.id != older.id
    assert store.find("2024") == number.id, "no session has this id"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("coking", r"there is no saved chat 'coking': did you mean Cooking \(3\)\?"),
        ("Story", r"several saved chats begin with 'Story': Story of the land \(2\), Story of the sea \(1\)"),
        ("zzz", "there is no saved chat 'zzz': pjlocal sessions list shows them"),
        ("", "there is no saved chat '': pjlocal sessions list"),
        ("99", "there is no saved chat '99'"),
        ("9" * 5000, "there is no saved chat"),
        ("²", "there is no saved chat"),
        ("-1", "there is no saved chat"),
        ("%", "there is no saved chat"),
    ],
)
def test_an_unknown_name_is_refused(store, name, says) -> None:
    for title in ("Story of the sea", "Story of the land", "Cooking"):
        saved(store, title)
    with pytest.raises(UsageError, match=says):
        store.find(name)


# The search.


def test_the_search_finds_all_words_in_question_or_answer_newest_first(store) -> None:
    first = a_turn("What stands in the reeds?", "A grey heron, fishing.")
    second = a_turn("Déjà vu: the HERON?", "Still there.")
    session = saved(store, "Birds", first, second)
    assert [hit.turn_id for hit in store.search("heron")] == [second.id, first.id]
    assert [hit.turn_id for hit in store.search("reeds heron")] == [first.id], "one in each"
    assert [hit.turn_id for hit in store.search("deja  her")] == [second.id], "the last word may be a beginning"
    assert store.search("her deja") == [] and store.search("heron stork") == []
    hit = store.search("fishing")[0]
    assert (hit.session_id, hit.title, hit.question, hit.created) == (
        session.id,
        "Birds",
        first.question,
        first.created,
    )
    assert hit.snippet == "A grey heron, fishing."


def test_the_search_follows_an_answer_as_it_is_finished(store) -> None:
    session, turn = saved(store, "Birds"), Turn("A bird?")
    store.add_turn(session.id, turn)
    assert len(store.search("bird")) == 1
    turn.events = [token(0, "An"), token(1, " egret")]
    store.finish_turn(turn)
    assert len(store.search("egret")) == len(store.search("bird egret")) == 1


@pytest.mark.parametrize(
    "query",
    [
        *("cats AND", "NOT cats", "cats OR", "NEAR(cats", "cats*", '"cats', "question: cats", "(cats)", "^cats"),
        *("ca\0ts", "-cats", "{cats}:", "cats + AND", "'cats", "cats; DROP TABLE turns"),
        *('"', '""', "*", "?", "\0", " ", "", "🎉"),
    ],
)
def test_the_search_takes_operators_and_quotes_as_plain_text(store, query) -> None:
    wanted = a_turn(f"Here: {query}!".replace("\0", " "))
    saved(store, "Plain", wanted, a_turn("Only dogs"))
    letters = re.search(r"\w", query)
    assert [hit.turn_id for hit in store.search(query)] == ([wanted.id] if letters else [])


class _Server:
    """A server that answers every request as the route of chats does, and keeps the paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def call(self, method: str, path: str, body: object = None) -> dict[str, list[object]]:
        self.paths.append(path)
        words = parse_qs(urlsplit(path).query).get("q", [""])[0]
        return {"hits": []} if words.strip() else {"chats": []}


@pytest.mark.parametrize(
    ("query", "paths"), [(" ", []), ("a b", ["/api/chats?q=a%20b"]), ("\udcff", ["/api/chats?q=%3F"])]
)
def test_searching_a_servers_chats_finds_what_a_local_search_finds(query: str, paths: list[str]) -> None:
    server = _Server()
    assert RemoteStore(server).search(query) == [] and server.paths == paths  # type: ignore[arg-type]
