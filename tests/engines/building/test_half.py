"""Cores in float16: what becomes float16, what stays, and what it does to the result."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ispeed.engines.core import Core
from ispeed.engines.errors import UserError
from ispeed.engines.half import float_nodes, rounded_to_half, tensor_types, to_half
from ispeed.engines.quality import session

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture
def feed() -> dict[str, np.ndarray]:
    planes = np.random.default_rng(0).random((2, 4, 16, 24), np.float32)
    return {"raw": planes, "params": np.array([[1.8, 1, 1.5], [1, 1, 1]], np.float32)}


def test_types_inside_and_outside(core: Core) -> None:
    half = to_half(core.model)
    onnx.checker.check_model(half, full_check=True)
    types = tensor_types(half)
    assert {types[name] for name in ("raw", "params", "rgb")} == {FLOAT}
    assert types["c0"] == types["attended"] == types["c2"] == HALF
    assert types["bright"] == types["light"] == FLOAT, "sensor values stay exact until the first convolution"
    assert types["mean"] == FLOAT
    assert float_nodes(core.model) == {"gather", "unsqueeze", "gain", "limit", "pad0", "mean"}
    weights = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert {kind for name, kind in weights.items() if name[0] in "wb"} == {HALF}
    assert core.model.graph.initializer[4].data_type == FLOAT, "the core that was given stays as it is"


def test_rounded_graph_rounds_where_onnx_runtime_does_not(core: Core, feed: dict[str, np.ndarray]) -> None:
    exact, half, rounded = (
        session(model).run(None, feed)[0] for model in (core.model, to_half(core.model), rounded_to_half(core.model))
    )
    error = np.abs(rounded - exact).max()
    assert 1e-4 < error < 4e-3, "about the steps of float16"
    assert np.abs(half - exact).max() < 4e-3
    assert np.array_equal(rounded, rounded.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "ReduceMean"])
def test_means_over_large_pictures_do_not_overflow(kind: str) -> None:
    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node(kind, ["c"], ["y"], **({"axes": [-2, -1]} if kind == "ReduceMean" else {})),
    ]
    shape, mean = [1, 1, 300, 300], [1, 1, 1, 1]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, shape)], [value("y", FLOAT, mean)], [weight])
    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    reads = next(node for node in half.graph.node if node.op_type == kind).input[0]
    assert tensor_types(half)[reads] == FLOAT
    assert session(half).run(None, {"x": np.full(shape, 3, np.float32)})[0].item() == pytest.approx(3)


def test_weights_too_large_are_refused(core: Core) -> None:
    weight = next(t for t in core.model.graph.initializer if t.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(np.full((12, 8, 3, 3), 7e4, np.float32), "w2"))
    with pytest.raises(UserError, match="the weights w2 reach 70000, too large for float16; use --precision fp32"):
        to_half(core.model)
