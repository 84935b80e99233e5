"""``pjlocal models pull``, with the real client of Hugging Face's against a hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models
from commandline import PJLOCAL, one_line
from hub import COMMIT, Hub
from huggingface_hub import constants
from waiting import PATIENCE_S, when

from pjlocal.engine.devices import Device
from pjlocal.engine.machine import Limit
from pjlocal.gguf.catalogue import CATALOGUE
from pjlocal.gguf.pull import Choice, RemoteFile, memory_warning

MODEL = "org/Tiny-GGUF"


@pytest.fixture
def hub(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    environment["HF_ENDPOINT"] = hub.url
    environment["HF_HUB_DOWNLOAD_TIMEOUT"] = str(PATIENCE_S)
    for name, value in (  # which the client reads from the environment when it is imported
        ("ENDPOINT", hub.url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", PATIENCE_S),
        ("HF_HUB_CACHE", str(tmp_path / "huggingface" / "hub")),
        ("HF_TOKEN_PATH", str(tmp_path / "huggingface" / "token")),
    ):
        monkeypatch.setattr(constants, name, value)
    yield hub
    hub.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "huggingface" / "hub" / "models--org--Tiny-GGUF"


def some_bytes(n: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(n)


def offered(hub: Hub, *names: str, n: int = 300_000) -> bytes:
    """Offer files of some bytes, and return the first one's."""
    files = {name: some_bytes(n, i) for i, name in enumerate(names or ["tiny-Q4_K_M.gguf"])}
    hub.files[MODEL] = files | {"README.md": b"# A model"}
    return next(iter(files.values()))


def partial(cache: Path, data: bytes) -> Path:
    """The file of a download under way; its folder is made."""
    path = cache / "blobs" / f"{hashlib.sha256(data).hexdigest()}.pjlocal.incomplete"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def pulled(result: subprocess.CompletedProcess[str]) -> Path:
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


@pytest.mark.slow
def test_a_pulled_model_answers_at_once_and_lies_where_others_find_it(
    process: Callable, hub: Hub, cache: Path, tmp_path: Path
) -> None:
    data = tiny_models.write_llama(tmp_path / "tiny.gguf").read_bytes()
    hub.files[MODEL] = {"tiny-Q8_0.gguf": b"GGUF", "tiny-Q4_K_M.gguf": data, "mmproj-tiny-f16.gguf": b"x"}
    result = process("models", "pull", MODEL)
    path = pulled(result)
    assert result.stderr.startswith(f"pjlocal: {MODEL}: Q4_K_M, ")
    assert "also available: Q8_0)" in result.stderr
    assert path == cache / "snapshots" / COMMIT / "tiny-Q4_K_M.gguf" and path.read_bytes() == data
    assert path.resolve() == cache / "blobs" / hashlib.sha256(data).hexdigest()
    assert (cache / "refs" / "main").read_text() == COMMIT
    assert not [file for file in cache.rglob("*") if "incomplete" in file.name or file.name.endswith(".lock")]
    for name in (MODEL, f"{MODEL}:q4_k_m", "tiny-q4"):
        answer = process("run", "-m", name, "-n", "1", "hello")
        assert answer.returncode == 0, answer.stderr
    before = len(hub.asked)
    assert pulled(process("models", "pull", MODEL)) == path
    assert not [path for method, path, _ in hub.asked[before:] if method == "GET" and "resolve" in path]


@pytest.mark.slow
def test_the_requested_quantization_is_downloaded_or_the_available_ones_listed(pjlocal: Callable, hub: Hub) -> None:
    offered(hub, "tiny-Q8_0.gguf", "tiny-q4_0.gguf", "odd.gguf", n=1000)
    assert pulled(pjlocal("models", "pull", f"{MODEL}:q8_0")).name == "tiny-Q8_0.gguf"
    odd = pjlocal("models", "pull", f"{MODEL}:odd")
    assert pulled(odd).name == "odd.gguf" and f"use it with: pjlocal run -m {MODEL}:odd," in odd.stderr
    assert "is not on this machine" not in pjlocal("models", "info", f"{MODEL}:odd").stderr
    assert pulled(pjlocal("models", "pull", MODEL)).name == "tiny-q4_0.gguf"
    wrong = pjlocal("models", "pull", f"{MODEL}:Q2_K")
    assert one_line(wrong.stderr).endswith("has no Q2_K: it has Q4_0, Q8_0, odd") and wrong.returncode == 2
    hub.files[MODEL] = {"config.json": b"{}"}
    none = pjlocal("models", "pull", MODEL)
    assert "contains no GGUF file" in one_line(none.stderr) and none.returncode == 1


