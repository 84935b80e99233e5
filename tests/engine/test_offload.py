"""The device parameters for llama.cpp.  Devices and their failures are simulated."""

from __future__ import annotations

import ctypes
import logging
import socket
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest

from pjlocal import Engine, PersonaJudge
from pjlocal.__main__ import main
from pjlocal.engine import backend, devices, model, offload
from pjlocal.engine.interrupt import Interrupt
from pjlocal.engine.machine import Limit
from pjlocal.engine.model import Model
from pjlocal.engine.offload import choose_offload, placement, with_devices
from pjlocal.engine.threads import ThreadCount
from pjlocal.errors import ModelError, UsageError
from pjlocal.gguf.header import read_header
from pjlocal.gguf.offload import Offload

GIB = 1 << 30
CARD = devices.Device("CUDA0", "a card", "GPU", "CUDA", 8 * GIB, 8 * GIB)
OTHER = replace(CARD, name="CUDA1")
SERVER = replace(CARD, name="RPC0", backend="RPC")
CHIP = replace(CARD, name="Vulkan0", kind="integrated GPU", backend="Vulkan")
CPU = replace(CARD, name="CPU", kind="CPU", backend="CPU")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch):
    """Simulate these devices."""

    def be(*found: devices.Device) -> None:
        monkeypatch.setattr(devices, "devices", lambda: list(found))

    return be


def test_devices_come_in_llama_cpps_order(there) -> None:
    there(CPU, CARD, SERVER, CHIP)
    assert [device.name for device in devices.for_layers()] == ["RPC0", "CUDA0"]
    there(CPU, CHIP, SERVER)
    assert [device.name for device in devices.for_layers()] == ["RPC0", "Vulkan0"]
    there(CPU)
    assert devices.for_layers() == []


def test_the_choice_names_the_devices_with_layers(there, tiny) -> None:
    header = read_header(tiny("llama"))
    there(CPU, CARD, OTHER)
    assert choose_offload(header, Engine(), 2).devices == ("CUDA0", "CUDA1")
    assert choose_offload(header, Engine(n_gpu_layers=2), 2) == Offload(3, 2, devices=("CUDA0", "CUDA1"))
    assert choose_offload(header, Engine(n_gpu_layers="0"), 2) == Offload(3)
    assert choose_offload(header, Engine(split_mode="none", main_gpu=1), 2).devices == ("CUDA1",)
    with pytest.raises(UsageError, match=r"--main-gpu 2: the devices are 0 \(CUDA0\), 1 \(CUDA1\)"):
        choose_offload(header, Engine(split_mode="none", main_gpu=2), 2)
    with pytest.raises(UsageError, match=r"--tensor-split 1,0,1: the devices are 0 \(CUDA0\), 1 \(CUDA1\)"):
        choose_offload(header, Engine(tensor_split="1,0,1"), 2)
    there(CPU, replace(CARD, free=0, total=0))
    assert choose_offload(header, Engine(), 2).n_gpu_layers == 3, "one that tells nothing gets all, as llama.cpp has it"


def test_gpu_layers_without_a_device_give_a_warning(there, tiny, caplog) -> None:
    there(CPU)
    header = read_header(tiny("llama"))
    with caplog.at_level(logging.WARNING):
        assert choose_offload(header, Engine(), 2) == Offload()
        assert choose_offload(header, Engine(n_gpu_layers="0"), 2) == Offload()
        assert not caplog.records
        choose_offload(header, Engine(n_gpu_layers="all"), 2)
    assert "no device for --gpu-layers was found" in caplog.text


