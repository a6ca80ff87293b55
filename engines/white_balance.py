"""White-balance gains: given by the user, given by the camera, or estimated from the frames."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .errors import UserError

LOWEST_GAIN, HIGHEST_GAIN = 0.25, 8.0
SMOOTHING_FRAMES = 200.0
"""Time constant of the estimate, in frames: after a change of light 63 % of the way is gone after so many."""


def checked_gains(gains: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    """Gains that a user gave, scaled to green 1: float32 [3].

    Raises:
        UserError: Not three positive numbers, or a ratio to green outside 0.25 to 8.
    """
    try:
        values = np.asarray(gains, np.float64)
    except (TypeError, ValueError):  # not numbers at all
        values = np.empty(0)
    if values.shape == (3,) and np.all(np.isfinite(values)) and np.all(values > 0):
        scaled = values / values[1]
        if scaled.min() >= LOWEST_GAIN and scaled.max() <= HIGHEST_GAIN:
            return scaled.astype(np.float32)
    raise UserError(
        f"white balance {gains!r} is not usable; give auto, or three gains (red, green, blue) "
        f"whose ratios to green lie from {LOWEST_GAIN} to {HIGHEST_GAIN:g}"
    )


def camera_gains(params: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> bool:
    """Gains that came with a frame: wb_r, wb_g, wb_b [3] into `out` [3], scaled to green 1 and limited.

    Returns False, and leaves `out` alone, where red or blue is not given (0, negative or NaN); green not given is 1.
    """
    if params.shape[0] < 3:
        return False
    red, green, blue = float(params[0]), float(params[1]), float(params[2])
    if not (0 < red < math.inf and 0 < blue < math.inf):
        return False
    if not 0 < green < math.inf:
        green = 1.0
    out[0], out[1], out[2] = _limited(red / green), 1.0, _limited(blue / green)
    return True


class GreyWorld:
    """Gains under which the world is grey on average, smoothed exponentially over frames.

    The first usable frame sets the gains at once, later ones pull them along by 1 - exp(-1 / smoothing_frames).
    """

    def __init__(self, smoothing_frames: float = SMOOTHING_FRAMES) -> None:
        self._rate = 1.0 - math.exp(-1.0 / smoothing_frames)
        self.gains = np.ones(3, np.float32)
        self._settled = False

    def resume(self, gains: npt.NDArray[np.float32]) -> None:
        """Go on from these gains [3] instead of the first frame's."""
        self.gains[:] = gains
        self._settled = True

    def update(self, sums: npt.NDArray[np.float64], black_level: float, fewest_quads: int) -> None:
        """Take in one frame.

        Args:
            sums: float64 [4] of the frame's usable quads: R, both G, B in DN, and their number.
            black_level: DN.
            fewest_quads: A frame with fewer usable ones (too bright) leaves the estimate as it is.
        """
        quads = float(sums[3])
        if quads < fewest_quads:
            return
        red = float(sums[0]) - black_level * quads
        green = (float(sums[1]) - 2 * black_level * quads) / 2
        blue = float(sums[2]) - black_level * quads
        # less than a tenth of a DN over black is noise, and its ratios mean nothing
        if min(red, green, blue) < 0.1 * quads:
            return
        rate = self._rate if self._settled else 1.0
        self.gains[0] += rate * (_limited(green / red) - self.gains[0])
        self.gains[2] += rate * (_limited(green / blue) - self.gains[2])
        self._settled = True


def _limited(gain: float) -> float:
    return min(max(gain, LOWEST_GAIN), HIGHEST_GAIN)