def test_a_split_quantization_comes_whole(pjlocal: Callable, hub: Hub, tmp_path: Path) -> None:
    parts = tiny_models.write_split(tmp_path / "big-Q4_K_M.gguf")
    hub.files[MODEL] = {f"Q4_K_M/{part.name}": part.read_bytes() for part in parts}
    hub.files[MODEL] |= {"Q8_0/big-Q8_0-00001-of-00002.gguf": b"1", "Q8_0/big-Q8_0-00002-of-00002.gguf": b"2"}
    path = pulled(pjlocal("models", "pull", MODEL))
    assert path.name == parts[0].name
    assert [(path.parent / part.name).read_bytes() for part in parts] == [part.read_bytes() for part in parts]
    assert pjlocal("run", "-m", MODEL, "-n", "1", "hello").returncode == 0


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (["BF16/m-0000{}-of-00002.gguf", "Q2_K/m-0000{}-of-00002.gguf"], ["BF16", "Q2_K"]),
        (
            ["a-Q4_K-0000{}-of-00002.gguf", "b-Q4_K-0000{}-of-00002.gguf"],
            ["a-Q4_K-00001-of-00002", "b-Q4_K-00001-of-00002"],
        ),
    ],
)
def test_every_split_model_of_a_repository_can_be_chosen(
    pjlocal: Callable, hub: Hub, names: list[str], there: list[str]
) -> None:
    hub.files[MODEL] = {name.format(part): b"1" for name in names for part in (1, 2)}
    asked = pjlocal("models", "pull", MODEL)
    assert asked.returncode == 2 and one_line(asked.stderr).endswith(f": it has {', '.join(there)}")
    assert str(pulled(pjlocal("models", "pull", f"{MODEL}:{there[1]}"))).endswith(names[1].format(1))


def test_redirects_to_another_host_do_not_get_the_token(
    pjlocal: Callable, hub: Hub, environment: dict[str, str]
) -> None:
    data = offered(hub)
    hub.elsewhere = True
    environment["HF_TOKEN"] = "hf_secret"
    assert pulled(pjlocal("models", "pull", MODEL)).read_bytes() == data
    told = {path.startswith("/elsewhere"): "authorization" in headers for _, path, headers in hub.asked}
    assert told == {False: True, True: False}


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_taken_up_again(pjlocal: Callable, hub: Hub, ranges: bool) -> None:
    data = offered(hub, n=3_000_000)
    hub.breaks_after, hub.ranges = [2_500_000], ranges
    assert pulled(pjlocal("models", "pull", MODEL)).read_bytes() == data
    assert hub.ranges_asked() == [f"bytes={2 << 20}-"]


def test_an_interrupted_download_continues_in_the_next_run(pjlocal: Callable, hub: Hub, cache: Path) -> None:
    data = offered(hub)
    partial(cache, data).write_bytes(data[:123_456])
    assert pulled(pjlocal("models", "pull", MODEL)).read_bytes() == data
    assert hub.ranges_asked() == ["bytes=123456-"]


@pytest.mark.parametrize("kept", [b"x" * 1000, b"x" * 400_000], ids=["other bytes", "too many"])
def test_the_rest_of_another_download_does_no_harm(pjlocal: Callable, hub: Hub, cache: Path, kept: bytes) -> None:
    data = offered(hub)
    partial(cache, data).write_bytes(kept)
    first = pjlocal("models", "pull", MODEL)
    if len(kept) < len(data):
        assert "is damaged" in first.stderr and first.returncode == 1 and not partial(cache, data).exists()
        first = pjlocal("models", "pull", MODEL)
    assert pulled(first).read_bytes() == data


