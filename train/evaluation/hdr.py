"""HDR scenes at one exposure: frames that hold a part of the light, pictures to reach that show all of it, and what
their pictures are measured by besides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..data.hdr_frames import hdr_frame
from ..metrics.histogram import histogram_distance
from ..metrics.tmqi import LEAST_EDGE, tmqi
from .frames import Frame, Picture, generator, in_16_bits, rendered_light, to_picture
from .opening import PhotoOrScene, PictureFrames
from .settings import HdrSet

_SHOT = 2
"""Sets what is drawn here apart from all other chance of the same seed."""


class HdrSceneFrames(PictureFrames):
    """Photographs, or rendered scenes, as HDR scenes at one exposure. See `FrameSet`."""

    def __init__(self, settings: HdrSet, seed: int) -> None:
        """Nothing is decoded yet. Raises UserError: no photographs, or a list that names others."""
        super().__init__(settings, seed)
        self._hdr = settings.hdr()

    def frames(self, phase: str, most: int | None = None) -> Iterator[Frame]:
        """See `FrameSet.frames`. Scene, light and exposure are the same in all phases.

        Raises:
            UserError: A photograph is damaged, or smaller than a frame; or the tone mapping needs OpenCV, which is not
                installed.
        """
        for number, photo in enumerate(self._photos[:most]):
            chance = generator(self._seed, _SHOT, number)
            shot = hdr_frame(self._scene(number, photo), self._hdr, chance, cfa=phase)
            raw, fmt = in_16_bits(shot.mosaic, phase)
            yield Frame(
                photo.name,
                raw,
                fmt,
                shot.gains.numpy(),
                to_picture(shot.target[None]),
                camera=tuple(shot.camera.tolist()),
                radiance=shot.radiance.permute(1, 2, 0).numpy(),
            )

    def _scene(self, number: int, photo: PhotoOrScene) -> Tensor:
        """[3, H, W]: a photograph, uint8 sRGB, or a rendered scene's light, float32."""
        if photo.path is None:
            scene = rendered_light(self._settings.crop, self._seed, number)
        else:
            scene = self._picture(number, photo)
        return torch.from_numpy(np.ascontiguousarray(scene.transpose(2, 0, 1)))


def measured_hdr(frame: Frame, picture: Picture) -> dict[str, float | None]:
    """What is measured in pictures of HDR scenes besides: TMQI with its two parts, where frames are large enough, and
    the distance of the colour histogram to that of the reference."""
    if frame.radiance is None or frame.reference is None:
        raise ValueError(f"{frame.name} comes without its light, or without a picture to reach")
    row: dict[str, float | None] = {"histogram": histogram_distance(picture, frame.reference)}
    if min(picture.shape[:2]) >= LEAST_EDGE:
        found = tmqi(frame.radiance, picture)
        row |= {"tmqi": found.quality, "tmqi_fidelity": found.fidelity, "tmqi_naturalness": found.naturalness}
    return row
