"""The TensorRT engine without a GPU: what it refuses, and how it drives TensorRT.

The second part brings stand-ins for the TensorRT module, one for each way to make an execution context that the
versions have, on the stand-in for a GPU. That real TensorRT takes these calls is tested in tests/gpu.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, open_engine
from ispeed.engines import trt as module
from ispeed.engines.core import CoreInfo
from ispeed.engines.cuda import pycuda_device
from ispeed.engines.cuda.driver import Gpu
from ispeed.engines.inputs import CCM
from ispeed.engines.plan import PlanInfo, Tensor, file_sha256, sidecar, write_plan_info
from ispeed.engines.trt import LoadedPlan, TrtEngine

FORMAT = RawFormat(8, 6, "BayerRG12")
GPU = Gpu("Test GPU", "8.6", 24 << 30, "12.4")
VERSION = "10.9"
FLAT_FIELD = {name: [[1.0, 1.25], [1.5, 2.0]] for name in ("R", "Gr", "Gb", "B")}
SIZE = {"raw": 8 * 6 * 2, "srgb": 8 * 6 * 3}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "net.plan"
    path.write_bytes(b"a plan")
    info = PlanInfo(
        name="net",
        core=CoreInfo("net", 8, "srgb", 4, ("wb_r", "wb_g", "wb_b"), sha256="cd" * 32).to_json(),
        backend="tensorrt",
        version=VERSION,
        precision="fp16",
        raw_format=FORMAT.to_json(),
        batches=(1, 2, 3),
        compute_capabilities=("8.6", "8.9"),
        flags=(),
        tensors=(Tensor("raw", "input", "uint8", (-1, 6, 8, 2)),),
        plan_sha256=file_sha256(path),
        plan_bytes=6,
        onnx_sha256="00" * 32,
        quality={"psnr": 60.0},
    )
    write_plan_info(path, info)
    return path


@pytest.fixture
def here(monkeypatch):
    """Makes this machine one with that GPU and `tensorrt` of that version."""

    def use(gpu: Gpu = GPU, version: str | None = VERSION) -> None:
        monkeypatch.setattr(module, "gpu", lambda: gpu)
        monkeypatch.setattr(module, "gpu_or_none", lambda: gpu)
        monkeypatch.setattr(module, "why_not", lambda *a, **k: WHY_NOT(*a, version=lambda name: version, **k))

    return use


WHY_NOT = module.why_not


def test_without_a_gpu_nothing_of_tensorrt_is_touched(plan: Path):
    code = f"""
import sys
from ispeed.engines import UserError, open_engine
from ispeed.engines.cuda import driver
def none():
    raise driver.NoGpu("none")
driver.driver = none
try:
    open_engine({str(plan)!r})
except UserError as error:
    print(error)
print([m for m in ("tensorrt", "tensorrt_rtx", "pycuda") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    sentence, imported = done.stdout.splitlines()
    assert "net.plan needs an NVIDIA GPU of compute capability 8.6 or 8.9" in sentence
    assert imported == "[]"


@pytest.mark.parametrize(
    ("gpu", "version", "says"),
    [
        (
            replace(GPU, compute_capability="9.0"),
            VERSION,
            r"capability 8.6 or 8.9, and the Test GPU here has 9.0; run: isp-",
        ),
        (GPU, "8.6.1", r"was built by tensorrt 10.9, and 8.6.1 is installed here; run: isp-build net"),
        (GPU, None, r"needs tensorrt 10.9, which is not installed; run: pip install"),
    ],
)
def test_a_plan_that_does_not_run_here_is_one_sentence(plan: Path, here, gpu, version, says):
    here(gpu, version)
    with pytest.raises(UserError, match=says) as caught:
        open_engine(str(plan))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"colour_matrix": np.eye(3)}, "takes no colour matrix;"),
        ({"tone": "linear", "defects": [(1, 1)]}, "takes no tone and defect pixels;"),
        ({"flat_field": FLAT_FIELD}, "takes no flat field; .* or build it with isp-build --calibration FILE"),
        ({"threads": 2}, "has no use for threads"),
        ({"white_balance": (1.0, 0.0, 1.0)}, "white balance"),
    ],
)
def test_options_that_plans_do_not_take(plan: Path, here, options, says):
    here()
    with pytest.raises(UserError, match=says):
        open_engine(str(plan), **options)


