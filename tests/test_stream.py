"""Bytes to text: whole characters, and nothing of a stop string."""

from __future__ import annotations

import random

from pjlocal.stream import TextStream


def stream(pieces: list[bytes], stops: list[str] = ()) -> tuple[list[tuple[int, str]], bool]:
    s: TextStream[int] = TextStream(stops)
    shown = []
    for i, piece in enumerate(pieces):
        shown += s.push(i, piece)
        if s.stopped:
            break
    return [*shown, *s.finish()], s.stopped


def test_a_character_spread_over_tokens_appears_with_the_token_that_completes_it() -> None:
    cake = "🎂".encode()
    assert stream([b"a", cake[:1], cake[1:3], cake[3:], b"b"])[0] == [(0, "a"), (1, ""), (2, ""), (3, "🎂"), (4, "b")]


def test_half_a_character_at_the_end_is_dropped() -> None:
    assert stream([b"a", "日".encode()[:2]])[0] == [(0, "a"), (1, "")]


def test_every_token_appears_once_and_the_texts_joined_are_the_text() -> None:
    rng = random.Random(1)
    for _ in range(300):
        text = "".join(rng.choice("ab日本🎂é\n") for _ in range(20))
        data = text.encode()
        cuts = sorted(rng.sample(range(len(data)), rng.randint(1, 12)))
        pieces = [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        stops = ["".join(rng.choice("ab日") for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(0, 2))]
        shown, stopped = stream(pieces, stops)
        assert [i for i, _ in shown] == list(range(len(shown)))
        end = min((text.index(stop) for stop in stops if stop in text), default=len(text))
        assert "".join(part for _, part in shown) == text[:end]
        assert stopped == (end < len(text))


def test_a_space_at_the_beginning_can_be_left_out() -> None:
    for pieces in ([b" ", b"the cat"], [b"", b" the", b" cat"], [b"the", b" cat"]):
        s: TextStream[int] = TextStream(head=" ")
        texts = [text for item, piece in enumerate(pieces) for _, text in s.push(item, piece)]
        assert "".join(texts) == "the cat" and len(texts) == len(pieces)


def test_a_stop_string_may_begin_in_the_text_before() -> None:
    for pieces, shown in (
        ([b"U", b"ser: x"], ""),
        ([b"Use", b"ful", b" x"], "Useful x"),
        ([b"a User: x"], "a User: x"),
    ):
        s: TextStream[int] = TextStream(["\nUser:"], before="\n\n")
        texts = [text for item, piece in enumerate(pieces) for _, text in s.push(item, piece)]
        texts += [text for _, text in s.finish()]
        assert "".join(texts) == shown and s.stopped == (not shown)


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    s: TextStream[int] = TextStream(["STOP"])
    assert list(s.push(0, b"go S")) == []
    assert list(s.push(1, b"TO")) == []
    assert list(s.push(2, b"W")) == [(0, "go S"), (1, "TO"), (2, "W")]
