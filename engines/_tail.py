"""The tail of a grafted graph: what a core gives to the sRGB bytes of a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from ._head import padded_size, phase
from ._nodes import Nodes
from .bayer import RawFormat

CURVE = (-9.43618965, 369.214325, -240.939545, 214.911743, -78.9408264)
"""The curved part of the sRGB curve, in codes, as a polynomial of the square root of light: rising powers, fitted
for the least largest deviation, 0.19 codes. A power function would cost a fifth of the time of a network on a CPU."""

TOE, SLOPE = 0.0031308, 12.92 * 255
"""End and slope, in codes, of the straight part, which the polynomial exceeds by at most 0.24 codes there."""


def add_tail(
    nodes: Nodes,
    rgb: str,
    fmt: RawFormat,
    multiple: int,
    colour_matrix: npt.NDArray[np.float32] | None,
    curve: bool,
    srgb: str,
) -> None:
    """Append what makes `srgb` (uint8 [B, H, W, 3]) of `rgb` (float32 [B, 3, h, w]).

    Args:
        nodes: Where to.
        rgb: Name of what the core gives.
        fmt: Size and phase of the frames.
        multiple: What the core's sizes are divisible by.
        colour_matrix: 3x3, camera RGB to linear sRGB; None is the identity.
        curve: Apply the sRGB curve.
        srgb: Name of the result.
    """
    left, top = phase(fmt)
    if padded_size(fmt, multiple) != (fmt.width, fmt.height):
        rgb = nodes.slice(rgb, [2, 3], [top, left], [top + fmt.height, left + fmt.width])
    if colour_matrix is not None:
        rgb = _mixed(nodes, rgb, colour_matrix)
    rgb = nodes.add("Clip", rgb, nodes.floats(0), nodes.floats(1))
    codes = _curved(nodes, rgb) if curve else nodes.scaled(rgb, 255, 0.5)
    interleaved = nodes.add("Transpose", codes, perm=[0, 2, 3, 1])
    nodes.add("Cast", interleaved, to=onnx.TensorProto.UINT8, output=srgb)


def _mixed(nodes: Nodes, rgb: str, matrix: npt.NDArray[np.float32]) -> str:
    """Colours times a matrix, by sums of planes: a convolution would round them to the precision of the network."""
    terms = [
        nodes.add("Mul", nodes.slice(rgb, [1], [k], [k + 1]), nodes.floats(matrix[:, k].reshape(1, 3, 1, 1)))
        for k in range(3)
    ]
    return nodes.add("Add", nodes.add("Add", terms[0], terms[1]), terms[2])


def _curved(nodes: Nodes, light: str) -> str:
    """Light in [0, 1] to codes in [0, 255], plus a half."""
    root = nodes.add("Sqrt", light)
    codes = nodes.scaled(root, CURVE[4], CURVE[3])
    for coefficient in (*CURVE[2:0:-1], CURVE[0] + 0.5):
        codes = nodes.add("Add", nodes.add("Mul", codes, root), nodes.floats(coefficient))
    toe = nodes.scaled(nodes.add("Min", light, nodes.floats(TOE)), SLOPE, 0.5)
    return nodes.add("Max", codes, toe)
