"""A picture to look at: the chart as it is developed, with the right colour inside each patch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...engines.chart import REFERENCE_LAB
from ...engines.cie import Floats, light, linear_from_lab
from ...engines.errors import UserError
from ...engines.files import write_whole
from ...engines.reference import srgb_curve

_MARGIN, _INNER, _LONGEST = 0.12, 0.6, 900


def require_png(path: Path) -> None:
    """Raises UserError where no PNG can be written at `path`."""
    if path.suffix.lower() != ".png":
        raise UserError(f"the picture is a PNG: let {path} end in .png")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"the picture cannot be written to {path}: name a file in a folder that is there")


def write_check(path: Path, pictures: Sequence[npt.NDArray[np.uint8]], gain: float, corners: Floats) -> None:
    """Write the surroundings of the chart, side by side from each of the pictures.

    Args:
        path: Where; a PNG.
        pictures: sRGB, uint8 [H, W, 3].
        gain: What their light is multiplied by.
        corners: Of the patches, [24, 4, 2] (x, y).

    Raises:
        UserError: It cannot be written.
    """
    import PIL.Image
    import PIL.ImageDraw

    height, width = pictures[0].shape[:2]
    low, high = corners.min((0, 1)), corners.max((0, 1))
    margin = _MARGIN * (high - low)
    left, top = np.maximum(low - margin, 0).astype(int)
    right, bottom = np.minimum(high + margin + 1, (width, height)).astype(int)
    right_codes = np.rint(255 * srgb_curve(linear_from_lab(REFERENCE_LAB))).astype(int)
    shown = []
    for picture in pictures:
        codes = np.rint(255 * srgb_curve(gain * light(picture[top:bottom, left:right] / 255.0))).astype(np.uint8)
        image = PIL.Image.fromarray(codes)
        draw = PIL.ImageDraw.Draw(image)
        for patch, code in zip(corners - (left, top), right_codes, strict=True):
            inner = patch.mean(0) + _INNER * (patch - patch.mean(0))
            draw.polygon([(float(x), float(y)) for x, y in inner], fill=tuple(code.tolist()))
        image.thumbnail((_LONGEST, _LONGEST))
        shown.append(np.asarray(image))
    gap = np.full((shown[0].shape[0], 12, 3), 255, np.uint8)
    side_by_side = [part for one in shown for part in (one, gap)][:-1]
    content = io.BytesIO()
    PIL.Image.fromarray(np.concatenate(side_by_side, axis=1)).save(content, "PNG")
    write_whole(path, content.getvalue(), "the picture")
