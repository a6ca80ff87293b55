"""A core in half precision: typed float16 ONNX, as strongly typed builders want it.

What float16 cannot hold stays in float32: means over the picture (their sums overflow at 65504), and the arithmetic
before the first convolution (gains and limits on the sensor's samples).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from .errors import UserError

_LEARNED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QuantizeLinear", "DequantizeLinear")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_VALUE_INPUTS = {"Pad": (0, 2), "Resize": (0,)}
"""Which inputs hold picture values, for operators where not every float input does."""

Constants = dict[str, npt.NDArray[np.generic]]


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a core that computes in float16; its inputs and outputs stay float32.

    Raises:
        UserError: A weight is too large for float16, or the network branches or loops.
    """
    return _Converter(model, simulate=False).run()


def rounded_to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 copy that rounds to float16 every weight and result that `to_half` would compute in float16.

    ONNX Runtime's CPU build runs chains of float16 operators in float32 without rounding in between; this graph gives
    the picture that a processor with real float16 arithmetic makes.
    """
    return _Converter(model, simulate=True).run()


def inlined_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose Constant nodes have become initialisers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = copy.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            nodes.append(node)
    replace_nodes(copy, nodes)
    return copy


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Give the graph these nodes, in topological order, and drop initialisers that none of them reads."""
    graph = model.graph
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    read = {name for node in kept for name in node.input}
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in read]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)


def is_global_mean(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether a node takes means or sums over the picture's rows or columns."""
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type not in ("ReduceMean", "ReduceSum"):
        return False
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = constants[node.input[1]].reshape(-1).tolist()
    return axes is None or any(axis not in (0, 1) for axis in axes)


def float_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that `to_half` leaves in float32."""
    inlined = inlined_constants(model)
    constants = {t.name: numpy_helper.to_array(t) for t in inlined.graph.initializer}
    return {node.name for node, half in zip(inlined.graph.node, _in_half(inlined, constants), strict=True) if not half}


def _in_half(model: onnx.ModelProto, constants: Constants) -> list[bool]:
    """Which nodes compute in float16: the learned ones and what follows them, but for means over the picture."""
    learned: set[str] = set()
    answers = []
    for node in model.graph.node:
        follows = node.op_type in _LEARNED or bool(learned.intersection(node.input))
        if follows:
            learned.update(node.output)
        answers.append(follows and not is_global_mean(node, constants))
    return answers


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor whose type ONNX can infer, by name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


class _Converter:
    """Goes through the nodes once, keeping track of which tensors are float16 by now."""

    def __init__(self, model: onnx.ModelProto, simulate: bool) -> None:
        self._model = inlined_constants(model)
        self._simulate = simulate
        self._types = tensor_types(self._model)
        self._half: set[str] = set()
        self._constants: Constants = {t.name: numpy_helper.to_array(t) for t in self._model.graph.initializer}
        self._outputs = {value.name for value in self._model.graph.output}
        self._nodes: list[onnx.NodeProto] = []
        self._converted: dict[tuple[str, bool], str] = {}

    def run(self) -> onnx.ModelProto:
        for node, half in zip(self._model.graph.node, _in_half(self._model, self._constants), strict=True):
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                raise UserError(f"a network with {node.op_type} cannot be converted to float16; use --precision fp32")
            self._convert(node, half)
        replace_nodes(self._model, self._nodes)
        return self._model

    def _convert(self, node: onnx.NodeProto, half: bool) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for k in _VALUE_INPUTS.get(node.op_type, range(len(node.input))):
            if k < len(node.input) and self._types.get(node.input[k]) in _FLOATS:
                copy.input[k] = self._as(node.input[k], half)
        self._nodes.append(copy)
        if not half or node.op_type == "Cast":
            return
        for k, name in enumerate(node.output):
            if self._types.get(name) not in _FLOATS:
                continue
            if self._simulate:
                copy.output[k] = f"{name}/exact"
                self._cast(copy.output[k], f"{name}/rounded", TensorProto.FLOAT16)
                self._cast(f"{name}/rounded", name, TensorProto.FLOAT)
                self._half.add(name)
            elif name in self._outputs:
                copy.output[k] = f"{name}/half"
                self._cast(copy.output[k], name, TensorProto.FLOAT)
            else:
                self._half.add(name)

    def _as(self, name: str, half: bool) -> str:
        """The name under which a float tensor is to be had in float16, or in float32."""
        if (name in self._half) == half:
            return name
        if (name, half) not in self._converted:
            self._converted[name, half] = self._conversion(name, half)
        return self._converted[name, half]

    def _conversion(self, name: str, half: bool) -> str:
        made = f"{name}/{'as_half' if half else 'as_float'}"
        if name in self._constants:
            values = _halved(name, self._constants[name])
            tensor = numpy_helper.from_array(values.astype(np.float32) if self._simulate else values, made)
            self._model.graph.initializer.append(tensor)
        elif not self._simulate:
            self._cast(name, made, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        elif not half:
            return name  # rounded already, and held in float32
        else:
            self._cast(name, f"{made}/rounded", TensorProto.FLOAT16)
            self._cast(f"{made}/rounded", made, TensorProto.FLOAT)
        return made

    def _cast(self, source: str, target: str, to: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=to))


def _halved(name: str, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float16]:
    largest = float(np.abs(values).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise UserError(f"the weights {name} reach {largest:g}, too large for float16; use --precision fp32")
    return values.astype(np.float16)
