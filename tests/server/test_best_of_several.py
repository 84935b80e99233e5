"""``best`` on a server: for OpenAI's clients, for `pjlocal run` and `chat`, and for chats that it saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from commandline import call
from openai import OpenAI
from served import ENGINE, Served, make_request, serving, streamed
from waiting import when

from pjlocal import Generation
from pjlocal.chat.conversation import Conversation
from pjlocal.chat.judges import make_judge
from pjlocal.client import Server
from pjlocal.engine.interrupt import Interrupt
from pjlocal.request import Request, place
from pjlocal.sessions.recorder import Recorder
from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

ASK: Any = [{"role": "user", "content": "Tell me about cats."}]
BEST = {"prefer": ["vivid", "concise"], "mode": "both", "best": 4, "ignore_end": True, "events": True}
ASKED: dict[str, Any] = {
    "model": "llama",
    "messages": ASK,
    "seed": 3,
    "max_tokens": 12,
    "extra_body": {"pjlocal": BEST},
}
OPTIONS = ("--parallel", "2", "--batch-size", "32")  # four answers of four views wait for each other


def test_the_chosen_answer_is_the_content_and_all_scores_are_there(client: OpenAI, alone: Callable[..., str]) -> None:
    (choice,) = client.chat.completions.create(**ASKED).choices
    candidates = choice.model_extra["pjlocal"]["candidates"]
    assert [each["seed"] for each in candidates] == [3, 4, 5, 6]
    (best,) = (each for each in candidates if each["chosen"])
    assert best["score"] == max(each["score"] for each in candidates)
    own = {"mode": "both", "ignore_end": True, "max_tokens": 12, "seed": best["seed"]}
    assert choice.message.content == best["text"] == alone(ASK[0]["content"], ("vivid", "concise"), **own)


def test_a_stream_has_the_chosen_answer_at_its_end(client: OpenAI) -> None:
    whole = client.chat.completions.create(**ASKED, logprobs=True).choices[0]
    chunks = [*client.chat.completions.create(**ASKED, logprobs=True, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    log_probs = [one for chunk in chunks if (found := chunk.choices[0].logprobs) for one in found.content or ()]
    assert [one.token for one in log_probs] == [one.token for one in whole.logprobs.content]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n": 2}, "n and best exclude each other"),
        ({"extra_body": {"pjlocal": BEST | {"mode": "judge"}}}, "best chooses by pushes"),
        ({"extra_body": {"pjlocal": BEST | {"best": 17}}}, "best must be at most 16"),
    ],
)
def test_what_cannot_be_chosen_is_refused(client: OpenAI, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        client.chat.completions.create(**ASKED | changes)


@pytest.mark.usefixtures("here")
def test_run_gets_the_answers_and_how_far_they_are(served: Served) -> None:
    server = Server(served.page(), Interrupt())
    request = make_request(["vivid", "concise"], mode="both", best=3, max_tokens=200)
    answer = server.answer(request, messages=ASK)
    said: list[str] = []
    answer.on_progress = said.append
    events = list(answer)
    candidates = answer.result.candidates
    assert [candidate.result.seed for candidate in candidates] == [1, 2, 3]
    (best,) = (candidate for candidate in candidates if candidate.is_chosen)
    assert answer.result.text == best.result.text == "".join(event.text for event in events)
    assert all(text.startswith("Writing 3 answers: ") for text in said)
    assert answer.started and answer.started.seed == best.result.seed


COUNTED = ("completion_tokens", "accepted_tokens", "prompt_tokens", "prompt_tokens_held")


@pytest.mark.parametrize("own", [BEST, {"prefer": ["vivid"], "mode": "rewrite", "ignore_end": True}])
def test_the_metrics_count_every_answer_that_was_written(served: Served, client: OpenAI, own: Any) -> None:
    names = [f"pjlocal_{name}_total" for name in COUNTED]
    before = served.metrics(*names)
    (choice,) = client.chat.completions.create(**ASKED | {"extra_body": {"pjlocal": own | {"events": True}}}).choices
    told: Any = choice.pjlocal  # type: ignore[attr-defined]
    usages = [each["usage"] for each in told["candidates"]] or [told["draft"]["usage"], told["usage"]]
    written, accepted, prompted, held = (
        after - count for after, count in zip(served.metrics(*names), before, strict=True)
    )
    assert written == sum(usage["completion_tokens"] for usage in usages) == 12 * len(usages)
    assert prompted == sum(sum(usage["prompt_tokens"]) for usage in usages) and held <= prompted
    assert accepted >= sum(event["kind"] == "accepted" for event in told["events"])


def test_a_saved_chat_keeps_the_others_as_drafts(served: Served) -> None:
    settings = {"draft_prefer": ["vivid"], "judge_prefer": ["concise"], "mode": "both", "best": 3, "seed": 1}
    body = {"settings": settings | {"max_tokens": 8, "ignore_end": True}, "chat": {"question": "Hello"}}
    head, *_ = streamed(served.http.post("/api/answers", json=body).text.splitlines())
    (turn,) = served.http.get(f"/api/chats/{head['head']['chat']}").json()["turns"]
    assert turn["id"] == head["head"]["turn"] and len(turn["drafts"]) == 3
    others = [draft for draft in turn["drafts"] if draft["id"] != turn["id"]]
    assert {turn["settings"]["seed"], *(draft["settings"]["seed"] for draft in others)} == {1, 2, 3}
    assert all(draft["undone"] and draft["events"] and draft["finish_reason"] == "length" for draft in others)


def test_every_answer_takes_a_place(served: Served, server_environment: dict[str, str], model: Path) -> None:
    with serving(model, server_environment, "--parallel", "1", "--queue", "1") as small:
        asked = {"messages": ASK, "max_tokens": 4, "pjlocal": BEST}
        refused: httpx2.Response = small.http.post("/v1/chat/completions", json=asked)
        assert refused.status_code == 400 and "at most 2 answers at once (not 4)" in refused.text


@pytest.mark.usefixtures("here")
def test_a_stopped_answer_is_the_best_of_what_there_is_and_the_next_one_is_written(served: Served) -> None:
    server = Server(served.page(), Interrupt())
    request = make_request(["vivid", "concise"], mode="both", best=3, max_tokens=400)
    before = served.metric("pjlocal_decodes_total")
    answer = server.answer(request, messages=ASK)
    when(lambda: served.metric("pjlocal_decodes_total") > before + 10)
    server.interrupt.set()
    events = list(answer)
    assert answer.finish_reason == "interrupted" and len(events) < 400
    server.interrupt.clear()
    assert len(list(server.answer(request.replace(max_tokens=5), messages=ASK))) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_chat_by_a_server_keeps_the_others_as_drafts(served: Served, model: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "chats.db")
    generation = Generation(mode="both", best=3, seed=1, max_tokens=8, ignore_end=True)
    request = Request(place(["vivid", "concise"]), generation)
    judge = make_judge(
        str(model), finds=True, engine=ENGINE.replace(n_batch=32), interrupt=Interrupt(), request=request
    )
    assert judge.server
    session = Session()
    chat = Conversation(judge, session, Recorder(store, session, print), None, print, lambda name, finds: judge)
    list(chat.ask("Hello"))
    (turn,) = store.load(session.id).turns
    assert sorted(draft.settings["seed"] for draft in turn.drafts) == [1, 2, 3]
    assert turn == session.turns[0] and turn.drafts == session.turns[0].drafts
    chat.close()


@pytest.mark.slow
def test_a_chat_on_another_machine_can_switch_to_another_of_its_answers(
    served: Served, server_environment: dict[str, str], tmp_path: Path
) -> None:
    chat = ["chat", "--server", served.page(), "-p", "vivid", "-p", "concise", "--mode", "both", "--best", "3"]
    environment = server_environment | {"XDG_RUNTIME_DIR": str(tmp_path)}
    lines = b"Hello\n/drafts 3\nWhy?\n"
    status, _, said = call([*chat, "--seed", "1", "-n", "8", "--ignore-end"], environment, tmp_path, lines)
    assert status == 0 and b"draft 3 is in force" in said, said
    latest = served.http.get("/api/chats").json()["chats"][0]["id"]
    first, second = served.http.get(f"/api/chats/{latest}").json()["turns"]
    assert first["drafts"][2] == {"id": first["id"]} and len(second["drafts"]) == 3
