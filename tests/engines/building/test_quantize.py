"""Cores in 8 bits: where the pairs stand, what they do, and that runtimes take them as such."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from ispeed.engines._openvino import openvino_core
from ispeed.engines.core import Core
from ispeed.engines.half import to_half
from ispeed.engines.quality import session
from ispeed.engines.quantize import activation_limits, convolutions, in_opset, quantize


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    gains = np.array([[1.8, 1, 1.5]], np.float32)
    return [{"raw": rng.random((1, 4, 16, 24), np.float32), "params": gains} for _ in range(3)]


def test_convolutions_that_see_pixels(core: Core) -> None:
    assert convolutions(core.model) == ["conv0", "conv2"]


def test_limits_are_those_in_front_of_the_padding(core: Core, feeds: list[dict[str, np.ndarray]]) -> None:
    limits = activation_limits(core.model, feeds[:2], "fp8")
    assert set(limits) == {"light", "attended"}
    assert limits["light"] == 1, "gains are limited to 1"
    chosen = activation_limits(core.model, feeds[:2], "int8")
    assert all(0.5 * limits[name] <= chosen[name] <= limits[name] for name in limits)


@pytest.mark.parametrize(("kind", "opset", "error"), [("int8", 17, 0.02), ("fp8", 19, 0.1)])
def test_pairs(kind: str, opset: int, error: float, core: Core, feeds: list[dict[str, np.ndarray]]) -> None:
    limits = activation_limits(core.model, feeds[:2], kind)
    model = quantize(core.model, limits, ["conv0", "conv2"], kind)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 4
    assert counts["Pad"] == 2
    scales = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("/scale")]
    assert sorted(scale.shape for scale in scales) == [(), (), (8,), (12,)]
    assert all(np.array_equal(scale, scale.astype(np.float16)) for scale in scales), "float16 has the same steps"
    exact, coarse = (session(m).run(None, feeds[2])[0] for m in (core.model, model))
    assert 0 < np.abs(exact - coarse).max() < error


def test_one_convolution_may_stay_in_float(core: Core, feeds: list[dict[str, np.ndarray]]) -> None:
    limits = activation_limits(core.model, feeds[:2])
    model = quantize(core.model, limits, ["conv2"], "int8")
    first = next(node for node in model.graph.node if node.name == "conv0")
    assert list(first.input) == ["padded", "w0", "b0"]
    assert Counter(node.op_type for node in model.graph.node)["QuantizeLinear"] == 2


def test_in_half_precision_the_dequantised_values_are_float16(core: Core, feeds: list[dict[str, np.ndarray]]) -> None:
    limits = activation_limits(core.model, feeds[:2])
    half = to_half(in_opset(quantize(core.model, limits, ["conv0", "conv2"], "int8"), 19))
    onnx.checker.check_model(half, full_check=True)
    producers = {name: node for node in half.graph.node for name in node.output}
    weight = producers[next(node for node in half.graph.node if node.name.startswith("conv2")).input[1]]
    assert weight.op_type == "DequantizeLinear", "a cast in between would hide the pattern from a builder"
    assert np.all(np.isfinite(session(half).run(None, feeds[2])[0]))


def test_openvino_runs_the_convolutions_in_int8(core: Core, feeds: list[dict[str, np.ndarray]], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    limits = activation_limits(core.model, feeds[:2])
    path = tmp_path / "int8.onnx"
    path.write_bytes(quantize(core.model, limits, ["conv0", "conv2"], "int8").SerializeToString())
    model = openvino_core().read_model(path)
    model.reshape({"raw": [1, 4, 16, 24], "params": [1, 3]})
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    info = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    kinds = [i["runtimePrecision"].astype(str) for i in info if i["layerType"].astype(str) == "Convolution"]
    assert sorted(kinds)[-2:] == ["i8", "i8"] or sorted(kinds)[-2:] == ["u8", "u8"]
