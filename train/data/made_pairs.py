"""A folder of pairs as of two cameras side by side, of which all is known: what a recipe of pairs can be tried on.

Each photograph, or rendered scene, gives one pair (`misaligned`). The second camera has one look for all of them, as a
camera has that is set once; the first has one matrix, unless the options say otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...engines.errors import UserError
from ...engines.settings import Settings
from ..curves import srgb_from_linear
from ..folders import WholeFolder
from .folder import NOTES
from .misaligned import MARGIN, Look, Misaligned, Misalignment, encode_misaligned, misalign
from .photos import find_photos, read_photo
from .scene import render_scene
from .unprocess import make_unprocessing

RECORD = "made.json"
"""Tells how a folder of pairs was made."""

_LEAST = 96
"""Edge of a frame, in pixels: what a displacement is drawn for."""


class MadePairs(Settings):
    """What pairs are made, and how."""

    photographs: Path | None = None
    """folder of photographs (JPEG, PNG), each of which gives a pair; null renders scenes, which need no data"""
    count: Annotated[int, Field(ge=1)] | None = None
    """how many pairs; null is one of each photograph"""
    edge: Annotated[int, Field(ge=_LEAST, multiple_of=32)] = 448
    """edge of the frames in pixels; photographs are cut about their middle, and left out if they are too small"""
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller photographs are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""
    largest: tuple[float, float] = (0.0, 8.0)
    """range of the largest displacement in a frame, in pixels; up to 14"""
    look: Annotated[float, Field(ge=0)] = 1.0
    """how far the colours of the second camera go from those of the photographs; 1 is a usual camera"""
    look_seed: Annotated[int, Field(ge=0)] = 1
    """of that look: pairs with the same number are of the same two cameras"""
    noise: str = "rhid"
    """the first camera, by its noise: rhid (a high-speed camera, as measured), camera (an ordinary one) or none"""
    options: dict[str, Any] = Field({})
    """what else is told of it and the light, such as exposure, colours or gain_error"""
    cfa: str = "RGGB"
    """its filter array"""
    seed: Annotated[int, Field(ge=0)] = 1
    """of everything else drawn"""

    @model_validator(mode="after")
    def _some(self) -> MadePairs:
        if self.photographs is None and self.count is None:
            raise ValueError("count is null: say how many scenes are to be rendered, or name photographs")
        return self


def make_pairs(settings: MadePairs, folder: Path) -> int:
    """Make them, in the layout of the data set `folder`, with truth/ and flow/ beside (`misaligned.encode_misaligned`).

    Args:
        settings: How.
        folder: New or empty.

    Returns:
        How many.

    Raises:
        UserError: No photographs that are large enough, an unknown option, or the folder cannot be written.
    """
    made = _misalignment(settings)
    notes: dict[str, Any] = {}
    with WholeFolder(folder, "isp-train", RECORD) as whole:
        for name, pair in _pairs(settings, made):
            for file, content in encode_misaligned(name, pair).items():
                whole.write(file, content)
            notes[name] = {"gains": [round(float(gain), 6) for gain in pair.gains]}
        if not notes:
            least = settings.edge + 2 * MARGIN
            raise UserError(f"{settings.photographs} holds no photograph of {least}x{least}: choose a smaller edge")
        whole.write(NOTES, json.dumps(notes, indent=1) + "\n")
        whole.write(RECORD, json.dumps({"settings": settings.model_dump(mode="json")}, indent=1) + "\n")
    return len(notes)


def _misalignment(settings: MadePairs) -> Misalignment:
    plain = {"colours": "srgb", "motion_rate": 0.0, "defocus_rate": 0.0}
    camera = make_unprocessing(settings.noise, **plain | settings.options)
    try:
        return Misalignment(settings.largest, settings.look, camera)
    except ValueError as error:
        raise UserError(str(error)) from error


def _pairs(settings: MadePairs, made: Misalignment) -> Iterator[tuple[str, Misaligned]]:
    look = Look.drawn(np.random.default_rng(settings.look_seed), settings.look)
    for number, (name, photo) in enumerate(_photographs(settings)):
        if number == settings.count:
            return
        yield name, misalign(photo, made, settings.seed, number, cfa=settings.cfa, look=look)


def _photographs(settings: MadePairs) -> Iterator[tuple[str, Tensor]]:
    """Names, and sRGB [3, edge + 2 margin, edge + 2 margin] of 8 bits or float."""
    edge = settings.edge + 2 * MARGIN
    if settings.photographs is None:
        for number in range(settings.count or 0):
            light = render_scene(np.random.default_rng([settings.seed, number]), edge, edge)
            yield f"scene{number:04d}", srgb_from_linear(torch.from_numpy(light).permute(2, 0, 1).clamp(0, 1))
        return
    for file in find_photos(settings.photographs):
        picture = read_photo(file.path, settings.downscale)
        top, left = ((size - edge) // 2 for size in picture.shape[:2])
        if min(top, left) >= 0:
            piece = np.ascontiguousarray(picture[top : top + edge, left : left + edge].transpose(2, 0, 1))
            yield Path(file.name).with_suffix("").as_posix().replace("/", "_"), torch.from_numpy(piece)
