"""White-balance gains: given by the user, given by the camera, or estimated from the frames; and what else a core is
told with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat
from .colour import invertible_matrix
from .engine import SlotArray, WhiteBalance
from .errors import UserError
from .flat_field import Floats, row_tables
from .inputs import CCM, POSITIVE, takes_matrix

Samples = npt.NDArray[np.uint8 | np.uint16]

COLUMNS = ("wb_r", "wb_g", "wb_b")
"""Names of the white-balance gains among the run-time inputs of an engine or a core."""

CLIPPED = 0.98
"""Samples above this part of the white level say nothing about colour."""

# Quads that the grey world looks at, per frame, in each direction: enough for a mean, at some 20 microseconds.
GRID_ROWS, GRID_COLUMNS = 32, 128

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


class WhiteBalancer:
    """Settles the gains of every frame, for whatever engine develops it.

    The gains that the user gave; else those that came with the frame (wb_r, wb_g, wb_b; red or blue of 0 or NaN means
    that the camera gave none, green of 0 or NaN means 1); else the grey world, seen in the samples of the raw slot,
    which starts from the first frame and follows with a time constant of `smoothing_frames`. Gains are relative to
    green, from 0.25 to 8. Mono frames have gains of 1. The grey world is that of the samples after the flat field,
    where there is one.
    """

    def __init__(
        self,
        white_balance: WhiteBalance = "auto",
        smoothing_frames: float = SMOOTHING_FRAMES,
        mesh: Floats | None = None,
    ) -> None:
        """Raises UserError where `white_balance` is neither "auto" nor three usable gains. `mesh`: a flat field as of
        `checked_mesh`."""
        self._mesh = mesh
        self._fixed = None if white_balance == "auto" else checked_gains(white_balance)
        self._grey_world = GreyWorld(smoothing_frames)
        self._slots: list[Samples] = []

    def prepare(self, raw_format: RawFormat, raw_ring: SlotArray) -> None:
        """Make views of the slots of `raw_ring`; where gains may be estimated, compile the kernel for such arrays.

        Raises:
            ValueError: A slot is too small for the format, or its 16-bit samples lie at an odd address.
        """
        self._mono = raw_format.cfa == "MONO"
        self._slots = [samples_of(raw_ring.slot(k), raw_format) for k in range(raw_ring.slots)]
        if not self._mono and self._fixed is None:
            self._sum_colours = _colour_sums(raw_format, self._slots[0], self._mesh)
            self._black_level = raw_format.black_level
            self._sums = np.zeros(4, np.float64)

    def settle(self, raw_slot: int, given: npt.NDArray[np.float32], gains: npt.NDArray[np.float32]) -> None:
        """Put the gains of the next frame into `gains`.

        Args:
            raw_slot: Where it lies. Read only if nobody gave gains.
            given: float32 [3], what came with it: wb_r, wb_g, wb_b.
            gains: float32 [3], written: R, G, B, green 1.
        """
        if self._mono:
            gains[:] = 1.0
        elif self._fixed is not None:
            gains[:] = self._fixed
        elif not camera_gains(given, gains):
            fewest_quads = self._sum_colours(self._slots[raw_slot], self._sums)
            self._grey_world.update(self._sums, self._black_level, fewest_quads)
            gains[:] = self._grey_world.gains

    def resume(self, gains: tuple[float, float, float]) -> None:
        """Go on from these gains; without effect where the user or the camera gives them."""
        self._grey_world.resume(checked_gains(gains))

    def close(self) -> None:
        """Let go of the slots. Harmless when called twice."""
        self._slots = []


class CoreInputs:
    """Fills the run-time inputs of a model core from what came with the frames.

    The white-balance columns get the gains that the balancer settles on, and those of the colour matrix the matrix that
    the engine was opened with, whatever came with the frame. Others are passed on as they came. NaN or infinity, "not
    given", becomes 0, because networks cannot take them: no gain in decibels, and an exposure, ISO, f-number or focal
    length that is not known, which is also what a number below 0 means there.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        white_balance: WhiteBalance = "auto",
        colour_matrix: npt.ArrayLike | None = None,
        mesh: Floats | None = None,
    ) -> None:
        """Of a core whose `CoreInfo.inputs` these are.

        Args:
            inputs: Names of the columns.
            white_balance: See `open_engine`.
            colour_matrix: 3x3, camera RGB to linear sRGB, for a core that is told it; None is the identity. Unused
                where the core is not told it.
            mesh: Flat field, as of `checked_mesh`, that the graph around the core applies.

        Raises:
            UserError: `white_balance` is not usable, the core takes no gains but the user gave some, or it is told a
                colour matrix that cannot be inverted.
        """
        self._columns = [inputs.index(name) for name in COLUMNS] if set(COLUMNS) <= set(inputs) else []
        self._matrix: list[tuple[int, float]] = []
        if takes_matrix(inputs):
            values = invertible_matrix(colour_matrix).ravel().tolist()
            self._matrix = [(inputs.index(name), value) for name, value in zip(CCM, values, strict=True)]
        settled = {*self._columns, *(column for column, _ in self._matrix)}
        lowest = (0.0 if name in POSITIVE else -math.inf for name in inputs)
        self._others = [(k, low) for k, low in enumerate(lowest) if k not in settled]
        if white_balance != "auto" and not self._columns:
            raise UserError("this model takes no white-balance gains; leave the white balance at auto")
        self._balancer = WhiteBalancer(white_balance, mesh=mesh)
        self._given = np.full(3, np.nan, np.float32)
        self.resume = self._balancer.resume
        self.close = self._balancer.close

    def prepare(self, raw_format: RawFormat, raw_ring: SlotArray) -> None:
        """See `WhiteBalancer.prepare`."""
        if self._columns:
            self._balancer.prepare(raw_format, raw_ring)

    def fill(
        self,
        raw_slots: Sequence[int],
        given: npt.NDArray[np.float32],
        params: npt.NDArray[np.float32],
        gains: npt.NDArray[np.float32],
    ) -> None:
        """Settle a batch of B frames.

        Args:
            raw_slots: Where they lie, B of them.
            given: float32 [B, K], what came with them.
            params: float32 [at least B, K], written: what the core gets.
            gains: float32 [at least B, 3], written: gains that the core applies, all 1 for a core that takes none.
        """
        for index, slot in enumerate(raw_slots):
            row = params[index]
            for k, low in self._others:
                value = given[index, k]
                row[k] = value if low < value < math.inf else 0.0
            for k, value in self._matrix:
                row[k] = value
            if not self._columns:
                gains[index] = 1.0
                continue
            for k, column in enumerate(self._columns):
                self._given[k] = given[index, column]
            self._balancer.settle(slot, self._given, gains[index])
            for k, column in enumerate(self._columns):
                row[column] = gains[index, k]


