"""Frames of scenes whose range no exposure holds, with tone-mapped pictures of all of their light: what networks learn
that turn one raw frame into a tone-mapped picture.

The light of a scene (`radiance`, `brackets`) is exposed so that some of it is white, which a frame then does not hold
any more; the picture to reach is `tonemap.tone_mapped` of all of the light, by default on the scale of the frame, whose
white is that of the middle exposure: with exposure fusion a frame that is exposed longer wants a brighter picture, as
with any other ISP. The other operators adapt to how bright the light is, and give the same picture on any scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ...engines.errors import UserError
from ...engines.inputs import CAMERA
from .cfa import mosaic, planes, red_part
from .noise import Range, add_noise, gain_db
from .optics import blur
from .radiance import Extension, extended, light_of, range_problem
from .sampling import MadeSamples
from .scenes import Scenes
from .tonemap import checked_options, tone_mapped
from .unprocess import Unprocessing, draw, make_unprocessing

BITS = 10
"""Depth of conversion of the frames that the published network takes."""

_MOST_BITS = 16

_MOST_LIGHT = 8.0
"""Of white: what is brighter counts as this bright in a frame, where all of it is white."""

_GAIN = (2.0**-14, 2.0**6)
"""What scenes are brought into a frame with at least and at most: black ones stay black."""


Anchor = Literal["frame", "scene"]


@dataclass(frozen=True)
class HdrSettings:
    """How scenes become frames with pictures. What is a range is drawn for each frame, evenly.

    Attributes:
        camera: Noise, colours and blur; its exposure and brightness do not count here.
        light: What is added to the light of scenes; None leaves them as they are.
        operator: A key of `tonemap.OPERATORS`.
        tone: What else its function takes.
        bits: Depth of conversion, 2 to 16.
        clipped: Share of the places that a colour of is white in the frame, 0 to 0.9.
        exposure_stops: By how many stops frames are brighter than that, -16 to 16.
        anchor: Whose white is 1 for the operator: that of the "frame"; or that of the "scene", so that pictures are the
            same whatever the exposure, and networks have to guess how bright the scene was.
    """

    camera: Unprocessing
    light: Extension | None = None
    operator: str = "mertens"
    tone: Mapping[str, Any] = field(default_factory=dict)
    bits: int = BITS
    clipped: Range = (0.01, 0.1)
    exposure_stops: Range = (0.0, 0.0)
    anchor: Anchor = "frame"

    def __post_init__(self) -> None:
        checked_options(self.operator, dict(self.tone))
        problems = [range_problem(name, getattr(self, name), *limits) for name, limits in _LIMITS.items()]
        if not isinstance(self.bits, int) or not 2 <= self.bits <= _MOST_BITS:
            problems.append(f"bits is {self.bits!r}: it is a whole number from 2 to {_MOST_BITS}")
        if self.anchor not in get_args(Anchor):
            problems.append(f"anchor is {self.anchor!r}: it is one of {', '.join(get_args(Anchor))}")
        if any(problems):
            raise UserError("; ".join(filter(None, problems)))


_LIMITS: dict[str, Range] = {"clipped": (0.0, 0.9), "exposure_stops": (-16.0, 16.0)}
"""What the ranges of `HdrSettings` lie between."""

_OWN = ("bits", *_LIMITS, "anchor")
_LIGHT = tuple(each.name for each in fields(Extension))
_CAMERA = ("colours", "gain_error", "motion_rate", "defocus_rate", "full_well")
"""Options of a recipe: of `HdrSettings`, of `Extension`, and of `Unprocessing`."""


def make_hdr(
    noise: str = "rhid",
    operator: str = "mertens",
    tone: Mapping[str, Any] | None = None,
    /,
    *,
    extend: bool = True,
    **options: Any,
) -> HdrSettings:
    """As from a recipe.

    Args:
        noise: A key of `noise.SENSORS`.
        operator, tone: See `HdrSettings`.
        extend: Light is added to scenes.
        options: Attributes of `HdrSettings` (bits, clipped, exposure_stops, anchor), of `radiance.Extension` and of
            `unprocess.Unprocessing` other than exposure, keep_brightness and tone.

    Raises:
        UserError: Something is unknown, or out of range; every problem with a kind of options, in one line.
    """
    if not isinstance(extend, bool):
        raise UserError(f"extend is {extend!r}: it is true or false")
    known = (*_OWN, *(_LIGHT if extend else ()), *_CAMERA)
    for name in options:
        if name not in known:
            listed = ", ".join(("extend", *known))
            raise UserError(f"frames of HDR scenes have no option {name!r}: their options are {listed}")
    light = {name: _tuple(value) for name, value in options.items() if name in _LIGHT}
    return HdrSettings(
        make_unprocessing(noise, **{name: value for name, value in options.items() if name in _CAMERA}),
        Extension(**light) if extend else None,
        operator,
        dict(tone or {}),
        **{name: _tuple(value) for name, value in options.items() if name in _OWN},
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class HdrFrame(NamedTuple):
    """A frame.

    Attributes:
        mosaic: float32 [H, W], black 0, white 1, not white balanced.
        cfa: Colours of its top left 2x2 samples.
        gains: float32 [3], white balance of red, green and blue, green 1.
        matrix: float32 [3, 3], the camera's colours after white balance to linear sRGB.
        target: float32 [3, H, W], sRGB in [0, 1], the tone-mapped picture of all light.
        radiance: float32 [3, H, W], linear sRGB, 0 or more: that light.
        camera: float32 [5], the columns of `engines.inputs.CAMERA`; of these the gain alone is known.
        exposure: What light was multiplied by: radiance of 1 / exposure gives white, where it is grey.
    """

    mosaic: Tensor
    cfa: str
    gains: Tensor
    matrix: Tensor
    target: Tensor
    radiance: Tensor
    camera: Tensor
    exposure: float

    def sample(self) -> dict[str, Tensor]:
        """What training takes (`sources`), of the part that begins with red."""
        return {
            "planes": planes(self.mosaic[None], self.cfa)[0],
            "gains": self.gains,
            "target": red_part(self.target, self.cfa),
            "matrix": self.matrix,
            "camera": self.camera,
        }


def hdr_frame(photo: Tensor, settings: HdrSettings, generator: torch.Generator, *, cfa: str = "RGGB") -> HdrFrame:
    """One frame of a scene.

    Args:
        photo: [3, H, W], H and W even, above 6: a photograph, uint8 sRGB, or light, float32 linear sRGB, 0 or more.
        settings: How.
        generator: Where chance comes from, on the CPU.
        cfa: Filter array: RGGB, GRBG, GBRG or BGGR.

    Raises:
        UserError: An unknown filter array, or light that is none.
    """
    light = light_of(photo) if settings.light is None else extended(photo, settings.light, generator)
    model = replace(settings.camera.sensor, bits=(settings.bits,))
    drawn = draw(replace(settings.camera, sensor=model), 1, generator)
    # not `unprocess.to_camera`: that keeps white from being darkened, because of a photograph's more is not known
    seen = (drawn.camera_from_srgb[0] / drawn.white_balance[0][:, None]) @ light.flatten(1)
    seen = blur(seen.view_as(light)[None], drawn.kernels).clamp_(min=0.0)
    exposure = _exposure(seen, settings, generator)
    anchored = light * exposure if settings.anchor == "frame" else light
    target = tone_mapped(anchored.permute(1, 2, 0).numpy(), settings.operator, **settings.tone)
    frame = add_noise(mosaic(seen * exposure, cfa).clamp_(max=_MOST_LIGHT), drawn.sensor, cfa, generator)
    camera = torch.zeros(len(CAMERA))
    camera[CAMERA.index("gain_db")] = gain_db(drawn.sensor.shot, settings.camera.full_well)[0]
    matrix = torch.linalg.inv(drawn.camera_from_srgb[0].double()).float()
    picture = torch.from_numpy(np.ascontiguousarray(target.transpose(2, 0, 1)))
    return HdrFrame(frame[0], cfa, drawn.gains[0], matrix, picture, light, camera, exposure)


def _exposure(seen: Tensor, settings: HdrSettings, generator: torch.Generator) -> float:
    """What brings the share that is drawn of camera colours [1, 3, H, W] to white, and as many stops more."""
    share, stops = torch.rand(2, generator=generator).tolist()
    share = settings.clipped[0] + share * (settings.clipped[1] - settings.clipped[0])
    stops = settings.exposure_stops[0] + stops * (settings.exposure_stops[1] - settings.exposure_stops[0])
    brightest = seen.amax(1).flatten()
    place = max(1, math.ceil((1 - share) * len(brightest)))
    white = float(brightest.kthvalue(place).values)
    return min(max(1 / max(white, 1e-12), _GAIN[0]), _GAIN[1]) * 2.0**stops


class HdrFrames(MadeSamples):
    """Frames of photographs, rendered scenes or brackets. Drawn from seed, epoch and index alone."""

    def __init__(self, photos: Any, settings: HdrSettings, *, seed: int = 0) -> None:
        """
        Args:
            photos: What has `photo`, `set_epoch` and a length as `photos.Photos` do: those, `SceneLight`, or
                `brackets.Brackets`.
            settings: What becomes of them.
            seed: Of everything drawn here.
        """
        super().__init__(photos, seed)
        self._settings = settings

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample: `HdrFrame.sample`.

        Raises:
            IndexError: There is no such sample.
            UserError: As the photographs raise.
        """
        return self.frame(index).sample()

    def frame(self, index: int, cfa: str = "RGGB") -> HdrFrame:
        """A sample with what else is known of it, its light above all. Raises as `__getitem__`."""
        photo, generator = self._photos.photo(self._checked(index))
        return hdr_frame(photo, self._settings, generator, cfa=cfa)


class SceneLight(Scenes):
    """Pieces of rendered scenes as light, in place of photographs. Arguments as of `Scenes`."""

    def photo(self, index: int) -> tuple[Tensor, torch.Generator]:
        """float32 [3, crop, crop], linear light, 1 is white, and chance for the rest of the sample.

        Raises:
            IndexError: There is no such sample.
        """
        rng = np.random.default_rng([self._seed, 1, int(self._epoch), self._checked(index)])
        light = torch.from_numpy(np.ascontiguousarray(self._piece(rng).transpose(2, 0, 1)))
        return light, torch.Generator().manual_seed(int(rng.integers(1 << 62)))