def test_device_parameters_are_set_for_llama_cpp_and_reset_after_loading() -> None:
    params = model.lib.llama_model_default_params()
    with with_devices(params, Engine(main_gpu=1), Offload(33, 20, experts=(31,), shares=(12.0, 8.0))):
        assert params.n_gpu_layers == 20 and params.main_gpu == 1 and params.split_mode == 1
        assert params.tensor_split[:3] == [12.0, 8.0, 0.0]
        assert params.tensor_buft_overrides and not params.devices
    assert not params.tensor_split and not params.tensor_buft_overrides
    with with_devices(params, Engine(), Offload(33)):
        assert params.devices and not ctypes.c_void_p.from_address(params.devices).value, "an empty list: none"
    assert not params.devices


def test_a_model_is_loaded_with_experts_that_stay_with_the_cpu(tiny, monkeypatch) -> None:
    """llama.cpp takes the pattern and the memory that it names; here all of it is the CPU's."""
    monkeypatch.setattr(model, "choose_offload", lambda *_: Offload(3, 3, experts=(0, 1)))
    loaded = Model(tiny("llama"), Engine(), Interrupt())
    assert loaded.n_vocab > 0
    loaded.close()


def test_too_little_device_memory_means_fewer_layers_and_a_warning(there, tiny, monkeypatch, caplog) -> None:
    real = model.lib.llama_model_load_from_file
    tried = []

    def load(path, params):
        tried.append(params.n_gpu_layers)
        if params.n_gpu_layers > 1:
            backend._errors.recent.append("ggml_cuda: allocating 9.00 MiB: cudaMalloc failed: out of memory")
            return None
        return real(path, params)

    monkeypatch.setattr(model.lib, "llama_model_load_from_file", load)
    there(CPU, CARD)
    with caplog.at_level(logging.WARNING):
        loaded = Model(tiny("llama"), Engine(), Interrupt())
    assert tried == [3, 2, 1] and loaded.offload.n_gpu_layers == 1
    assert "3 layers do not fit" in caplog.text and "trying 1" in caplog.text
    loaded.close()
    with pytest.raises(
        ModelError, match=r"out of memory\. Is there enough memory on the devices\? Give fewer --gpu-layers"
    ):
        Model(tiny("llama"), Engine(n_gpu_layers="all"), Interrupt())


def test_a_file_that_cannot_be_mapped_is_no_lack_of_the_devices_memory(there, tiny, monkeypatch) -> None:
    """It was loaded 24 times, each time with fewer layers."""
    tried = []

    def load(path, params):
        tried.append(params.n_gpu_layers)
        backend._errors.recent.append("llama_model_load: error loading model: mmap failed: Cannot allocate memory")

    monkeypatch.setattr(model.lib, "llama_model_load_from_file", load)
    there(CPU, CARD)
    with pytest.raises(ModelError, match=r"mmap failed.*Is there enough memory\? Use a smaller model"):
        Model(tiny("llama"), Engine(), Interrupt())
    assert tried == [3]


def test_without_a_card_the_advice_does_not_mention_layers(tiny, monkeypatch) -> None:
    def fail(*args):
        backend._errors.recent.append("ggml_aligned_malloc: insufficient memory (attempted to allocate 11.25 MB)")

    with PersonaJudge(tiny("llama")) as judge:
        monkeypatch.setattr(model.lib, "llama_init_from_model", fail)
        with pytest.raises(ModelError, match="insufficient memory") as said:
            judge("hello")
    assert "n_ctx" in str(said.value) and "gpu" not in str(said.value)
    monkeypatch.setattr(model.lib, "llama_model_load_from_file", fail)
    with pytest.raises(ModelError, match="Is there enough memory") as said:
        Model(tiny("llama"), Engine(), Interrupt())
    assert "--gpu-layers" not in str(said.value)


def test_the_device_is_described_with_its_name_and_the_memory_that_is_free_now(there) -> None:
    card = replace(CARD, description="NVIDIA GeForce RTX 3090", free=5 * GIB)
    there(CPU, card, replace(OTHER, total=0))
    assert placement(Offload(31, 18, devices=("CUDA0",))) == (
        "18 of 31 layers and their KV caches on NVIDIA GeForce RTX 3090 (CUDA0, 5.4 GB free)"
    )
    assert placement(Offload(31, 31, devices=("CUDA0", "CUDA1"))).endswith(" and a card (CUDA1)")
    assert placement(Offload(31)) == "all layers on the CPU"