def test_a_plan_takes_the_calibration_that_it_was_built_with_and_no_other(plan: Path, here):
    here()
    file = sidecar(plan)
    corrections = {"defects": [[3, 1], [1, 1]], "flat_field": FLAT_FIELD}
    file.write_text(json.dumps(json.loads(file.read_text()) | corrections))
    open_engine(str(plan), defects=[(1, 1), (3, 1)], flat_field=FLAT_FIELD).close()
    other = {**FLAT_FIELD, "R": [[1.0, 1.0], [1.0, 1.5]]}
    for options, what in (
        ({"defects": [(1, 1), (3, 1)], "flat_field": other}, "other flat field than"),
        ({"defects": [(1, 1)], "flat_field": FLAT_FIELD}, "other defect pixels than"),
        ({}, "other defect pixels and another flat field than .* run: isp-build .* --calibration FILE"),
    ):
        with pytest.raises(UserError, match=what):
            open_engine(str(plan), **options)


def test_a_plan_takes_the_colour_matrix_that_it_was_built_with_and_no_other(plan: Path, here):
    here()
    file, matrix = sidecar(plan), [[1.5, -0.5, 0.0], [0.0, 1.0, 0.0], [0.0, -0.25, 1.25]]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"colour_matrix": matrix}))
    open_engine(str(plan), colour_matrix=matrix).close()
    open_engine(str(plan)).close()
    with pytest.raises(UserError, match=r"another colour matrix than .* run: isp-build .* --colour-matrix 1 0 0 0 1 0"):
        open_engine(str(plan), colour_matrix=np.eye(3))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"colour_matrix": [[1.0]]}))
    with pytest.raises(UserError, match="colour matrix is not usable"):
        open_engine(str(plan))


def test_a_plan_of_a_core_that_is_told_the_colour_matrix_takes_one(plan: Path, here):
    here()
    file = sidecar(plan)
    values = json.loads(file.read_text())
    values["core"]["inputs"] = ["exposure_us", *CCM]
    file.write_text(json.dumps(values))
    engine = open_engine(str(plan), colour_matrix=[[1.5, -0.25, -0.25], [0, 1, 0], [0, 0, 1]])
    assert engine.info.inputs == ("exposure_us", *CCM)
    engine.close()
    with pytest.raises(UserError, match="colour matrix cannot be inverted"):
        open_engine(str(plan), colour_matrix=np.ones((3, 3)))
    with pytest.raises(UserError, match="takes no tone;"):
        open_engine(str(plan), colour_matrix=np.eye(3), tone="linear")


def test_a_plan_is_in_the_precision_that_it_was_built_in(plan: Path, here):
    here()
    with pytest.raises(UserError, match="was built to compute in fp16, not in fp32"):
        open_engine(str(plan), precision="fp32")


def test_info_comes_from_the_sidecar(plan: Path, here):
    here()
    info = TrtEngine(plan).info
    assert (info.name, info.backend, info.precision, info.max_batch, info.lanes) == ("net", "tensorrt", "fp16", 3, 3)
    assert (info.sizes, info.weights_sha256, info.quality) == (((8, 6),), "cd" * 32, {"psnr": 60.0})
    assert TrtEngine(plan, mode="latency").info.max_batch == 1


@pytest.mark.parametrize(
    ("fmt", "batch", "says"),
    [
        (RawFormat(8, 8, "BayerRG12"), 1, r"develops 8x6 BayerRG12, and the frames are 8x8 BayerRG12; run: isp-build"),
        (RawFormat(8, 6, "BayerGB12"), 1, r"the frames are 8x6 BayerGB12; run: isp-build"),
        (RawFormat(8, 6, "BayerRG12", 64), 1, r"black level 64"),
        (FORMAT, 4, r"takes up to 3"),
    ],
)
def test_other_frames_are_refused_before_anything_is_loaded(plan: Path, here, fmt, batch, says):
    here()
    engine = TrtEngine(plan)
    with pytest.raises(UserError, match=says):
        engine.prepare(fmt, batch, SimpleNamespace(), SimpleNamespace())


