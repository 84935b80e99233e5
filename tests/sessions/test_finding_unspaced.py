"""Words are found in the scripts that put no space between them."""

from __future__ import annotations

import pytest
from saved_chats import a_turn, saved
from saved_chats import file as file
from saved_chats import store as store

from pjlocal.sessions.words import apart, together


@pytest.mark.parametrize(
    ("text", "found", "not_found"),
    [
        (
            "今日の東京の天気を教えてください",
            ["東京", "天", "てくだ", "東京 天気", "ください"],
            ["京東", "東の", "東京 雨"],
        ),
        ("今天北京的天气怎么样？", ["北京", "天气", "样", "北京的天气"], ["京天", "京北"]),
        (
            "PythonとSQLiteを使う、1989年から",
            ["python", "SQLite", "使う", "Pythonと", "と sql", "1989", "年"],
            ["ython", "lit"],
        ),
        ("カタカナのコーヒーﾊﾝｶｸ々", ["コーヒー", "ー", "ﾊﾝｶ", "々"], ["コヒ"]),
        ("วันนี้อากาศดี", ["อากาศ", "วันนี้", "ดี"], ["อากาดี"]),
        ("ថ្ងៃនេះអាកាសធាតុល្អ", ["អាកាសធាតុ", "ថ្ងៃ"], ["ធាតុអាកាស"]),
        ("𠮷野家で食べる", ["𠮷野家", "𠮷", "家"], ["野𠮷"]),
        ("Café in 東京 today", ["cafe 東京", "東京 tod", "tod"], ["caf 東京", "oday"]),
        ("서울에서 만나요", ["서울에서", "만나", "서울"], ["에서"]),  # written with spaces, like Latin
    ],
)
def test_a_word_is_found_wherever_it_stands(store, text: str, found: list[str], not_found: list[str]) -> None:
    saved(store, "Talk", a_turn(text, "…"), a_turn("…", text), a_turn("Something else", "別の話"))
    for query in found:
        hits = store.search(query)
        assert len(hits) == 2, query
        assert all(hit.snippet == text for hit in hits), "as it was written"
    for query in not_found:
        assert store.search(query) == [], query


def test_a_snippet_of_a_long_text_shows_the_words_around_the_match(store) -> None:
    saved(store, "Talk", a_turn("?", "あ" * 300 + "東京の天気" + "い" * 300))
    (hit,) = store.search("天気")
    assert "東京の天気" in hit.snippet and 40 <= len(hit.snippet) <= 60
    assert hit.snippet.startswith("…あ") and hit.snippet.endswith("い…")


def test_together_undoes_apart() -> None:
    text = "PythonとSQLite、今日 の\n東京!"
    assert together(apart(text)) == text and apart("Déjà vu: 한국어 🎉") == "Déjà vu: 한국어 🎉"


def test_words_are_looked_up_and_not_searched_for_in_every_turn(store) -> None:
    """Ten thousand turns are searched in a fraction of a second."""
    text = "今日の東京の天気はとても良いので、Pythonの本を持って公園へ行きます。" * 5
    with store._transaction() as db:
        store_one = (
            "INSERT INTO turns (session_id, question, answer, settings, statistics, created) VALUES (?,?,?,?,?,?)"
        )
        session = db.execute(
            "INSERT INTO sessions (title, settings, created, updated) VALUES ('', '{}', 0, 0)"
        ).lastrowid
        db.executemany(store_one, ((session, f"{i} 番目の質問", text, "{}", "{}", 0) for i in range(2_000)))
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 10

    store._db.set_progress_handler(count, 10)  # called after so many steps of SQLite's
    assert [len(store.search(query)) for query in ("500 質問", "公園の", "雨")] == [1, 0, 0]
    assert 0 < steps < 2_000
