"""Pairs of two cameras, made of rendered scenes: no data is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ispeed.train.alignment.look import developed
from ispeed.train.data.folder import write_frame, write_picture
from ispeed.train.data.misaligned import MARGIN, Misaligned, Misalignment, misalign
from ispeed.train.data.raw_pair import RawPair
from ispeed.train.evaluation.frames import rendered

Array = np.ndarray[Any, Any]


@pytest.fixture
def pixels() -> Callable[[Tensor], Array]:
    """[3, H, W] in [0, 1] to uint8 [H, W, 3]."""
    return _pixels


@pytest.fixture
def as_read() -> Callable[..., RawPair]:
    """A pair as a reader would give it."""

    def make(pair: Misaligned, name: str = "a") -> RawPair:
        samples, fmt = pair.mosaic()
        return RawPair(name, samples, fmt, _pixels(pair.reference), pair.gains.numpy())

    return make


@pytest.fixture
def shown() -> Callable[[Misaligned], Array]:
    """The frame, developed."""
    return lambda pair: developed(*pair.mosaic(), pair.gains.numpy())


def _pixels(picture: Tensor) -> Array:
    return (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


@pytest.fixture
def photo() -> Callable[[int, int], Tensor]:
    """A rendered scene with the margin that misaligned pairs need: (edge of the frame, seed) to uint8 [3, H, W]."""

    def make(edge: int, seed: int) -> Tensor:
        return torch.from_numpy(rendered(edge + 2 * MARGIN, seed).transpose(2, 0, 1).copy())

    return make


@pytest.fixture
def take(photo: Callable[[int, int], Tensor]) -> Callable[..., Misaligned]:
    """A pair of a rendered scene."""

    def make(edge: int, seed: int, largest: tuple[float, float] = (0.0, 8.0), cfa: str = "RGGB") -> Misaligned:
        return misalign(photo(edge, seed), Misalignment(largest), seed, cfa=cfa)

    return make


@pytest.fixture
def write_pair() -> Callable[[Path, str, RawPair], None]:
    """Writes a pair in the layout of the data set `folder`."""

    def write(root: Path, name: str, pair: RawPair) -> None:
        write_frame(root / "raw" / f"{name}.png", pair.samples, pair.raw_format)
        write_picture(root / "rgb" / f"{name}.png", pair.target)

    return write
