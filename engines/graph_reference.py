"""What a grafted graph computes, written plainly in float64 NumPy: what the graphs are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat
from .core import CoreInfo
from .flat_field import FlatField
from .inputs import takes_matrix
from .reference import levelled, srgb_curve

Floats = npt.NDArray[np.float64]
RunCore = Callable[[Floats, Floats], npt.NDArray[np.floating]]
"""A core in NumPy: planes [4, h, w] and params [K] to rgb [3, 2h, 2w]."""


def planes_reference(
    raw: npt.NDArray[np.uint8],
    fmt: RawFormat,
    multiple: int,
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> Floats:
    """The head: the bytes of a frame, uint8 [N], to planes R, Gr, Gb, B, float64 [4, h, w], black at 0, white at 1."""
    light = levelled(raw, fmt, defects, flat_field)
    top, left = divmod(fmt.cfa.index("R"), 2)
    bottom, right = (max(-size % multiple, 2 * multiple - size) for size in (fmt.height + top, fmt.width + left))
    mosaic = np.pad(light, ((top, bottom), (left, right)), mode="reflect")
    return np.stack([mosaic[row::2, column::2] for row in (0, 1) for column in (0, 1)])


def graft_reference(
    raw: npt.NDArray[np.uint8],
    fmt: RawFormat,
    run_core: RunCore,
    info: CoreInfo,
    params: npt.ArrayLike = (),
    *,
    colour_matrix: npt.ArrayLike | None = None,
    tone: str = "srgb",
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> npt.NDArray[np.uint8]:
    """Develop one frame.

    Args:
        raw: uint8 [N], the payload of a frame.
        fmt: What it means.
        run_core: The core.
        info: What the core says of itself.
        params: Its run-time inputs, [K].
        colour_matrix: 3x3, for cores of linear output that are not told it; None is the identity.
        tone: "srgb" or "linear", for cores of linear output.
        defects: (x, y) of pixels to replace by the mean of their neighbours of the same colour.
        flat_field: Gains against shading, see `flat_field.checked_mesh`.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    planes = planes_reference(raw, fmt, info.multiple, defects, flat_field)
    rgb = np.asarray(run_core(planes, np.asarray(params, np.float64)), np.float64)
    top, left = divmod(fmt.cfa.index("R"), 2)
    rgb = rgb[:, top : top + fmt.height, left : left + fmt.width].transpose(1, 2, 0)
    if info.output == "linear":
        if colour_matrix is not None and not takes_matrix(info.inputs):
            rgb = rgb @ np.asarray(colour_matrix, np.float64).reshape(3, 3).T
        rgb = np.clip(rgb, 0.0, 1.0)
        rgb = srgb_curve(rgb) if tone == "srgb" else rgb
    return np.floor(np.clip(rgb, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
