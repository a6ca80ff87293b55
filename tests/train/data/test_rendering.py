"""What the classic engine makes of frames, for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ispeed.engines.bayer import RawFormat
from ispeed.train.data.cfa import planes
from ispeed.train.data.rendering import classic_picture, classic_target


@pytest.mark.parametrize("shape", [(24, 40), (8, 8)])
def test_targets_are_the_pictures_of_the_engine(shape: tuple[int, int]):
    """With black above 0, samples below it, gains that clip, and a matrix that leaves sRGB."""
    rng = np.random.default_rng(4)
    fmt = RawFormat(shape[1], shape[0], "BayerRG12", 256)
    samples = rng.integers(0, 4096, shape).astype(np.uint16)
    gains = np.array([2.1, 1.0, 1.6], np.float32)
    matrix = np.array([[1.7, -0.5, -0.2], [-0.2, 1.6, -0.4], [0.0, -0.6, 1.6]], np.float32)
    mosaic = (torch.from_numpy(samples.astype(np.float32)) - 256) / (4095 - 256)
    target = classic_target(planes(mosaic[None], "RGGB")[0], torch.from_numpy(gains), torch.from_numpy(matrix))
    assert target.dtype == torch.float32
    codes = (target * 255).permute(1, 2, 0).numpy()
    apart = np.abs(codes - classic_picture(samples, fmt, gains, matrix))
    assert apart.max() <= 1.001
    assert (apart > 0.001).mean() < 0.01, "a step off now and then"
