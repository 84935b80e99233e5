"""``--server URL``: a server on another machine writes the answers and keeps the chats."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from commandline import PJLOCAL, call, one_line
from served import BIG, Served, serving
from waiting import when

from pjlocal.client import Server
from pjlocal.engine.interrupt import Interrupt
from pjlocal.errors import UsageError
from pjlocal.sessions.session import Session
from pjlocal.sessions.store import Store

#: What writes as the server does.
HERE = ("--threads", "1", "--no-server")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of the other machine."""
    return tmp_path_factory.mktemp("there") / "chats.db"


@pytest.fixture(scope="module")
def served(model: Path, server_environment: dict[str, str], there: Path) -> Iterator[Served]:
    environment = server_environment | {"PJLOCAL_DATABASE": str(there), "PJLOCAL_CONFIG": "/dev/null"}
    with serving(model, environment, *BIG) as made:
        yield made


@pytest.fixture
def here(tmp_path: Path, server_environment: dict[str, str], served: Served) -> dict[str, str]:
    """The environment of this machine, on which no server runs."""
    return server_environment | {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PJLOCAL_DATABASE": str(tmp_path / "chats.db"),
        "PJLOCAL_CONFIG": str(tmp_path / "config.toml"),
        "PJLOCAL_API_KEY": served.token,
    }


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pjlocal(here: dict[str, str], tmp_path: Path) -> Run:
    def run(*command: str, said: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        status, written, complained = call([*command], here | environment, tmp_path, said.encode())
        return subprocess.CompletedProcess(command, status, written.decode(), complained.decode())

    return run


@pytest.fixture
def chat(pjlocal: Run, served: Served) -> Run:
    """A chat in a pipe, a line each."""

    def chat(*lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        options = ("--seed", "1", "-n", "8", *options)
        return pjlocal("chat", "--server", served.url, *options, said="".join(f"{line}\n" for line in lines))

    return chat


@pytest.fixture
def saved(there: Path) -> Callable[[], Session]:
    """The chat that was used last, as the other machine has it."""

    def saved() -> Session:
        with Store(there) as store:
            latest = store.latest()
            assert latest
            return store.load(latest)

    return saved


@pytest.mark.slow
def test_presets_and_the_url_come_from_this_machines_configuration(
    pjlocal: Run, served: Served, model: Path, tmp_path: Path
) -> None:
    presets = '[presets]\n"pir\u00e1te" = "Talk like a pirate."\n'
    (tmp_path / "config.toml").write_text(f'server = "{served.url}"\n{presets}')
    options = ("run", "hello", "-p", "pira\u0301te:1.5", "-p", "creative", "--seed", "3", "-n", "10")
    by_server = pjlocal(*options)
    assert served.metric("pjlocal_answers_now") == 0 and by_server.returncode == 0, by_server.stderr
    assert by_server.stdout == pjlocal(*options, "-m", str(model), *BIG, *HERE).stdout
    assert by_server.stdout == pjlocal(*options, PJLOCAL_SERVER=served.page(), PJLOCAL_API_KEY="").stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--server", "nowhere"), "--server must be a URL, as in http://localhost:8473"),
        (("--server", "http://localhost:1"), "cannot reach the server at http://localhost:1"),
        (("--server", "TLS"), "it answers without encryption, so give http:// instead of https://"),
        (("--server", "URL", "-m", "toy"), "has its own model: leave --model out"),
        (("--server", "URL", "-p", "@wish.md"), "does not read files"),
        (("--server", "URL", "--lora", "some.gguf"), "cannot use adapters"),
        (("--server", "URL", "-p", "vvid"), "did you mean vivid?"),
        (("--server", "URL", "--regex", "("), "the regular expression cannot be used"),
        (("--server", "URL", "--system", "word " * 20_000), "the prompt is"),
        (("--server", "URL/nowhere"), "unknown path"),
    ],
)
def test_errors_are_one_clear_line(pjlocal: Run, served: Served, options: tuple[str, ...], told: str) -> None:
    tls = served.url.replace("http:", "https:")
    made = pjlocal("run", "hello", *(option.replace("URL", served.url).replace("TLS", tls) for option in options))
    assert made.returncode in (1, 2) and made.stdout == ""
    assert told in one_line(made.stderr)


