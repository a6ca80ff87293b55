"""The head of a grafted graph: the bytes of a raw frame to the planes that a core takes.

Only arithmetic that every runtime has is used, on float32. A sample is a low and a high part, both small whole numbers,
put together as `(high * a + c) + low * b` with the levels already in a, b and c: no intermediate is larger than the
result, so that a runtime that keeps some of them in bfloat16 loses no more than by keeping the result in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from ._nodes import Nodes
from .bayer import RawFormat
from .defects import NEAREST, neighbours
from .flat_field import FlatField, checked_mesh, gain_map

_PHASE = {"RGGB": (0, 0), "GRBG": (1, 0), "GBRG": (0, 1), "BGGR": (1, 1)}

_GROUPS = {8: (2, 2), 16: (2, 4), 12: (2, 3), 10: (4, 5)}
"""Pixels and bytes of the smallest group with whole bytes and an even number of pixels, by bits per pixel."""


def raw_shape(fmt: RawFormat) -> tuple[int, ...]:
    """Shape of the bytes of one frame as a grafted graph takes them, without the batch."""
    if fmt.bits_per_pixel == 16:
        return fmt.height, fmt.width, 2
    return fmt.height, fmt.width * fmt.bits_per_pixel // 8


def phase(fmt: RawFormat) -> tuple[int, int]:
    """Columns and rows that the head adds at the left and at the top, so that the mosaic begins with red."""
    return _PHASE[fmt.cfa]


def padded_size(fmt: RawFormat, multiple: int) -> tuple[int, int]:
    """Width and height, in mosaic pixels, that a core sees: multiples, and at least two of them.

    At one multiple the deepest layer of a core would be one place wide, and could not be mirrored at its borders.
    """
    left, top = phase(fmt)
    width, height = (max(2, -(-size // multiple)) * multiple for size in (fmt.width + left, fmt.height + top))
    return width, height


def reflected(size: int, before: int, total: int) -> npt.NDArray[np.int64]:
    """Where the samples of a padded axis come from: `total` places, `before` of them in front of the first sample.

    The outermost sample is not repeated, so every place keeps its colour; a narrow axis is mirrored again and again.
    """
    period = 2 * (size - 1)
    place = np.arange(-before, total - before) % period
    return np.minimum(place, period - place)


def add_head(
    nodes: Nodes,
    raw: str,
    fmt: RawFormat,
    multiple: int,
    defects: Sequence[tuple[int, int]],
    flat_field: FlatField | None,
    planes: str,
) -> None:
    """Append what makes `planes` (float32 [B, 4, h, w]) of `raw` (uint8 [B, *raw_shape(fmt)]).

    The bytes of a row are brought apart by one transposition: cutting single places out of the innermost axis takes
    OpenVINO ten times as long.
    """
    width, height = padded_size(fmt, multiple)
    numbers = nodes.add("Cast", raw, to=onnx.TensorProto.FLOAT)
    numbers = _mirrored_bytes(nodes, numbers, fmt, width, height)
    pixels, size = _GROUPS[fmt.bits_per_pixel]
    groups = (fmt.width if fmt.packed else width) // pixels
    grouped = nodes.reshape(numbers, 0, height // 2, 2, groups, size)
    apart = nodes.add("Transpose", grouped, perm=[0, 4, 2, 1, 3])  # [B, byte of the group, row of the pair, h, groups]
    byte = [nodes.slice(apart, [1], [k], [k + 1]) for k in range(size)]
    samples = [_levelled(nodes, *parts, fmt) for parts in _parts(nodes, byte, fmt.bits_per_pixel)]
    columns = _columns(nodes, samples, height // 2, groups * pixels // 2)
    if fmt.packed:
        columns = _mirrored_columns(nodes, columns, fmt, width)
    mending = _Mending(defects, fmt, multiple)
    together = nodes.add("Concat", *columns, axis=2)
    flat = flat_field is not None
    packed = nodes.reshape(together, 0, 4, height // 2, width // 2, output=None if mending or flat else planes)
    if mending:
        packed = mending.add(nodes, packed, None if flat else planes)
    if flat_field is not None:
        nodes.add("Mul", packed, nodes.floats(_packed_gains(flat_field, fmt, multiple)[None]), output=planes)


def _mirrored_bytes(nodes: Nodes, numbers: str, fmt: RawFormat, width: int, height: int) -> str:
    """Bytes with the rows that are to be added, and with the columns where a sample is whole bytes."""
    left, top = phase(fmt)
    rank = 1 + len(raw_shape(fmt))
    numbers = _mirrored(nodes, numbers, rank, 1, fmt.height, top, height)
    return numbers if fmt.packed else _mirrored(nodes, numbers, rank, 2, fmt.width, left, width)


def _mirrored(nodes: Nodes, value: str, rank: int, axis: int, size: int, before: int, total: int) -> str:
    """`value` with an axis of `size` places extended as `reflected` says."""
    after = total - size - before
    if before == after == 0:
        return value
    if max(before, after) >= size:  # Pad mirrors only once
        return nodes.add("Gather", value, nodes.whole(reflected(size, before, total)), axis=axis)
    pads = np.zeros((2, rank), np.int64)
    pads[:, axis] = before, after
    return nodes.add("Pad", value, nodes.whole(pads.reshape(-1)), mode="reflect")


def _columns(nodes: Nodes, samples: list[str], height: int, width: int) -> list[str]:
    """The even and the odd columns, [B, 2, 1, h, w] each, of the samples of all groups, [B, 1, 2, h, groups] each."""
    if len(samples) == 2:
        return [nodes.reshape(sample, 0, 2, 1, height, width) for sample in samples]
    columns = []
    for pair in (samples[0::2], samples[1::2]):
        stacked = nodes.add("Concat", *pair, axis=1)
        in_turn = nodes.add("Transpose", stacked, perm=[0, 2, 3, 4, 1])
        columns.append(nodes.reshape(in_turn, 0, 2, 1, height, width))
    return columns


def _mirrored_columns(nodes: Nodes, columns: list[str], fmt: RawFormat, width: int) -> list[str]:
    """The even and the odd columns of the frame to those of the padded one, for samples that share bytes."""
    left, _ = phase(fmt)
    padded = []
    for place, column in enumerate(reversed(columns) if left else columns):
        source = reflected(fmt.width, left, width)[place::2] // 2
        plain = np.array_equal(source, np.arange(fmt.width // 2))
        padded.append(column if plain else nodes.add("Gather", column, nodes.whole(source), axis=4))
    return padded


def _parts(nodes: Nodes, byte: Sequence[str], bits: int) -> list[tuple[str, str | None, int]]:
    """(low, high, factor) of every sample that a group of bytes holds: the sample is low + high * factor."""
    if bits == 8:
        return [(low, None, 0) for low in byte]
    if bits == 16:
        return [(byte[0], byte[1], 256), (byte[2], byte[3], 256)]
    if bits == 12:
        high, low = _split(nodes, byte[1], 16)
        return [(byte[0], low, 256), (high, byte[2], 16)]
    (high1, low1), (high2, low2), (high3, low3) = (
        _split(nodes, byte[k], size) for k, size in ((1, 4), (2, 16), (3, 64))
    )
    return [(byte[0], low1, 256), (high1, low2, 64), (high2, low3, 16), (high3, byte[4], 4)]


def _split(nodes: Nodes, byte: str, size: int) -> tuple[str, str]:
    """Quotient and remainder of bytes by a power of two: exact, because eight bits fit even into bfloat16."""
    high = nodes.add("Floor", nodes.add("Mul", byte, nodes.floats(1 / size)))
    return high, nodes.add("Sub", byte, nodes.add("Mul", high, nodes.floats(size)))


def _levelled(nodes: Nodes, low: str, high: str | None, factor: int, fmt: RawFormat) -> str:
    """Samples low + high * factor with black at 0 and white at 1."""
    scale = 1 / (fmt.white_level - fmt.black_level)
    offset = -fmt.black_level * scale
    if high is None:
        return nodes.scaled(low, scale, offset)
    return nodes.add("Add", nodes.scaled(high, factor * scale, offset), nodes.add("Mul", low, nodes.floats(scale)))


def _packed_gains(flat_field: FlatField, fmt: RawFormat, multiple: int) -> npt.NDArray[np.float64]:
    """The gain of every place of the packed planes, [4, h, w]: mirrored as the frame is.

    Raises:
        UserError: The flat field is none.
    """
    width, height = padded_size(fmt, multiple)
    left, top = phase(fmt)
    places = np.ix_(reflected(fmt.height, top, height), reflected(fmt.width, left, width))
    gains = gain_map(checked_mesh(flat_field), fmt)[places]
    return np.stack([gains[row::2, column::2] for row in (0, 1) for column in (0, 1)])


class _Mending:
    """Defect pixels as places in the packed planes, [B, 4 * h * w]: which to replace, and with the mean of which.

    False where there is nothing to mend.
    """

    def __init__(self, defects: Sequence[tuple[int, int]], fmt: RawFormat, multiple: int) -> None:
        width, height = padded_size(fmt, multiple)
        left, top = phase(fmt)
        columns, rows = reflected(fmt.width, left, width), reflected(fmt.height, top, height)
        self._shape = 4, height // 2, width // 2
        targets: list[int] = []
        sources: list[npt.NDArray[np.int64]] = []
        weights: list[npt.NDArray[np.float32]] = []
        unique = sorted({(int(x), int(y)) for x, y in defects})
        for (x, y), near in zip(unique, neighbours(unique, fmt), strict=True):
            if not near:  # its own sample is the best there is
                continue
            source, weight = np.zeros(NEAREST, np.int64), np.zeros(NEAREST, np.float32)
            source[: len(near)] = [self._place(v + top, u + left) for u, v in near]
            weight[: len(near)] = 1 / len(near)
            for row in np.flatnonzero(rows == y):  # a defect near the border is mirrored into the padding
                for column in np.flatnonzero(columns == x):
                    targets.append(self._place(int(row), int(column)))
                    sources.append(source)
                    weights.append(weight)
        self._targets = np.array(targets, np.int64)
        self._sources, self._weights = sources, weights

    def __bool__(self) -> bool:
        return self._targets.size > 0

    def add(self, nodes: Nodes, planes: str, mended: str | None) -> str:
        """Append what makes `mended`, or what is named here, of `planes`, both [B, 4, h, w]. Returns its name."""
        count = self._targets.size
        flat = nodes.reshape(planes, 0, -1)
        near = nodes.add("Gather", flat, nodes.whole(np.stack(self._sources)), axis=1)
        weighted = nodes.add("Mul", near, nodes.floats(np.stack(self._weights)))
        means = nodes.add("ReduceSum", weighted, nodes.whole([2]), keepdims=0)
        # the batch may be symbolic, and the places are wanted once for each of its frames
        batch = nodes.slice(nodes.add("Shape", flat), [0], [0], [1])
        shape = nodes.add("Concat", batch, nodes.whole([count]), axis=0)
        places = nodes.add("Expand", nodes.whole(self._targets[None]), shape)
        scattered = nodes.add("ScatterElements", flat, places, means, axis=1)
        return nodes.reshape(scattered, 0, *self._shape, output=mended)

    def _place(self, row: int, column: int) -> int:
        _, height, width = self._shape
        return (row % 2 * 2 + column % 2) * height * width + row // 2 * width + column // 2
