"""Writers of small data sets, in the layouts in which the real ones are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

Array = npt.NDArray[np.generic]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def write_png() -> Callable[[Path, Array], None]:
    """Writes a grey PNG of 8 or 16 bits, or an RGB picture in the format of the name."""

    def write(path: Path, values: Array) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(values).save(path, quality=95)

    return write


@pytest.fixture
def mosaic_of() -> Callable[[Array, str], Array]:
    """Samples of a picture [H, W, 3] under a filter array: what each site lets through."""

    def sample(picture: Array, cfa: str) -> Array:
        samples = np.empty(picture.shape[:2], np.uint16)
        for place, colour in enumerate(cfa):
            at = np.s_[place // 2 :: 2, place % 2 :: 2]
            samples[at] = picture[..., "RGB".index(colour)][at]
        return samples

    return sample
