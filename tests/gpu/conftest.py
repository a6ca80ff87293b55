"""What the tests on a GPU share. Without a GPU every one of them is skipped, and says so.

They need little: NumPy, onnx, Numba and pytest everywhere; torch, PyCUDA, TensorRT, or the whole pipeline where a test
is about it. What is missing skips the test that needs it, with a reason.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, pack
from ispeed.engines.core import CoreInfo, write_core
from ispeed.engines.cuda.driver import gpu
from ispeed.engines.graph_reference import graft_reference

GAINS = (1.7, 1.0, 0.8)
INFO = CoreInfo("tiny", 12, "srgb", 4, ("wb_r", "wb_g", "wb_b"))


@pytest.fixture(autouse=True)
def needs_gpu() -> None:
    """Skips where there is no GPU."""
    try:
        gpu()
    except UserError as error:
        pytest.skip(str(error))


class Mapped:
    """Slots in a mapped memfd, 4 KiB apart and behind a page of something else: memory as a ring has it."""

    def __init__(self, slots: int, size: int) -> None:
        self.slots, self._size = slots, size
        self._stride = -(-size // 4096) * 4096
        total = 4096 + slots * self._stride
        self._fd = os.memfd_create("ispeed-gpu-test", os.MFD_CLOEXEC)
        os.posix_fallocate(self._fd, 0, total)
        self.memory = np.frombuffer(mmap.mmap(self._fd, total), np.uint8)

    def slot(self, index: int) -> np.ndarray:
        return self.memory[4096 + index * self._stride :][: self._size]

    def close(self) -> None:
        del self.memory
        os.close(self._fd)


@pytest.fixture
def mapped() -> Iterator[Callable[[int, int], Mapped]]:
    """Makes slots in a memfd: how many, bytes each."""
    made: list[Mapped] = []

    def make(slots: int, size: int) -> Mapped:
        made.append(Mapped(slots, size))
        return made[-1]

    yield make
    for slots in made:
        slots.close()


@pytest.fixture
def rings(mapped: Callable[[int, int], Mapped]) -> Callable[[RawFormat, int], tuple[Mapped, Mapped]]:
    """A raw ring with so many random frames of a format, and an sRGB ring for them that holds 0xA5."""

    def make(fmt: RawFormat, frames: int) -> tuple[Mapped, Mapped]:
        random = np.random.default_rng(11)
        raw, srgb = mapped(frames, fmt.payload_size), mapped(frames, fmt.width * fmt.height * 3)
        for index in range(frames):
            samples = random.integers(0, 1 << fmt.depth, (fmt.height, fmt.width), np.uint16)
            raw.slot(index)[:] = pack(samples, fmt)
            srgb.slot(index)[:] = 0xA5
        return raw, srgb

    return make


@pytest.fixture(params=["pycuda", "torch"])
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The GPU by either way to it."""
    if request.param == "pycuda":
        pytest.importorskip("pycuda.driver", exc_type=ImportError)
        from ispeed.engines.cuda.pycuda_device import PycudaDevice as Device
    else:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")
        from ispeed.engines.cuda.torch_device import TorchDevice as Device
    opened = Device()
    yield opened
    opened.close()


def weights() -> tuple[np.ndarray, np.ndarray]:
    """Of the one convolution of the test core: float32 [12, 4, 3, 3] and [12]."""
    random = np.random.default_rng(5)
    mix = random.normal(0.02, 0.04, (12, 4, 3, 3))
    return mix.astype(np.float32), random.uniform(0, 0.2, 12).astype(np.float32)


@pytest.fixture
def core_file(tmp_path: Path) -> Path:
    """tiny.onnx: gains, the limit at 1, one convolution, pixel shuffle."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    mix, bias = weights()
    constants = {
        "mix": mix,
        "bias": bias,
        "columns": np.array([0, 1, 1, 2]),
        "axes": np.array([2, 3]),
        "one": np.float32(1),
    }
    nodes = [
        helper.make_node("Gather", ["params", "columns"], ["gains"], axis=1),
        helper.make_node("Unsqueeze", ["gains", "axes"], ["factors"]),
        helper.make_node("Mul", ["raw", "factors"], ["balanced"]),
        helper.make_node("Min", ["balanced", "one"], ["limited"]),
        helper.make_node("Conv", ["limited", "mix", "bias"], ["packed"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["packed"], ["rgb"], blocksize=2, mode="CRD"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["B", 4, "h", "w"]),
            helper.make_tensor_value_info("params", TensorProto.FLOAT, ["B", 3]),
        ],
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    write_core(tmp_path / "tiny.onnx", model, INFO)
    return tmp_path / "tiny.onnx"


def _run_core(planes: np.ndarray, params: np.ndarray) -> np.ndarray:
    mix, bias = (value.astype(np.float64) for value in weights())
    light = np.minimum(planes * params[[0, 1, 1, 2]][:, None, None], 1.0)
    padded = np.pad(light, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    packed = np.einsum("ochw,cyxhw->oyx", mix, windows) + bias[:, None, None]
    blocks = packed.reshape(3, 2, 2, *packed.shape[1:])
    return blocks.transpose(0, 3, 1, 4, 2).reshape(3, 2 * packed.shape[1], 2 * packed.shape[2])


@pytest.fixture
def reference() -> Callable[..., np.ndarray]:
    """What the test core makes of a frame, in NumPy: (bytes of the frame, format) to uint8 [H, W, 3]."""

    def develop(raw: np.ndarray, fmt: RawFormat, gains: tuple[float, float, float] = GAINS) -> np.ndarray:
        return graft_reference(raw, fmt, _run_core, INFO, gains)

    return develop


@pytest.fixture
def torch_core() -> tuple[Any, CoreInfo]:
    """The test core as a torch module."""
    torch = pytest.importorskip("torch")

    class TinyCore(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mix, bias = weights()
            self.convolution = torch.nn.Conv2d(4, 12, 3, padding=1)
            self.convolution.load_state_dict({"weight": torch.from_numpy(mix), "bias": torch.from_numpy(bias)})

        def forward(self, raw: Any, params: Any) -> Any:
            # by slices: a list of places would be copied from the host, which no graph can hold
            gains = torch.cat([params[:, :2], params[:, 1:]], 1)[:, :, None, None]
            return torch.nn.functional.pixel_shuffle(self.convolution((raw * gains).clamp(max=1.0)), 2)

    return TinyCore().eval(), INFO


@pytest.fixture
def program(torch_core: tuple[Any, CoreInfo], tmp_path: Path) -> Path:
    """tiny.pt2: the test core as a torch program."""
    torch = pytest.importorskip("torch")
    core, info = torch_core
    batch = torch.export.Dim("B", min=1)
    rows, columns = (2 * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    shapes = ({0: batch, 2: rows, 3: columns}, {0: batch})
    exported = torch.export.export(core, (torch.rand(2, 4, 8, 12), torch.ones(2, 3)), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "tiny.pt2", extra_files={"ispeed.json": json.dumps(info.to_json())})
    return tmp_path / "tiny.pt2"


def develop(engine: Any, batches: list[list[int]]) -> None:
    """Hands batches of slots to a prepared engine, as many in flight as it takes, and waits for all."""
    tickets: list[Any] = []
    for batch in batches:
        if len(tickets) == engine.info.lanes:
            tickets.pop(0).wait()
        tickets.append(engine.develop(batch, batch, np.zeros((len(batch), 3), np.float32)))
    for ticket in tickets:
        ticket.wait()
