"""The demosaic of tensors: against one sample after the other, the classic engine's, and what it must keep exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ispeed.engines.reference import demosaic as reference
from ispeed.train.data.cfa import mosaic, planes
from ispeed.train.data.demosaic import demosaic

# The four filters of Malvar, He and Cutler, in eighths, written down from the paper's figure 2.
GREEN = np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
IN_ROW = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]) / 8
OPPOSITE = (
    np.array([[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]) / 8
)
OWN = np.zeros((5, 5))
OWN[2, 2] = 1
# Red, green and blue at each place of a cell.
FILTERS = {
    (0, 0): (OWN, GREEN, OPPOSITE),
    (0, 1): (IN_ROW, OWN, IN_ROW.T),
    (1, 0): (IN_ROW.T, OWN, IN_ROW),
    (1, 1): (OPPOSITE, GREEN, OWN),
}


def one_by_one(samples: np.ndarray) -> np.ndarray:
    height, width = samples.shape
    padded, colours = np.pad(samples, 2, mode="reflect"), np.empty((3, height, width))
    for y in range(height):
        for x in range(width):
            near = padded[y : y + 5, x : x + 5]
            colours[:, y, x] = [(near * kernel).sum() for kernel in FILTERS[y % 2, x % 2]]
    return colours


@pytest.mark.parametrize("size", [(4, 4), (6, 10), (14, 8)])
def test_against_one_sample_after_the_other(size: tuple[int, int]):
    frames = torch.rand(2, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for colours, frame in zip(demosaic(planes(frames, "RGGB")), frames, strict=True):
        np.testing.assert_allclose(colours.numpy(), one_by_one(frame.numpy()), atol=1e-14)
        classic = reference(frame.numpy(), "RGGB").transpose(2, 0, 1)
        np.testing.assert_allclose(colours.numpy(), classic, atol=1e-14)


def test_even_colours_and_ramps_stay():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    even = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, 12, 16)
    ramps = torch.stack([0.01 * x + 0.02 * y, 0.3 + 0.03 * x - 0.01 * y, 0.9 - 0.02 * x - 0.03 * y])
    scenes = torch.stack([even, ramps])
    found = demosaic(planes(mosaic(scenes, "RGGB"), "RGGB"))
    torch.testing.assert_close(found[0], scenes[0])
    torch.testing.assert_close(found[1, :, 2:-2, 2:-2], scenes[1, :, 2:-2, 2:-2], msg="but for reflected borders")


def test_slopes_and_autocast():
    samples = torch.rand(1, 4, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(demosaic, samples.requires_grad_())
    exact = demosaic(samples.detach().float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(demosaic(samples.detach().float()), exact)


@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 3, 8, 8), (1, 4, 1, 8)])
def test_other_shapes(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="planes are"):
        demosaic(torch.zeros(shape))
