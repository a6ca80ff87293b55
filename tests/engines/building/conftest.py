"""A small core, raw frames of a drawn scene, and a reference that the core comes near: what a build needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ispeed.engines import RawFormat
from ispeed.engines.core import Core, CoreInfo, read_core, write_core

FORMAT = RawFormat(48, 32, "BayerRG12", 64, 4095)


def small_network(seed: int = 1) -> onnx.ModelProto:
    """Gains, two padded 3x3 convolutions with a channel attention between them, and a pixel shuffle."""
    rng = np.random.default_rng(seed)
    constants = {
        "one": np.float32(1),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "axes": np.array([2, 3]),
        "order": np.array([0, 1, 1, 2]),
        "w0": rng.normal(0, 0.25, (8, 4, 3, 3)).astype(np.float32),
        "b0": rng.normal(0, 0.1, 8).astype(np.float32),
        "w1": rng.normal(0, 0.5, (8, 8, 1, 1)).astype(np.float32),
        "w2": rng.normal(0, 0.25, (12, 8, 3, 3)).astype(np.float32),
        "b2": rng.normal(0, 0.1, 12).astype(np.float32),
    }
    make = helper.make_node
    nodes = [
        make("Gather", ["params", "order"], ["four"], axis=1, name="gather"),
        make("Unsqueeze", ["four", "axes"], ["gains"], name="unsqueeze"),
        make("Mul", ["raw", "gains"], ["bright"], name="gain"),
        make("Clip", ["bright", "", "one"], ["light"], name="limit"),
        make("Pad", ["light", "pads"], ["padded"], mode="reflect", name="pad0"),
        make("Conv", ["padded", "w0", "b0"], ["c0"], name="conv0"),
        make("LeakyRelu", ["c0"], ["a0"], alpha=0.2, name="act0"),
        make("ReduceMean", ["a0"], ["mean"], axes=[2, 3], keepdims=1, name="mean"),
        make("Conv", ["mean", "w1"], ["excited"], name="excite"),
        make("Sigmoid", ["excited"], ["weight"], name="weight"),
        make("Mul", ["a0", "weight"], ["attended"], name="attend"),
        make("Pad", ["attended", "pads"], ["padded2"], mode="reflect", name="pad2"),
        make("Conv", ["padded2", "w2", "b2"], ["c2"], name="conv2"),
        make("Sigmoid", ["c2"], ["shown"], name="show"),
        make("DepthToSpace", ["shown"], ["rgb"], blocksize=2, mode="CRD", name="shuffle"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("raw", TensorProto.FLOAT, ["B", 4, "h", "w"]), value("params", TensorProto.FLOAT, ["B", 3])],
        [value("rgb", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


DECIBELS = 50.0
"""What `gain_db` is divided by before it is added to what the told network sees."""


def told_network() -> onnx.ModelProto:
    """The small network with a fourth input, the camera's gain, which makes its pictures lighter."""
    model = small_network()
    graph = model.graph
    graph.input[1].type.tensor_type.shape.dim[1].dim_value = 4
    for name, value in {"column": np.array([3]), "decibels": np.float32(DECIBELS)}.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    at = next(k for k, node in enumerate(graph.node) if node.output[0] == "bright")
    graph.node[at].output[0] = "balanced"
    added = [
        helper.make_node("Gather", ["params", "column"], ["db"], axis=1, name="pick"),
        helper.make_node("Unsqueeze", ["db", "axes"], ["db_of_frame"], name="shape"),
        helper.make_node("Div", ["db_of_frame", "decibels"], ["level"], name="level"),
        helper.make_node("Add", ["balanced", "level"], ["bright"], name="lighter"),
    ]
    for place, node in enumerate(added):
        graph.node.insert(at + 1 + place, node)
    return model


@pytest.fixture
def told_core_file(tmp_path: Path) -> Path:
    """The told network as a core, told.onnx."""
    path = tmp_path / "told.onnx"
    write_core(path, told_network(), CoreInfo("told", 8, "srgb", 4, ("wb_r", "wb_g", "wb_b", "gain_db")))
    return path


@pytest.fixture
def core_file(tmp_path: Path) -> Path:
    """The small network as a core, small.onnx."""
    path = tmp_path / "small.onnx"
    write_core(path, small_network(), CoreInfo("small", 8, "srgb", 4, ("wb_r", "wb_g", "wb_b")))
    return path


@pytest.fixture
def linear_core_file(tmp_path: Path) -> Path:
    """The small network as a core that gives light, light.onnx."""
    path = tmp_path / "light.onnx"
    write_core(path, small_network(), CoreInfo("light", 8, "linear", 4, ("wb_r", "wb_g", "wb_b")))
    return path


@pytest.fixture
def core(core_file: Path) -> Core:
    """The small core, read."""
    return read_core(core_file)


@pytest.fixture
def frames_file(tmp_path: Path) -> Path:
    """Six noisy frames of smooth shapes, 48x32 BayerRG12, with their sidecar."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0 : FORMAT.height, 0 : FORMAT.width]
    frames = []
    for k in range(6):
        light = 0.45 + 0.35 * np.sin(x / 5 + k) * np.cos(y / 4) + rng.normal(0, 0.02, x.shape)
        frames.append(np.clip(64 + light * 4031, 0, 4095).astype(np.uint16))
    path = tmp_path / "frames.npy"
    np.save(path, np.stack(frames))
    Path(f"{path}.yaml").write_text("format: BayerRG12\nblack: 64\n")
    return path


@pytest.fixture
def reference_file(tmp_path: Path, core: Core, frames_file: Path) -> Path:
    """What the small core makes of the frames in float32, 35 dB away: a reference that it is near to."""
    from ispeed.engines.quality import Judge, load_material

    pictures = np.stack(Judge(core, load_material([str(frames_file)])).fp32).astype(np.float64)
    noisy = pictures + np.random.default_rng(3).normal(0, 4.5, pictures.shape)
    path = tmp_path / "reference.npy"
    np.save(path, np.clip(np.round(noisy), 0, 255).astype(np.uint8))
    return path
