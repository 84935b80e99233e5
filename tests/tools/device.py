"""Checks of pjlocal on a device: a graphics card, or Mesa's software Vulkan device, which computes on the CPU.

They take up to an hour on the software device, the package's own tests longer, so they are no part of the tests.

    $ python tests/tools/device.py                       # all checks on the software device
    $ python tests/tools/device.py memory ctrl-c         # some of them
    $ python tests/tools/device.py "tests/engine/test_architectures.py::test_a_long_answer_can_be_truncated_too"
    $ python tests/tools/device.py --python PYTHON       # on your card: a python with pjlocal[test] and its llama.cpp

The software device needs Debian's packages mesa-vulkan-drivers, libvulkan-dev, glslc and spirv-headers.  For it,
llama-cpp-python is built once, into ~/.cache/pjlocal-tests/vulkan.  If the Vulkan headers are older than 1.3.296, as in
Debian 12, name a folder with newer ones, as of Debian 13's libvulkan-dev:

    $ dpkg -x libvulkan-dev_1.4.309.0-1_amd64.deb newer
    $ VULKAN_HEADERS=$PWD/newer/usr/include python tests/tools/device.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
BUILT = Path.home() / ".cache" / "pjlocal-tests" / "vulkan"
VERSION = "0.3.36"
#: llama.cpp skips software devices unless they are named.  Mesa compiles kernels without optimizing them, which takes
#: longer than the tiny models' computation, and keeps them in a folder, which the package's tests would replace by an
#: empty one.
SOFTWARE = {
    "GGML_VK_VISIBLE_DEVICES": "0",
    "GALLIVM_PERF": "nopt",
    "GGML_VK_DISABLE_FUSION": "1",
    "MESA_SHADER_CACHE_DIR": str(BUILT.parent),
    "LD_PRELOAD": str(BUILT / "keep.so"),
}
#: A `free` for LD_PRELOAD that keeps blocks of the size of Mesa's buffer objects.  Mesa 22.3 uses such an object after
#: it is freed, and crashes in a process that uses llama.cpp alone: one context that decodes 21, 1, 8 and then 5 tokens
#: is enough, and with this `free` it ends well.
KEEP = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <string.h>

static void (*release)(void *);

void free(void *block)
{
    size_t n = block ? malloc_usable_size(block) : 0;
    if (200 <= n && n <= 600) {
        memset(block, 0xa5, n); /* its count of references never becomes 0 */
        return;
    }
    if (!release)
        release = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    release(block);
}
"""
MODEL = "PJLOCAL_DEVICE_MODEL"
PATIENCE_S = 1800

PJLOCAL = [sys.executable, "-m", "pjlocal"]

#: Tests of the package that run on the device as they are, because layers go there by default.
SUITES = {
    "tests:architectures": [
        "tests/engine/test_architectures.py"
    ],  # layouts, look-ahead, checkpoints, growth, interrupts
    "tests:layouts": ["tests/engine/test_layouts.py"],  # three views and more
    "tests:answers": ["tests/engine/test_engine.py"],  # several at once
    "tests:caches": ["tests/chat/test_cache.py"],  # saved and loaded
    "tests:adapters": ["tests/test_adapters.py"],
    "tests:schemas": ["tests/engine/test_constraint.py"],
}
PROMPTS = [
    "Why do cats purr?",
    "Tell me of the sea.",
    "Got any ideas for a birthday?",
    "Who invented the wheel?",
]


# The build for the software device.


