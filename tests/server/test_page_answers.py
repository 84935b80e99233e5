"""The page and an answer: another token, drafts, forks, its continuation and edit, files, and a lost connection."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from browser import Chromium
from on_the_page import EDITED, SETTINGS, TOKENS, WRITTEN, ask, button_of, click
from saved_chats import a_turn, saved, texts
from served import VIEWS, Served

from pjlocal.attachments import Attachment, with_attachments
from pjlocal.sessions.store import Store

OPTIONS = (*VIEWS, "--max-tokens", "12", "--seed", "3", "--parallel", "2")
ANSWER = "document.querySelector('article:last-child .answer').textContent"
COUNT = "document.querySelector('article:last-child .count')?.textContent"
TROUBLE = "document.getElementById('trouble').textContent"
TITLE = "document.getElementById('title').textContent"
FACTS = "document.querySelector('article:last-child .facts').textContent"
FILES = "[...document.querySelectorAll('#files bdi')].map((one) => one.textContent)"
QUESTIONS = "[...document.querySelectorAll('.question')].map((one) => one.textContent)"
PRINTABLE = SETTINGS | {"generation": {"max_tokens": 12, "ignore_end": True}, "sampling": {"regex": "[ -~]+"}}


@pytest.fixture
def asked(page: Callable[..., Chromium], store: Store) -> Callable[..., tuple[Chromium, int]]:
    """A chat on the page in which a question was answered; returns the page and the chat's number."""

    def begin() -> tuple[Chromium, int]:
        number = saved(store, "chat", a_turn("Hello", "Hi you"), settings=PRINTABLE).id
        chromium = page(f"#{number}")
        ask(chromium, "Why?")
        chromium.wait_for(WRITTEN)
        chromium.eval("document.getElementById('formatted').click()")  # off: a token is an element, then
        return chromium, number

    return begin