def test_a_plan_for_large_batches_only_is_refused(plan: Path, here):
    here()
    side = plan.with_name("net.plan.json")
    side.write_text(json.dumps(json.loads(side.read_text()) | {"batches": [2, 2, 4]}))
    with pytest.raises(UserError, match=r"batches of 2 to 4 frames only, .* --batch 1,4,4 "):
        TrtEngine(plan).prepare(FORMAT, 2, SimpleNamespace(), SimpleNamespace())


class Context:
    """Writes the first gain of each frame into every byte of its picture."""

    def __init__(self, trt: FakeTrt) -> None:
        self._trt, self._addresses, self._count, self.scratch = trt, {}, 1, None
        self.active_optimization_profile = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._count = shape[0]
        assert self.active_optimization_profile == 0
        assert shape[1:] == {"raw": (6, 8, 2), "params": (3,)}[name]
        return not self._trt.refuses_shapes

    def execute_async_v3(self, handle: int) -> bool:
        assert sorted(self._addresses) == ["params", "raw", "srgb"]
        assert self.scratch is not None
        device, count = self._trt.device, self._count
        params, srgb = (device.at[self._addresses[name]].array for name in ("params", "srgb"))

        def compute() -> None:
            gains = params.view(np.float32).reshape(-1, 3)
            for index in range(count):
                srgb[index * SIZE["srgb"] :][: SIZE["srgb"]] = round(10 * gains[index, 0]) + count

        device.streams[handle].put(compute)
        return not self._trt.fails


class NewContext(Context):
    def set_device_memory(self, address: int, size: int) -> None:
        assert size == 4096
        self.scratch = address


class OldContext(Context):
    """Only the first one of a plan has the profile."""

    def __init__(self, trt: FakeTrt) -> None:
        super().__init__(trt)
        self.active_optimization_profile = -1 if trt.contexts else 0

    def set_optimization_profile_async(self, index: int, handle: int) -> None:
        if not self._trt.shares_profile:
            raise RuntimeError("Error in set optimization profile async.")
        assert (self.active_optimization_profile, handle in range(len(self._trt.device.streams))) == (-1, True)
        self.active_optimization_profile = index

    device_memory = property(None, lambda self, address: setattr(self, "scratch", address))


class FakeTrt:
    """A module as of version 8.6, 10 or 11, and the one plan that it loads."""

    __version__ = VERSION
    num_io_tensors = 3

    def __init__(self, device, kind: str) -> None:
        self.device, self.contexts = device, []
        self.fails = self.refuses_shapes = self.loads_nothing = self.does_not_start = False
        self.shares_profile = True
        self.names = ["raw", "params", "srgb"]
        strategies = SimpleNamespace(USER_MANAGED="user")
        if kind == "8.6":
            self.create_execution_context_without_device_memory = lambda: self._made(OldContext)
            self.device_memory_size = 4096
            return
        self.ExecutionContextAllocationStrategy = strategies
        self.device_memory_size_v2 = 4096
        if kind == "10":
            self.create_execution_context = lambda strategy: self._made(NewContext, strategy)
            return
        self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
        config = SimpleNamespace(set_execution_context_allocation_strategy=lambda s: setattr(config, "strategy", s))
        self.create_runtime_config = lambda: config

        def create(given) -> Context:
            assert given.dynamic_shapes_kernel_specialization_strategy == "eager"
            return self._made(NewContext, given.strategy)

        self.create_execution_context = create

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def Runtime(self, log):  # noqa: N802
        if self.does_not_start:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.log = log
        return self

    def deserialize_cuda_engine(self, plan: bytes):
        assert plan == b"a plan"
        if self.loads_nothing:
            self.log.log(1, "wrong\nmagic")
        return None if self.loads_nothing else self

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {"raw": (-1, 6, 8, 2), "params": (-1, 3), "srgb": (-1, 6, 8, 3)}[name]

    def _made(self, kind: type[Context], strategy: str = "user") -> Context:
        assert strategy == "user"
        self.contexts.append(kind(self))
        return self.contexts[-1]


