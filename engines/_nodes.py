"""ONNX nodes written one call each, with names that cannot meet those of a core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx


class Nodes:
    """A growing list of nodes and constants.

    Attributes:
        nodes: In the order in which they run.
        constants: Initialisers that they read.
    """

    def __init__(self, prefix: str) -> None:
        """Names of nodes and values begin with `prefix` and a slash."""
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with one output, named by its kind and number unless `output` names it; return that name."""
        name = f"{self._prefix}/{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output or name], name, **attributes))
        return output or name

    def floats(self, value: npt.ArrayLike) -> str:
        """Name of a float32 constant."""
        return self._constant(np.asarray(value, np.float32))

    def whole(self, value: npt.ArrayLike) -> str:
        """Name of an int64 constant: shapes, indices."""
        return self._constant(np.asarray(value, np.int64))

    def reshape(self, value: str, *shape: int, output: str | None = None) -> str:
        """`value` in another shape; 0 keeps the dimension, -1 is what remains."""
        return self.add("Reshape", value, self.whole(shape), output=output)

    def slice(self, value: str, axes: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> str:
        """A part of `value`, from `start` to before `stop` on each of `axes`."""
        return self.add("Slice", value, self.whole(start), self.whole(stop), self.whole(axes))

    def scaled(self, value: str, factor: npt.ArrayLike, summand: npt.ArrayLike) -> str:
        """`value * factor + summand`."""
        return self.add("Add", self.add("Mul", value, self.floats(factor)), self.floats(summand))

    def _constant(self, array: npt.NDArray[Any]) -> str:
        name = f"{self._prefix}/constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name
