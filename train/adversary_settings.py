"""What a recipe says of the discriminators that an ISP is trained against. See `adversary`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from ..engines.settings import Settings

Positive = Annotated[float, Field(gt=0)]

TERMS = ("texture", "texture_deep", "colour")
"""The discriminators: texture at the shallow and at the deeper layer, and colour."""


class AdversarySettings(Settings):
    """Discriminators, and the photographs that pictures are to look like."""

    photographs: Path | None = None
    """folder of photographs (JPEG, PNG), and the folders in it; of anything, for none belongs to a frame; grey ones are
    left out; null renders scenes, which need no data"""
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller photographs are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""
    texture: Path | None = None
    """what texture is judged by: a checkpoint of the form clean, or the weights of torchvision's alexnet"""
    colour: Path | None = None
    """what colour is judged by: a checkpoint of the form clean, or the weights of google/vit-base-patch16-224; null
    takes the chroma of the blurred picture itself"""
    weights: Mapping[str, Annotated[float, Field(ge=0)]] = Field(dict.fromkeys(TERMS, 1.0))
    """of texture, texture_deep and colour in what the ISP makes small; those that are not named are not judged"""
    every: Annotated[int, Field(ge=1)] = 10
    """steps of the ISP between steps of the discriminators"""
    lr: Positive = 1e-5
    """learning rate of the discriminators"""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.9)
    """decay of the means of their gradient and of its square"""
    penalty: Annotated[float, Field(ge=0)] = 100.0
    """weight of the squared slopes of a judgement at photographs (R1) and at pictures (R2), five times that in all, as
    published"""
    clip: Positive = 1.0
    """longest gradient of each discriminator"""

    @model_validator(mode="after")
    def _something_judged(self) -> AdversarySettings:
        unknown = [name for name in self.weights if name not in TERMS]
        if unknown or not any(self.weights.values()):
            what = f"there is no {unknown[0]}" if unknown else "nothing is judged"
            raise ValueError(f"{what}: give weights to some of {', '.join(TERMS)}, or leave adversary out")
        if self.texture is None and any(self.weights.get(term) for term in TERMS if term.startswith("texture")):
            raise ValueError("texture is judged, but by nothing: give the file texture, or weights to colour alone")
        return self
