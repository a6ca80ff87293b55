"""Frames of cameras of which all is known, with the pictures that these cameras would have made themselves.

A photograph stands for the light. Exposure, sensitivity, aperture and focal length are drawn from a profile; noise
follows from the gain, vignetting from the aperture, and the camera's own picture from all four: a short exposure is
brightened, a high sensitivity loses colour, a wide aperture is sharpened, a long lens gets contrast. No frame shows
these by itself, so that a network which is not told the parameters has to guess: that is what ParamISP is measured on.
Real cameras' rules are not public; these are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ..curves import LUMA, linear_from_srgb, smoothstep, srgb_from_linear
from .cfa import mosaic, planes, red_part
from .noise import SENSORS, SensorState, add_noise, draw_sensor
from .profile import CameraProfile, between
from .sampling import MadeSamples
from .scenes import Scenes


class Shot(NamedTuple):
    """How one frame was taken.

    `exposure_us`, `iso`, `f_number` and `focal_length_mm`; `gains` of red, green and blue; `light`, how bright; and
    `centre`, where the axis of the lens meets the frame, in its heights and widths.
    """

    exposure_us: float
    iso: float
    f_number: float
    focal_length_mm: float
    gains: tuple[float, float, float]
    light: float
    centre: tuple[float, float]

    def camera(self, base_iso: float) -> Tensor:
        """float32 [5], the columns of `engines.inputs.CAMERA`."""
        gain_db = 20 * math.log10(self.iso / base_iso)
        return torch.tensor([self.exposure_us, gain_db, self.iso, self.f_number, self.focal_length_mm])


def draw_shot(profile: CameraProfile, generator: torch.Generator, *, whole: bool = True) -> Shot:
    """Draw how a frame is taken; each evenly by its logarithm.

    Args:
        profile: The camera.
        generator: Where chance comes from, on the CPU.
        whole: The frame is a whole one; else a piece of one, somewhere.
    """
    draws = torch.rand(9, generator=generator).tolist()
    ranges = (profile.exposure_us, profile.iso, profile.f_number, profile.focal_length_mm, profile.light)
    ranges += profile.white_balance
    exposure, iso, aperture, focal, light, red, blue = (
        math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        for (low, high), share in zip(ranges, draws, strict=False)
    )
    centre = (0.5, 0.5) if whole else (4 * draws[7] - 1.5, 4 * draws[8] - 1.5)
    return Shot(exposure, iso, aperture, focal, (red, 1.0, blue), light, centre)


def take(
    photo: Tensor, profile: CameraProfile, shot: Shot, noise: torch.Generator | None, cfa: str | None = None
) -> dict[str, Tensor]:
    """A frame of a photograph, and the picture that the camera made of it.

    Args:
        photo: float32 [3, H, W], sRGB in [0, 1], H and W even.
        profile: The camera.
        shot: How it was set.
        noise: Where noise comes from, on the CPU; None leaves noise and conversion out.
        cfa: Filter array in place of the camera's.

    Returns:
        A training sample (`sources`) of the part that begins with red, and `mosaic`, float32 [H, W], black 0, white 1.
    """
    cfa = cfa or profile.cfa
    light = shot.light * linear_from_srgb(photo) * _falloff(profile, shot, *photo.shape[1:])
    matrix, gains = torch.tensor(profile.colour_matrix), torch.tensor(shot.gains)
    camera = torch.linalg.solve(matrix.double(), light.flatten(1).double()).float().view_as(light)
    signal = mosaic((camera / gains[:, None, None])[None], cfa).clamp(min=0.0)
    frame = signal.clamp(max=1.0) if noise is None else add_noise(signal, sensor_of(profile, shot, noise), cfa, noise)
    picture = looked(light, profile, shot)
    return {
        "planes": planes(frame, cfa)[0],
        "gains": gains,
        "target": red_part(picture, cfa),
        "matrix": matrix,
        "camera": shot.camera(profile.base_iso),
        "mosaic": frame[0],
    }


def looked(light: Tensor, profile: CameraProfile, shot: Shot) -> Tensor:
    """The camera's own picture of light [3, H, W], linear sRGB: float32 [3, H, W], sRGB in [0, 1]."""
    look = profile.look
    brighten = between(look.brighten, shot.exposure_us, profile.exposure_us)
    saturation = between(look.saturation, shot.iso, profile.iso)
    sharpen = between(look.sharpen, shot.f_number, profile.f_number)
    contrast = between(look.contrast, shot.focal_length_mm, profile.focal_length_mm)
    x = light.clamp(0.0, 1.0)
    x = brighten * x / (1 + (brighten - 1) * x)  # white stays white
    grey = (x * x.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    x = (grey + saturation * (x - grey)).clamp(0.0, 1.0)
    shown = srgb_from_linear(x)
    shown = (shown + sharpen * (shown - _blurred(shown))).clamp(0.0, 1.0)
    return torch.lerp(shown, smoothstep(shown), contrast)


def _blurred(picture: Tensor) -> Tensor:
    """By 3x3 pixels."""
    return avg_pool2d(pad(picture[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]


def _falloff(profile: CameraProfile, shot: Shot, height: int, width: int) -> Tensor:
    """What is left of the light at each place, [H, W]: vignetting grows with the square of the distance."""
    lost = profile.vignetting * (profile.f_number[0] / shot.f_number) ** 2
    y = (torch.arange(height) + 0.5) / height - shot.centre[0]
    x = (torch.arange(width) + 0.5) / width - shot.centre[1]
    reach = 0.5 if shot.centre == (0.5, 0.5) else 8.0  # of the square of the corner's distance: see `draw_shot`
    return 1 - lost * ((y.square()[:, None] + x.square()[None]) / reach).clamp(max=1.0)


def sensor_of(profile: CameraProfile, shot: Shot, chance: torch.Generator) -> SensorState:
    """The noise and the conversion of one frame: gain makes electrons larger, exposure alone changes nothing. Of a
    camera that was measured they are drawn as `noise` has them."""
    if profile.measured:
        return draw_sensor(SENSORS[profile.measured], 1, chance)
    electron = shot.iso / profile.base_iso / profile.full_well
    one = torch.ones(1)
    return SensorState(
        shot=one * electron,
        read=one * (profile.read_noise * electron) ** 2,
        row=torch.zeros(1),
        hot_pixels=torch.zeros(1),
        digital_gains=torch.ones(1, 3),
        steps=one * profile.codes,
        pedestal=profile.black_level,
    )


class KnownFrames(MadeSamples):
    """Photographs as frames of known cameras, of each camera in turn. Drawn from seed, epoch and index alone."""

    def __init__(self, photos: Any, profiles: Sequence[CameraProfile], *, whole: bool = False, seed: int = 0) -> None:
        """
        Args:
            photos: `photos.Photos`, or what has `photo` as they do, such as `ScenePieces`.
            profiles: One camera or more.
            whole: Photographs are whole frames, not pieces.
            seed: Of everything drawn here.
        """
        super().__init__(photos, seed)
        self._profiles, self._whole = list(profiles), whole

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample; see `take`.

        Raises:
            IndexError: There is no such sample.
            UserError: As the photographs raise.
        """
        photo, chance = self._photos.photo(self._checked(index))
        # an epoch may have as many photographs as a multiple of the cameras: each meets all of them in time
        profile = self._profiles[int(torch.randint(len(self._profiles), (), generator=chance))]
        shot = draw_shot(profile, chance, whole=self._whole)
        sample = take(photo.float() / 255, profile, shot, chance, "RGGB")  # which all of a batch must have in common
        del sample["mosaic"]
        return sample


class ScenePieces(Scenes):
    """Pieces of rendered scenes in place of photographs. Arguments as of `Scenes`."""

    def photo(self, index: int) -> tuple[Tensor, torch.Generator]:
        """uint8 [3, crop, crop], and chance for the rest of the sample. Raises IndexError: there is no such sample."""
        rng = np.random.default_rng([self._seed, 1, int(self._epoch), self._checked(index)])
        light = torch.from_numpy(np.ascontiguousarray(self._piece(rng).transpose(2, 0, 1)))
        chance = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        return (srgb_from_linear(light) * 255).round().to(torch.uint8), chance
