"""Opcode lists of DNG: what a raw developer is to do to the samples besides levels and colours.

As the DNG specification 1.4 has them in its chapter "Opcode List Processing": big-endian, whatever the file is. All are
marked as optional, so that a program which knows none of them opens the file all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ...engines.bayer import RawFormat
from ...engines.flat_field import SITES, Floats, site_names

_FIX_BAD_PIXELS, _GAIN_MAP = 5, 9
_SINCE = bytes((1, 3, 0, 0))  # the DNG version that brought both
_OPTIONAL = 1


def bad_pixels(defects: Sequence[tuple[int, int]], fmt: RawFormat) -> bytes:
    """OpcodeList1 that has the `defects`, each (x, y), replaced from around them. Bayer formats only."""
    phase = ("R", "Gr", "Gb", "B").index(site_names(fmt)[0])
    points = b"".join(struct.pack(">II", y, x) for x, y in defects)
    return _list([(_FIX_BAD_PIXELS, struct.pack(">III", phase, len(defects), 0) + points)])


def gain_maps(mesh: Floats, fmt: RawFormat) -> bytes:
    """OpcodeList2 that multiplies the light, black at 0, by a flat field: a map for each place of the filter array.

    A map's nodes lie where pixels have their centres, (row + 0.5) / height, so that its gains are those of
    `engines.flat_field.gain_map`.

    Args:
        mesh: float64 [4, rows, columns], of `checked_mesh`.
        fmt: Of the raw frames; Bayer formats only.
    """
    maps = []
    for place, name in enumerate(site_names(fmt)):
        row, column = divmod(place, 2)
        gains = mesh[SITES.index(name)]
        (rows, columns), sizes = gains.shape, (fmt.height, fmt.width)
        spacing = [_spacing(*of) for of in zip(sizes, (row, column), (rows, columns), strict=True)]
        origin = [(first + 0.5) / size for first, size in zip((row, column), sizes, strict=True)]
        area = struct.pack(">8I", row, column, fmt.height, fmt.width, 0, 1, 2, 2)
        head = struct.pack(">2I4dI", rows, columns, *spacing, *origin, 1)
        maps.append((_GAIN_MAP, area + head + gains.astype(">f4").tobytes()))
    return _list(maps)


def _spacing(size: int, first: int, nodes: int) -> float:
    """From node to node, as a share of an axis of which every second place from `first` on is the map's."""
    places = (size - first + 1) // 2
    return 2 * max(1, places - 1) / (nodes - 1) / size


def _list(opcodes: Sequence[tuple[int, bytes]]) -> bytes:
    heads = (struct.pack(">I4sII", code, _SINCE, _OPTIONAL, len(data)) + data for code, data in opcodes)
    return struct.pack(">I", len(opcodes)) + b"".join(heads)
