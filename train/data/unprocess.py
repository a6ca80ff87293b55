"""Photographs to raw frames, after Brooks et al., "Unprocessing Images for Learned Raw Denoising" (CVPR 2019).

The steps of a camera are undone in reverse order: tone curve, exposure, colour matrix, white balance; then light is
blurred, meets the filter array and the sensor (`noise`). What differs from the paper: the picture to reach is shown
with the exposure that the frame has (unless `keep_brightness`), noise counts electrons and knows cameras that apply
gains themselves (`noise.SensorModel`), matrices lie between five cameras, and the tone curve is that of the engines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...engines.errors import UserError
from ...engines.inputs import CAMERA
from ..curves import TONES, light_of_codes
from .cameras import COLOURS, draw_matrices
from .cfa import mosaic, planes, red_part
from .noise import SENSORS, Range, SensorModel, SensorState, add_noise, draw_log, draw_sensor, gain_db
from .optics import blur, draw_kernels
from .sensor import FULL_WELL

_BRIGHT = 0.9
"""Mean of the colours from which a highlight is kept from being darkened."""


@dataclass(frozen=True)
class Unprocessing:
    """How photographs become frames.

    Attributes:
        sensor: The camera.
        exposure: Range of the light, 1 is that of the photograph; None takes that of the sensor.
        colours: A key of `cameras.COLOURS`: what the camera's colours lie between.
        tone: A key of `curves.TONES`: how the photographs are shown.
        gain_error: Standard deviation of the logarithm of the gains that come with a frame, about the true ones: no
            estimate is right.
        motion_rate, defocus_rate: Shares of the frames, their sum at most 1. The picture to reach stays sharp.
        keep_brightness: The picture to reach is the photograph itself, whatever the exposure: networks have to guess
            how bright a scene was. Else the picture follows the exposure, as it does in an engine.
        full_well: Electrons at white at a gain of 0 dB, of the camera that frames are made for: what gain the noise
            that was drawn stands for (`noise.gain_db`).
    """

    sensor: SensorModel
    exposure: Range | None = None
    colours: str = "cameras"
    tone: str = "srgb"
    gain_error: float = 0.0
    motion_rate: float = 0.0
    defocus_rate: float = 0.0
    keep_brightness: bool = False
    full_well: float = FULL_WELL

    def __post_init__(self) -> None:
        for name, value, known in (("colours", self.colours, COLOURS), ("tone", self.tone, TONES)):
            if value not in known:
                raise UserError(f"{name} is {value!r}: it is one of {', '.join(known)}")
        if min(self.motion_rate, self.defocus_rate) < 0 or self.motion_rate + self.defocus_rate > 1:
            raise UserError(
                f"motion_rate {self.motion_rate:g} and defocus_rate {self.defocus_rate:g} are shares of the frames: "
                "neither may be negative, nor their sum above 1"
            )
        if self.gain_error < 0:
            raise UserError(f"gain_error is {self.gain_error:g}: it is a standard deviation, 0 or more")
        if self.full_well <= 0:
            raise UserError(f"full_well is {self.full_well:g}: it is a number of electrons, above 0")
        low, high = self.light
        if not 0 < low <= high:
            raise UserError(f"exposure is {low:g} to {high:g}: it is a range of factors above 0, the lower one first")

    @property
    def light(self) -> Range:
        """The range of the exposure."""
        return self.sensor.exposure if self.exposure is None else self.exposure


def make_unprocessing(noise: str = "rhid", /, **options: Any) -> Unprocessing:
    """As from a recipe.

    Args:
        noise: A key of `noise.SENSORS`.
        options: Attributes of `Unprocessing`; blur has rates of 0.03 each unless said otherwise, 0 without noise.

    Raises:
        UserError: An unknown camera or option, or a value out of range.
    """
    if noise not in SENSORS:
        raise UserError(f"noise is {noise!r}: it is one of {', '.join(SENSORS)}")
    rate = 0.03 if SENSORS[noise].noisy else 0.0
    settings = Unprocessing(SENSORS[noise], motion_rate=rate, defocus_rate=rate)
    return replace(settings, **{name: _checked(name, value) for name, value in options.items()})


_OPTIONS = {
    "exposure": "a range of two numbers",
    "colours": "a name",
    "tone": "a name",
    "gain_error": "a number",
    "motion_rate": "a number",
    "defocus_rate": "a number",
    "keep_brightness": "true or false",
    "full_well": "a number",
}
"""What a recipe may say, and of what kind it is."""


def _checked(name: str, value: Any) -> Any:
    if name not in _OPTIONS:
        raise UserError(f"unprocessing has no option {name!r}: its options are {', '.join(_OPTIONS)}")
    if name == "exposure" and isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)):
        return float(value[0]), float(value[1])
    fits = {"a name": isinstance(value, str), "a number": _is_number(value), "true or false": isinstance(value, bool)}
    if (name == "exposure" and value is None) or fits.get(_OPTIONS[name], False):
        return value
    raise UserError(f"{name} is {value!r}: it is {_OPTIONS[name]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Drawn(NamedTuple):
    """What was drawn for each of B frames, float32 on the CPU.

    Attributes:
        exposure: [B].
        camera_from_srgb: [B, 3, 3], rows of a sum of 1.
        white_balance: [B, 3], the true gains.
        gains: [B, 3], those that come with the frame; green is 1.
        kernels: [B, k, k], blur, or None.
        sensor: See `noise`.
    """

    exposure: Tensor
    camera_from_srgb: Tensor
    white_balance: Tensor
    gains: Tensor
    kernels: Tensor | None
    sensor: SensorState


class Frames(NamedTuple):
    """B frames, on the device of the photographs.

    Attributes:
        mosaic: float32 [B, H, W], black 0, white 1.
        cfa: Colours of its top left 2x2 samples.
        gains: float32 [B, 3], white balance of red, green and blue, green 1.
        target: float32 [B, 3, H, W], sRGB in [0, 1], the picture to reach.
        matrices: float32 [B, 3, 3], camera after white balance to linear sRGB: an engine's colour matrix.
        camera: float32 [B, 5], the columns of `engines.inputs.CAMERA`; of these the gain alone is known.
    """

    mosaic: Tensor
    cfa: str
    gains: Tensor
    target: Tensor
    matrices: Tensor
    camera: Tensor

    def samples(self) -> dict[str, Tensor]:
        """What training takes, of the part that begins with red (`cfa.red_part`).

        Returns:
            planes: float32 [B, 4, h, w], R, Gr, Gb, B.
            gains: float32 [B, 3].
            target: float32 [B, 3, 2h, 2w].
            matrix: float32 [B, 3, 3].
            camera: float32 [B, 5].
        """
        return {
            "planes": planes(self.mosaic, self.cfa),
            "gains": self.gains,
            "target": red_part(self.target, self.cfa),
            "matrix": self.matrices,
            "camera": self.camera,
        }


def draw(settings: Unprocessing, count: int, generator: torch.Generator) -> Drawn:
    """Draw what varies from frame to frame; the generator is of the CPU."""
    red, blue = (draw_log(limits, count, generator) for limits in settings.sensor.white_balance)
    white_balance = torch.stack([red, torch.ones(count), blue], 1)
    error = torch.randn(count, 3, generator=generator)  # whether it is asked for or not: the same seed, the same scene
    right = settings.gain_error == 0
    return Drawn(
        draw_log(settings.light, count, generator),
        draw_matrices(settings.colours, count, generator),
        white_balance,
        white_balance if right else white_balance * (settings.gain_error * error * torch.tensor([1, 0, 1])).exp(),
        draw_kernels(settings.motion_rate, settings.defocus_rate, count, generator),
        draw_sensor(settings.sensor, count, generator),
    )


def unprocess(
    photos: Tensor,
    settings: Unprocessing,
    generator: torch.Generator,
    *,
    cfa: str = "RGGB",
    noise_generator: torch.Generator | None = None,
) -> Frames:
    """Make frames of photographs.

    Args:
        photos: [B, 3, H, W], sRGB, uint8 or float32 in [0, 1], on any device; H and W even, above 6.
        settings: How.
        generator: Where chance comes from, on the CPU.
        cfa: Filter array of the frames: RGGB, GRBG, GBRG or BGGR.
        noise_generator: Where noise comes from, on the device of the photographs; None takes `generator`.

    Raises:
        UserError: An unknown filter array.
    """
    return expose(photos, draw(settings, len(photos), generator), settings, noise_generator or generator, cfa=cfa)


def expose(
    photos: Tensor, drawn: Drawn, settings: Unprocessing, noise_generator: torch.Generator, *, cfa: str = "RGGB"
) -> Frames:
    """`unprocess` with what was drawn before: once more with other noise, or with another filter array."""
    light, target = exposed(photos, drawn, settings)
    camera = to_camera(light, drawn)
    samples = mosaic(blur(camera, drawn.kernels), cfa).clamp_(0.0, 1.0)
    frame = add_noise(samples, drawn.sensor, cfa, noise_generator)
    matrices = torch.linalg.inv(drawn.camera_from_srgb.double()).to(light)
    gains = gain_db(drawn.sensor.shot, settings.full_well)
    camera = torch.zeros(len(gains), len(CAMERA))
    camera[:, CAMERA.index("gain_db")] = gains
    return Frames(frame, cfa, drawn.gains.to(light), target, matrices, camera.to(light))


def exposed(photos: Tensor, drawn: Drawn, settings: Unprocessing) -> tuple[Tensor, Tensor]:
    """Linear sRGB light with its exposure, and the picture to reach: both float32 [B, 3, H, W]."""
    tone = TONES[settings.tone]
    light = light_of_codes(photos, settings.tone) if photos.dtype == torch.uint8 else tone.invert(photos)
    exposure = drawn.exposure.to(light)[:, None, None, None]
    light = _dimmed(light, exposure)
    kept = drawn.exposure == 1
    if settings.keep_brightness or kept.all():
        return light, _shown(photos)
    target = tone.show(light)
    return light, torch.where(exposure == 1, _shown(photos), target) if kept.any() else target


def to_camera(light: Tensor, drawn: Drawn) -> Tensor:
    """Linear sRGB to what a camera with three samples per pixel gives before white balance: [B, 3, H, W]."""
    return _dimmed(_mixed(drawn.camera_from_srgb, light), 1 / drawn.white_balance.to(light)[:, :, None, None])


def from_camera(camera: Tensor, drawn: Drawn, settings: Unprocessing) -> Tensor:
    """The ideal way back, from three samples per pixel to the picture: white balance, matrix, tone curve.

    It undoes `to_camera` except in highlights, which come out brighter, and colours that the camera does not see.
    """
    light = (camera * drawn.white_balance.to(camera)[:, :, None, None]).clamp(max=1.0)
    light = _mixed(torch.linalg.inv(drawn.camera_from_srgb.double()), light)
    if settings.keep_brightness:
        light = light / drawn.exposure.to(camera)[:, None, None, None]
    return TONES[settings.tone].show(light)


def _shown(photos: Tensor) -> Tensor:
    """Display values in [0, 1]."""
    return photos / 255 if photos.dtype == torch.uint8 else photos


def _dimmed(light: Tensor, factor: Tensor) -> Tensor:
    """`light` times `factor`, but what is white stays white: how bright a burnt-out highlight was is not known.

    A factor below 1 fades to 1 where the mean of the colours rises from `_BRIGHT` to 1.
    """
    mean = light.mean(1, keepdim=True)
    if mean.amax() <= _BRIGHT:  # most pieces of photographs
        return light * factor
    bright = mean.sub_(_BRIGHT).div_(1 - _BRIGHT).clamp_(0.0, 1.0).square_()
    return light * torch.addcmul(factor, bright, (1 - factor).clamp(min=0.0))


def _mixed(matrices: Tensor, colours: Tensor) -> Tensor:
    """Colours [B, 3, H, W] times matrices [B, 3, 3]."""
    return (matrices.to(colours) @ colours.flatten(2)).view_as(colours)
