"""What a model core may be told with every frame, beside the white-balance gains. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence

CAMERA = ("exposure_us", "gain_db", "iso", "f_number", "focal_length_mm")
"""What a core may be told of the camera: exposure in microseconds, gain in decibels, sensitivity (ISO), f-number, and
focal length in millimetres. 0 stands for not known in all but the gain; the core then goes without that parameter."""

POSITIVE = tuple(name for name in CAMERA if name != "gain_db")
"""Those of `CAMERA` that are above 0 wherever they are known."""

CCM = tuple(f"ccm_{to}{of}" for to in "rgb" for of in "rgb")
"""The colour matrix, row by row: camera RGB after white balance to linear sRGB. `ccm_rg` is what green adds to red."""


MOST_DB = 200.0
"""A gain of more, up or down, is no gain of a camera."""


def iso_of(gain_db: float, base_iso: float) -> float:
    """ISO sensitivity of a frame taken with a gain of `gain_db`, of a camera that has `base_iso` at 0 dB; NaN where the
    gain is not known."""
    return base_iso * 10 ** (gain_db / 20) if abs(gain_db) <= MOST_DB else math.nan


def takes_matrix(inputs: Sequence[str]) -> bool:
    """Whether a core with these inputs is told the colour matrix, all nine numbers of it."""
    return set(CCM) <= set(inputs)
