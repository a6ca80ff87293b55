"""Grafted graphs: a model core with a head and a tail for one raw format, raw bytes in and sRGB bytes out.

    raw     uint8   [B, H, W] (8 bit), [B, H, W, 2] (10, 12 and 16 bit in two bytes, the low one first),
                    [B, H, W*5/4] (10p) or [B, H, W*3/2] (12p)
    params  float32 [B, K]   of the core, where it has any
    srgb    uint8   [B, H, W, 3]

The head takes off the levels, replaces defect pixels, makes up for shading, mirrors the frame at its borders until the
mosaic begins with red and fits the core, and packs the planes. It limits nothing: light may lie below 0 (noise) and
above 1 (a white level below the largest sample, a gain against shading), and the core limits it after its white-balance
gains, as it does in training. The tail crops, brings linear light to sRGB, rounds and interleaves. Head and tail
compute in float32 whatever the core does inside.

The graph uses only what OpenVINO, ONNX Runtime and TensorRT from 8.6 on all take, so all of them run this one
implementation: bytes are inputs and outputs and nothing else, there are no unsigned words and no bit operations.
`graph_reference.py` is the same in plain NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy.typing as npt
import onnx

from ._head import add_head, padded_size, raw_shape
from ._nodes import Nodes
from ._tail import add_tail
from .bayer import RawFormat
from .colour import core_finish
from .core import Core
from .errors import UserError
from .flat_field import FlatField

__all__ = ["VERSION", "graft", "make_head", "padded_size", "raw_shape"]

VERSION = "1"
"""Of the contract above, in the metadata under `ispeed.graft`."""

OPSET, IR_VERSION = 17, 8
"""Of a head alone; a grafted graph has those of its core."""

_FLOAT, _BYTE = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def graft(
    core: Core,
    fmt: RawFormat,
    *,
    batch: int | None = 1,
    colour_matrix: npt.ArrayLike | None = None,
    tone: str = "srgb",
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> onnx.ModelProto:
    """Put head and tail for a raw format onto a core.

    Args:
        core: What to graft onto; it is not changed.
        fmt: Format of the frames, Bayer.
        batch: Frames per run; None leaves it open.
        colour_matrix: 3x3, camera RGB to linear sRGB, for cores of linear output; None is the identity. A core that is
            told it at run time applies it itself, and the graph does not.
        tone: "srgb", or "linear" to leave out the curve behind a core of linear output.
        defects: (x, y) of pixels to replace by the mean of their neighbours of the same colour.
        flat_field: Gains against shading, see `flat_field.checked_mesh`.

    Returns:
        The graph, with the metadata of core and raw format.

    Raises:
        UserError: A Mono format, a defect outside the frame, a flat field that is none, or a colour option that this
            core cannot have.
    """
    _refuse_mono(fmt)
    matrix, tone = core_finish(core.info.name, core.info.output, colour_matrix, tone, core.info.inputs)
    head, tail = Nodes("head"), Nodes("tail")
    add_head(head, "raw", fmt, core.info.multiple, defects, flat_field, "head/planes")
    curve = core.info.output == "linear" and tone == "srgb"
    add_tail(tail, "core/rgb", fmt, core.info.multiple, matrix, curve, "srgb")
    model = onnx.ModelProto()
    model.CopyFrom(core.model)
    graph = model.graph
    _rename(graph, {"raw": "head/planes", "rgb": "core/rgb"})
    body = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*head.nodes, *body, *tail.nodes])
    graph.initializer.extend([*head.constants, *tail.constants])
    graph.input.append(_raw_input(fmt, batch))
    if core.info.inputs:
        graph.input.append(_value("params", _FLOAT, batch, (len(core.info.inputs),)))
    graph.output.append(_value("srgb", _BYTE, batch, (fmt.height, fmt.width, 3)))
    _stamp(model, core.info.to_json(), fmt)
    return model


def make_head(
    fmt: RawFormat,
    multiple: int,
    *,
    batch: int | None = 1,
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> onnx.ModelProto:
    """The head alone: `raw` as of a grafted graph to `planes`, float32 [B, 4, h, w], as a core takes them.

    Args:
        fmt: Format of the frames, Bayer.
        multiple: What width and height, in mosaic pixels, must be divisible by.
        batch: Frames per run; None leaves it open.
        defects: (x, y) of pixels to replace.
        flat_field: Gains against shading.

    Raises:
        UserError: A Mono format, a defect outside the frame, or a flat field that is none.
    """
    _refuse_mono(fmt)
    nodes = Nodes("head")
    add_head(nodes, "raw", fmt, multiple, defects, flat_field, "planes")
    width, height = padded_size(fmt, multiple)
    planes = _value("planes", _FLOAT, batch, (4, height // 2, width // 2))
    graph = onnx.helper.make_graph(nodes.nodes, "head", [_raw_input(fmt, batch)], [planes], nodes.constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="ispeed")


def _refuse_mono(fmt: RawFormat) -> None:
    if fmt.cfa == "MONO":
        raise UserError(f"a learned engine develops Bayer frames, and {fmt.pixel_format} is none; use --engine classic")


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give values other names wherever nodes read or write them, also inside branches."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names)
    kept = [value for value in graph.value_info if value.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _raw_input(fmt: RawFormat, batch: int | None) -> onnx.ValueInfoProto:
    return _value("raw", _BYTE, batch, raw_shape(fmt))


def _value(name: str, kind: int, batch: int | None, shape: Iterable[int]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, ["B" if batch is None else batch, *shape])


def _stamp(model: onnx.ModelProto, info: dict[str, object], fmt: RawFormat) -> None:
    """Metadata, under a key of its own: a grafted graph is no core."""
    del model.metadata_props[:]
    properties = {
        "ispeed.graft": VERSION,
        "ispeed.info": json.dumps(info),
        "ispeed.raw_format": json.dumps(fmt.to_json()),
    }
    onnx.helper.set_model_props(model, properties)
