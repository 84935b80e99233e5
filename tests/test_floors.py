"""The packages of pjlocal import only from lower ones, and never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pjlocal

HOUSE = Path(pjlocal.__file__).parent

#: Each room, from the ground up, with the rooms whose modules it may import besides its own.
GROUND = {
    "errors",
    "visible",
    "textfile",
    "folders",
    "stream",
    "settings",
    "request",
    "unspaced",
    "attachments",
}  # of the hall: stand on nothing
#: ... and what an answer is made of, and the API.
ANSWERS = {"events", "answer", "best", "persona"}
MAY_KNOW: dict[str, set[str]] = {
    "decoding": set(),
    **dict.fromkeys(GROUND, GROUND),
    "html": {"__init__", *GROUND},
    "events": {"decoding", *GROUND},
    "gguf": GROUND,
    "engine": {"decoding", "gguf", *GROUND},
    "prompting": {"engine", *GROUND},
    "runtime_socket": {"__init__", "prompting", *GROUND},
    "client": {"__init__", "events", "runtime_socket", "engine", "prompting", *GROUND},
    "policy_maker": {"decoding", "engine", "prompting", *GROUND},
    "answer": {"events", "policy_maker", "decoding", "engine", "prompting", *GROUND},
    "best": {"answer", "events", "decoding", "engine", *GROUND},
    "persona": {"answer", "best", "events", "decoding", "engine", "prompting", "gguf", *GROUND},
}
API = {*MAY_KNOW, "__init__"}  # the hall, where the version stands
MAY_KNOW |= dict.fromkeys(("screen", "sessions", "config"), API)
MAY_KNOW["bench"] = API | {"screen"}
MAY_KNOW["doctor"] = API | {"sessions", "config"}
MAY_KNOW["server"] = API | {"sessions", "config"}
MAY_KNOW["evaluation"] = API | {"screen", "config"}
MAY_KNOW["chat"] = API | {"screen", "sessions", "config"}
MAY_KNOW["cli"] = {*MAY_KNOW, "__init__"}
MAY_KNOW["__main__"] = {"cli"}

#: Packages of others that a room must do without, and why.
WITHOUT = {
    "decoding": ({"llama_cpp", "rich", "typer", "prompt_toolkit"}, "the paper's rule is NumPy alone"),
    "engine": ({"rich", "typer", "prompt_toolkit"}, "the engine serves programs that have no terminal"),
    "prompting": ({"rich", "typer", "prompt_toolkit"}, "prompts do not depend on where answers are shown"),
    "gguf": ({"rich", "typer", "llama_cpp"}, "finding a file must not load what runs it"),
    "screen": ({"llama_cpp", "typer"}, "a screen shows token events, wherever they come from"),
    "server": ({"rich", "typer", "prompt_toolkit"}, "a server has no terminal"),
    "sessions": ({"llama_cpp", "rich", "typer"}, "lists of chats must come at once, and in a pipe"),
}


def modules() -> Iterator[str]:
    for path in sorted(HOUSE.rglob("*.py")):
        yield ".".join(path.relative_to(HOUSE).with_suffix("").parts)


@cache
def imports(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """The modules of the package, and the packages of others, that a module imports anywhere in its text."""
    path = HOUSE / (module.replace(".", "/") + ".py")
    package = module.split(".")[:-1]
    own: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            own |= {target(base, alias.name) for alias in node.names}
    return frozenset(own), frozenset(others)


def target(base: list[str], name: str) -> str:
    """The module that ``from base import name`` reads: the name itself where it is one."""
    for parts in ([*base, name], base):
        if (HOUSE.joinpath(*parts).with_suffix(".py")).is_file():
            return ".".join(parts)
    return ".".join([*base, "__init__"])


def room(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", [*modules()])
def test_imports_go_down_to_rooms_that_may_be_known(module: str) -> None:
    if module == "__init__":
        return  # the public names, wherever they live
    own, others = imports(module)
    for known in own:
        allowed = room(known) == room(module) or room(known) in MAY_KNOW[room(module)]
        assert allowed, (
            f"{module} imports {known}, and {room(module)} may know {sorted(MAY_KNOW[room(module)]) or 'nobody'}. "
            "What both need belongs into a lower room; what only this needs, here (see .github/CONTRIBUTING.md)"
        )
    without, why = WITHOUT.get(room(module), (set(), ""))
    assert not without & others, f"{module} imports {', '.join(without & others)}: {why}"


def test_decoding_stands_on_numpy_and_the_standard_library_alone() -> None:
    for module in modules():
        if room(module) == "decoding":
            assert imports(module)[1] <= {"numpy", *sys.stdlib_module_names}, f"{module}: the paper is NumPy alone"


def test_no_imports_go_in_a_circle() -> None:
    """Not even late ones, or for types alone: two modules that need each other are one, or lack a third below them."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle of imports: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done or module == "__init__":
            return
        for known in imports(module)[0]:
            visit(known, (*path, module))
        done.add(module)

    for module in modules():
        visit(module, ())


def test_every_room_says_what_it_knows_in_a_few_lines_and_exports_nothing() -> None:
    for path in HOUSE.rglob("__init__.py"):
        if path.parent != HOUSE:
            body = ast.parse(path.read_text()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{path} holds more than its docstring"
            assert len(path.read_text().splitlines()) <= 4, path


def test_files_of_tests_have_distinct_names() -> None:
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}


def test_a_screen_loads_no_llama_cpp() -> None:
    names = [f"pjlocal.{module}" for module in modules() if room(module) == "screen"]
    code = f"import sys, importlib\nfor m in {names}: importlib.import_module(m)\nprint('llama_cpp' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
