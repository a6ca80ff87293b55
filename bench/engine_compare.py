"""The classic engine against OpenCV's edge-aware demosaic with the same steps around it, in turn in one run."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines import RawFormat, UserError, open_engine, pack, unpack
from ..engines.reference import classic_reference, srgb_curve
from ..engines.slots import Slots

FRAMES = 8
"""Different frames and places in memory that both sides go through, as in a ring: more than a cache holds."""

WHITE_BALANCE = (1.8, 1.0, 1.5)
COLOUR_MATRIX = ((1.6, -0.4, -0.2), (-0.3, 1.5, -0.2), (-0.1, -0.5, 1.6))


def compare_engine(
    width: int = 1280,
    height: int = 1024,
    pixel_format: str = "BayerRG12",
    repeats: int = 5,
    seconds: float = 1.0,
    threads: int = 2,
) -> dict[str, Any]:
    """Develop the same frames with the classic engine and with OpenCV.

    Both sides get the same white balance, colour matrix and sRGB curve, and both write RGB into memory that was there
    before. OpenCV's side is `cv2.demosaicing` (edge-aware) on the samples as it wants them (8 or 16 bit, unpacked
    beforehand for packed formats and not counted), `cv2.transform` with white balance and colour matrix in one, and a
    tone table.

    Args:
        width, height, pixel_format: The frames; a Bayer format.
        repeats: Runs of each side, taken in turn.
        seconds: Length of each run.
        threads: Threads of each side.

    Returns:
        JSON values: the conditions, frames per second of each run with median and spread (largest less smallest, over
        the median), `ratio` of the medians, and how far the classic engine is from its NumPy reference.

    Raises:
        UserError: OpenCV is missing, or the format is not a Bayer format.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError("OpenCV is not installed; install it with: pip install 'ispeed[bench]'") from error
    fmt = RawFormat(width, height, pixel_format)
    if fmt.cfa == "MONO":
        raise UserError(f"{pixel_format} has no colours to compare; use a Bayer format")
    raw, srgb = Slots(FRAMES, fmt.payload_size), Slots(FRAMES, width * height * 3)
    mosaics = _fill(raw, fmt)

    opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    engine = open_engine("classic", threads=threads, white_balance=WHITE_BALANCE, colour_matrix=COLOUR_MATRIX)
    try:
        engine.prepare(fmt, 1, raw, srgb)
        params = np.zeros((1, len(engine.info.inputs)), np.float32)
        sides: dict[str, Callable[[int], object]] = {
            "classic": lambda k: engine.develop([k], [k], params).wait(),
            "opencv": _opencv_chain(mosaics, fmt),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, develop in sides.items():
                rates[name].append(_frames_per_second(develop, seconds))
        engine.develop([0], [0], params).wait()
    finally:
        engine.close()
        cv2.setNumThreads(opencv_threads)
    shown = srgb.slot(0).reshape(height, width, 3)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "width": width,
        "height": height,
        "pixel_format": pixel_format,
        "depth": fmt.depth,
        "threads": threads,
        "repeats": repeats,
        "seconds": seconds,
        **{name: _summary(values) for name, values in rates.items()},
        "ratio": medians["classic"] / medians["opencv"],
        "against_reference": _deviation(shown, classic_reference(raw.slot(0), fmt, WHITE_BALANCE, COLOUR_MATRIX)),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": version("numba"),
            "opencv": cv2.__version__,
        },
        "processors": len(os.sched_getaffinity(0)),
    }


def _fill(raw: Slots, fmt: RawFormat) -> list[npt.NDArray[np.uint16]]:
    """Smooth shapes with noise in every slot, and the samples of each."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0 : fmt.height, 0 : fmt.width]
    mosaics = []
    for k in range(raw.slots):
        light = 0.5 + 0.4 * np.sin(x / 37 + k) * np.cos(y / 23) + rng.normal(0, 0.02, x.shape)
        samples = (np.clip(light, 0, 1) * ((1 << fmt.depth) - 1)).astype(np.uint16)
        raw.slot(k)[:] = pack(samples, fmt)
        mosaics.append(unpack(raw.slot(k), fmt))
    return mosaics


def _opencv_chain(mosaics: list[npt.NDArray[np.uint16]], fmt: RawFormat) -> Callable[[int], object]:
    """The steps of the classic engine with OpenCV's functions, writing into memory allocated here."""
    import cv2

    # OpenCV names a pattern by the second row's second and third pixel, and in its own order of channels
    code = {
        "RGGB": cv2.COLOR_BayerBG2RGB_EA,
        "GRBG": cv2.COLOR_BayerGB2RGB_EA,
        "GBRG": cv2.COLOR_BayerGR2RGB_EA,
        "BGGR": cv2.COLOR_BayerRG2RGB_EA,
    }[fmt.cfa]
    eight_bit = fmt.depth == 8
    frames = [mosaic.astype(np.uint8) for mosaic in mosaics] if eight_bit else mosaics
    full_scale = (1 << fmt.depth) - 1
    codes = np.floor(srgb_curve(np.arange(full_scale + 1) / full_scale) * 255 + 0.5).astype(np.uint8)
    # samples above the white level, which the matrix makes, are clipped by the table's length
    table = codes if eight_bit else np.concatenate([codes, np.full(65536 - codes.size, 255, np.uint8)])
    matrix = (np.array(COLOUR_MATRIX) * np.array(WHITE_BALANCE)).astype(np.float32)
    rgb = np.empty((fmt.height, fmt.width, 3), frames[0].dtype)
    corrected = np.empty_like(rgb)
    shown = [np.empty((fmt.height, fmt.width, 3), np.uint8) for _ in frames]

    def develop(k: int) -> object:
        cv2.demosaicing(frames[k], code, dst=rgb)
        cv2.transform(rgb, matrix, dst=corrected)
        if eight_bit:
            return cv2.LUT(corrected, table, dst=shown[k])
        return _look_up(corrected, table, shown[k])

    return develop


def _look_up(values: npt.NDArray[Any], table: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> object:
    import cv2

    try:
        return cv2.LUT(values, table, dst=out)  # 16-bit tables: OpenCV 5
    except cv2.error:
        return np.take(table, values, out=out, mode="clip")


def _frames_per_second(develop: Callable[[int], object], seconds: float) -> float:
    for k in range(FRAMES):  # bring the other side's memory out of the caches, and this one's in
        develop(k)
    start = time.perf_counter()
    done = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        develop(done % FRAMES)
        done += 1
    return done / elapsed


def _summary(rates: list[float]) -> dict[str, Any]:
    median = statistics.median(rates)
    return {"fps": rates, "median_fps": median, "spread": (max(rates) - min(rates)) / median}


def _deviation(shown: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> dict[str, float]:
    difference = shown.astype(np.float64) - reference
    error = float(np.mean(difference**2))
    return {
        "psnr_db": float(10 * np.log10(255**2 / error)) if error else float("inf"),
        "max_codes": float(np.abs(difference).max()),
    }
