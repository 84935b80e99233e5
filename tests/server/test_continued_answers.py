"""An answer at the end of the messages, or of a saved chat, is continued; the reply has the new text alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from served import VIEWS, Served
from test_chats import ANSWERS, ask, refused

from pjlocal.sessions.store import Store

OPTIONS = (*VIEWS, "--max-tokens", "12", "--batch-size", "32")
LONG: dict[str, Any] = {"pjlocal": {"ignore_end": True}, "seed": 3, "max_tokens": 9}
Q: Any = {"role": "user", "content": "Tell me of cats."}
BEGUN: Any = {"role": "assistant", "content": "the cat"}


def text(served: Served, messages: list[Any], **fields: Any) -> str:
    return served.text(messages, **LONG | fields)


def test_every_clients_way_to_continue_gives_the_new_text(served: Served) -> None:
    begins = {"ignore_end": True, "begin": "the cat"}
    whole = text(served, [Q], pjlocal=begins)
    assert whole.startswith("the cat"), "a setting of pjlocal: part of the answer"
    new = whole.removeprefix("the cat")
    assert text(served, [Q, BEGUN]) == new
    for last in ({"prefix": True}, {"partial": True}):
        assert text(served, [Q, BEGUN | last]) == new
    vllm = {"continue_final_message": True, "add_generation_prompt": False}
    assert text(served, [Q, BEGUN], **vllm) == new
    assert text(served, [Q, {"role": "assistant", "content": "the"}, {"role": "assistant", "content": " cat"}]) == new
    parts = [{"type": "text", "text": "the cat"}]
    assert text(served, [Q, BEGUN | {"content": parts}]) == new


def test_the_beginning_counts_with_the_prompt(served: Served) -> None:
    alone, begun = (served.complete(messages, **LONG)["usage"] for messages in ([Q], [Q, BEGUN]))
    assert begun["completion_tokens"] == alone["completion_tokens"] == 9
    assert begun["prompt_tokens"] > alone["prompt_tokens"]


def test_log_probabilities_are_those_of_the_new_tokens(served: Served) -> None:
    for messages, own in (([Q, BEGUN], {}), ([Q], {"begin": "the cat"})):
        how = LONG | {"logprobs": True, "pjlocal": {"ignore_end": True, "events": True, "mode": "judge", **own}}
        choice = served.complete(messages, **how)["choices"][0]
        new = [event["text"] for event in choice["pjlocal"]["events"] if event["kind"] != "given"]
        assert [one["token"] for one in choice["logprobs"]["content"]] == new


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"messages": [BEGUN]}, "messages", "the last message must be the user's, the result"),
        ({"messages": [{"role": "system", "content": " "}]}, "messages", "the last message must be the user's"),
        ({"messages": [Q], "continue_final_message": True}, "continue_final_message", "the last message must be"),
        ({"messages": [Q], "add_generation_prompt": False}, "add_generation_prompt", "the last message must be"),
        ({"messages": [Q, BEGUN], "continue_final_message": False}, "continue_final_message", "asks for a new answer"),
        ({"messages": [Q, BEGUN], "add_generation_prompt": True}, "add_generation_prompt", "asks for a new answer"),
        ({"messages": [Q | {"prefix": True}]}, "messages.0.prefix", "is only for an assistant's message at the end"),
        (
            {"messages": [Q, BEGUN | {"partial": True}, Q]},
            "messages.1.partial",
            "is only for an assistant's message at",
        ),
        ({"messages": [Q, BEGUN], "pjlocal": {"prefer": ["vivid"], "mode": "rewrite"}}, None, "cannot continue one"),
    ],
)
def test_what_cannot_be_continued_is_refused(served: Served, body: Any, field: str | None, says: str) -> None:
    reply = served.http.post("/v1/chat/completions", json=body)
    error = reply.json()["error"]
    assert reply.status_code == 400 and says in error["message"] and error["param"] == field
    assert not re.search(r"--\w", error["message"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "Once", "pjlocal": {"begin": "the cat"}}),
        ("/v1/chat/completions", {"messages": [Q, BEGUN], "pjlocal": {"begin": "Ahoy"}}),
        ("/v1/responses", {"input": [Q, BEGUN], "pjlocal": {"begin": "Ahoy"}}),
        ("/api/answers", {"messages": [Q, BEGUN], "settings": {"begin": "Ahoy"}}),
    ],
)
def test_begin_is_refused_where_a_text_is_continued(served: Served, path: str, body: Any) -> None:
    reply = served.http.post(path, json=body)
    assert reply.status_code == 400 and "begin is for a new answer" in reply.json()["error"]["message"]


def test_a_begin_among_the_defaults_rests_where_a_text_is_continued(served: Served) -> None:
    ahoy = {"model": "ahoy", "max_tokens": 5, "seed": 1}
    assert text(served, [Q], **ahoy).startswith("Ahoy") and not text(served, [Q, BEGUN], **ahoy).startswith("Ahoy")
    of = [served.http.post("/v1/completions", json={"prompt": "Once", **ahoy, "model": name}) for name in ("ahoy", "")]
    assert of[0].json()["choices"] == of[1].json()["choices"]
    assert of[0].headers["X-Pjlocal-Warning"].startswith("begin has no effect on a text to continue")
    persona = {"role": "system", "content": '[pjlocal]\nbegin = "Ahoy"'}
    assert not text(served, [persona, Q, BEGUN]).startswith("Ahoy")


# Saved chats.


def test_a_saved_answer_is_continued_in_its_place(served: Served, store: Store) -> None:
    settings = {"ignore_end": True, "seed": 5}
    head, tokens, result = ask(served, "Why do cats purr?", settings=settings)
    before = {"replacing": head["turn"], "after": head["turn"], "continues": True}
    again, more, added = ask(served, "Why do cats purr?", head["chat"], settings, **before)
    (turn,) = store.load(head["chat"]).turns
    assert turn.id == again["turn"] != head["turn"] and turn.drafts[0].id == head["turn"]
    while not tokens[-1]["text"]:  # half a character
        tokens.pop()
    assert turn.answer == result["text"] + added["text"] and len(turn.events) == len(tokens) + len(more)
    assert [event.position for event in turn.events] == list(range(len(turn.events)))
    n_read = [n + len(tokens) for n in result["statistics"]["prompt_tokens"]]
    assert added["statistics"]["prompt_tokens"] == n_read, "its tokens as they are"


def test_only_an_answer_can_be_continued(served: Served) -> None:
    body = {"chat": {"question": "Why?", "continues": True}}
    assert refused(served, body) == (400, None, "chat.continues needs chat.replacing: a turn with an answer")
    head, *_ = ask(served, "Why?")
    chat = {"question": "Why?", "id": head["chat"], "replacing": head["turn"]}
    for how in ({"continues": True}, {"takes": {"position": 0, "text": "No"}}):
        _, _, says = refused(served, {"chat": chat | how, "settings": {"begin": "Ahoy"}})
        assert "begin is for a new answer" in says


def test_a_saved_answer_is_edited(served: Served, store: Store) -> None:
    head, *_ = ask(served, "Why do cats purr?")
    edit = f"/api/chats/{head['chat']}/edit"
    reply = served.http.post(edit, json={"turn": head["turn"], "answer": "They are content."})
    assert reply.status_code == 200
    (turn,) = store.load(head["chat"]).turns
    assert (turn.id, turn.answer) == (reply.json()["id"], "They are content.")
    assert "".join(event["text"] for event in reply.json()["events"]) == turn.answer
    old = served.http.post(edit, json={"turn": head["turn"], "answer": "No."})
    assert (
        old.json()["error"]["code"] == "chat_gone_on"
        and "only the last turn can be edited" in old.json()["error"]["message"]
    )
    assert served.http.post(edit, json={"turn": turn.id, "answer": ""}).status_code == 400
    assert served.http.post(ANSWERS, json={"chat": {"question": "And?", "id": head["chat"]}}).status_code == 200
