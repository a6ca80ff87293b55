"""AlignSettings: what `isp-align --set` can change.

The docstring under each field is its help; `isp-align --settings` lists them. Unknown names are refused; all problems
are reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ...engines.settings import Settings, make_settings
from ..config import described, set_value
from .mask import MISS

Share = Annotated[float, Field(ge=0, le=1)]


class AlignSettings(Settings):
    """How pairs are read, aligned and judged."""

    data_set: str = "folder"
    """the data set that the pairs are read as, one of those that isp-train --data-sets lists"""
    options: dict[str, Any] = Field({})
    """what else its reader takes, such as split or sets; for folder: keys, raw, rgb, group"""
    registered: Literal["auto", "yes", "no"] = "auto"
    """whether frame and picture share one grid already: yes needs equal sizes and leaves all to flow; no always finds a
    homography and applies it; auto applies it where sizes differ, or corners move by more than a few pixels"""
    flow: Literal["dis", "raft", "none"] = "dis"
    """how displacement is found: dis is OpenCV's dense inverse search, refined; raft needs torchvision and weights;
    none leaves pictures where registration puts them"""
    flow_weights: Path | None = None
    """weights of raft: the state dict of torchvision's raft_large or raft_small"""
    features: Path | None = None
    """a checkpoint of the form clean, or the weights of VGG-19, on whose features flow is refined besides; null for
    none"""
    consistency: Literal["relative", "absolute"] = "relative"
    """how far the way there and back may miss its start to count: relative to the length of the ways, or absolute"""
    miss: Annotated[float, Field(gt=0, le=100)] = MISS
    """for absolute: by how many pixels"""
    colours: Literal["reference", "frame"] = "reference"
    """whose colours and tone aligned pictures have: their own, for an ISP that is to look like the other camera; or
    those of the developed frame, for networks that give light, and where the other camera's exposure varies"""
    phase: Path | None = None
    """a checkpoint of the form clean, or the weights of VGG-19: blocks whose phases of features disagree do not count
    (MisISP); null for none"""
    phase_block: Annotated[int, Field(ge=16, le=512, multiple_of=2)] = 32
    """edge of these blocks in pixels"""
    phase_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.2
    """cosine of phases from which a block counts"""
    least_inliers: Annotated[int, Field(ge=4)] = 20
    """features that must agree on how the two lie"""
    least_valid: Share = 0.3
    """part of a frame that must be found again in its picture, else the pair is refused"""
    least_agreement: Annotated[float, Field(ge=-1, le=1)] = 0.35
    """correlation of local structure after alignment below which a pair is refused"""
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """pairs that are aligned at the same time; null takes as many as there are processors"""
    shown: Annotated[int, Field(ge=0)] = 24
    """how many of the aligned pairs the page shows; the refused ones are always named"""


def make_align_settings(values: Mapping[str, Any], changes: Sequence[str] = ()) -> AlignSettings:
    """Settings with changes.

    Args:
        values: By name.
        changes: "least_valid=0.5", "options.split=val".

    Raises:
        UserError: What is wrong with them, all of it in one line.
    """
    changed = dict(values)
    for change in changes:
        set_value(changed, change)
    return make_settings(AlignSettings, changed, "isp-align --settings")


def describe_settings() -> list[str]:
    """A line for each setting: its name, what it does and its default."""
    return described(AlignSettings, (), "", "")
