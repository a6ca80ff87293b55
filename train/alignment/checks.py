"""Pairs that nothing should be learned from, each with the reason.

A place where something has moved is masked (`mask`). What is refused here is wrong as a whole: a frame that shows
nothing, another scene, a filter array that was declared wrongly, or too little that can be relied on.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...engines.bayer import RawFormat
from ..curves import light_of_codes
from ..data.raw_pair import Gains, Samples
from ..protocols import opencv

Picture = npt.NDArray[np.uint8]
Means = npt.NDArray[np.float64]

CELL = 16
"""Edge of the cells whose means are compared, in pixels: noise averages out, and a few pixels of displacement do not
matter."""

FLAT = 0.01
"""Standard deviation of cells, in display values of [0, 1], below which a picture shows nothing."""

BURNT, MOST_BURNT = 0.98, 0.5
"""Part of white from which a sample is burnt out, and the part of a picture that may be."""

GREEN_RATIO = 1.5
"""How many times better the other diagonal of the filter array must agree to be taken for the green one."""

GREEN_LEAST = 0.02
"""Disagreement of the declared greens, as part of their mean, that is looked at: grey scenes have less anywhere."""

OPPOSITE = 0.3
"""Correlation of red minus blue with that of the reference, below minus which the two are taken for exchanged."""


class Refused(Exception):
    """A pair that is left out. The message is the reason, without the name of the pair."""


def check_shown(picture: Picture, what: str) -> None:
    """Something must be seen. Raises Refused: `what` ("the frame") is blank or burnt out.

    Args:
        picture: uint8 [H, W, 3], sRGB.
        what: Its name in the reason.
    """
    cv2 = opencv("alignment")
    burnt = float((picture.min(axis=2) >= BURNT * 255).mean())
    if burnt > MOST_BURNT:
        raise Refused(f"{what} is burnt out: {burnt:.0%} of it is white")
    size = [max(1, length // CELL) for length in picture.shape[1::-1]]
    spread = float(cv2.resize(picture, size, interpolation=cv2.INTER_AREA).std(axis=(0, 1)).max()) / 255
    if spread < FLAT:
        raise Refused(f"{what} is blank: all of it is alike, but for a standard deviation of {spread:.2%} of white")


def check_phase(samples: Samples, fmt: RawFormat, gains: Gains, reference: Picture) -> None:
    """The filter array must be the one that is declared.

    The two green samples of a cell are alike, those of red and blue are not; and red must be red in the reference.

    Args:
        samples: uint16 [H, W], DN of the format.
        fmt: Of the samples.
        gains: float32 [3], white balance of R, G, B.
        reference: uint8 [H, W, 3], sRGB, roughly over the frame.

    Raises:
        Refused: Another phase fits clearly better.
    """
    sites = _site_means(samples, fmt)
    declared, other = ("RGGB", "GRBG") if fmt.cfa in ("RGGB", "BGGR") else ("GRBG", "RGGB")  # one for each diagonal
    miss, other_miss = _green_miss(sites, declared), _green_miss(sites, other)
    if miss > GREEN_LEAST and miss > GREEN_RATIO * other_miss:
        fitting = other if _red_fit(sites, other, gains, reference) >= 0 else _exchanged(other)
        raise Refused(
            f"the filter array is hardly {fmt.cfa}: samples that should both be green differ by {miss:.0%}, those of "
            f"the other diagonal by {other_miss:.0%}; {fitting} would fit"
        )
    fit = _red_fit(sites, fmt.cfa, gains, reference)
    if fit < -OPPOSITE:
        raise Refused(
            f"the filter array is hardly {fmt.cfa}: what is red in the frame is blue in the reference (correlation "
            f"{fit:.2f}); {_exchanged(fmt.cfa)} would fit"
        )


def unregistered(matches: int, inliers: int, least: int) -> Refused:
    """Why two pictures could not be laid on each other."""
    if inliers >= least:
        return Refused(
            f"frame and reference cannot be laid on each other: {inliers} features agree on a view that no two cameras "
            "side by side have; is it another scene?"
        )
    return Refused(
        f"frame and reference cannot be laid on each other: of {matches} features alike in both, {inliers} lie as in "
        f"one scene, {least} are needed; is it another scene?"
    )


def check_valid(agreement: float, valid: float, least_agreement: float, least_valid: float) -> None:
    """What can be relied on must be enough, and agree.

    Args:
        agreement: Correlation of structure where it is valid.
        valid: Part of the frame.
        least_agreement, least_valid: What is asked for.

    Raises:
        Refused: One of them is too low.
    """
    if valid < least_valid or not valid:
        raise Refused(
            f"only {valid:.0%} of the frame is found again in the reference, {least_valid:.0%} are asked for: what is "
            "seen has moved, or is another scene"
        )
    if agreement < least_agreement:
        raise Refused(
            f"structure correlates by {agreement:.2f} after alignment, {least_agreement:.2f} is asked for: is it "
            "another scene?"
        )


def _site_means(samples: Samples, fmt: RawFormat) -> Means:
    """Mean light of the four sites of the filter array in cells: [4, h, w], in reading order."""
    height, width = (size // CELL * CELL for size in samples.shape)
    light = (samples[:height, :width].astype(np.float32) - fmt.black_level) / (fmt.white_level - fmt.black_level)
    parts = light.reshape(height // CELL, CELL // 2, 2, width // CELL, CELL // 2, 2)
    means = parts.mean(axis=(1, 4), dtype=np.float64)
    return np.stack([means[:, y, :, x] for y, x in itertools.product((0, 1), (0, 1))])


def _green_miss(sites: Means, cfa: str) -> float:
    """How far the two greens of a phase differ, as part of their mean."""
    first, second = (sites[place] for place, colour in enumerate(cfa) if colour == "G")
    return float(np.abs(first - second).mean() / max(float((first + second).mean() / 2), 1e-6))


def _red_fit(sites: Means, cfa: str, gains: Gains, reference: Picture) -> float:
    """Correlation of how much redder than blue cells are, in the frame and in the reference."""
    rows, columns = sites.shape[1:]
    light = np.stack([sites[[k for k, c in enumerate(cfa) if c == colour]].mean(0) for colour in "RGB"], axis=-1)
    piece = np.array(reference[: rows * CELL, : columns * CELL])  # a copy: torch wants to be able to write
    cells = light_of_codes(torch.from_numpy(piece)).numpy().reshape(rows, CELL, columns, CELL, 3).mean(axis=(1, 3))
    return _correlation(_redness(light * gains), _redness(cells))


def _redness(light: npt.NDArray[Any]) -> Means:
    """Red minus blue as part of all light; what is nearly black has hardly any colour."""
    return (light[..., 0] - light[..., 2]) / (light.sum(axis=-1) + _NEARLY_BLACK)


_NEARLY_BLACK = 0.01


def _exchanged(cfa: str) -> str:
    """The phase with red and blue exchanged."""
    return cfa.translate(str.maketrans("RB", "BR"))


def _correlation(first: Means, second: Means) -> float:
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0
