"""A model's layers on two llama.cpp servers on loopback: the same text, and an end within seconds where one dies.

Of a quantization that llama.cpp lays out anew for this CPU (Q4_0, Q4_K), which a server does not, the text is another.

It wants a llama-cpp-python that knows RPC, which takes eight minutes to build on two cores, so it is no part of the
tests.  In an environment of its own:

    $ CMAKE_ARGS="-DGGML_RPC=on" pip install --no-cache-dir --no-binary llama-cpp-python ".[test]"
    $ python tests/tools/rpc_servers.py [MODEL]
"""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pjlocal.engine import devices
from pjlocal.engine.backend import init_backend

PROMPT = "Tell me a long story about a cat"
PREFER = ("-p", "vivid", "-p", "creative", "--seed", "1", "--threads", "1")
PATIENCE_S = 10


def serve(port: int) -> None:
    """Have the CPU compute for whoever connects to the port, on loopback alone."""
    init_backend()
    ggml = devices._functions()
    rpc = ggml.ggml_backend_reg_by_name(b"RPC")
    assert rpc, "this build knows no RPC: see above"
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, size, size, ctypes.POINTER(pointer))
    start = prototype(ggml.ggml_backend_reg_get_proc_address(rpc, b"ggml_backend_rpc_start_server"))
    start(f"127.0.0.1:{port}".encode(), None, 1, 1, (pointer * 1)(ggml.ggml_backend_dev_by_type(0)))


@contextmanager
def servers(n: int) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Servers by their addresses."""
    started = {}
    try:
        for _ in range(n):
            port = free_port()
            started[f"127.0.0.1:{port}"] = subprocess.Popen([sys.executable, __file__, "serve", str(port)])
        for address in started:
            wait_for(address)
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(address: str) -> None:
    host, port = address.split(":")
    for _ in range(100):
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"the server at {address} does not answer")


def command(model: list[str], *args: str) -> list[str]:
    return [sys.executable, "-m", "pjlocal", "run", *model, *PREFER, *args, PROMPT]


def report(model: list[str], *args: str) -> dict:
    done = subprocess.run(command(model, "-n", "48", "--json", *args), check=True, capture_output=True)
    return json.loads(done.stdout)


def ticks(process: subprocess.Popen[bytes]) -> int:
    """What it has computed, in ticks of the processor's time."""
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])


def main() -> None:
    model = ["-m", sys.argv[1]] if len(sys.argv) > 1 else []
    alone = report(model, "--gpu-layers", "0")
    with servers(2) as there:
        remote = [arg for address in there for arg in ("--rpc", address)]
        for layers in ("auto", "all", "10"):
            before = [ticks(process) for process in there.values()]
            shared = report(model, *remote, "--gpu-layers", layers)
            assert all(ticks(process) > was for process, was in zip(there.values(), before, strict=True))
            same = shared["text"] == alone["text"]
            print(f"--gpu-layers {layers}: {shared['offload']}; the text is {'' if same else 'not '}the same")
            assert shared["offload"]["layers_offloaded"] and len(shared["offload"]["devices"]) == 2
            assert same or model  # the embedded one has no weights that llama.cpp lays out anew here, and rounds there
        running = subprocess.Popen(
            command(model, "-n", "4000", "--ignore-end", *remote), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert running.stdout
        said = running.stdout.read(20)  # it is writing
        next(iter(there.values())).kill()
        killed = time.monotonic()
        rest, error = running.communicate(timeout=PATIENCE_S)
        print(f"a server died: status {running.returncode} after {time.monotonic() - killed:.1f} s: {error!r}")
        assert said + rest and running.returncode == 1 and b"llama.cpp has ended" in error


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        main()
