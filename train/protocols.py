"""What is taken out of a picture before it is scored against its reference.

- `plain`: nothing.
- `colour`: an affine map of colours per picture. For references whose exposure and look are no function of the raw
  frame (RHID). A map of three colours and a constant to three colours is fitted by least squares on blurred pictures;
  8 pixels at the border do not count.
- `flow`: a displacement per pixel. For references taken by another camera that do not lie exactly over the frame. The
  reference is moved onto the picture along the optical flow between them (dense inverse search, Kroeger et al. 2016);
  places where forward and backward flow disagree, or that come from outside, do not count. Colours stay as they are.
  Where several pictures of one frame are compared, the flow must be found on the same one for all, the guide: on each
  of them by itself, other places would count for each, and a picture that is hard to follow would lose its hard places.

Scores of different protocols must not be compared: what one takes out, the others count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.errors import UserError
from .losses.ms_ssim import SCALE_WEIGHTS, least_edge
from .metrics.lpips import Lpips
from .metrics.pictures import SSIM_WINDOW, ms_ssim, psnr, ssim_map, unit_pair

Floats = npt.NDArray[np.float64]

BORDER = 8
"""Pixels on each side that `colour` leaves out."""

BLUR_SIGMA, BLUR_REACH, FITTED_STEP = 3.0, 12, 4
"""In pixels: how much pictures are blurred before colours are fitted, and how far apart the fitted pixels lie."""

FLOW_DISAGREEMENT = 1.0
"""Pixels by which the way there and back may miss its start."""

MS_SSIM_LEAST = least_edge(len(SCALE_WEIGHTS))

_INNER = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
"""Rows or columns that have a place in `ssim_map`."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """Two pictures that can be compared.

    Attributes:
        shown, reference: float64 [H, W, 3] in [0, 1], of one size, which may be smaller than before.
        counts: bool [H, W], which places count; None: all of them.
    """

    shown: Floats
    reference: Floats
    counts: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Score:
    """How close a picture is to its reference under a protocol.

    Attributes:
        psnr: In dB.
        ssim: 1 for equal pictures.
        ms_ssim: Likewise; None for pictures smaller than 161 x 161, and where not every place counts.
        lpips: 0 for equal pictures; None without its weights, and where not every place counts.
        counted: Part of the places that count.
    """

    psnr: float
    ssim: float
    ms_ssim: float | None = None
    lpips: float | None = None
    counted: float = 1.0


def plain(shown: npt.ArrayLike, reference: npt.ArrayLike, guide: npt.ArrayLike | None = None) -> Aligned:
    """As they are; without use for a guide. Raises ValueError where they are not two colour pictures of one size."""
    return Aligned(*_colour_pair(shown, reference))


def colour(shown: npt.ArrayLike, reference: npt.ArrayLike, guide: npt.ArrayLike | None = None) -> Aligned:
    """The colours of `shown` brought to those of the reference, limited to [0, 1], without the border; no guide.

    Raises:
        ValueError: Not two colour pictures of one size, or smaller than 25 x 25.
    """
    a, b = _colour_pair(shown, reference)
    if min(a.shape[:2]) < 2 * BLUR_REACH + 1:
        raise ValueError(f"colours are aligned in pictures of 25 x 25 and up, not {[*a.shape]}")
    mapped = with_map(a, colour_map(a, b))
    inner = slice(BORDER, -BORDER)
    return Aligned(mapped[inner, inner], b[inner, inner])


def colour_map(shown: Floats, reference: Floats) -> Floats:
    """The affine map [4, 3] from [R, G, B, 1] that brings `shown` closest to the reference, both blurred."""
    seen, wanted = (_blurred(x)[::FITTED_STEP, ::FITTED_STEP].reshape(-1, 3) for x in (shown, reference))
    values, *_ = np.linalg.lstsq(np.concatenate([seen, np.ones((len(seen), 1))], 1), wanted, rcond=None)
    return values.astype(np.float64, copy=False)


def with_map(picture: Floats, values: Floats) -> Floats:
    """A picture [H, W, 3] under an affine map [4, 3], limited to [0, 1]."""
    return np.clip(picture @ values[:3] + values[3], 0, 1)


def flow(shown: npt.ArrayLike, reference: npt.ArrayLike, guide: npt.ArrayLike | None = None) -> Aligned:
    """The reference moved onto `shown`, and where that can be relied on.

    Args:
        shown, reference: sRGB [H, W, 3], uint8 or in [0, 1].
        guide: A picture that lies pixel for pixel over `shown`, on which the flow is found; None: `shown` itself.

    Raises:
        ValueError: Not colour pictures of one size, smaller than 25 x 25, or nowhere alike.
        UserError: OpenCV is not installed.
    """
    a, b = _colour_pair(shown, reference)
    seen, _ = (a, b) if guide is None else _colour_pair(guide, reference)
    if min(a.shape[:2]) < 2 * BLUR_REACH + 1:
        raise ValueError(f"flow is found in pictures of 25 x 25 and up, not {[*a.shape]}")
    cv2 = opencv("the protocol flow")
    alike = with_map(seen, colour_map(seen, b))  # flow follows values: other colours would pass for motion
    grey_a, grey_b = (np.rint(255 * x @ [0.299, 0.587, 0.114]).astype(np.uint8) for x in (alike, b))
    there, back = _flow(cv2, grey_a, grey_b), _flow(cv2, grey_b, grey_a)
    y, x = np.mgrid[: a.shape[0], : a.shape[1]].astype(np.float32)
    to_x, to_y = x + there[..., 0], y + there[..., 1]
    moved = cv2.remap(b, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    returned = there + cv2.remap(back, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    counts = (np.hypot(returned[..., 0], returned[..., 1]) <= FLOW_DISAGREEMENT) & (to_x >= 0) & (to_y >= 0)
    counts &= (to_x <= a.shape[1] - 1) & (to_y <= a.shape[0] - 1)
    if not counts[_INNER, _INNER].any():
        raise ValueError("no place of the picture is found again in its reference; they show different scenes")
    return Aligned(a, moved, counts)


PROTOCOLS: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None], Aligned]] = {
    "plain": plain,
    "colour": colour,
    "flow": flow,
}
"""By name: (shown, reference, guide), sRGB [H, W, 3], uint8 or in [0, 1], to what is compared."""


def score(
    shown: npt.ArrayLike,
    reference: npt.ArrayLike,
    protocol: str = "plain",
    *,
    guide: npt.ArrayLike | None = None,
    lpips: Lpips | None = None,
) -> Score:
    """Score a picture.

    Args:
        shown, reference: sRGB [H, W, 3], uint8 or in [0, 1], 25 x 25 and up.
        protocol: A name of `PROTOCOLS`.
        guide: For "flow": the picture of the same frame on which it is found.
        lpips: To be measured besides.

    Raises:
        ValueError: Not two such pictures.
        UserError: No such protocol, or OpenCV is missing for "flow".
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"there is no protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    return measured(PROTOCOLS[protocol](shown, reference, guide), lpips)