@pytest.fixture
def prepare(plan: Path, here, device, rings, monkeypatch):
    """Prepares an engine on the stand-ins; returns it, and the two rings."""
    engines = []
    # the conftest's buffers all have one address; here addresses are what is handed to TensorRT
    make = device.buffer
    device.at = {}

    def buffer(size: int):
        made = make(size)
        made.address = 4096 * (1 + len(device.at))
        device.at[made.address] = made
        return made

    monkeypatch.setattr(device, "buffer", buffer)
    monkeypatch.setattr(pycuda_device, "PycudaDevice", lambda: device)
    monkeypatch.setattr(device, "close", lambda: None, raising=True)

    def make_engine(trt: FakeTrt):
        here()
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        engine = TrtEngine(plan)
        engines.append(engine)
        pair = rings(FORMAT, [np.full((6, 8), 100 * k) for k in range(4)])
        engine.prepare(FORMAT, 3, *pair)
        return engine, pair

    yield make_engine
    for engine in engines:
        engine.close()
    monkeypatch.undo()


@pytest.mark.parametrize("kind", ["8.6", "10", "11"])
def test_every_version_runs_every_batch_size_in_a_context_of_its_own(prepare, device, kind):
    trt = FakeTrt(device, kind)
    engine, (_, srgb) = prepare(trt)
    assert len(trt.contexts) == engine.info.lanes * 3
    assert len({context.scratch for context in trt.contexts}) == engine.info.lanes
    for count in (1, 3, 2):
        params = np.zeros((count, 3), np.float32)
        params[:, 0] = params[:, 2] = 1 + np.arange(count)
        ticket = engine.develop(list(range(count)), list(range(count)), params)
        ticket.wait()
        assert [int(srgb.slot(k)[0]) for k in range(count)] == [10 * (1 + k) + count for k in range(count)]
        np.testing.assert_array_equal(ticket.white_balance[:, 0], 1 + np.arange(count))
    assert engine.host_copies == 0
    assert srgb.untouched()


def test_a_run_that_tensorrt_refuses_is_raised_by_the_ticket(prepare, device):
    trt = FakeTrt(device, "10")
    device.captures = False
    engine, _ = prepare(trt)
    trt.fails = True
    ticket = engine.develop([0], [0], np.ones((1, 3), np.float32))
    with pytest.raises(module.TensorrtError, match="execute_async_v3 failed: it gives no reason"):
        ticket.wait()


def test_what_tensorrt_refuses_while_preparing_is_one_sentence(prepare, device):
    refuses, nothing, silent, other = (FakeTrt(device, "11") for _ in range(4))
    refuses.refuses_shapes, nothing.loads_nothing, other.names = True, True, ["a", "b", "c"]
    silent.does_not_start = True
    alone = FakeTrt(device, "8.6")
    alone.shares_profile = False
    for trt, says in [
        (refuses, r"loads .*net.plan and does not run it \(it refuses a batch of 1 at raw: .*run: isp-build net"),
        (nothing, r"does not load .*net.plan \(wrong magic; .* MiB of GPU memory are free\); run: isp-build net"),
        (silent, r"does not load .*net.plan \(it gives no reason; .* MiB of GPU memory are free\); run: isp-build net"),
        (alone, r"loads .*net.plan and does not run it \(it does not share its profile: .*run: isp-build net"),
        (other, r"net.plan is no plan of a grafted graph; run: isp-build net"),
    ]:
        with pytest.raises(UserError, match=says) as caught:
            prepare(trt)
        assert "\n" not in str(caught.value)


def test_a_gpu_without_room_for_a_context_is_one_sentence(monkeypatch):
    class Error(Exception):
        pass

    def full(number: int):
        raise Error("cuDevicePrimaryCtxRetain failed: out of memory")

    fake = SimpleNamespace(Error=Error, init=lambda: None, Device=full)
    monkeypatch.setattr(pycuda_device, "gpu", lambda: GPU)
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=fake))
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    with pytest.raises(UserError, match=r"the GPU cannot be used \(cuDevicePrimaryCtxRetain failed: out of memory\);"):
        pycuda_device.PycudaDevice()


def test_a_gpu_without_room_for_the_scratch_memory_is_one_sentence(prepare, device):
    device.room = 3000
    with pytest.raises(UserError, match=r"net needs another 1 MiB of GPU memory"):
        prepare(FakeTrt(device, "10"))


def test_a_loaded_plan_needs_no_scratch_memory_where_there_is_none(device):
    trt = FakeTrt(device, "10")
    trt.device_memory_size_v2 = 0
    info = SimpleNamespace(backend="tensorrt", core_info=SimpleNamespace(inputs=("wb_r",)))
    path = SimpleNamespace(read_bytes=lambda: b"a plan")
    assert LoadedPlan(trt, path, info, device).scratch == 0
