"""A frame made to look like the picture of another camera, in its own place: what flow can be found between.

Without a trained mapper the classic engine develops it, and colours and tone are brought to those of the picture: a
monotone curve for each colour, by which as much of the frame is as bright, and an affine map of colours, as in
`protocols.colour`. Both are fitted on cells of many pixels, so that pictures which lie apart by a few may be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat, pack
from ..data.raw_pair import Gains, Samples
from ..protocols import colour_map, opencv, with_map

if TYPE_CHECKING:
    from torch import Tensor

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

Look = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
"""A trained mapper: (planes [1, 4, h, w], gains [1, 3], reference [1, 3, 2h, 2w]) to sRGB [1, 3, 2h, 2w] in [0, 1], all
float32. Planes are R, Gr, Gb, B, black 0, white 1, not white balanced; the reference need not lie over them."""

LONGEST = 256
"""Cells along the longer edge of pictures whose looks are compared."""

KNOTS = 33
"""Of the curve: from the darkest to the brightest place, as many of them between each two knots."""


def developed(samples: Samples, fmt: RawFormat, gains: Gains) -> Picture:
    """What the classic engine makes of a frame.

    Args:
        samples: uint16 [H, W], DN of the format.
        fmt: Of the samples; Bayer.
        gains: float32 [3], white balance of R, G, B.

    Returns:
        uint8 [H, W, 3], sRGB with the camera's colours.
    """
    from ...engines.classic import ClassicEngine
    from ...engines.quality import develop_all

    return develop_all(lambda: ClassicEngine(threads=1), [pack(samples, fmt)], fmt, gains[None])[0]


def mapped(look: Look, samples: Samples, fmt: RawFormat, gains: Gains, reference: Picture) -> Floats:
    """What a trained mapper makes of a frame: float32 [H, W, 3] in [0, 1].

    Args:
        look: The mapper.
        samples, fmt, gains: As of `developed`; H and W even.
        reference: uint8 [H, W, 3], sRGB, roughly over the frame.
    """
    import torch

    from ..data.cfa import planes, red_part

    light = (samples.astype(np.float32) - fmt.black_level) / np.float32(fmt.white_level - fmt.black_level)
    colours = torch.from_numpy(np.ascontiguousarray(reference.transpose(2, 0, 1))).float() / 255
    with torch.inference_mode():
        given = look(
            planes(torch.from_numpy(light)[None], fmt.cfa),
            torch.from_numpy(gains)[None],
            red_part(colours, fmt.cfa)[None].contiguous(),
        )
    picture = given[0].clamp(0, 1).permute(1, 2, 0).numpy()
    # where red is not in the first row or column, the mapper sees none of those at the border
    edges = [(size - seen) // 2 for size, seen in zip(samples.shape, picture.shape[:2], strict=True)]
    return np.pad(picture, [*((edge, edge) for edge in edges), (0, 0)], mode="edge")


def matched(shown: npt.NDArray[Any], reference: Picture) -> Floats:
    """A picture in the look of another.

    Args:
        shown: sRGB [H, W, 3], uint8 or float in [0, 1].
        reference: uint8 [H, W, 3], sRGB, of the same scene; displaced by a few cells at most.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    small, wanted = _cells(shown), _cells(reference)
    curves = [_curve(small[..., c], wanted[..., c]) for c in range(3)]
    curved = np.stack([np.interp(small[..., c], *curves[c]) for c in range(3)], axis=-1)
    values = colour_map(curved, wanted)
    # curves by a table of 16 bits would be as good; this one is of the codes that an engine gives
    if shown.dtype == np.uint8:
        codes = np.arange(256) / 255
        tables = [np.interp(codes, *curve).astype(np.float32) for curve in curves]
        picture = np.stack([table[shown[..., c]] for c, table in enumerate(tables)], axis=-1)
    else:
        picture = np.stack([np.interp(shown[..., c], *curves[c]) for c in range(3)], axis=-1)
    # in float32, for speed
    return with_map(picture.astype(np.float32), values.astype(np.float32))  # pyright: ignore


def _cells(picture: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Means of cells, float64 [h, w, 3] in [0, 1]."""
    cv2 = opencv("alignment")
    height, width = picture.shape[:2]
    step = max(1, -(-max(height, width) // LONGEST))
    small = cv2.resize(
        picture.astype(np.float32), (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA
    )
    return small.astype(np.float64) / (255 if picture.dtype == np.uint8 else 1)


def _curve(seen: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Knots (from, to) of the monotone curve by which as much of `seen` is as bright as of `wanted`."""
    shares = np.linspace(0, 1, KNOTS)
    start, end = np.quantile(seen, shares), np.quantile(wanted, shares)
    _, first = np.unique(start, return_index=True)  # a value that many places have is one knot
    return start[first], end[first]