@pytest.mark.parametrize(
    ("served", "says"),
    [
        (some_bytes(300_000, 9), "is damaged (its checksum differs from the repository's): pull it again"),
        (some_bytes(200_000), "differs from that at org/Tiny-GGUF: pull it again"),
        (some_bytes(400_000), "differs from that at org/Tiny-GGUF: pull it again"),
    ],
    ids=["other bytes", "too few", "too many"],
)
def test_a_file_that_is_not_what_was_promised_is_not_kept(
    pjlocal: Callable, hub: Hub, cache: Path, served: bytes, says: str
) -> None:
    offered(hub)
    hub.lies["tiny-Q4_K_M.gguf"] = served
    result = pjlocal("models", "pull", MODEL)
    assert says in result.stderr.splitlines()[-1] and result.returncode == 1 and "Traceback" not in result.stderr
    assert not [file for file in cache.rglob("*") if file.is_file() and file.stat().st_size]


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (401, {}, "there is no repository org/Tiny-GGUF at .*: check the spelling, or set HF_TOKEN if it is private"),
        (
            401,
            {"X-Error-Code": "GatedRepo"},
            "requires that you accept its terms: do so on .*, then set HF_TOKEN to a token",
        ),
        (403, {"X-Error-Code": "GatedRepo"}, "requires that you accept its terms"),
        (403, {}, "Hugging Face forbids org/Tiny-GGUF to this account"),
        (404, {"X-Error-Code": "RepoNotFound"}, "there is no repository org/Tiny-GGUF"),
        (429, {"Retry-After": "77"}, "too many requests to Hugging Face: try again in 77 seconds"),
        (503, {}, "a problem .status 503.: try again later"),
    ],
)
def test_a_refusal_by_the_hub_is_explained_in_one_line(
    pjlocal: Callable, hub: Hub, status: int, headers: dict[str, str], says: str
) -> None:
    hub.refuse[MODEL] = (status, headers)
    result = pjlocal("models", "pull", MODEL)
    assert result.returncode == 1
    assert re.search(says, one_line(result.stderr)), result.stderr


def test_an_invalid_token_is_reported(pjlocal: Callable, hub: Hub, environment: dict[str, str]) -> None:
    hub.refuse[MODEL] = (401, {})
    environment["HF_TOKEN"] = "hf_old"
    assert "refuses your token" in one_line(pjlocal("models", "pull", MODEL).stderr)
    hub.refuse[MODEL] = (403, {"X-Error-Code": "GatedRepo"})
    assert "with the account of your token" in one_line(pjlocal("models", "pull", MODEL).stderr)


@pytest.mark.slow
def test_an_unreachable_hub_is_reported(process: Callable, environment: dict[str, str]) -> None:
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert "cannot reach http://127.0.0.1:9" in one_line(process("models", "pull", MODEL).stderr)
    environment["HF_HUB_OFFLINE"] = "1"
    assert "HF_HUB_OFFLINE forbids requests" in one_line(process("models", "pull", MODEL).stderr)


@pytest.mark.slow
def test_a_silent_hub_is_reported(process: Callable, hub: Hub, environment: dict[str, str]) -> None:
    environment["HF_HUB_ETAG_TIMEOUT"] = "1"
    hub.silent.set()
    result = process("models", "pull", MODEL)
    assert f"{hub.url} does not answer within 1 seconds" in one_line(result.stderr) and result.returncode == 1


def _described(**sibling: object) -> bytes:
    return json.dumps({"id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": "x-Q4_K_M.gguf", **sibling}]}).encode()