def test_models_info_names_the_device_and_the_memory_that_the_layers_take_there(
    there, tiny, monkeypatch, capsys
) -> None:
    path = tiny("llama")
    there(CPU, CARD)
    monkeypatch.setattr(sys, "argv", ["pjlocal", "models", "info", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().out
    assert not ended.value.code
    line = next(line for line in shown.splitlines() if line.startswith("device"))
    assert "3 of 3 layers and their KV caches on a card (CUDA0, 8.6 GB free): about " in line
    assert line.endswith("MB there for 4 views")


@pytest.mark.parametrize(("layers", "n", "layout"), [("0", 0, "contexts"), ("1", 1, "batched"), ("auto", 3, "batched")])
def test_with_a_layer_on_a_card_the_auto_layout_is_batched(there, tiny, layers, n, layout) -> None:
    there(CPU, CARD)
    engine = Engine(n_gpu_layers=layers, n_threads=2)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], mode="judge", engine=engine) as judge:
        result = judge("Hello", max_tokens=4)
        assert result.layout == layout
    assert result.as_dict()["offload"] == {
        "layers": 3,
        "layers_offloaded": n,
        "devices": ["CUDA0"] if n else [],
        "layers_with_experts_on_cpu": 0,
        "shrunk_n_ctx": None,
        "caches_on_cpu": False,
    }


@pytest.mark.parametrize(("layers", "adapts"), [("0", True), ("1", False), ("auto", False)])
def test_the_number_of_threads_adapts_only_without_layers_on_a_card(there, tiny, monkeypatch, layers, adapts) -> None:
    measured = []
    monkeypatch.setattr(ThreadCount, "learn", lambda self, *given: measured.append(given))
    there(CPU, CARD)
    engine = Engine(n_gpu_layers=layers, n_threads=2, layout="batched")
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
        judge("Hello", max_tokens=4, ignore_end=True)
    assert bool(measured) == adapts


def test_a_reduced_context_is_the_limit_and_gives_a_warning(tiny, monkeypatch, caplog) -> None:
    monkeypatch.setattr(model, "choose_offload", lambda *_: Offload(3, 3, n_ctx=128, devices=("CUDA0",)))
    with PersonaJudge(tiny("llama")) as judge:
        assert judge.context_limit == 128
        assert judge.placed == "3 of 3 layers and their KV caches on CUDA0, context 128 tokens so that they fit"
    with PersonaJudge(tiny("llama"), engine=Engine(n_ctx=64)) as judge:
        assert judge.context_limit == 64


