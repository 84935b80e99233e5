"""What the tests share: the real model, tiny random ones, and the command as a process."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models

from pjlocal import PersonaJudge
from pjlocal.gguf.locate import embedded_model

pytest.register_assert_rewrite(
    "browser", "commandline", "config_file", "on_the_page", "sending", "served", "terminal", "waiting"
)  # so that they say what they found

from browser import Chromium  # noqa: E402
from commandline import call, environment_in, start  # noqa: E402
from terminal import Terminal  # noqa: E402


@pytest.fixture(scope="session")
def smollm2() -> Path:
    path = embedded_model()
    assert path, "the tests need the extra 'test', which brings the embedded model"
    return path


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests leave the user's cache folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def vivid_and_creative(smollm2: Path) -> Iterator[PersonaJudge]:
    """In mode judge, the paper's rule."""
    with PersonaJudge(smollm2, prefer=["vivid", "creative"], mode="judge") as judge:
        yield judge


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny random models by architecture, each written once."""
    folder = tmp_path_factory.mktemp("models")

    def make(kind: str) -> Path:
        path = folder / f"{kind}.gguf"
        if not path.exists():
            getattr(tiny_models, f"write_{kind}")(path)
        return path

    return make


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not executable:
        pytest.skip("no Chromium is installed")
    browser = Chromium(executable, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which the user's own folders are empty."""
    return environment_in(tmp_path)


@pytest.fixture
def on_terminal(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Runs commands on terminals, which are closed in the end."""
    opened: list[Terminal] = []

    def run(*command: str, columns: int = 80, lines: int = 30, **env: str) -> Terminal:
        opened.append(Terminal(environment | env, tmp_path, command, columns, lines))
        return opened[-1]

    yield run
    for terminal in opened:
        terminal.close()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def pjlocal(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the command in this process; it reads and writes files as it would in one of its own."""
    return _runner(call, environment, tmp_path)


@pytest.fixture
def process(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the command as a process, where a test is about one: its limits, its imports, what others see of it."""
    return _runner(start, environment, tmp_path)


def _runner(how: Callable[..., tuple[int, bytes, bytes]], environment: dict[str, str], folder: Path) -> Run:
    def run(*args: str | Path, stdin: str | bytes = "", **options: object) -> subprocess.CompletedProcess[str]:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        status, written, complained = how([*map(str, args)], environment, folder, given, **options)
        return subprocess.CompletedProcess(args, status, written.decode(), complained.decode())

    return run