def measured(pair: Aligned, lpips: Lpips | None = None) -> Score:
    """How close two aligned pictures are; `lpips` is measured besides. Raises ValueError: they are too small."""
    similarity, counts = ssim_map(pair.shown, pair.reference), pair.counts
    if counts is not None:
        inner = counts[_INNER, _INNER]
        return Score(
            psnr(pair.shown[counts], pair.reference[counts]),
            float(similarity[inner].mean()),
            counted=float(counts.mean()),
        )
    return Score(
        psnr(pair.shown, pair.reference),
        float(similarity.mean()),
        ms_ssim(pair.shown, pair.reference) if min(pair.shown.shape[:2]) >= MS_SSIM_LEAST else None,
        None if lpips is None else lpips(pair.shown, pair.reference),
    )


def _colour_pair(shown: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Floats, Floats]:
    a, b = unit_pair(shown, reference)
    if a.ndim != 3:
        raise ValueError(f"colour pictures [H, W, 3] are compared, not {[*a.shape]}")
    return a, b


def _blurred(picture: Floats) -> Floats:
    """By a Gaussian, reflected about the outermost pixels."""
    bell = np.exp(-(np.arange(-BLUR_REACH, BLUR_REACH + 1) ** 2) / (2 * BLUR_SIGMA**2))
    bell /= bell.sum()
    for axis in (0, 1):
        margins = [(BLUR_REACH, BLUR_REACH) if k == axis else (0, 0) for k in range(3)]
        lines = np.moveaxis(np.pad(picture, margins, mode="reflect"), axis, 0)
        blurred = sum(weight * lines[k : k + picture.shape[axis]] for k, weight in enumerate(bell))
        picture = np.moveaxis(blurred, 0, axis)  # pyright: ignore[reportArgumentType]
    return picture


def opencv(what: str) -> Any:
    """OpenCV, for `what`. Raises UserError: it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"{what} needs OpenCV, which is not installed; run pip install 'ispeed[train]'") from error
    return cv2


def _flow(cv2: Any, start: npt.NDArray[np.uint8], end: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """From each pixel of `start` to its place in `end`, (x, y) [H, W, 2]."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return search.calc(start, end, None)