@pytest.mark.parametrize(
    "says",
    [
        *(b"<html>", b'{"id": "a', b'{"siblings": 5}', b'{"id": "a/b", "siblings": 5}', b"[[]]", b"null", b"\xff\xfe"),
        *(_described(rfilename=name) for name in ("../../evil-Q4_K_M.gguf", "/evil.gguf", "..\\evil.gguf", 5)),
        *(_described(size=size) for size in (-5, "5", 1e400)),
        _described(rfilename="\x1b[2J.gguf"),
        _described(lfs={"size": 5, "sha256": 5, "pointerSize": 5}),
    ],
)
def test_invalid_replies_are_blamed_on_the_hub(pjlocal: Callable, hub: Hub, tmp_path: Path, says: bytes) -> None:
    hub.says = says
    result = pjlocal("models", "pull", MODEL)
    assert f"the reply of {hub.url} for {MODEL} is not one of Hugging Face" in one_line(result.stderr), result.stderr
    assert result.returncode == 1 and not [*tmp_path.rglob("*.gguf")]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": None},
        {"X-Repo-Commit": "../../../../evil"},
        {"X-Linked-Etag": '"../../../../evil"'},
        {"X-Linked-Etag": None, "ETag": None},
    ],
)
def test_headers_of_a_file_that_are_not_the_hubs_are_refused(
    pjlocal: Callable, hub: Hub, tmp_path: Path, headers: dict[str, str | None]
) -> None:
    offered(hub)
    hub.headers = headers
    result = pjlocal("models", "pull", MODEL)
    assert "is not one of Hugging Face" in result.stderr.splitlines()[-1] and result.returncode == 1
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.suffix == ".gguf"]


def test_a_host_that_refuses_is_named(pjlocal: Callable, hub: Hub) -> None:
    hub.refuse[MODEL] = (404, {})
    told = one_line(pjlocal("models", "pull", MODEL).stderr)
    assert f"{hub.url} refuses {MODEL} (status 404): check the spelling, and HF_ENDPOINT" in told


def test_names_of_the_catalogue_are_pulled_too(pjlocal: Callable, hub: Hub) -> None:
    listed = pjlocal("models", "pull")
    assert listed.returncode == 2 and "llama-3.2-3b" in listed.stdout
    assert "bartowski/Llama-3.2-3B-Instruct-GGUF" in listed.stdout
    hub.files["bartowski/Llama-3.2-3B-Instruct-GGUF"] = {"Llama-3.2-3B-Instruct-Q4_K_M.gguf": b"GGUF"}
    assert "pjlocal models pull llama-3.2-3b downloads it" in one_line(pjlocal("run", "-m", "llama-3.2-3b", "x").stderr)
    assert pulled(pjlocal("models", "pull", "Llama-3.2-3B")).name == "Llama-3.2-3B-Instruct-Q4_K_M.gguf"
    wrong = pjlocal("models", "pull", "llama-3.2-4b")
    assert "did you mean" in one_line(wrong.stderr) and wrong.returncode == 2


