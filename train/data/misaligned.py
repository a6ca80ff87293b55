"""Pairs as of two cameras side by side, of which all is known: for measuring alignment, and what it is worth.

The first camera takes a raw frame of a photograph (`unprocess`). The second sees the same from nearly the same place,
and shows it in a look of its own: its picture is displaced smoothly, by parallax and a little rotation, and recoloured
by exposure, white balance, saturation and tone. What the picture would be without the displacement is kept, and so is
the displacement.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...engines.bayer import RawFormat
from ..curves import LUMA, linear_from_srgb, smoothstep, srgb_from_linear
from .folder import encode_frame, encode_png
from .noise import Range
from .unprocess import Frames, Unprocessing, make_unprocessing, unprocess

Floats = npt.NDArray[np.float32]

MARGIN = 16
"""Pixels on each side of the frame that photographs must have, so that the second camera sees what it displaces."""

WAVES = 4
"""Plane waves that parallax is the sum of."""

LONGEST_WAVE, SHORTEST_WAVE = 2.0, 0.7
"""Their lengths, in long edges of the frame."""

MOST_ROTATION = 0.5
"""Of the largest displacement, as much as rotation may have."""

ACROSS = 0.2
"""How much parallax there is across the line between the cameras, for as much along it."""

_ROUNDS = 24
"""Of the search for where a displaced point comes from; with slopes below 0.6 the error ends below 1e-4 pixels."""

_PLACES = 64
"""Along each side, at which the longest displacement is looked for."""

_BLACK = 1 << 12
"""Of frames that are written, in digital numbers of 16 bits: noise goes below it."""


@dataclass(frozen=True)
class Misalignment:
    """How pairs come out.

    Attributes:
        largest: Range of the largest displacement within a frame, in pixels, drawn evenly; below `MARGIN` - 2.
        look: How far the second camera's colours may go; 0 keeps those of the photograph, 1 is a usual camera.
        camera: The first camera and the light. Nothing is blurred unless it says so.
    """

    largest: Range = (0.0, 8.0)
    look: float = 1.0
    camera: Unprocessing = field(
        default_factory=lambda: make_unprocessing("rhid", motion_rate=0.0, defocus_rate=0.0, gain_error=0.05)
    )

    def __post_init__(self) -> None:
        if not 0 <= self.largest[0] <= self.largest[1] <= MARGIN - 2:
            raise ValueError(f"the largest displacement is {self.largest}: a range within 0 to {MARGIN - 2} pixels")


class Misaligned(NamedTuple):
    """One pair, H x W pixels, float32 on the CPU.

    Attributes:
        frame: The raw frame, a batch of one, with all that `unprocess` tells of it.
        reference: [3, H, W], sRGB in [0, 1], in steps of 8 bits: the second camera's picture.
        flow: [H, W, 2], (x, y) in pixels, from each pixel of the frame to its place in the reference.
        truth: [3, H, W], sRGB: the second camera's look, pixel for pixel over the frame.
    """

    frame: Frames
    reference: Tensor
    flow: Tensor
    truth: Tensor

    @property
    def planes(self) -> Tensor:
        """[4, H/2, W/2], R, Gr, Gb, B of the part that begins with red, black 0, white 1, not white balanced."""
        return self.frame.samples()["planes"][0]

    @property
    def gains(self) -> Tensor:
        """[3], white balance of R, G, B, green 1."""
        return self.frame.gains[0]

    def mosaic(self) -> tuple[npt.NDArray[np.uint16], RawFormat]:
        """The frame in whole numbers: uint16 [H, W] of 16 bits, and their format."""
        height, width = self.frame.mosaic.shape[1:]
        fmt = RawFormat(width, height, f"Bayer{self.frame.cfa[:2]}16", _BLACK)
        codes = np.rint(_BLACK + self.frame.mosaic[0].double().numpy() * (fmt.white_level - _BLACK))
        return codes.clip(0, fmt.white_level).astype(np.uint16), fmt


def misalign(
    photo: Tensor, settings: Misalignment, *seed: int, cfa: str = "RGGB", look: Look | None = None
) -> Misaligned:
    """Take a photograph with two cameras.

    Args:
        photo: [3, H + 2 MARGIN, W + 2 MARGIN], sRGB, uint8 or float32 in [0, 1], on the CPU; H and W even, 96 or more.
        settings: How.
        seed: Everything drawn follows from it.
        cfa: Filter array of the frame.
        look: Of the second camera; None draws one as far as the settings say.

    Raises:
        ValueError: The photograph is too small, or of another shape.
        UserError: An unknown filter array.
    """
    if photo.ndim != 3 or len(photo) != 3 or min(photo.shape[1:]) < 96 + 2 * MARGIN:
        raise ValueError(f"a photograph is [3, H, W] of {96 + 2 * MARGIN} pixels and more, not {[*photo.shape]}")
    height, width = (size - 2 * MARGIN for size in photo.shape[1:])
    rng = np.random.default_rng(seed)
    displacement = Displacement(rng, height, width, float(rng.uniform(*settings.largest)))
    look = look or Look.drawn(rng, settings.look)
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    inner = photo[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    frame = unprocess(inner[None], settings.camera, generator, cfa=cfa)
    seen = photo.float() / 255 if photo.dtype == torch.uint8 else photo
    y, x = _grid(height, width)
    return Misaligned(
        frame,
        _in_8_bits(look.of(_resampled(seen, displacement.origin(y, x)))),
        torch.from_numpy(displacement.of(y, x)),
        _in_8_bits(look.of(seen[:, MARGIN:-MARGIN, MARGIN:-MARGIN])),
    )


def encode_misaligned(name: str, pair: Misaligned) -> dict[str, bytes]:
    """The files of a pair for the data set `folder`: raw/NAME.png with its sidecar and rgb/NAME.png; what nobody else
    would know is in truth/NAME.png and flow/NAME.npy."""
    flow = io.BytesIO()
    np.save(flow, pair.flow.numpy())
    return {
        **{f"raw/{file}": content for file, content in encode_frame(f"{name}.png", *pair.mosaic()).items()},
        f"rgb/{name}.png": encode_png(_codes(pair.reference)),
        f"truth/{name}.png": encode_png(_codes(pair.truth)),
        f"flow/{name}.npy": flow.getvalue(),
    }


class Displacement:
    """A smooth displacement of a frame.

    Args:
        rng: Where chance comes from.
        height, width: Of the frame, in pixels.
        largest: Length of the longest displacement in it, in pixels.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, largest: float) -> None:
        edge = max(height, width)
        self._middle = np.array([(width - 1) / 2, (height - 1) / 2])
        lengths = edge * rng.uniform(SHORTEST_WAVE, LONGEST_WAVE, WAVES)
        angles = rng.uniform(0, 2 * np.pi, WAVES)
        self._waves = 2 * np.pi / lengths * np.stack([np.cos(angles), np.sin(angles)])
        self._phases = rng.uniform(0, 2 * np.pi, (2, WAVES))
        self._heights = rng.uniform(0.3, 1, (2, WAVES)) * [[1], [ACROSS]]
        base = rng.uniform(0, 2 * np.pi)
        self._directions = np.array([[np.cos(base), np.sin(base)], [-np.sin(base), np.cos(base)]])
        self._offset = rng.uniform(-0.5, 0.5, 2)
        turn = rng.uniform(-MOST_ROTATION, MOST_ROTATION)
        self._scales = np.ones(2)
        # the two parts brought to their shares, and then both together to the length that is asked for
        y, x = np.meshgrid(*(np.linspace(0, size - 1, _PLACES) for size in (height, width)), indexing="ij")
        parts = [float(np.hypot(*part).max()) for part in self._parts(y, x)]
        self._scales = np.array([(1 - abs(turn)) / parts[0], turn / parts[1]])
        self._scales *= largest / float(np.hypot(*self._sum(y, x)).max())

    def of(self, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> Floats:
        """At places of the frame, in pixels: (x, y) in pixels, float32 [..., 2]."""
        return np.stack(self._sum(y, x), -1).astype(np.float32)

    def origin(self, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> Floats:
        """What the displacement brings to these places: (x, y) in pixels of the frame, float32 [..., 2]."""
        from_x, from_y = x, y
        for _ in range(_ROUNDS):
            by_x, by_y = self._sum(from_y, from_x)
            from_x, from_y = x - by_x, y - by_y
        return np.stack([from_x, from_y], -1).astype(np.float32)

    def _sum(self, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        parallax, rotation = self._parts(y, x)
        return parallax[0] + rotation[0], parallax[1] + rotation[1]

    def _parts(self, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        """Parallax and rotation, each [2, ...], x before y."""
        from_x, from_y = x - self._middle[0], y - self._middle[1]
        parallax = np.zeros((2, *x.shape))
        for direction, phases, heights, offset in zip(
            self._directions, self._phases, self._heights, self._offset * (1, ACROSS), strict=True
        ):
            depth = sum(
                height * np.sin(wave[0] * from_x + wave[1] * from_y + phase)
                for wave, phase, height in zip(self._waves.T, phases, heights, strict=True)
            )
            parallax += direction.reshape(2, *[1] * x.ndim) * (depth + offset)
        return self._scales[0] * parallax, self._scales[1] * np.stack([-from_y, from_x])


@dataclass(frozen=True)
class Look:
    """How a camera shows what another shows otherwise.

    Attributes:
        exposure: Factor of the light.
        gains: Of red, green and blue.
        saturation: 1 keeps it.
        gamma: Exponent of display values.
        contrast: Share of an S-shaped curve, in [0, 1].
    """

    exposure: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    gamma: float = 1.0
    contrast: float = 0.0

    @classmethod
    def drawn(cls, rng: np.random.Generator, strength: float) -> Look:
        """A usual one for a strength of 1, none for 0."""
        exposure, red, blue, saturation, gamma = np.exp(strength * rng.uniform(-1, 1, 5) * (0.3, 0.15, 0.15, 0.3, 0.2))
        return cls(
            float(exposure),
            (float(red), 1.0, float(blue)),
            float(saturation),
            float(gamma),
            float(min(1.0, strength * rng.uniform(0, 0.6))),
        )

    def of(self, picture: Tensor) -> Tensor:
        """A picture [3, H, W], sRGB in [0, 1], in this look."""
        light = linear_from_srgb(picture) * (self.exposure * torch.tensor(self.gains)[:, None, None])
        grey = torch.einsum("chw,c->hw", light, torch.tensor(LUMA))
        light = (grey + self.saturation * (light - grey)).clamp(0, 1)
        shown = srgb_from_linear(light) ** self.gamma
        return shown + self.contrast * (smoothstep(shown) - shown)


def _grid(height: int, width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return y, x


def _resampled(photo: Tensor, places: Floats) -> Tensor:
    """A photograph with its margin at places of the frame: [3, H, W] in [0, 1]."""
    from ..protocols import opencv

    cv2 = opencv("misalign")
    pixels = np.ascontiguousarray(photo.permute(1, 2, 0).numpy())
    x, y = (np.ascontiguousarray(places[..., k] + np.float32(MARGIN)) for k in (0, 1))
    moved = cv2.remap(pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(moved).permute(2, 0, 1).clamp(0, 1)


def _codes(picture: Tensor) -> npt.NDArray[np.uint8]:
    return (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _in_8_bits(picture: Tensor) -> Tensor:
    return (picture * 255).round() / 255