def world_gains(
    frames: Iterable[npt.NDArray[np.uint8]], fmt: RawFormat, mesh: Floats | None = None
) -> npt.NDArray[np.float32]:
    """The gains under which several frames together are grey on average, each of the same weight a usable quad.

    Args:
        frames: Raw frames as slots hold them: uint8 [at least payload_size], 16-bit samples at an even address. The
            memory may be the same for all.
        fmt: Their format; gains of Mono frames are 1.
        mesh: Flat field that they are seen after, as of `checked_mesh`.

    Returns:
        float32 [3]: R, G, B, green 1, from 0.25 to 8; all 1 where the frames are too bright or too dark to say.
    """
    world, total, sums, fewest_quads = GreyWorld(), np.zeros(4), np.zeros(4), 0
    sum_colours: Callable[[Samples, npt.NDArray[np.float64]], int] | None = None
    if fmt.cfa != "MONO":
        for frame in frames:
            samples = samples_of(frame, fmt)
            sum_colours = sum_colours or _colour_sums(fmt, samples, mesh)
            fewest_quads = sum_colours(samples, sums)
            total += sums
        world.update(total, fmt.black_level, max(1, fewest_quads))
    return world.gains


def samples_of(slot: npt.NDArray[np.uint8], fmt: RawFormat) -> Samples:
    """A view of a raw slot in the unit that the kernels read: bytes, or 16-bit words.

    Raises:
        ValueError: The slot is too small, or its 16-bit samples lie at an odd address.
    """
    if slot.size < fmt.payload_size or (fmt.bits_per_pixel == 16 and not slot.ctypes.data % 2 == 0):
        raise ValueError(f"a raw slot needs {fmt.payload_size} bytes at an even address")
    payload = slot[: fmt.payload_size]
    return payload.view("<u2") if fmt.bits_per_pixel == 16 else payload


def _colour_sums(
    fmt: RawFormat, like: Samples, mesh: Floats | None
) -> Callable[[Samples, npt.NDArray[np.float64]], int]:
    """What sums the colours of a frame for `GreyWorld.update`, and returns how many quads it needs; already warm.

    like: samples whose kind of array (writable or not) the kernel is compiled for; their values are not read.
    """
    from ._kernels import colour_sums, flat_colour_sums  # here, because Numba takes a quarter of a second to import

    x_phase, y_phase = {"RGGB": (0, 0), "GRBG": (1, 0), "GBRG": (0, 1), "BGGR": (1, 1)}[fmt.cfa]
    shape = (fmt.width, fmt.height, fmt.bits_per_pixel, 0, x_phase, y_phase)
    row_step = max(2, fmt.height // GRID_ROWS // 2 * 2)
    column_step = max(2, fmt.width // GRID_COLUMNS // 2 * 2)
    grid = len(range(0, fmt.height - 1, row_step)) * len(range(0, fmt.width - 1, column_step))
    fewest_quads = min(16, grid)
    limit = int(np.ceil(fmt.black_level + CLIPPED * (fmt.white_level - fmt.black_level)))

    flat = None if mesh is None else tuple(row_tables(mesh, fmt))

    def sum_colours(samples: Samples, sums: npt.NDArray[np.float64]) -> int:
        if flat is None:
            colour_sums(samples, shape, row_step, column_step, limit, sums)
        else:
            flat_colour_sums(samples, shape, row_step, column_step, limit, fmt.black_level, flat, sums)
        return fewest_quads

    warm = np.zeros(like.shape, like.dtype)
    warm.flags.writeable = like.flags.writeable
    sum_colours(warm, np.zeros(4, np.float64))
    return sum_colours


def _limited(gain: float) -> float:
    return min(max(gain, LOWEST_GAIN), HIGHEST_GAIN)
