"""A small core that NumPy can compute, and engines that are closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ispeed.engines._kernels  # noqa: F401 (settles where Numba keeps its code, before a test moves the folder)
from ispeed.engines import RawFormat, pack
from ispeed.engines.core import CoreInfo, write_core
from ispeed.engines.graph_reference import graft_reference

GAINS = ("wb_r", "wb_g", "wb_b")
_RANDOM = np.random.default_rng(3)
WEIGHTS = _RANDOM.normal(0.03, 0.05, (12, 4, 3, 3)).astype(np.float32)
BIAS = _RANDOM.uniform(0.05, 0.2, 12).astype(np.float32)
DECIBELS = 50.0
"""What `gain_db` is divided by before it is added to the picture, so that it shows."""


def _constants(inputs: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    order = [inputs.index(name) for name in (GAINS[0], GAINS[1], GAINS[1], GAINS[2])] if set(GAINS) <= {*inputs} else []
    return {
        "weights": WEIGHTS,
        "bias": BIAS,
        "order": np.array(order, np.int64),
        "per_plane": np.array([0, 4, 1, 1], np.int64),
        "one": np.array(1, np.float32),
        "db_column": np.array([inputs.index("gain_db") if "gain_db" in inputs else 0], np.int64),
        "per_frame": np.array([0, 1, 1, 1], np.int64),
        "decibels": np.array(DECIBELS, np.float32),
        "last": np.array([0, 0, 0, 1], np.int64),
    }


def _in_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with pairs of QuantizeLinear and DequantizeLinear around what the convolution reads."""
    graph = model.graph
    at = next(k for k, node in enumerate(graph.node) if node.op_type == "Conv")
    planes = graph.node[at].input[0]
    scales = np.abs(WEIGHTS).max((1, 2, 3)) / 127
    for name, value in {
        "activation_scale": np.array(1 / 127, np.float32),
        "zero": np.array(0, np.int8),
        "weight_scales": scales.astype(np.float32),
        "zeros": np.zeros(12, np.int8),
        "weights_int8": np.round(WEIGHTS / scales[:, None, None, None]).astype(np.int8),
    }.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    for place, node in enumerate(
        [
            helper.make_node("QuantizeLinear", [planes, "activation_scale", "zero"], ["planes_int8"]),
            helper.make_node("DequantizeLinear", ["planes_int8", "activation_scale", "zero"], ["planes_float"]),
            helper.make_node("DequantizeLinear", ["weights_int8", "weight_scales", "zeros"], ["weights_float"], axis=0),
        ]
    ):
        graph.node.insert(at + place, node)
    graph.node[at + 3].input[:2] = ["planes_float", "weights_float"]
    return model


def network(inputs: tuple[str, ...], *, fails_at_run_time: bool = False) -> onnx.ModelProto:
    """Gains and the limit at 1, one convolution, pixel shuffle; `gain_db` makes the picture lighter.

    One that fails does so for `gain_db` of 1 or more: then it asks for a shape that its picture does not have.
    """
    nodes, planes = [], "raw"
    if set(GAINS) <= {*inputs}:
        nodes += [
            helper.make_node("Gather", ["params", "order"], ["gains"], axis=1),
            helper.make_node("Reshape", ["gains", "per_plane"], ["factors"]),
            helper.make_node("Mul", ["raw", "factors"], ["balanced"]),
            helper.make_node("Min", ["balanced", "one"], ["limited"]),
        ]
        planes = "limited"
    nodes += [
        helper.make_node("Conv", [planes, "weights", "bias"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["features"], ["picture"], blocksize=2, mode="CRD"),
    ]
    if "gain_db" in inputs:
        nodes += [
            helper.make_node("Gather", ["params", "db_column"], ["column"], axis=1),
            helper.make_node("Reshape", ["column", "per_frame"], ["db"]),
            helper.make_node("Div", ["db", "decibels"], ["lighter"]),
            helper.make_node("Add", ["picture", "lighter"], ["lit"]),
        ]
    result = nodes[-1].output[0]
    if fails_at_run_time:
        nodes += [
            helper.make_node("Shape", [result], ["shape"]),
            helper.make_node("Reshape", ["column", "db_column_flat"], ["db_flat"]),
            helper.make_node("Cast", ["db_flat"], ["db_whole"], to=TensorProto.INT64),
            helper.make_node("Mul", ["db_whole", "last"], ["too_much"]),
            helper.make_node("Add", ["shape", "too_much"], ["asked_for"]),
            helper.make_node("Reshape", [result, "asked_for"], ["reshaped"]),
        ]
        result = "reshaped"
    nodes[-1].output[0] = "rgb"
    constants = _constants(inputs) | {"db_column_flat": np.array([1], np.int64)}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["B", 4, "h", "w"]),
            *([helper.make_tensor_value_info("params", TensorProto.FLOAT, ["B", len(inputs)])] if inputs else []),
        ],
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run_network(inputs: tuple[str, ...]) -> Callable[..., npt.NDArray[np.floating]]:
    """`network` in NumPy, for `graft_reference`."""

    def run(planes: npt.NDArray[np.float64], params: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        named = dict(zip(inputs, params, strict=True))
        if set(GAINS) <= {*inputs}:
            factors = np.array([named["wb_r"], named["wb_g"], named["wb_g"], named["wb_b"]])
            planes = np.minimum(planes * factors[:, None, None], 1)
        _, height, width = planes.shape
        padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
        features = np.zeros((12, height, width)) + BIAS[:, None, None]
        for y in range(3):
            for x in range(3):
                features += np.einsum("oi,ihw->ohw", WEIGHTS[:, :, y, x], padded[:, y : y + height, x : x + width])
        picture = features.reshape(3, 2, 2, height, width).transpose(0, 3, 1, 4, 2).reshape(3, 2 * height, 2 * width)
        return picture + named.get("gain_db", 0.0) / DECIBELS

    return run


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of caches, the test's own."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def core_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a core; `inputs` as in `CoreInfo`."""

    def write(
        inputs: tuple[str, ...] = GAINS, output: Any = "srgb", precision: str = "fp32", fails_at_run_time: bool = False
    ) -> Path:
        path = tmp_path / f"{len(inputs)}{output}{precision}.onnx"
        model = network(inputs, fails_at_run_time=fails_at_run_time)
        info = CoreInfo("small", 12, output, 4, inputs, precision)
        write_core(path, _in_int8(model) if precision == "int8" else model, info)
        return path

    return write


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Remembers an engine, and closes it at the end."""
    engines: list[Any] = []

    def remember(engine: Any) -> Any:
        engines.append(engine)
        return engine

    yield remember
    for engine in engines:
        engine.close()


@pytest.fixture
def small() -> SimpleNamespace:
    """Frames, and what the small core should make of them."""

    def frames(fmt: RawFormat, count: int, seed: int = 1) -> list[npt.NDArray[np.integer]]:
        random = np.random.default_rng(seed)
        return [random.integers(0, 1 << fmt.depth, (fmt.height, fmt.width)) for _ in range(count)]

    def reference(
        samples: npt.NDArray[np.integer],
        fmt: RawFormat,
        params=(1, 1, 1),
        inputs=GAINS,
        output: Any = "srgb",
        **options,
    ) -> npt.NDArray[np.uint8]:
        info = CoreInfo("small", 12, output, 4, inputs)
        return graft_reference(pack(samples, fmt), fmt, run_network(inputs), info, params, **options)

    def off_by(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> int:
        return int(np.abs(a.astype(int) - b.astype(int)).max())

    return SimpleNamespace(frames=frames, reference=reference, off_by=off_by)