def press(chromium: Chromium, selector: str) -> None:
    x, y = chromium.hover(selector)
    for kind in ("mousePressed", "mouseReleased"):
        chromium("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def test_a_warning_about_an_answer_is_below_it_and_not_on_the_servers_terminal(page, served: Served) -> None:
    chromium = page()
    chromium.eval("document.getElementById('mode').value = 'plain'")
    ask(chromium, "Why?")
    chromium.wait_for(WRITTEN)
    assert "preferences have no effect in mode plain" in chromium.eval(FACTS)
    assert "no effect" not in "".join(served.said)


OTHER = "[...document.querySelectorAll('.others button:enabled')].find((one) => /^[␣!-~]+$/.test(one.textContent))"


def test_an_answer_goes_on_from_a_token_that_is_taken_and_the_old_one_is_its_draft(asked, store: Store) -> None:
    chromium, number = asked()
    before = store.load(number).turns[-1]
    press(chromium, "article:last-child .answer .t:nth-of-type(4)")
    chromium.wait_for(OTHER)
    assert {"a", "b"} <= {*chromium.eval("[...document.querySelectorAll('.others td')].map((one) => one.className)")}
    views = chromium.eval("[...document.querySelectorAll('.others th[scope]')].map((one) => one.textContent)")
    assert views == ["a", "b", "joint", "neutral"]
    parts = "['#token', '.others'].map((part) => document.querySelector(part))"
    assert not chromium.eval(f"{parts}.some(({{scrollWidth, clientWidth}}) => scrollWidth > clientWidth)")
    chromium("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert not chromium.eval("document.getElementById('token').hidden"), "it stays until it is left"
    chromium.eval(f"{OTHER}.click()")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    taken = store.load(number).turns[-1]
    assert taken.answer == chromium.eval(ANSWER) and taken.answer != before.answer
    (place,) = [event.position for event in taken.events if event.kind == "given"]
    assert [event.id for event in taken.events[:place]] == [event.id for event in before.events[:place]]
    assert taken.events[place].id != before.events[place].id and len(taken.events) == place + 1 + 12
    assert [draft.id for draft in taken.drafts] == [before.id, taken.id]
    shown = chromium.eval(f"[{TOKENS}, document.querySelectorAll('article:last-child .given').length]")
    assert shown == [sum(bool(event.text) for event in taken.events), 1]


def test_another_token_is_taken_by_keyboard(asked, store: Store) -> None:
    chromium, number = asked()
    chromium.eval("document.querySelector('article:last-child .answer').focus()")
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        chromium.press(key)
    chromium.wait_for("document.activeElement.closest('.others')")
    chromium.press("Escape")
    assert chromium.eval("document.activeElement.className") == "answer"
    chromium.press("ArrowLeft")
    tokens = "[...document.querySelectorAll('article:last-child .answer .t')]"
    assert chromium.eval(f"{tokens}.indexOf(document.querySelector('.now'))") == 0, "the one before"
    chromium.press("Enter")
    chromium.wait_for("document.activeElement.closest('.others')")
    chromium.eval(f"{OTHER}.focus(); {OTHER}.click()")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    assert len(store.load(number).turns[-1].drafts) == 2


def test_tokens_of_an_earlier_answer_show_what_else_may_stand_there_and_none_is_taken(asked) -> None:
    chromium, _ = asked()
    ask(chromium, "And?")
    chromium.wait_for(WRITTEN)
    press(chromium, "article:nth-of-type(2) .answer .t:nth-of-type(2)")
    chromium.wait_for("document.querySelector('.others button')")
    assert "a new chat from here" in chromium.eval("document.querySelector('.others p').textContent")
    assert not chromium.eval(f"{OTHER} ?? null")


def test_arrows_switch_between_the_answers_of_a_question(asked, store: Store) -> None:
    chromium, number = asked()
    first = chromium.eval(ANSWER)
    assert chromium.eval(f"{COUNT} ?? null") is None, "there is one"
    click(chromium, "Regenerate")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    second = chromium.eval(ANSWER)
    assert first != second and chromium.eval("document.querySelector('.drafts button:last-child').disabled")
    click(chromium, "‹")
    chromium.wait_for(f"{COUNT} === '1 of 2' && {ANSWER} === {json.dumps(first)}")
    assert store.load(number).turns[-1].answer == first
    assert chromium.eval("document.activeElement.textContent") == "›", "the other one is at its end"
    chromium("Page.reload")
    chromium.wait_for(f"document.readyState === 'complete' && {WRITTEN} && {COUNT} === '1 of 2'")
    click(chromium, "›")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    assert texts(store, store.load(number))[-1] == ("Why?", second)
    ask(chromium, "And?")
    chromium.wait_for(WRITTEN)
    earlier = chromium.eval("document.querySelector('article:nth-of-type(2) .actions').innerText")
    assert "Answer 2 of 2" in earlier.replace("\n", " ") and "‹" not in earlier, "what follows would not fit another"


@pytest.mark.slow
def test_an_answer_of_a_comparison_is_taken(asked, store: Store) -> None:
    chromium, number = asked()
    before = store.load(number).turns[-1]
    take = "[...document.querySelectorAll('#columns section')].find((one) => one.innerText.startsWith('{}'))"
    for mode, n_drafts in (("both", None), ("plain", 4)):
        click(chromium, "Compare modes")
        click(chromium, "Compare")
        button = take.format(mode) + ".querySelector('.actions button')"
        chromium.wait_for(f"!document.querySelector('#columns [aria-busy]') && {button}")
        chromium.eval(f"{button}.click()")
        chromium.wait_for("!document.getElementById('comparison').open")
        turn = store.load(number).turns[-1]
        if n_drafts is None:
            assert turn.id == before.id, "it is the same as the answer, which was not kept twice"
        else:
            assert turn.settings["mode"] == mode and len(turn.drafts) == n_drafts
            chromium.wait_for(f"{COUNT}?.endsWith('of {n_drafts}') && {ANSWER} === {json.dumps(turn.answer)}")


@pytest.mark.slow
def test_a_comparison_does_not_warn_about_settings_that_its_modes_ignore(asked) -> None:
    chromium, _ = asked()
    chromium.eval("document.getElementById('strength').value = '2'")
    click(chromium, "Compare modes")
    chromium.eval("document.querySelector('#modes [name=rewrite]').click()")
    click(chromium, "Compare")
    chromium.wait_for("document.querySelectorAll('#columns .actions button').length === 5")
    assert "no effect" not in chromium.eval("document.getElementById('columns').innerText")


@pytest.mark.slow
def test_escape_at_a_token_of_a_comparison_leaves_the_token_and_not_the_comparison(asked) -> None:
    chromium, _ = asked()
    click(chromium, "Compare modes")
    click(chromium, "Compare")
    chromium.wait_for("document.querySelectorAll('#columns .actions button').length === 4")
    chromium.eval("document.querySelector('#columns .answer').focus()")
    assert "Enter" not in chromium.eval("document.activeElement.ariaLabel"), "there are no other tokens to take"
    chromium.press("ArrowRight")
    chromium.press("Escape")
    closed = "document.getElementById('token').hidden"
    assert chromium.eval(f"{closed} && document.getElementById('comparison').open")
    chromium.press("Escape")
    chromium.wait_for("!document.getElementById('comparison').open")


@pytest.mark.slow
def test_a_comparison_that_is_opened_again_at_once_is_not_stopped(asked) -> None:
    """The browser says later that the dialog was closed, by which time the next answers may be on their way."""
    chromium, _ = asked()
    click(chromium, "Compare modes")
    again = f"{button_of('Compare modes')}.click(); {button_of('Compare')}.click()"
    chromium.eval(f"document.getElementById('comparison').close(); {again}")
    chromium.wait_for("document.querySelectorAll('#columns .actions button').length === 4")


def test_a_new_chat_begins_from_a_turn(asked, store: Store) -> None:
    chromium, number = asked()
    click(chromium, "New chat from here")  # the first of them
    chromium.wait_for(f"{TITLE} === 'chat (fork)' && {WRITTEN}")
    forked = store.load(store.latest())
    assert forked.id != number and chromium.eval("location.hash") == f"#{forked.id}"
    assert chromium.eval(QUESTIONS) == ["Hello"] and len(store.load(number).turns) == 2
    chromium.wait_for("document.querySelectorAll('#list a').length > 1")
    ask(chromium, "And?")
    chromium.wait_for(WRITTEN)
    assert [turn.question for turn in store.load(forked.id).turns] == ["Hello", "And?"]


def test_an_answer_is_continued_also_when_it_was_stopped(asked, store: Store) -> None:
    chromium, number = asked()
    before = chromium.eval(ANSWER)
    click(chromium, "Continue")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    turn = store.load(number).turns[-1]
    assert turn.answer == chromium.eval(ANSWER) and turn.answer.startswith(before) and len(turn.events) == 24
    assert chromium.eval(QUESTIONS) == ["Hello", "Why?"]
    judged = [event for event in turn.events if event.draft]
    drawn = chromium.eval("document.querySelectorAll('article:last-child .strip rect:not(.draft)').length")
    assert drawn == len(judged)

    chromium.eval("document.getElementById('max_tokens').value = '30000'")
    click(chromium, "Continue")
    chromium.wait_for(f"{TOKENS} > 40")
    chromium.press("Escape")
    chromium.wait_for(WRITTEN)
    stopped = store.load(number).turns[-1]
    assert stopped.finish_reason == "interrupted" and stopped.answer == chromium.eval(ANSWER)
    chromium.eval("document.getElementById('max_tokens').value = '5'")
    click(chromium, "Continue")
    chromium.wait_for(f"{COUNT} === '4 of 4'")
    assert store.load(number).turns[-1].answer.startswith(stopped.answer)


@pytest.mark.slow
def test_a_second_tab_sees_the_beginning_of_an_answer_that_is_continued(asked, chromium, served, store: Store) -> None:
    first, number = asked()
    before = first.eval(ANSWER)
    with chromium.tab() as second:
        second.open(served.page(f"#{number}"))
        second.wait_for(WRITTEN)
        first.eval("document.getElementById('max_tokens').value = '30000'")
        click(first, "Continue")
        second.wait_for(f"document.querySelectorAll('article').length === 2 && {TOKENS} > 30")
        assert second.eval(ANSWER).startswith(before.rstrip())
        click(second, "Stop")
        second.wait_for(WRITTEN)
        second.wait_for(f"{COUNT} === '2 of 2'")


def test_an_answer_is_edited_and_the_tokens_that_stay_keep_their_numbers(asked, store: Store) -> None:
    chromium, number = asked()
    before = store.load(number).turns[-1]
    click(chromium, "Edit answer")
    assert chromium.eval(f"[{EDITED}.value, document.activeElement === {EDITED}]") == [before.answer, True]
    chromium.press("Escape")
    assert chromium.eval(f"{EDITED} === null && {ANSWER}") == before.answer
    click(chromium, "Edit answer")
    click(chromium, "Save the answer")
    chromium.wait_for(f"!{EDITED}")
    assert len(store.load(number).turns[-1].drafts) == 1, "nothing was changed"
    click(chromium, "Edit answer")
    chromium.eval(f"{EDITED}.value = '  '")
    click(chromium, "Save the answer")
    assert chromium.eval("document.querySelector('.rewriting .trouble').textContent") == "Write a text first."
    chromium.eval(f"{EDITED}.value = {json.dumps(before.answer)}")
    chromium.eval(f"{EDITED}.value += ' And so on.'")
    click(chromium, "Save the answer")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    turn = store.load(number).turns[-1]
    assert turn.answer == before.answer + " And so on." == chromium.eval(ANSWER)
    assert "stopped" not in chromium.eval(FACTS)
    assert chromium.eval(FACTS).startswith(f"{100 * turn.statistics['acceptance_rate']:.0f} % accepted")
    assert chromium.eval("document.activeElement.textContent") == turn.answer
    assert [event.kind for event in turn.events if event.text][-1] == "given"
    assert [event.p for event in turn.events][:5] == [event.p for event in before.events][:5]


@pytest.mark.slow
def test_a_question_says_which_exchanges_were_left_out_before(page, store: Store) -> None:
    """The server then leaves out the same ones, and reads only the new question."""
    session = saved(store, "long", a_turn("long" * 600_000, "Hi you"), a_turn(), settings=PRINTABLE)
    chromium = page(f"#{session.id}")
    chromium.wait_for(WRITTEN)
    chromium.eval(
        "var fetched = fetch, sent = []; fetch = (path, options) =>"
        " (path === 'api/answers' && sent.push(JSON.parse(options.body).first), fetched(path, options))"
    )
    for n, question in enumerate(("One?", "Two?"), 3):
        ask(chromium, question)
        chromium.wait_for(f"document.querySelectorAll('article').length === {n} && {WRITTEN}")
    assert "no longer sees the oldest exchange" in chromium.eval(FACTS)
    click(chromium, "Regenerate")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    click(chromium, "Compare modes")
    click(chromium, "Compare")
    chromium.wait_for("document.querySelectorAll('#columns .actions button').length === 4")
    assert chromium.eval("sent") == [0, *[1] * 6]
    click(chromium, "Close")


DROP = """
var dropped = new DataTransfer();
for (const [name, part] of %s) dropped.items.add(new File([part], name));
dispatchEvent(new DragEvent('%s', { dataTransfer: dropped, bubbles: true, cancelable: true }));
"""


def drop(chromium: Chromium, *files: tuple[str, str]) -> None:
    chromium.eval(DROP % (json.dumps(files), "dragenter"))
    assert chromium.eval("getComputedStyle(document.getElementById('drop')).display") == "grid"
    chromium.eval(DROP % (json.dumps(files), "drop"))
    assert chromium.eval("getComputedStyle(document.getElementById('drop')).display") == "none"


def test_a_new_chat_has_its_saved_title_at_once(page, store: Store) -> None:
    chromium = page()
    question = " Why do\ncats " + "purr \U0001f431 " * 20
    chromium.eval("document.getElementById('words').value = 'nothing like it'")
    chromium.eval(f"question.value = {json.dumps(question)}; document.getElementById('ask').requestSubmit()")
    chromium.wait_for("document.querySelector('article')")
    chromium.wait_for(WRITTEN)
    title = store.load(store.latest()).title
    assert title.startswith("Why do cats purr")
    assert chromium.eval(TITLE) == title


def test_a_dropped_file_shows_its_tokens_and_goes_with_the_question_as_run_sends_it(page, store: Store) -> None:
    chromium = page()
    drop(chromium, ("my notes.txt", "the cat\r\nsees\n"), ("b.txt", "the sun"))
    chromium.wait_for(f"{FILES}.length === 2")
    first, second = chromium.eval(FILES)
    assert first.startswith("my notes.txt: ") and first.endswith(" tokens") and second.startswith("b.txt: ")
    assert chromium.eval("document.activeElement.id") == "question"
    chromium.eval("document.querySelectorAll('#files button')[1].click()")
    assert chromium.eval(FILES) == [first]
    chromium.type("Why?")
    chromium.press("Enter")
    chromium.wait_for(WRITTEN)
    assert chromium.eval(TITLE) == "[my notes.txt] Why?"
    assert chromium.eval(FILES) == []
    session = store.load(store.latest())
    question = with_attachments([Attachment("my notes.txt", "the cat\nsees")], "Why?")
    assert [turn.question for turn in session.turns] == [question] and session.title == "[my notes.txt] Why?"
    shown = [["my notes.txt"], "my notes.txtWhy?"]
    names = "[...document.querySelectorAll('.file')].map((one) => one.textContent)"
    parts = f"[{names}, document.querySelector('h3').textContent]"
    assert chromium.eval(parts) == shown
    chromium("Page.reload")
    chromium.wait_for(f"document.readyState === 'complete' && {WRITTEN}")
    assert chromium.eval(parts) == shown
    click(chromium, "Edit question")
    assert chromium.eval(f"{EDITED}.value") == "Why?"
    assert chromium.eval("document.querySelector('.rewriting .file').textContent") == "my notes.txt"
    chromium.type(" not")
    chromium.press("Enter")
    chromium.wait_for(f"{COUNT} === '2 of 2'")
    assert [turn.question for turn in store.load(session.id).turns] == [question + " not"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.pdf", "%PDF-1.7", "a.pdf is a PDF, and only text can be read: save its text to a file first"),
        ("a.bin", "a\0b", "a.bin is not text: it contains a NUL (byte 1)"),
        (
            "long.txt",
            "the cat " * 20_000,
            "long.txt: the text is too long: the context has room for 32,768 tokens. "
            "Shorten it, or start the server with a larger --ctx",
        ),
        ("huge.txt", "huge" * (3 << 20), "huge.txt is larger than 8 MiB, more than fits in any context"),
    ],
    ids=["PDF", "binary", "long", "huge"],
)
def test_what_is_no_text_or_has_no_room_is_refused_in_a_line(page, name: str, text: str, says: str) -> None:
    chromium = page()
    repeated = f"{json.dumps(text[:8])}.repeat({len(text) // 8})" if len(text) > 8 else json.dumps(text)
    chromium.eval(
        f"var all = new DataTransfer(); all.items.add(new File([{repeated}], '{name}'));"
        " document.getElementById('pick').files = all.files;"
        " document.getElementById('pick').dispatchEvent(new Event('change'))"
    )
    chromium.wait_for(TROUBLE)
    assert chromium.eval(f"[{TROUBLE}, {FILES}]") == [says, []]


def test_files_of_a_question_that_was_not_answered_are_there_again(page, store: Store) -> None:
    chromium = page()
    drop(chromium, ("notes.txt", "the cat"))
    chromium.wait_for(f"{FILES}.length === 1")
    chromium.eval("document.getElementById('temperature').value = 'warm'")
    chromium.type("Why?")
    chromium.press("Enter")
    chromium.wait_for(TROUBLE)
    assert chromium.eval(f"[document.getElementById('question').value, {FILES}.length]") == ["Why?", 1]


#: Streams that `cut()` ends as a broken connection does; `online` says whether later requests reach the server.
#: The next reply about a chat or a turn then breaks, too.
CUTTING = """
var fetched = fetch, cut, online = true, breaks = false;
fetch = async (path, options) => {
  if (!online) {
    while (!online) await new Promise((resolve) => setTimeout(resolve, 50)); // the test takes its time
    throw new TypeError('network error');
  }
  const reply = await fetched(path, options);
  if (breaks && /chats.\\d+(.turns.\\d+)?$/.test(path)) {
    breaks = false;
    return new Response(new ReadableStream({ start: (broken) => broken.error(new TypeError('network error')) }));
  }
  if (!/answer/.test(path) || reply.status === 204) return reply;
  let stream;
  const reader = reply.body.getReader();
  const body = new ReadableStream({
    start: (controller) => (stream = controller),
    pull: async (controller) => {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      try { done ? controller.close() : controller.enqueue(value); } catch {}
    },
  });
  cut = () => { online = false; breaks = true; reader.cancel(); stream.error(new TypeError('network error')); };
  return new Response(body, { status: reply.status, headers: reply.headers });
};
"""


def cut_off(asked):
    """A page whose connection is lost while a long answer is written, and the number of its chat."""
    chromium, number = asked()
    chromium.eval(CUTTING)
    chromium.eval("document.getElementById('max_tokens').value = '30000'")
    ask(chromium, "Go on")
    chromium.wait_for(f"{TOKENS} > 10")
    chromium.eval("cut()")
    chromium.wait_for(f"{FACTS}.includes('connection was lost')")
    return chromium, number


@pytest.mark.slow
def test_after_a_short_drop_of_the_network_the_answer_goes_on(asked, store: Store) -> None:
    chromium, number = cut_off(asked)
    chromium.eval("for (let n = 0; n < 2; n++) document.getElementById('formatted').click()")  # draws it again
    assert "connection was lost" in chromium.eval(FACTS)
    before = chromium.eval(TOKENS)
    assert chromium.eval(TROUBLE) == "" and not chromium.eval("document.getElementById('stop').hidden")
    chromium.eval("online = true")
    chromium.wait_for(f"{TOKENS} > {before} + 20")
    click(chromium, "Stop")
    chromium.wait_for(WRITTEN)
    turn = store.load(number).turns[-1]
    assert turn.answer == chromium.eval(ANSWER) and turn.finish_reason == "interrupted", (
        "none is missing or there twice"
    )
    assert chromium.eval(TROUBLE) == ""


@pytest.mark.slow
def test_an_answer_that_ended_meanwhile_is_shown_whole(asked, served: Served, store: Store) -> None:
    chromium, number = cut_off(asked)
    with served.http.stream("GET", f"/api/chats/{number}/answer") as reply:
        served.http.post(f"/api/answers/{reply.headers['X-Pjlocal-Answer']}/stop")
        reply.read()
    chromium.eval("online = true")
    chromium.wait_for(WRITTEN)
    turn = store.load(number).turns[-1]
    assert turn.answer == chromium.eval(ANSWER) and "stopped" in chromium.eval(FACTS) and chromium.eval(TROUBLE) == ""


@pytest.mark.slow
def test_an_answer_can_be_stopped_while_the_page_reconnects(asked, store: Store) -> None:
    chromium, number = cut_off(asked)
    click(chromium, "Stop")
    chromium.eval("online = true")  # the request to stop it fails now, and is sent again
    chromium.wait_for(f"{WRITTEN} && {FACTS}.includes('stopped')")
    turn = store.load(number).turns[-1]
    assert turn.answer == chromium.eval(ANSWER) and turn.finish_reason == "interrupted"
    assert chromium.eval(TROUBLE) == ""


@pytest.mark.slow
def test_a_chat_that_is_deleted_while_the_page_reconnects_is_said_to_be_gone(asked, served: Served) -> None:
    chromium, number = cut_off(asked)
    served.http.delete(f"/api/chats/{number}")
    chromium.eval("online = true")
    chromium.wait_for(f"{TROUBLE}.includes('deleted elsewhere') && {TITLE} === 'New chat'")
