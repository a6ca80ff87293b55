"""Pictures as cameras show them in noise or in little light, beside what they should be: samples for networks that take
pictures.

Noise is that of frames before anything is developed: it falls on the samples of a filter array in linear light; then
come white balance, demosaicking, colour matrix, tone curve and 8 bits. So it is correlated between neighbours and
between colours, and strongest in shadows, as in pictures of cameras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ...engines.errors import UserError
from ...engines.reference import demosaic
from ..curves import TONES, srgb_from_linear
from ..metrics import psnr
from .cfa import mosaic, spread
from .noise import Range, SensorModel, add_noise
from .optics import blur
from .sampling import MadeSamples
from .scenes import Scenes
from .unprocess import Drawn, Unprocessing, draw, make_unprocessing, to_camera

Task = Literal["denoise", "enhance"]
"""What a network is to do: take noise away, or show in full light what was taken in little."""

TASKS: tuple[Task, ...] = get_args(Task)

EXPOSURES: dict[Task, Range] = {"denoise": (1.0, 1.0), "enhance": (0.02, 0.3)}
"""Usual range of the light, 1 is that of the photograph."""

_CFA = "RGGB"
_CODES = 255


@dataclass(frozen=True)
class Degradation:
    """How pictures come out worse than they are.

    Attributes:
        camera: Its noise and colours, and the light; blur, where there is any, is for the network to take away.
        mosaic: Of one colour per sample, demosaicked by the linear method of the classic engine; else each pixel sees
            three, as after a filter array is binned, and noise is spatially white.
    """

    camera: Unprocessing
    mosaic: bool = True


def make_degradation(task: Task, noise: str = "camera", /, **options: Any) -> Degradation:
    """As from a recipe.

    Args:
        task: Sets the range of the light.
        noise: A key of `noise.SENSORS`.
        options: `shot`, a range of the variance per signal in place of the camera's (read noise follows as it does
            there); `mosaic`; and attributes of `Unprocessing`, of which `exposure` is the range of the light. Nothing
            is blurred unless `motion_rate` or `defocus_rate` ask for it.

    Raises:
        UserError: An unknown task, camera or option, or a value out of range.
    """
    if task not in TASKS:
        raise UserError(f"task is {task!r}: it is one of {', '.join(TASKS)}")
    given: dict[str, Any] = {"exposure": EXPOSURES[task], "motion_rate": 0.0, "defocus_rate": 0.0, **options}
    with_array, shot = given.pop("mosaic", True), given.pop("shot", None)
    if not isinstance(with_array, bool):
        raise UserError(f"mosaic is {with_array!r}: it is true or false")
    camera = make_unprocessing(noise, **given)
    if shot is not None:
        camera = replace(camera, sensor=_with_shot(camera.sensor, _checked_range("shot", shot), noise))
    return Degradation(camera, with_array)


def _checked_range(name: str, value: Any) -> Range:
    try:
        low, high = (float(one) for one in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 < low <= high < math.inf:
        raise UserError(f"{name} is {value!r}: it is a range of two numbers above 0, the lower one first")
    return low, high


def _with_shot(sensor: SensorModel, shot: Range, noise: str) -> SensorModel:
    """The same camera at other gains: read noise stays on its line over shot noise."""
    if not sensor.shot[0]:
        raise UserError(f"shot is a range, but noise is {noise!r}, which has none: choose another, or leave it out")
    factor = math.sqrt(math.prod(shot) / math.prod(sensor.shot)) ** sensor.read_slope
    return replace(sensor, shot=shot, read=(sensor.read[0] * factor, sensor.read[1] * factor))


def degrade(photos: Tensor, settings: Degradation, generator: torch.Generator) -> Tensor:
    """Take photographs anew.

    Args:
        photos: float32 [B, 3, H, W], sRGB in [0, 1], on the CPU; H and W even, above 6.
        settings: How.
        generator: Where chance comes from, on the CPU.

    Returns:
        float32 [B, 3, H, W], sRGB in [0, 1], in steps of 8 bits, as bright as the light was.
    """
    camera = settings.camera
    drawn, tone = draw(camera, len(photos), generator), TONES[camera.tone]
    light = tone.invert(photos) * drawn.exposure[:, None, None, None]
    signal = blur(to_camera(light, drawn), drawn.kernels).clamp(0.0, 1.0)
    colours = (_demosaicked if settings.mosaic else _three_colours)(signal, drawn, generator)
    matrices = torch.linalg.inv(drawn.camera_from_srgb.double()).to(colours)
    shown = tone.show((matrices @ colours.flatten(2)).view_as(colours))
    return (shown * _CODES).round() / _CODES


def _demosaicked(signal: Tensor, drawn: Drawn, generator: torch.Generator) -> Tensor:
    """Camera colours [B, 3, H, W] seen through a filter array, with noise, after white balance."""
    frames = add_noise(mosaic(signal, _CFA), drawn.sensor, _CFA, generator)
    # in double precision, which the reference computes in
    balanced = (frames * spread(drawn.gains, _CFA, *frames.shape[1:])).clamp(max=1.0).double().numpy()
    colours = np.stack([demosaic(frame, _CFA) for frame in balanced])
    return torch.from_numpy(colours).permute(0, 3, 1, 2).to(signal).contiguous()


def _three_colours(signal: Tensor, drawn: Drawn, generator: torch.Generator) -> Tensor:
    """Camera colours [B, 3, H, W] with noise in each, after white balance."""
    noisy = []
    for colour in range(3):
        gains = drawn.sensor.digital_gains[:, colour : colour + 1].expand(-1, 3)
        noisy.append(add_noise(signal[:, colour], drawn.sensor._replace(digital_gains=gains), _CFA, generator))
    return (torch.stack(noisy, 1) * drawn.gains[:, :, None, None]).clamp(max=1.0)


class Pictures(MadeSamples):
    """Photographs and what a camera made of them. What is drawn follows from seed, epoch and index alone."""

    def __init__(self, photos: Any, settings: Degradation, *, seed: int = 0) -> None:
        """
        Args:
            photos: Samples (`sources.SampleSet`) whose `target` is a photograph, such as `ScenePhotos`, or `Photos` of
                `PLAIN`.
            settings: What becomes of them.
            seed: Of everything drawn here.
        """
        super().__init__(photos, seed)
        self._settings = settings

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample.

        Returns:
            input: float32 [3, H, W], sRGB in [0, 1], the picture to be made better.
            target: float32 [3, H, W], the photograph.
            matrix: float32 [3, 3], of the colours of the input to those of the target: none.

        Raises:
            IndexError: There is no such sample.
            UserError: As the photographs raise.
        """
        target = self._photos[self._checked(index)]["target"]
        drawn = np.random.SeedSequence([self._seed, 1, int(self._epoch), index]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(drawn >> np.uint64(1)))
        return {
            "input": degrade(target[None], self._settings, generator)[0],
            "target": target,
            "matrix": torch.eye(3),
        }


PLAIN = make_unprocessing("none", exposure=(1.0, 1.0), keep_brightness=True)
"""For `photos.Photos`, whose targets then are the photographs themselves."""


class ScenePhotos(Scenes):
    """Crops of rendered scenes as a perfect camera would show them, in 8 bits. Arguments as of `Scenes`."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`target`, float32 [3, crop, crop], sRGB in [0, 1]. Raises IndexError: There is no such sample."""
        rng = np.random.default_rng([self._seed, 1, int(self._epoch), self._checked(index)])
        light = torch.from_numpy(np.ascontiguousarray(self._piece(rng).transpose(2, 0, 1)))
        return {"target": (srgb_from_linear(light) * _CODES).round() / _CODES}


def input_db(samples: Any) -> float:
    """Mean PSNR in dB of the inputs of samples (`sources.SampleSet`), as they are, against the targets: what a network
    has to beat."""
    pairs = (samples[index] for index in range(len(samples)))
    return float(np.mean([psnr(sample["input"], sample["target"]) for sample in pairs]))