def test_a_file_too_large_for_the_disk_is_refused_before_the_download(
    pjlocal: Callable, hub: Hub, tmp_path: Path
) -> None:
    real = offered(hub)
    big = 10**15

    class Huge(bytes):
        def __len__(self) -> int:
            return big

    hub.files[MODEL]["tiny-Q4_K_M.gguf"] = Huge(real)
    result = pjlocal("models", "pull", MODEL)
    assert (
        "not enough disk space: the download takes 1000000.0 GB and" in result.stderr.splitlines()[-1]
        and result.returncode == 1
    )
    assert not [path for method, path, _ in hub.asked if method == "GET" and "resolve" in path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_disk_that_is_full_during_the_download_is_reported_with_the_way_out(
    pjlocal: Callable, hub: Hub, cache: Path
) -> None:
    file = partial(cache, offered(hub))
    file.symlink_to("/dev/full")
    assert pjlocal("models", "pull", MODEL).stderr.splitlines()[-1] == (
        f"pjlocal: cannot write to {cache.parent}: No space left on device. Free space, and the same command continues "
        "from there; or set HF_HUB_CACHE to another folder"
    )
    file.unlink()
    pulled(pjlocal("models", "pull", MODEL))


def test_too_little_memory_is_reported_before_the_download() -> None:
    def of(size: int) -> Choice:
        return Choice(MODEL, COMMIT, "Q4_K_M", (RemoteFile("x.gguf", size, None),), ())

    assert memory_warning(of(10**6)) is None
    assert "the weights take 1000000.0 GB and this machine has" in (memory_warning(of(10**15)) or "")


@pytest.mark.slow
def test_ctrl_c_keeps_the_partial_file_and_the_next_run_continues(
    pjlocal: Callable, hub: Hub, cache: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    data = offered(hub, n=30_000_000)
    hub.breaks_after = [20_000_000, *[0] * 50]  # then nothing comes for a while
    process = subprocess.Popen([*PJLOCAL, "models", "pull", MODEL], env=environment, stderr=subprocess.PIPE, text=True)
    file = partial(cache, data)
    when(lambda: file.exists() and file.stat().st_size >= 15_000_000)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    hub.breaks_after = []
    assert pulled(pjlocal("models", "pull", MODEL)).read_bytes() == data
    assert int(hub.ranges_asked()[-1].removeprefix("bytes=").removesuffix("-")) >= 15_000_000


@pytest.mark.slow  # the client tries six times, a second apart
def test_a_broken_connection_is_reported_with_the_size_of_the_partial_file(pjlocal: Callable, hub: Hub) -> None:
    data = offered(hub, n=3_000_000)
    hub.breaks_after = [2_500_000, *[0] * 20]
    result = pjlocal("models", "pull", MODEL)
    assert result.stderr.splitlines()[-1] == (
        "pjlocal: the connection broke after 2 of 3 MB: the same command continues from there"
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    hub.breaks_after = []
    assert pulled(pjlocal("models", "pull", MODEL)).read_bytes() == data
    assert hub.ranges_asked()[-1] == f"bytes={2 << 20}-"


# Which one.


@pytest.mark.parametrize(
    ("free_gb", "recommended"),
    [(0.9, None), (1.3, "qwen2.5-0.5b"), (3, "qwen2.5-1.5b"), (8, "llama-3.2-3b"), (64, "qwen2.5-7b")],
)
def test_the_recommended_model_is_the_largest_that_fits_the_free_memory(
    pjlocal: Callable, hub: Hub, monkeypatch: pytest.MonkeyPatch, free_gb: float, recommended: str | None
) -> None:
    card = Device("CUDA0", "a card", "GPU", "CUDA", 24 << 30, 24 << 30)
    monkeypatch.setattr("pjlocal.engine.devices.for_layers", lambda: [card])
    monkeypatch.setattr("pjlocal.engine.machine.memory", lambda: Limit(int(free_gb * 1e9), in_container=True))
    done = pjlocal("models", "pull")
    message = one_line(done.stderr)
    if recommended:
        assert done.returncode == 2 and f"pjlocal models pull {recommended} (" in message
        assert f"{free_gb:.1f} GB of memory are free in this container" in message or free_gb < 1
    else:
        assert done.returncode == 1 and "too little for these models" in message
    assert "mistral-7b" in done.stdout, "the whole catalogue is printed"


def test_without_a_graphics_card_a_model_that_a_processor_reads_in_time_is_recommended(
    pjlocal: Callable, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pjlocal.engine.machine.memory", lambda: Limit(64 * 10**9))
    monkeypatch.setattr("pjlocal.engine.devices.for_layers", list)
    assert "pjlocal models pull llama-3.2-3b (" in one_line(pjlocal("models", "pull").stderr)


@pytest.mark.slow
def test_a_terminal_asks_before_it_downloads(on_terminal: Callable, hub: Hub, pjlocal: Callable) -> None:
    for entry in CATALOGUE.values():
        hub.files[entry.repo] = {f"{entry.name}-instruct-q4_k_m.gguf": b"GGUF"}
    refused = on_terminal(*PJLOCAL, "models", "pull", columns=200)
    refused.until("Download ")
    refused.type("n\r")
    assert refused.end() == 0 and " is recommended (" in refused.text and "use it with" not in refused.text
    accepted = on_terminal(*PJLOCAL, "models", "pull", columns=200)
    accepted.until("Download ")
    accepted.type("y\r")
    assert accepted.end() == 0 and "pjlocal: use it with: pjlocal run -m " in accepted.text
    assert "it is on this machine: pjlocal chat -m" in one_line(pjlocal("models", "pull").stderr)
