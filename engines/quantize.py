"""A core with its convolutions in 8 bits: int8, or float8 (E4M3).

Quantise/dequantise pairs stand in front of the input and the weights of each chosen convolution: symmetric, one scale
per input tensor and one per output channel of the weights, biases in float. Runtimes that know the pattern run the
convolution in 8 bits; all others compute what it means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from .half import inlined_constants, replace_nodes
from .quality import session

Kind = Literal["int8", "fp8"]
Floats = npt.NDArray[np.float32]

_LARGEST = {"int8": 127.0, "fp8": 448.0}
_ZERO = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
FP8_OPSET = 19
_SMALLEST_SCALE = 2.0**-20  # a float16 still holds it
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_SAMPLES = 1 << 16
"""Values of a tensor, per frame, on which its clipping is chosen."""


def convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that see pixels, in graph order: those whose input has more than one value per channel.

    Those of a channel attention's squeeze work on one value per channel; they cost nothing and stay as they are.
    """
    weights = {t.name: t.dims for t in inlined_constants(model).graph.initializer}
    nodes = (n for n in model.graph.node if n.op_type == "Conv" and len(weights.get(n.input[1], ())) == 4)
    return [node.name for node in nodes if max(weights[node.input[1]][2:]) > 1]


def activation_limits(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, Any]], kind: Kind = "int8"
) -> dict[str, float]:
    """The magnitude to which the input of every convolution is best limited, by tensor name.

    Args:
        model: The float32 core.
        feeds: Inputs of the core, a frame each, as ONNX Runtime takes them.
        kind: "int8", or "fp8", whose steps grow with the value, so that nothing need be cut off.

    Returns:
        For each input tensor the largest magnitude on these frames, or the smaller one under which int8 gives the
        smallest squared error.
    """
    chosen = set(convolutions(model))
    producers = _producers(model)
    names = sorted({_source(node.input[0], producers) for node in model.graph.node if node.name in chosen})
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    asked = [name for name in names if name not in {value.name for value in model.graph.input}]
    run = session(probed)
    chance = np.random.default_rng(0)  # regular steps would take the same columns of every row
    peaks: dict[str, float] = dict.fromkeys(names, 0.0)
    samples: dict[str, list[Floats]] = {name: [] for name in names}
    for feed in feeds:
        answers = run.run(asked, dict(feed)) if asked else []  # asked for nothing, it would answer with everything
        seen = dict(feed) | dict(zip(asked, answers, strict=True))
        for name in names:
            magnitudes = np.abs(seen[name].reshape(-1))
            peaks[name] = max(peaks[name], float(magnitudes.max()))
            samples[name].append(magnitudes[chance.integers(0, magnitudes.size, _SAMPLES)])
    if kind == "fp8":
        return peaks
    return {name: _best_limit(np.concatenate(samples[name]), peaks[name]) for name in names}


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _source(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """Where to quantise a convolution's input: in front of the padding, which then moves bytes instead of floats."""
    node = producers.get(name)
    return node.input[0] if node is not None and node.op_type == "Pad" else name


def _best_limit(magnitudes: Floats, peak: float) -> float:
    def error(limit: float) -> float:
        scale = max(limit / 127.0, _SMALLEST_SCALE)
        return float(np.mean((np.minimum(np.round(magnitudes / scale), 127.0) * scale - magnitudes) ** 2))

    return min((peak * clip for clip in _CLIPS), key=error)


def quantize(
    model: onnx.ModelProto, limits: Mapping[str, float], nodes: Collection[str], kind: Kind
) -> onnx.ModelProto:
    """A copy of a core in which `nodes`, names of convolutions, work on 8 bits.

    Args:
        model: The float32 core.
        limits: From `activation_limits`.
        nodes: Which convolutions, of `convolutions(model)`.
        kind: "int8" (the opset stays), or "fp8" (it becomes 19, the first that has the type).
    """
    copy = inlined_constants(model if kind == "int8" else in_opset(model, FP8_OPSET))
    weights = {t.name: numpy_helper.to_array(t) for t in copy.graph.initializer}
    producers = _producers(copy)
    made: list[onnx.NodeProto] = []
    pairs = _Pairs(copy, made, kind)
    padded: dict[str, str] = {}
    for node in copy.graph.node:
        if node.name not in nodes:
            made.append(node)
            continue
        source = _source(node.input[0], producers)
        values = pairs.add(source, np.float32(limits[source]))
        if source != node.input[0]:
            if node.input[0] not in padded:
                padded[node.input[0]] = f"{node.input[0]}/dequantized"
                made.append(_on(producers[node.input[0]], {0: values}, padded[node.input[0]]))
            values = padded[node.input[0]]
        peaks = np.abs(weights[node.input[1]]).max(axis=(1, 2, 3)).astype(np.float32)
        made.append(_on(node, {0: values, 1: pairs.add(node.input[1], peaks)}, node.output[0]))
    replace_nodes(copy, _read(copy, made))
    return copy


def in_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same network in a later opset of ONNX; itself where it has that one."""
    if model.opset_import[0].version >= opset:
        return model
    return onnx.version_converter.convert_version(model, opset)


def _on(node: onnx.NodeProto, inputs: Mapping[int, str], output: str) -> onnx.NodeProto:
    """A copy of a node with other inputs, by index, and this output."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, name in inputs.items():
        copy.input[index] = name
    if output != node.output[0]:
        copy.output[0], copy.name = output, f"{node.name}/quantized"
    return copy


def _read(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes whose results something reads: paddings that only a quantised convolution read are left out."""
    wanted = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


class _Pairs:
    """Puts quantise/dequantise pairs into a list of nodes, one per tensor."""

    def __init__(self, model: onnx.ModelProto, nodes: list[onnx.NodeProto], kind: Kind) -> None:
        self._model, self._nodes, self._kind = model, nodes, kind
        self._made: dict[str, str] = {}

    def add(self, name: str, limit: npt.NDArray[np.float32] | np.float32) -> str:
        """The name of `name` after quantising to the range +-`limit` (one, or one per channel) and back."""
        if name in self._made:
            return self._made[name]
        # in steps that a float16 holds exactly, so that the same numbers come out in half precision
        scale = np.maximum(limit / _LARGEST[self._kind], _SMALLEST_SCALE).astype(np.float16).astype(np.float32)
        zero = helper.make_tensor(f"{name}/zero", _ZERO[self._kind], scale.shape, np.zeros(scale.size).tolist())
        self._model.graph.initializer.extend([numpy_helper.from_array(np.asarray(scale), f"{name}/scale"), zero])
        options: dict[str, Any] = {"axis": 0} if scale.ndim else {}
        levels, result = f"{name}/quantized", f"{name}/dequantized"
        parameters = [f"{name}/scale", f"{name}/zero"]
        for kind, source, target in (("QuantizeLinear", name, levels), ("DequantizeLinear", levels, result)):
            self._nodes.append(
                helper.make_node(kind, [source, *parameters], [target], name=f"{target}/{kind}", **options)
            )
        self._made[name] = result
        return result