def test_weights_are_locked_in_memory_if_the_system_allows_it(tiny, monkeypatch, caplog) -> None:
    import resource

    loaded = Model(tiny("llama"), Engine(mlock=True), Interrupt())
    loaded.close()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4096, 4096))
    with caplog.at_level(logging.WARNING):
        offload.warn_of_lock(tiny("llama"))
    assert "ulimit -l" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_gpu_layers": "some"}, "n_gpu_layers must be auto, all or a number of layers"),
        ({"n_gpu_layers": "-2"}, "n_gpu_layers must be auto"),
        ({"tensor_split": "1,x"}, "tensor_split must be up to 16 shares"),
        ({"tensor_split": "0,0"}, "tensor_split must be"),
        ({"rpc": ("box",)}, "rpc must be HOST:PORT"),
        ({"rpc": ("box:99999",)}, "rpc must be HOST:PORT"),
    ],
)
def test_impossible_devices_are_refused(wrong: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Engine(**wrong)


def test_minus_one_and_all_are_all() -> None:
    assert Engine(n_gpu_layers=-1).gpu_layers == Engine(n_gpu_layers="all").gpu_layers == -1
    assert Engine().gpu_layers is None and Engine(n_gpu_layers=7).gpu_layers == 7


# Several machines.


@pytest.mark.skipif("RPC" in devices.backends(), reason="this build has it")
def test_a_build_without_rpc_says_how_to_get_it(tiny, pjlocal) -> None:
    result = pjlocal("run", "-m", tiny("llama"), "--rpc", "127.0.0.1:50052", "Hello")
    assert (result.returncode, result.stdout) == (1, "") and result.stderr.count("\n") == 1
    assert 'CMAKE_ARGS="-DGGML_RPC=on" pip install' in result.stderr


def test_an_rpc_server_that_does_not_answer_gives_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(
        ModelError, match=rf"--rpc {address}: cannot reach the server: .*Start rpc-server on that machine first"
    ):
        devices._reach(address)


def test_a_lost_rpc_server_ends_the_process_with_a_message() -> None:
    """As its RPC back end does; here its function for that is called by itself."""
    code = (
        "from pjlocal.engine import devices as d\n"
        "ggml = d._functions()\n"
        "ggml.ggml_set_abort_callback(d._exit_with_message)\n"
        "print('so far', flush=True)\n"
        "ggml.ggml_abort(b'rpc.cpp', 7, b'Remote RPC server crashed')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "so far\n")
    assert result.stderr.startswith(
        "\npjlocal: llama.cpp has ended: rpc.cpp:7: Remote RPC server crashed (has an --rpc"
    )
    assert result.stderr.count("\n") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a library there has no neighbours")
def test_devices_come_from_the_ggml_that_llama_cpp_uses() -> None:
    """Wheels hold libggml under several names, and who loads another one than libllama has a list of devices apart."""

    def address(function: object) -> int | None:
        return ctypes.cast(function, ctypes.c_void_p).value

    used = ctypes.CDLL(model.lib._lib._name)
    for name in ("ggml_backend_register", "ggml_backend_dev_count"):
        assert address(getattr(devices._functions(), name)) == address(getattr(used, name))


def test_llama_cpps_log_is_shown_on_request(tiny, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pjlocal"):
        Model(tiny("llama"), Engine(), Interrupt()).close()
        assert "llama_context" not in caplog.text and "load_tensors" not in caplog.text
        with PersonaJudge(tiny("llama"), engine=Engine(verbose=True)) as judge:
            judge("Hello", max_tokens=1)
    backend.init_backend(verbose=False)
    assert "load_tensors" in caplog.text and "KV buffer size" in caplog.text


@pytest.mark.parametrize(
    ("layers", "free", "says"),
    [
        ("0", GIB, r"not enough memory: the KV cache of 4 x \d+ tokens"),
        ("1", GIB, r"not enough memory: the KV cache of 4 x \d+ tokens"),  # the output alone, which has no cache
        ("2", GIB, r"not enough memory: the KV cache of 4 x \d+ tokens"),  # the last layer, and the output
        ("all", 0, r"not enough memory of CUDA0: .* 0 kB is free. .*or fewer n_gpu_layers"),
        ("all", 1 << 60, None),
    ],
)
def test_caches_must_fit_into_the_memory_that_holds_them(there, tiny, monkeypatch, layers, free, says) -> None:
    """Of a device what goes there, of the host what stays; all of it is the CPU's here, and small."""
    there(CPU, replace(CARD, free=free))
    monkeypatch.setattr("pjlocal.engine.context.memory", lambda: Limit(100_000))
    judge = PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=Engine(n_gpu_layers=layers))
    with judge, pytest.raises(ModelError, match=says) if says else nullcontext():
        judge("Hello", max_tokens=4)


def test_caches_that_neither_a_device_nor_the_host_has_memory_for_are_refused(there, tiny, monkeypatch) -> None:
    there(CPU, CARD)
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"]) as judge:
        there(CPU, replace(CARD, free=0))
        monkeypatch.setattr("pjlocal.engine.context.memory", lambda: Limit(100_000))
        with pytest.raises(ModelError, match=r"not enough memory: the KV cache of 4 x \d+ tokens"):
            judge("Hello", max_tokens=4)


@pytest.mark.parametrize(("layers", "fits"), [("0", False), ("1", False), ("all", True)])
def test_weights_on_a_device_need_no_memory_of_the_host(there, tiny, monkeypatch, layers, fits) -> None:
    there(CPU, CARD)
    monkeypatch.setattr(model, "memory", lambda: Limit(200_000))
    with nullcontext() if fits else pytest.raises(ModelError, match="not enough memory: the weights of"):
        Model(tiny("llama"), Engine(n_gpu_layers=layers, mmap=False), Interrupt()).close()


@pytest.mark.parametrize("layout", ["batched", "contexts"])
def test_caches_that_a_device_has_no_memory_for_are_kept_on_the_cpu(there, tiny, monkeypatch, caplog, layout) -> None:
    """Its memory may be taken after the layers were chosen; a chat that grows keeps what was read."""
    there(CPU, CARD)
    options = {"prefer": ["vivid", "creative"], "max_tokens": 4, "seed": 1}
    with PersonaJudge(tiny("llama"), **options, engine=Engine(layout=layout)) as judge:
        judge("Hello")
        there(CPU, replace(CARD, free=7 << 18))  # 1.75 MiB: the compute buffers fit, and caches do not
        with caplog.at_level(logging.WARNING):
            longer = judge("the cat sees the dog " * 16)
            judge("the cat sees the dog " * 17)
        assert judge.placed == "3 of 3 layers on a card (CUDA0, 2 MB free), all KV caches on the CPU"
        assert longer.as_dict()["offload"]["caches_on_cpu"]
    assert caplog.text.count("The KV caches are kept on the CPU instead") == 1
    there(CPU)
    with PersonaJudge(tiny("llama"), **options, engine=Engine(layout=layout)) as judge:
        judge("Hello")
        assert judge("the cat sees the dog " * 16).text == longer.text


@pytest.mark.parametrize("n_layers", ["auto", "all"])
def test_a_context_that_llama_cpp_cannot_make_on_a_device_keeps_its_caches_on_the_cpu(
    there, tiny, monkeypatch, caplog, n_layers
) -> None:
    real = model.lib.llama_init_from_model
    tried = []

    def make(handle, params):
        tried.append(params.offload_kqv)
        if not params.offload_kqv:
            return real(handle, params)
        backend._errors.recent.append("alloc_tensor_range: failed to allocate Vulkan0 buffer of size 9437184")
        return None

    monkeypatch.setattr(model.lib, "llama_init_from_model", make)
    there(CPU, CARD)
    with caplog.at_level(logging.WARNING), PersonaJudge(tiny("llama"), engine=Engine(n_gpu_layers=n_layers)) as judge:
        if n_layers == "auto":
            assert judge("Hello", max_tokens=4).text
            assert tried == [True, False] and "failed to allocate Vulkan0 buffer" in caplog.text
        else:  # the number of layers is the user's
            with pytest.raises(ModelError, match="or fewer n_gpu_layers"):
                judge("Hello")
            assert tried == [True]


def test_each_of_several_devices_must_hold_its_share(there, tiny) -> None:
    there(CPU, CARD, replace(OTHER, free=1000))
    engine = Engine(n_gpu_layers="all", tensor_split="1,1")
    with (
        PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge,
        pytest.raises(ModelError, match="not enough memory of CUDA1"),
    ):
        judge("Hello", max_tokens=4)
    engine = Engine(n_gpu_layers="all")  # dealt out by llama.cpp
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
        judge("Hello", max_tokens=4)
    there(CPU, replace(CARD, free=0, total=0))  # which does not tell
    with PersonaJudge(tiny("llama"), prefer=["vivid", "creative"], engine=engine) as judge:
        judge("Hello", max_tokens=4)
