"""The classic engine: a whole image signal processor in one fused kernel, without weights. Baseline and fallback.

Black and white level, white balance, defect pixels, flat field, gradient-corrected demosaic, colour matrix, sRGB curve,
for every pixel format of `bayer.PIXEL_FORMATS`; Mono8 becomes grey. A sample is clipped at the white level after its
gains, so that burnt-out highlights stay white; a gain below 1 tints them, because larger ones would burn out what
is not. `reference.classic_reference` is the same in plain NumPy.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from . import _kernels as kernels
from ._threads import StripePool
from .bayer import RawFormat
from .colour import checked_matrix, checked_tone
from .defects import tables
from .engine import EngineInfo, SlotArray, WhiteBalance
from .errors import UserError
from .flat_field import FlatField, checked_mesh, row_tables
from .ticket import FinishedTicket
from .white_balance import COLUMNS, SMOOTHING_FRAMES, Samples, WhiteBalancer, samples_of

MAX_BATCH = 4
"""Frames per call: a few save calls when frames have piled up; more would only keep the first one waiting."""

PIXELS_PER_THREAD = 400_000
"""Below this a second thread costs more in hand-over than it saves, and the core is wanted by the other stages."""

STRIPES_PER_THREAD = 4
ROWS_PER_STRIPE = 32

# The sRGB curve in codes as a quartic of the square root of linear light, plus 2^23 (see `_kernels._tone`), then slope
# and end of its straight part. The absolute term is a whole number, because there are no others at 2^23; with that,
# these coefficients have the least largest deviation, 0.27 codes.
_WHOLE = float(1 << 23)
_TONES = {
    "srgb": (_WHOLE - 10, 376.2692773, -266.2786508, 249.0299146, -94.2825794, 12.92 * 255, 0.0031308),
    "linear": (_WHOLE, 0.0, 255.0, 0.0, 0.0, 255.0, 0.0),
}


class ClassicEngine:
    """Develops on the CPU, finished when `develop` returns. White balance of a frame: see `WhiteBalancer`."""

    completion_fd = None

    def __init__(
        self,
        *,
        threads: int | None = None,
        white_balance: WhiteBalance = "auto",
        colour_matrix: npt.ArrayLike | None = None,
        tone: str = "srgb",
        defects: Sequence[tuple[int, int]] = (),
        flat_field: FlatField | None = None,
        clamp_outliers: bool = False,
        smoothing_frames: float = SMOOTHING_FRAMES,
    ) -> None:
        """See `open_engine` for the options.

        Raises:
            UserError: An option is out of range.
        """
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; use 1 or more, or leave it out")
        self._threads = threads
        self._mesh = None if flat_field is None else checked_mesh(flat_field)
        self._balancer = WhiteBalancer(white_balance, smoothing_frames, self._mesh)
        matrix = checked_matrix(colour_matrix)
        self._matrices = np.stack([matrix.reshape(-1), matrix[::-1, ::-1].reshape(-1)])
        self._tone = np.array(_TONES[checked_tone(tone)], np.float32)
        self._defects = tuple(defects)
        self._clamp = clamp_outliers
        self._pool: StripePool | None = None
        self.info = EngineInfo(
            name="classic",
            backend="numba",
            precision="fp32",
            inputs=COLUMNS,
            max_batch=MAX_BATCH,
        )

    def prepare(self, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray) -> None:
        """See `Engine.prepare`. Compiling takes seconds once per machine, then comes from the cache folder."""
        if not 1 <= batch <= MAX_BATCH:
            raise UserError(f"a batch of {batch} frames is out of range; use 1 to {MAX_BATCH}")
        mono = raw_format.cfa == "MONO"
        if mono and self._clamp:
            raise UserError("outliers are clamped only in Bayer frames; turn it off for Mono8")
        self.close()
        self._format = raw_format
        self._defect_rows, self._defect_table = tables(self._defects, raw_format)
        self._flat = tuple(row_tables(self._mesh, raw_format))  # Numba looks at other kinds anew in every call
        self._balancer.prepare(raw_format, raw_ring)
        self._raw = [samples_of(raw_ring.slot(k), raw_format) for k in range(raw_ring.slots)]
        self._srgb = [_pixels(srgb_ring.slot(k), raw_format) for k in range(srgb_ring.slots)]
        self._gains = np.ones((batch, 3), np.float32)
        self._tickets = [FinishedTicket(self._gains[: count + 1]) for count in range(batch)]
        self._scales = np.zeros((batch, 3, 2), np.float32)
        pixels = raw_format.width * raw_format.height
        threads = self._threads or max(1, min(_processors(), pixels // PIXELS_PER_THREAD))
        if threads > 1:
            self._pool = StripePool(threads)
        self._plan_stripes(threads)
        if mono:
            self._work = [np.zeros(raw_format.width, np.uint8) for _ in range(threads)]
        else:
            self._prepare_bayer(threads)
        self._warm_up()

    def develop(
        self, raw_slots: Sequence[int], srgb_slots: Sequence[int], params: npt.NDArray[np.float32]
    ) -> FinishedTicket:
        """See `Engine.develop`. Slots are those of the rings given to `prepare`."""
        count = len(raw_slots)
        if not 1 <= count <= len(self._tickets) or len(srgb_slots) != count:
            raise ValueError(f"a batch holds 1 to {len(self._tickets)} raw slots and as many sRGB slots")
        self._batch_raw = [self._raw[k] for k in raw_slots]
        self._batch_srgb = [self._srgb[k] for k in srgb_slots]
        for index, slot in enumerate(raw_slots):
            self._balance(index, slot, params)
        pieces = count * self._stripes
        if self._pool is None:
            for number in range(pieces):
                self._develop_stripe(number, 0)
        else:
            self._pool.run(self._develop_stripe, pieces)
        return self._tickets[count - 1]

    def resume(self, white_balance: tuple[float, float, float]) -> None:
        """See `Engine.resume`; without effect where the user or the camera gives the gains."""
        self._balancer.resume(white_balance)

    def close(self) -> None:
        """See `Engine.close`; the views of the rings are let go as well."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._balancer.close()
        self._raw, self._srgb, self._batch_raw, self._batch_srgb = [], [], [], []

    def _plan_stripes(self, threads: int) -> None:
        height = self._format.height
        most = STRIPES_PER_THREAD * threads if threads > 1 else 1
        self._stripes = max(1, min(most, height // ROWS_PER_STRIPE))
        edges = [height * k // self._stripes for k in range(self._stripes + 1)]
        self._edges = list(itertools.pairwise(edges))

    def _prepare_bayer(self, threads: int) -> None:
        fmt = self._format
        x_phase, y_phase = {"RGGB": (0, 0), "GRBG": (1, 0), "GBRG": (0, 1), "BGGR": (1, 1)}[fmt.cfa]
        pairs = (fmt.width + x_phase + 1) // 2
        # whole vectors, and one more so that the rows of a buffer do not all fall into the same lines of the cache
        pitch = (pairs + 2 * kernels.PAD + 15) // 16 * 16 + 16
        self._shape = (fmt.width, fmt.height, fmt.bits_per_pixel, pitch, x_phase, y_phase)
        self._pads = _pads(fmt.width, x_phase, pitch)
        self._work = [_work_buffers(pitch) for _ in range(threads)]

    def _balance(self, index: int, raw_slot: int, params: npt.NDArray[np.float32]) -> None:
        """Settle the gains of frame `index` of the batch, and the scale of its samples."""
        gains, fmt = self._gains[index], self._format
        self._balancer.settle(raw_slot, params[index], gains)
        scale = self._scales[index]
        np.multiply(gains, 1.0 / (fmt.white_level - fmt.black_level), out=scale[:, 0])
        np.multiply(scale[:, 0], -fmt.black_level, out=scale[:, 1])

    def _develop_stripe(self, number: int, thread: int) -> None:
        index, stripe = divmod(number, self._stripes)
        self._run_kernel(self._batch_raw[index], self._batch_srgb[index], self._edges[stripe], index, thread)

    def _run_kernel(
        self,
        raw: Samples,
        srgb: npt.NDArray[np.uint8],
        rows: tuple[int, int],
        index: int,
        thread: int,
    ) -> None:
        first, last = rows
        if self._format.cfa == "MONO":
            kernels.develop_mono(
                raw,
                srgb,
                first,
                last,
                self._format.width,
                self._scales[index],
                self._tone,
                self._defect_rows,
                self._defect_table,
                self._work[thread],
            )
            return
        kernels.develop_bayer(
            raw,
            srgb,
            first,
            last,
            self._shape,
            self._scales[index],
            self._matrices,
            self._tone,
            self._defect_rows,
            self._defect_table,
            self._flat,
            self._pads,
            self._clamp,
            self._work[thread],
        )

    def _warm_up(self) -> None:
        """Compile or load the kernels for exactly the kinds of array that will come, on memory of our own."""
        fmt = self._format
        raw = np.zeros(fmt.payload_size // self._raw[0].itemsize, self._raw[0].dtype)
        raw.flags.writeable = self._raw[0].flags.writeable
        srgb = np.zeros(fmt.width * fmt.height * 3, np.uint8)
        for thread in range(len(self._work)):
            self._run_kernel(raw, srgb, (0, fmt.height), 0, thread)


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _pixels(slot: npt.NDArray[np.uint8], fmt: RawFormat) -> npt.NDArray[np.uint8]:
    size = fmt.width * fmt.height * 3
    if slot.size < size or not slot.flags.writeable:
        raise ValueError(f"an sRGB slot needs {size} writable bytes")
    return slot[:size]


def _pads(width: int, x_phase: int, pitch: int) -> npt.NDArray[np.int64]:
    """(destination, source) offsets in a row buffer of the samples in front of and behind the row, mirrored."""
    pairs = (width + x_phase + 1) // 2
    period = 2 * (width - 1)

    def place(column: int) -> int:
        shifted = column + x_phase
        return shifted // 2 + (pitch if shifted % 2 else 0)

    entries = []
    for column in (*range(-4 - x_phase, 0), *range(width, 2 * (pairs + 2) - x_phase)):
        mirrored = min(column % period, period - column % period)
        entries.append((place(column), place(mirrored)))
    return np.array(entries, np.int64)


def _work_buffers(pitch: int) -> tuple[npt.NDArray[np.generic], ...]:
    """Rows, rows before clamping, codes, and the codes as bytes: the memory of one thread."""
    rows = np.zeros(kernels.ROWS * 2 * pitch + kernels.PAD, np.float32)
    before = np.zeros(3 * 2 * pitch + kernels.PAD, np.float32)
    codes = np.zeros(3 * pitch, np.uint16)
    return rows, before, codes, codes.view(np.uint8)
