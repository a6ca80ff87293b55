"""The probe of the driver, and captures by it, on stand-ins for the library: most machines have none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from ispeed.engines import UserError
from ispeed.engines.cuda import driver as module
from ispeed.engines.cuda.driver import CudaError, Driver, Gpu, NoGpu, driver, gpu, gpus
from ispeed.engines.cuda.graph import CapturedGraph, try_capture


def put(pointer, value) -> None:
    pointer._obj.value = value


class Library:
    """The functions of libcuda that the probe calls, for `count` GPUs. `fails` are results other than 0, by name."""

    def __init__(self, count: int = 1, **fails: int) -> None:
        self._count, self._fails = count, fails
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in dir(type(self)) and f"do_{name}" not in dir(type(self)):
            raise AttributeError(name)

        def call(*arguments: object) -> int:
            self.calls.append(name)
            return self._fails.get(name, 0) or getattr(self, f"do_{name}")(*arguments) or 0

        return call

    def do_cuInit(self, flags):  # noqa: N802
        assert flags.value == 0

    def do_cuDeviceGetCount(self, count):  # noqa: N802
        put(count, self._count)

    def do_cuDriverGetVersion(self, version):  # noqa: N802
        put(version, 12040)

    def do_cuDeviceGet(self, device, number):  # noqa: N802
        put(device, 7 + number.value)

    def do_cuDeviceGetName(self, name, size, device):  # noqa: N802
        name.value = f"GPU {device.value - 7}".encode()

    def do_cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        put(value, {75: 8, 76: 6}[attribute.value])

    def do_cuDeviceTotalMem_v2(self, size, device):  # noqa: N802
        put(size, 24 << 30)

    def do_cuGetErrorName(self, code, text):  # noqa: N802
        put(text, b"CUDA_ERROR_NUMBER_%d" % code.value)

    def do_cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802
        assert (stream.value, mode.value) == (99, 1)

    def do_cuStreamEndCapture(self, stream, graph):  # noqa: N802
        put(graph, 11)

    def do_cuGraphInstantiateWithFlags(self, executable, graph, flags):  # noqa: N802
        put(executable, 12)

    def do_cuGraphLaunch(self, executable, stream):  # noqa: N802
        assert (executable.value, stream.value) == (12, 99)

    def do_cuGraphDestroy(self, graph):  # noqa: N802
        assert graph.value == 11

    def do_cuGraphExecDestroy(self, executable):  # noqa: N802
        assert executable.value == 12


@pytest.fixture
def library(monkeypatch):
    """Puts a stand-in in the place of libcuda."""

    def use(found: Library | None) -> None:
        def load(name: str) -> Library:
            assert name == "libcuda.so.1"
            if found is None:
                raise OSError("libcuda.so.1: cannot open shared object file")
            return found

        monkeypatch.setattr(module.ctypes, "CDLL", load)
        driver.cache_clear()

    yield use
    monkeypatch.undo()
    driver.cache_clear()


def test_gpus_as_the_driver_describes_them(library):
    library(Library(2))
    assert gpus() == (Gpu("GPU 0", "8.6", 24 << 30, "12.4"), Gpu("GPU 1", "8.6", 24 << 30, "12.4"))
    assert gpu().name == "GPU 0"


@pytest.mark.parametrize(
    ("found", "kind", "says"),
    [
        (None, NoGpu, "there is no NVIDIA driver"),
        (Library(0), NoGpu, "finds no GPU"),
        (Library(cuInit=100), NoGpu, "finds no GPU"),
        (Library(cuInit=803), UserError, r"does not work \(cuInit failed: CUDA_ERROR_NUMBER_803 \(803\)\)"),
        (Library(cuDeviceGetName=1), UserError, "does not work"),
    ],
)
def test_no_gpu_is_one_sentence(library, found, kind, says):
    library(found)
    with pytest.raises(UserError, match=says) as caught:
        gpu()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_a_driver_that_lacks_a_function_says_so():
    with pytest.raises(CudaError, match="cuNewThing failed: the driver is too old"):
        Driver(Library()).call("cuNewThing")


def test_the_probe_imports_nothing_heavy():
    code = (
        "import sys\nfrom ispeed.engines.cuda.driver import gpu\nfrom ispeed.engines import UserError\n"
        "try:\n    gpu()\nexcept UserError:\n    pass\n"
        "print([m for m in ('tensorrt', 'tensorrt_rtx', 'pycuda', 'torch', 'onnx', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_capture_is_made_launched_and_freed():
    cuda = Library()
    worked: list[str] = []
    graph = CapturedGraph(Driver(cuda), 99, lambda: worked.append(cuda.calls[-1]))
    assert worked == ["cuStreamBeginCapture_v2"]
    graph.launch()
    graph.free()
    graph.free()
    assert cuda.calls[1:] == [
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
        "cuGraphExecDestroy",
    ]


@pytest.mark.parametrize("fails", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_what_cannot_be_captured_is_no_error(fails, caplog):
    cuda = Library(**{fails: 900})
    assert try_capture(Driver(cuda), 99, lambda: None) is None
    assert "CUDA_ERROR_NUMBER_900" in caplog.text
    assert ("cuGraphDestroy" in cuda.calls) == (fails == "cuGraphInstantiateWithFlags")


@pytest.mark.parametrize("ends", [0, 901])
def test_a_capture_whose_work_fails_is_ended(ends, caplog):
    cuda = Library(cuStreamEndCapture=ends)

    def work() -> None:
        raise RuntimeError("it does not like that")

    assert try_capture(Driver(cuda), 99, work) is None
    assert "it does not like that" in caplog.text
    assert cuda.calls[:2] == ["cuStreamBeginCapture_v2", "cuStreamEndCapture"]
