"""Frames that are developed and measured: raw bytes with all that is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...engines.bayer import RawFormat, pack
from ...engines.errors import UserError
from ...engines.inputs import CAMERA
from ...engines.reference import srgb_curve
from ...engines.slots import Slots
from ...engines.white_balance import WhiteBalancer, checked_gains
from ..data.scene import render_scene
from ..data.unprocess import Drawn, Unprocessing, expose

Bytes = npt.NDArray[np.uint8]
Picture = npt.NDArray[np.uint8]
"""sRGB [H, W, 3]."""

Gains = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]

_RENDERED = 2
"""Sets chance for rendering apart from all other chance of the same seed."""

BLACK_LEVEL = 1 << 12
"""Of frames that are made of pictures, in digital numbers of 16 bits: noise goes below it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One raw frame.

    Attributes:
        name: Unlike any other of its set.
        raw: uint8 [payload size].
        raw_format: Of the bytes.
        gains: float32 [3], white balance of R, G, B, green 1.
        reference: What its picture should be; None where nobody knows.
        scene: Equal for frames that differ in noise alone; "" where that is not known.
        corners: float64 [24, 4, 2], patches of a chart, (x, y) in pixels; None without one.
        camera: What is known of the camera that took it, the columns of `engines.inputs.CAMERA`; what is not known is
            0, as in samples of training.
        matrix: Camera RGB after white balance to linear sRGB, float32 [3, 3]; None is that of the set.
        samples: float32 [4, H/2, W/2], R, Gr, Gb, B of the frame, black 0, white 1; only of sets for inverse networks.
        radiance: float32 [H, W, 3], linear sRGB, all of the scene's light, of which the frame holds a part; only of HDR
            scenes.
        light: How bright the scene is, in stops from the middle of its set, where that changes.
    """

    name: str
    raw: Bytes
    raw_format: RawFormat
    gains: Gains
    reference: Picture | None = None
    scene: str = ""
    corners: npt.NDArray[np.float64] | None = None
    camera: tuple[float, ...] = (0.0,) * len(CAMERA)
    matrix: Matrix | None = None
    samples: Tensor | None = None
    radiance: npt.NDArray[np.float32] | None = None
    light: float = 0.0


class FrameSet(Protocol):
    """Frames of one set, always the same ones.

    Attributes:
        phases: Filter arrays in which its frames can be had; ("",) where they are as they are.
        matrix: Camera RGB after white balance to linear sRGB, float32 [3, 3]; None for the identity.
    """

    @property
    def phases(self) -> tuple[str, ...]: ...

    @property
    def matrix(self) -> Matrix | None: ...

    def frames(self, phase: str, most: int | None = None) -> Iterator[Frame]:
        """Its frames, or the first `most` of them. Raises UserError: data are missing or damaged."""
        ...


def engine_gains(raw: Bytes, fmt: RawFormat) -> Gains:
    """The gains that an engine finds in its first frame where nobody gives it any: float32 [3]."""
    slots, gains = Slots(1, fmt.payload_size), np.empty(3, np.float32)
    slots.slot(0)[:] = raw
    balancer = WhiteBalancer()
    balancer.prepare(fmt, slots)
    balancer.settle(0, np.full(3, np.nan, np.float32), gains)
    balancer.close()
    return gains


def usable_gains(gains: npt.ArrayLike) -> Gains:
    """Gains as an engine applies them, green 1. Raises UserError: out of range."""
    red, green, blue = np.asarray(gains, np.float64).tolist()
    return checked_gains((red, green, blue))


def rendered(edge: int, *seed: int) -> Picture:
    """A rendered scene that no training has seen, as a picture [edge, edge, 3]."""
    return np.rint(srgb_curve(rendered_light(edge, *seed)) * 255).astype(np.uint8)


def rendered_light(edge: int, *seed: int) -> npt.NDArray[np.float32]:
    """Its linear light, [edge, edge, 3]."""
    return render_scene(np.random.default_rng([_RENDERED, *seed]), edge, edge)


def middle(picture: Picture, edge: int, where: str) -> Picture:
    """The middle of a picture, [edge, edge, 3]. Raises UserError: it is too small."""
    height, width = picture.shape[:2]
    if min(height, width) < edge:
        raise UserError(f"{where} is {width}x{height}, made smaller as asked, and leaves no room for a crop of {edge}")
    top, left = (height - edge) // 2, (width - edge) // 2
    return picture[top : top + edge, left : left + edge]


def to_tensor(picture: Picture) -> Tensor:
    """float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() / 255


def to_picture(shown: Tensor) -> Picture:
    """The first of [B, 3, H, W] in [0, 1]."""
    return (shown[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def taken(
    photo: Tensor, drawn: Drawn, settings: Unprocessing, noise: torch.Generator, cfa: str, name: str, scene: str = ""
) -> Frame:
    """A frame of 16 bits of a picture.

    Args:
        photo: float32 [1, 3, H, W], sRGB in [0, 1].
        drawn: The camera and the light.
        settings: The same that it was drawn from.
        noise: Where noise comes from.
        cfa, name, scene: Of the frame.
    """
    frames = expose(photo, drawn, settings, noise, cfa=cfa)
    raw, fmt = in_16_bits(frames.mosaic[0], frames.cfa)
    return Frame(
        name,
        raw,
        fmt,
        frames.gains[0].numpy(),
        to_picture(frames.target),
        scene,
        camera=tuple(frames.camera[0].tolist()),
    )


def in_16_bits(mosaic: Tensor, cfa: str) -> tuple[Bytes, RawFormat]:
    """A mosaic [H, W], black 0 and white 1, as the bytes of a frame with noise below its black level."""
    height, width = mosaic.shape
    fmt = RawFormat(width, height, f"Bayer{cfa[:2]}16", BLACK_LEVEL)
    codes = np.rint(BLACK_LEVEL + mosaic.double().numpy() * (fmt.white_level - BLACK_LEVEL))
    return pack(codes.clip(0, fmt.white_level).astype(np.uint16), fmt), fmt


def matrix_of(drawn: Drawn) -> Matrix:
    """Camera RGB after white balance to linear sRGB of what was drawn: float32 [3, 3]."""
    return torch.linalg.inv(drawn.camera_from_srgb[0].double()).float().numpy()


def generator(*parts: int) -> torch.Generator:
    """Chance that follows from whole numbers."""
    seed = int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)