@contextmanager
def stranger(status: int, body: bytes) -> Iterator[str]:
    """The URL of another program's server, which answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>Not Found</html>"),
        (404, b'{"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}'),
        (405, b'{"detail": "Method Not Allowed"}'),
        (501, b"Unsupported method"),
        (302, b""),
        (200, b"<html>Welcome</html>"),
        (200, b'{"chats": [1], "name": "another"}'),
    ],
)
def test_every_command_reports_a_foreign_server_in_one_line(
    environment: dict[str, str], tmp_path: Path, status: int, body: bytes
) -> None:
    with stranger(status, body) as url:
        for command in (["run", "--server", url, "hello"], ["sessions", "--server", url, "list"]):
            ended, written, complained = call(command, environment, tmp_path)
            assert (ended, written) == (1, b"")
            assert f"the server at {url} is not a pjlocal server of this version" in one_line(complained.decode())


def test_a_model_missing_on_the_server_is_not_reported_as_missing_here(
    model: Path, server_environment: dict[str, str], pjlocal: Run, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.gguf"
    path.write_bytes(model.read_bytes())
    with serving(path, server_environment, "--unload-after", "0.05") as served:
        when(lambda: served.metric("pjlocal_model_loaded") == 0)
        path.unlink()
        made = pjlocal("run", "hello", "--server", served.page())
        assert made.returncode == 1 and one_line(made.stderr).startswith(f"pjlocal: the server at {served.url}: ")


@pytest.mark.parametrize("key", ["abc\ndef", "abc\u00e9def", "abc\u4e2ddef", " abcdef"])
def test_a_key_that_no_header_can_contain_is_refused_without_printing_it(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("PJLOCAL_API_KEY", key)
    for url, name in (("", "PJLOCAL_API_KEY"), (f"/?token={quote(key)}", "the token in --server")):
        with pytest.raises(UsageError, match=f"^{name} must be printable ASCII") as refused:
            Server(f"http://localhost:1{url}", Interrupt())
        assert "def" not in str(refused.value)


def test_the_path_of_a_url_may_have_any_letters() -> None:
    facts = dict.fromkeys(("name", "lasting_name", "context_limit", "description", "recommended", "placed"), 1)
    with stranger(200, json.dumps(facts).encode()) as url:
        for path in ("\u00fc", "caf\udce9", "%C3%BC/v1", "a b"):
            assert Server(f"{url}/{path}", Interrupt()).model() == facts


def test_a_url_whose_host_name_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="--server must be a URL"):
        Server(f"http://{'a' * 64}:1", Interrupt())


@pytest.mark.slow
def test_a_key_is_asked_for(pjlocal: Run, served: Served) -> None:
    """A server without a key prints that /v1 needs none; these commands need its token all the same."""
    for key, problem in (("", "needs its token or its key"), ("wrong", "refuses this key")):
        made = pjlocal("run", "hello", "--server", served.url, PJLOCAL_API_KEY=key)
        message = one_line(made.stderr)
        assert made.returncode == 2 and problem in message and ": give the URL with the ?token= that it pr" in message
    assert "page with your chats, also the URL for --server" in served.greeting


@pytest.mark.slow
def test_a_chat_is_saved_and_continued_on_the_server(
    chat: Run, saved: Callable[[], Session], here: dict[str, str]
) -> None:
    made = chat("One.", "Two.", options=("-p", "vivid"))
    assert made.returncode == 0
    session = saved()
    assert [turn.question for turn in session.turns] == ["One.", "Two."] and session.title == "One."
    assert [turn.finish_reason for turn in session.turns] == ["length", "length"]
    assert made.stdout.split() == [word for turn in session.turns for word in _shown(turn.answer).split()]
    again = chat("/prefer", "Three.", options=("--continue",))
    assert again.returncode == 0 and "a: vivid" in again.stderr
    assert [turn.question for turn in saved().turns] == ["One.", "Two.", "Three."]
    assert not Path(here["PJLOCAL_DATABASE"]).exists()


def _shown(text: str) -> str:
    from pjlocal.visible import visible

    return visible(text)


@pytest.mark.slow
def test_a_named_chat_keeps_its_name_on_the_server(chat: Run, saved: Callable[[], Session]) -> None:
    for question in ("hello", "again"):
        assert chat(question, options=("--session", "my trip")).returncode == 0
    assert saved().title == "my trip" and [turn.question for turn in saved().turns] == ["hello", "again"]


@pytest.mark.slow
def test_commands_change_the_chat_on_the_server(chat: Run, saved: Callable[[], Session], tmp_path: Path) -> None:
    exported = tmp_path / "chat.json"
    made = chat(
        "/title Named before", "One.", "Two.", "/regen", "Three.", "/undo", "/compare", "/set temperature 0.5",
        f"/export {exported}", "/sessions", "/title Named after",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "Named before" in made.stdout and "taken back: Three." in made.stderr
    session = saved()
    assert session.title == "Named after" and session.settings["sampling"]["temperature"] == 0.5
    assert [turn.question for turn in session.turns] == ["One.", "Two."]
    assert [turn.settings["seed"] for turn in session.turns] == [1, 2]
    turns = json.loads(exported.read_text())["turns"]
    assert [turn["answer"] for turn in turns] == [turn.answer for turn in session.turns]
    assert [turn["settings"] for turn in turns] == [turn.settings | {"model": "llama"} for turn in session.turns]


@pytest.mark.slow
def test_drafts_forks_and_chosen_tokens_are_saved_on_the_server(
    chat: Run, saved: Callable[[], Session], there: Path
) -> None:
    lines = ("One.", "/regen", "/compare", "/drafts", "/drafts 1", "/take judge", "/why 1", '/why 1 " so"', "/why 0 So")
    made = chat(*lines, options=("-p", "vivid", "-p", "concise"))
    assert made.returncode == 0, made.stderr
    assert "draft 1 is in force" in made.stderr and "draft 3 is in force" in made.stderr
    first = saved()
    (turn,) = first.turns
    assert [draft is turn for draft in turn.drafts] == [*[False] * (len(turn.drafts) - 1), True]
    modes = [draft.settings["mode"] for draft in turn.drafts]
    assert modes[:2] == ["both"] * 2 and {"judge", "plain", "rewrite"} <= {*modes} and modes[-2:] == ["both"] * 2
    judged, third, text = turn.drafts[modes.index("judge")], *turn.drafts[-2:]
    assert third.events[0].id == judged.events[0].id and third.events[1].kind == "given"
    assert text.answer.lstrip().startswith("So") and text.events[0].kind == "given"
    made = chat("/fork", "Two.", "/continue 3", "/undo", options=("--continue",))
    assert made.returncode == 0, made.stderr
    forked = saved()
    assert forked.id != first.id and forked.title == "One. (fork)"
    assert [one.answer for one in forked.turns] == [turn.answer] and len(forked.turns[0].drafts) == len(turn.drafts)
    with Store(there) as store:
        assert store.load(first.id).turns == first.turns


@pytest.mark.slow
def test_a_refusal_by_the_server_changes_nothing_and_the_chat_continues(
    chat: Run, saved: Callable[[], Session], tmp_path: Path
) -> None:
    (tmp_path / "wish.md").write_text("Be brief.")
    made = chat("One.", "word " * 40_000, "/set regex (", "/model other", "/prefer a @wish.md", "Two.")
    assert "the prompt is" in made.stderr and "the regular expression" in made.stderr and "one model" in made.stderr
    assert "does not read files" in made.stderr
    assert [turn.question for turn in saved().turns] == ["One.", "Two."]


def test_a_chat_that_is_not_saved_is_saved_nowhere(chat: Run, there: Path) -> None:
    with Store(there) as store:
        before = store.summaries()
        assert chat("One.", "Two.", options=("--no-save",)).returncode == 0
        assert store.summaries() == before


@pytest.mark.slow
def test_a_chat_changed_elsewhere_is_not_continued_unseen(
    chat: Run, saved: Callable[[], Session], here: dict[str, str], served: Served
) -> None:
    chat("One.")
    command = [*PJLOCAL, "chat", "--server", served.url, "--continue", "-n", "8"]
    with subprocess.Popen(command, env=here, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as behind:
        assert behind.stdin
        behind.stdin.write("/title Open\n")
        behind.stdin.flush()
        when(lambda: saved().title == "Open")
        chat("Two.", options=("--continue",))
        _, stderr = behind.communicate("Three.\n", timeout=60)
    number = saved().id
    assert f"the chat has new turns from elsewhere: /load {number} shows it" in stderr
    assert [turn.question for turn in saved().turns] == ["One.", "Two."]


@pytest.mark.slow
def test_sessions_are_those_of_the_server(chat: Run, pjlocal: Run, served: Served, there: Path, tmp_path: Path) -> None:
    chat("What of the unheard-of word?")

    def sessions(*command: str) -> str:
        made = pjlocal("sessions", "--server", served.url, *command)
        assert made.returncode == 0, made.stderr
        return made.stdout

    number = str(json.loads(sessions("list", "--json"))[0]["id"])
    environment = {"PJLOCAL_DATABASE": str(there)}
    for command in (("list",), ("show", number), ("export", number, "--format", "json"), ("search", "unheard")):
        assert sessions(*command) == pjlocal("sessions", "--no-server", *command, **environment).stdout
    sessions("rename", number, "Another title")
    assert "Another title" in sessions("list")
    sessions("export", "another", str(tmp_path / "chat.html"))
    assert (tmp_path / "chat.html").read_text().startswith("<!doctype html>")
    sessions("export", "another", str(tmp_path / "chat.json"))
    sessions("rm", "another", "--yes")
    assert "Another title" not in sessions("list")
    sessions("import", str(tmp_path / "chat.json"))
    sessions("export", "another", str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text() == (tmp_path / "chat.json").read_text()
    assert sessions("path") == f"{served.url}\n"


@pytest.mark.slow
def test_a_chat_reports_the_end_of_its_server_in_one_line(
    model: Path, server_environment: dict[str, str], here: dict[str, str]
) -> None:
    with serving(model, server_environment | {"PJLOCAL_CONFIG": "/dev/null"}, *BIG) as dying:
        command = [*PJLOCAL, "chat", "--server", dying.page(), "--ignore-end", "-n", "30000"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=here, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as chatting:
            assert chatting.stdin and chatting.stdout
            chatting.stdin.write("Hello.\n")
            chatting.stdin.flush()
            assert chatting.stdout.read(20)
            dying.process.kill()
            dying.wait()
            _, stderr = chatting.communicate("Are you there?\n", timeout=60)
    assert chatting.returncode == 1
    assert (
        "stopped responding during the answer: /regen asks again" in stderr and "cannot reach the server at" in stderr
    )


@pytest.mark.slow
def test_an_evaluations_answers_are_written_by_the_server(
    pjlocal: Run, served: Served, model: Path, tmp_path: Path
) -> None:
    options = ("eval", "run", "quick", "--limit", "2", "--max-tokens", "6", "--no-reward", "--parallel", "4")
    made = pjlocal(*options, "--server", served.url, "--out", str(tmp_path / "there"))
    assert made.returncode == 0, made.stderr
    again = pjlocal(*options, "--server", served.url, "--out", str(tmp_path / "there"))
    assert again.returncode == 0 and again.stdout == made.stdout
    n_answers = len(_answers(tmp_path / "there"))
    for more in ((), ("--scorer", str(model))):
        scored = pjlocal(*options, "--server", served.url, "--out", str(tmp_path / "there"), "--ctx", "512", *more)
        assert scored.returncode == 0 and ("--ctx has no effect" in scored.stderr) == (not more), scored.stderr
        assert len(_answers(tmp_path / "there")) == n_answers, "nothing is written again"
    assert pjlocal(*options, "-m", str(model), *BIG, *HERE[:2], "--out", str(tmp_path / "here")).returncode == 0
    texts = [
        {(answer["system"], answer["objectives"], answer["prompt_id"]): answer["text"] for answer in _answers(folder)}
        for folder in (tmp_path / "there", tmp_path / "here")
    ]
    assert texts[0].keys() == texts[1].keys()
    assert sum(texts[0][key] == texts[1][key] for key in texts[0]) >= len(texts[0]) - 1  # rounded otherwise


def _answers(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