def build() -> Path:
    """Build llama-cpp-python with Vulkan into an environment of its own, and return its python.

    It makes the environment, which also sees the packages of this one; downloads the source by pip; leaves parts out
    (`leave_out`); and installs it by pip with CMAKE_ARGS, which takes 40 minutes on two cores.  An environment that was
    built before is used again; delete the folder to build it anew.
    """
    python = BUILT / "env" / "bin" / "python"
    BUILT.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", BUILT / "keep.so", "-x", "c", "-"]
    subprocess.run(command, input=KEEP, text=True, check=True)
    if (BUILT / "done").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", BUILT / "env"], check=True)
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    Path(purelib.strip(), "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with tempfile.TemporaryDirectory() as folder:
        download = [python, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", folder]
        subprocess.run([*download, f"llama-cpp-python=={VERSION}"], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        source = Path(folder, f"llama_cpp_python-{VERSION}")
        leave_out(source)
        options = ["-DGGML_VULKAN=on", "-DLLAVA_BUILD=off"]
        if headers := os.environ.get("VULKAN_HEADERS"):
            options.append(f"-DVulkan_INCLUDE_DIR={headers}")
        subprocess.run(
            [python, "-m", "pip", "install", "--no-cache-dir", "--no-deps", source],
            env=os.environ | {"CMAKE_ARGS": " ".join(options)},
            check=True,
        )
    (BUILT / "done").touch()
    return python


def leave_out(source: Path) -> None:
    """Leave out of llama.cpp's build what the software device cannot use.

    The shaders for cooperative matrices: the device has none, and Debian 12's glslc cannot compile one of them
    (conv3d_mm.comp).  CMake asks glslc whether it knows the extension, by this file.  And the library of llama.cpp's
    own programs.
    """
    shaders = source / "vendor/llama.cpp/ggml/src/ggml-vulkan/vulkan-shaders/feature-tests"
    (shaders / "coopmat.comp").write_text(
        "#version 460\n#extension GL_KHR_cooperative_matrix_left_out : require\nvoid main() {}\n"
    )
    project = source / "CMakeLists.txt"
    project.write_text(project.read_text().replace("set(LLAMA_BUILD_COMMON ON ", "set(LLAMA_BUILD_COMMON OFF "))


# The checks, each in a process of its own.  They print their result, and fail by an exception.

CHECKS: dict[str, Callable[[], str]] = {}


def check(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    def add(function: Callable[[], str]) -> Callable[[], str]:
        CHECKS[name] = function
        return function

    return add


def judge(model: str | Path | None = None, **changes: Any) -> Any:
    from pjlocal import Engine, PersonaJudge

    of_engine = {name: changes.pop(name) for name in [*changes] if name in Engine.__dataclass_fields__}
    changes = {"mode": "judge"} | changes
    return PersonaJudge(model or os.environ[MODEL], ["vivid", "creative"], engine=Engine(**of_engine), **changes)


def texts(one: Any, prompts: Sequence[Any] = PROMPTS, **changes: Any) -> list[str]:
    return [one(prompt, **{"seed": n, "max_tokens": 12} | changes).text for n, prompt in enumerate(prompts)]


def equal(some: Sequence[str], others: Sequence[str]) -> str:
    assert all(some) and all(others), "an empty text"
    return f"{sum(a == b for a, b in zip(some, others, strict=True))} of {len(some)} texts equal"


def device() -> Any:
    from pjlocal.engine.devices import for_layers

    found = for_layers()
    assert found, "llama.cpp finds no device"
    return found[0]


def tiny(kind: str) -> Path:
    import tiny_models

    path = Path(tempfile.gettempdir(), f"pjlocal-device-{kind}.gguf")
    if not path.exists():
        getattr(tiny_models, f"write_{kind}")(path)
    return path


def likely(one: Any, **changes: Any) -> dict[tuple[str, int, str], float]:
    """The probabilities of the likeliest first tokens."""
    found = {}
    for prompt in PROMPTS:
        for each in one.next_tokens(one.plan_request(prompt, one.request.replace(**changes))):
            found |= {(prompt, each.id, view): p for view, p in each.p.items()}
    return found


def gap(some: dict[Any, float], others: dict[Any, float]) -> str:
    """The largest difference of a probability."""
    both = some.keys() & others.keys()
    assert len(both) > len(some) / 2, "other tokens are the likeliest"
    largest = max(abs(some[key] - others[key]) for key in both)
    assert largest < 0.03, f"a probability differs by {largest:.4f}"
    return f"probabilities within {largest:.4f}"


@check("doctor")
def doctor() -> str:
    """It names the device with its memory."""
    from pjlocal.doctor import checks

    found = {finding.what: finding for finding in checks._devices()}
    assert found["GPU"].text == f"llama.cpp uses {device().name}", found["GPU"]
    return str(found[device().name].text)


@check("layers")
def layers() -> str:
    """--gpu-layers half, all and auto against 0, the CPU."""
    with judge(n_gpu_layers="0") as on_cpu:
        expected, probable = texts(on_cpu), likely(on_cpu)
        n_layers = on_cpu.model.offload.n_layers
    found = []
    for chosen in (str(n_layers // 2), "all", "auto"):
        with judge(n_gpu_layers=chosen) as one:
            n = one.model.offload.n_gpu_layers
            assert n == (n_layers // 2 if chosen.isdigit() else n_layers), n
            found.append(f"{n} layers ({chosen}): {equal(expected, texts(one))}, {gap(probable, likely(one))}")
    return "; ".join(found)


@check("caches-on-cpu")
def caches_on_cpu() -> str:
    """All layers on the device and the KV caches on the CPU, as after the device's memory ran out."""
    with judge(n_gpu_layers="all") as one, judge(n_gpu_layers="all") as other:
        other.model.offload = replace(other.model.offload, caches_on_cpu=True)
        return f"{equal(texts(one), texts(other))}, {gap(likely(one), likely(other))}"


@check("views")
def views() -> str:
    """Both layouts, with two views and with four."""
    found = []
    for mode in ("judge", "both"):
        written = []
        for where in ("batched", "contexts"):
            with judge(layout=where, n_threads=4) as one:
                written.append(texts(one, mode=mode))
                assert set(one.layouts.values()) == {where}
        found.append(f"mode {mode}, batched and contexts: {equal(*written)}")
    return "; ".join(found)


@check("answers")
def answers() -> str:
    """Several answers at once against one after the other."""
    with judge() as one:
        alone = texts(one, seed=1)
        together = [""] * len(PROMPTS)
        for number, event in one.answers(PROMPTS, parallel=3, seed=1, max_tokens=12):
            together[number] += event.text
    return equal(alone, together)


@check("look-ahead")
def lookahead() -> str:
    prompts = [f"Repeat after me: {', '.join(4 * [prompt])}" for prompt in PROMPTS[:3]]
    with judge() as one:
        return equal(texts(one, prompts), texts(one, prompts, lookahead=4))


@check("schemas")
def schemas() -> str:
    schema = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    with judge() as one:
        written = texts(one, json_schema=schema, max_tokens=40)
    n_valid = 0
    for text in written:
        with contextlib.suppress(json.JSONDecodeError):
            n_valid += isinstance(json.loads(text)["n"], int)
        assert text.startswith("{"), text
    return f"{n_valid} of {len(written)} complete and valid"


@check("adapters")
def adapters() -> str:
    """A LoRA adapter on the tiny llama: of one view, in two contexts, and of both views, in one batch."""
    import tiny_models

    file = str(tiny_models.write_lora(Path(tempfile.gettempdir(), "pjlocal-device-lora.gguf")))
    found = []
    for where, option in (("contexts", "lora_a"), ("batched", "lora")):
        files = {option: (file,)}
        with judge(tiny("llama"), layout=where) as one, judge(tiny("llama"), layout=where, n_gpu_layers="0") as on_cpu:
            plain, adapted, again = texts(one), texts(one, **files), texts(one)
            assert plain == again and plain != adapted
            as_there = f"{equal(adapted, texts(on_cpu, **files))}, {gap(likely(on_cpu, **files), likely(one, **files))}"
            found.append(f"{option} in {where}, as on the CPU: {as_there}")
    return "; ".join(found)


#: Attention, sliding windows, a running state with and without attention layers, and one with snapshots.
KINDS = ("llama", "gemma3", "mamba", "jamba", "lfm2")


def chat(kind: str) -> str:
    """A chat that grows beyond its first contexts, and returns to an earlier turn, against reading it anew: state
    copies and checkpoints."""
    from pjlocal import Message

    with judge(tiny(kind)) as one, judge(tiny(kind)) as fresh:
        messages = [Message("user", "the cat sees the sun")]
        first = [*messages]
        messages.append(Message("assistant", one(first, seed=1, max_tokens=8, ignore_end=True).text))
        n_ctx = max(each.lane.n_ctx for each in one.decoder.lanes)
        messages.append(Message("user", "the dog runs " * 20))
        grown = gap(probable(fresh, messages), probable(one, messages))
        assert max(each.lane.n_ctx for each in one.decoder.lanes) > n_ctx
        fresh.decoder.lanes.close()
        back = gap(probable(fresh, first), probable(one, first))
    return f"{grown}, after going back {back}"


CHECKS |= {f"chats:{kind}": partial(chat, kind) for kind in KINDS}


def probable(one: Any, messages: Sequence[Any]) -> dict[Any, float]:
    return {
        (each.id, view): p
        for each in one.next_tokens(one.plan_request(messages, one.request))
        for view, p in each.p.items()
    }


@check("caches")
def caches() -> str:
    """Caches saved and loaded: nothing is read again, and the text is the same."""
    found = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder, judge(tiny(kind)) as one, judge(tiny(kind)) as other:
            prompt = "the cat sees the sun " * 6
            one(prompt, seed=1, max_tokens=4, ignore_end=True)
            files = [Path(folder, str(view)) for view in range(2)]
            assert one.decoder.lanes.save(files)
            other.decoder.lanes.load(files, 512, one.decoder.lanes.adapters(2))
            cached = [len(each.cached) for each in other.decoder.lanes]
            assert cached == [len(each.cached) for each in one.decoder.lanes] and all(cached)
            again = [each(prompt, seed=2, max_tokens=8, ignore_end=True).text for each in (one, other)]
            found.append(f"{kind}: {equal(again[:1], again[1:])}")
    return "; ".join(found)


@check("memory")
def memory() -> str:
    """The estimate against the memory that the device lost, with the full caches of two and of three views."""
    found = []
    for chosen in ("15", "all"):
        for n_views in (2, 3):
            estimate, used = filled(chosen, n_views)
            found.append(f"--gpu-layers {chosen}, {n_views} views: {used >> 20} MiB used, {estimate >> 20} estimated")
            assert used <= 1.1 * estimate + (64 << 20), found[-1]
    return "; ".join(found)


FILL = """
import sys
from pjlocal import Engine, PersonaJudge
from pjlocal.engine.lanes import needs
from pjlocal.gguf.offload import bytes_on_devices
layers, n_views = sys.argv[1], int(sys.argv[2])
with PersonaJudge("smollm2", engine=Engine(n_gpu_layers=layers, n_ctx=4096)) as judge:
    with judge.decoder.direct(needs(n_views, 4096)) as slot:
        if len(sys.argv) > 3:
            slot.start([[5 + view, *range(100, 164)] for view in range(n_views)])
            slot.logits(0)
        print(sum(bytes_on_devices(judge.model.header, judge.engine, judge.model.offload, n_views)), flush=True)
        sys.stdin.read()
"""


def filled(layers: str, n_views: int) -> tuple[int, int]:
    """The estimated bytes on the device, and those that it lost while a process held so many views: by the device's own
    report, or by the log of llama.cpp's Vulkan back end, for a device that reports no change."""
    before = device().free
    with tempfile.TemporaryFile() as log:
        decodes = ["decodes"] if "GALLIVM_PERF" not in os.environ else []  # a software device compiles for minutes
        command = [sys.executable, "-c", FILL, layers, str(n_views), *decodes]
        environment = os.environ | {"GGML_VK_MEMORY_LOGGER": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
            assert process.stdin and process.stdout
            estimate = int(process.stdout.readline())
            lost = before - device().free
            process.stdin.close()
        log.seek(0)
        return estimate, max(lost, *logged(log.read().decode()))


def logged(text: str) -> list[int]:
    """The bytes in use on the device by the log of llama.cpp's Vulkan back end, one after the other."""
    units = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    totals = re.findall(r"Total device: ([\d.]+) ?([KMG]i?B|B)", text)
    return [0, *(int(float(n) * units[unit[0]]) for n, unit in totals)]


@check("out-of-memory")
def out_of_memory() -> str:
    """A device whose memory is gone gets fewer layers, with a warning; a context that does not fit is an error that
    names the options."""
    found = []
    for name, code in (("weights", TOO_LARGE_WEIGHTS), ("caches", TOO_LARGE_CACHES)):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
        lines = done.stderr.strip().splitlines()
        assert done.returncode in (0, 1) and lines and "Traceback" not in done.stderr, (done.returncode, done.stderr)
        found.append(f"{name}: {done.stdout.strip()} {lines[0][:200]}")
    return "; ".join(found)


#: The rest of the device's memory is taken first.  A software device has that of the process, which gets a limit.
SCARCE = """
import ctypes, logging, resource, sys
from pjlocal import Engine, PersonaJudge
from pjlocal.errors import PjlocalError
from pjlocal.engine import devices, offload
from pjlocal.engine.machine import resident_bytes
logging.basicConfig(format="%(message)s", level=logging.WARNING)
MIB = 1 << 20
real = devices.for_layers()[0]
offload.for_layers = lambda: [real]  # what it reported before
def take(n_left):
    ggml = devices._functions()
    allocate = ggml.ggml_backend_buft_alloc_buffer
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    handle = next(h for h in map(ggml.ggml_backend_dev_get, range(ggml.ggml_backend_dev_count()))
                  if devices._text(ggml.ggml_backend_dev_name(h)) == real.name)
    memory = ggml.ggml_backend_dev_buffer_type(handle)
    while (free := devices.for_layers()[0].free) > n_left + 64 * MIB and allocate(memory, 64 * MIB):
        if devices.for_layers()[0].free == free:  # it reports no change
            pages = int(open("/proc/self/statm").read().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + n_left,) * 2)
            return
"""
TOO_LARGE_WEIGHTS = (
    SCARCE
    + """
take(200 * MIB)  # the mapped file counts
try:
    with PersonaJudge("smollm2", ["vivid"], engine=Engine(n_ctx=256, gpu_margin=0)) as judge:
        print(judge.model.offload.n_gpu_layers, "layers")
except PjlocalError as error:
    sys.exit(f"no model: {error}")
"""
)
TOO_LARGE_CACHES = (
    SCARCE
    + """
with PersonaJudge("smollm2", ["vivid"], engine=Engine(n_gpu_layers="all", n_ctx=8192)) as judge:
    take(100 * MIB)
    try:
        print(judge("the sun " * 3500, max_tokens=2).text)
    except PjlocalError as error:
        sys.exit(str(error))
"""
)


@check("ctrl-c")
def ctrl_c() -> str:
    """Ctrl-C while a long prompt is read, where llama.cpp's abort callback does not act."""
    found = []
    with judge(n_gpu_layers="all") as one:
        of_one = len(one.model.tokenize("the sun and the sea " * 10, special=False)) / 10
        text = "the sun and the sea " * int((one.context_limit - 200) / of_one)
        one(text[: len(text) // 4], max_tokens=1)  # kernels are compiled
        for wait_s in (0.1, 0.5, 2.0):
            pressed: list[float] = []

            def press(pressed: list[float] = pressed) -> None:
                one.interrupt.set()
                pressed.append(time.monotonic())

            timer = threading.Timer(wait_s, press)
            timer.start()
            result = one(f"{wait_s} {text}", max_tokens=1)
            ended = time.monotonic()
            timer.join()
            if result.finish_reason == "interrupted" and pressed[0] <= ended:
                found.append(f"{ended - pressed[0]:.2f} s")
            one.interrupt.clear()
        return " ".join(found) or "every prompt was read before"


@check("server")
def server() -> str:
    """A server that unloads its model frees the memory of the device."""
    from served import serving
    from waiting import when

    from pjlocal.gguf.locate import find_model

    environment = os.environ | {"GGML_VK_MEMORY_LOGGER": "1"}
    before = device().free
    with serving(find_model(os.environ[MODEL]), environment, "--unload-after", "1") as served:

        def used() -> int:
            return max(before - device().free, logged("".join(served.said))[-1])

        def ask() -> int:
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
            served.http.post("/v1/chat/completions", json=body, timeout=PATIENCE_S).raise_for_status()
            return used()

        loaded, idle = [ask()], []
        for _ in range(3):
            when(lambda: not served.metric("pjlocal_model_loaded"))
            time.sleep(1)
            idle.append(used())
            loaded.append(ask())
    each = ", ".join(f"{a >> 10} and {b >> 10}" for a, b in zip(loaded, idle, strict=False))
    assert max(idle) < min(loaded) / 2, each
    return f"KiB loaded and unloaded, three times: {each}"


def suite(files: Sequence[str]) -> tuple[bool, str]:
    """Run tests of the package on the device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=PATIENCE_S)
    lines = done.stdout.strip().splitlines()
    failed = [line.removeprefix("FAILED ") for line in lines if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, "\n".join([lines[-1] if lines else done.stderr[-300:], *failed])


def run_checks(names: Sequence[str]) -> None:
    """Run checks one after the other, and print a line of JSON for each."""
    for name in names:
        try:
            passed, text = (True, CHECKS[name]()) if name in CHECKS else suite(SUITES.get(name, [name]))
        except Exception:
            passed, text = False, traceback.format_exc()
        print(json.dumps({"name": name, "passed": passed, "text": text}), flush=True)


def results(python: str | Path, environment: dict[str, str], names: list[str]) -> Iterator[dict[str, Any]]:
    """The results of checks in one process, because a software device compiles its kernels anew in each.

    If the process dies, another runs the rest.
    """
    while names:
        command = [python, __file__, "--in-this-process", *names]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                if line.startswith('{"name"'):
                    yield json.loads(line)
                    del names[0]
        if names:
            yield {"name": names.pop(0), "passed": False, "text": f"the process ended with status {process.returncode}"}


def main() -> None:
    names = [*CHECKS, *SUITES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CHECK", help=f"some checks only: {', '.join(names)}, or tests")
    parser.add_argument("--python", help="a python whose llama.cpp uses your card, instead of the software device")
    parser.add_argument("--model", default="smollm2", help="the model of the checks that name no other (%(default)s)")
    parser.add_argument("--only-build", action="store_true", help="build for the software device, and end")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := {name for name in given.names if not name.startswith("tests/")} - {*names}:
        sys.exit(f"there is no check {', '.join(unknown)}")
    if given.in_this_process:
        run_checks(given.names)
        return
    python = given.python or build()
    if given.only_build:
        return
    environment = os.environ | ({} if given.python else SOFTWARE) | {MODEL: given.model}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))
    failed = 0
    for result in results(python, environment, given.names or names):
        state = "passed" if result["passed"] else "FAILED"
        print(f"{result['name']:14} | {state} | {result['text']}", flush=True)
        failed += not result["passed"]
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
