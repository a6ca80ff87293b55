"""Chroma, what of it is no stretch of another, and the stretches that are free."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from torch import Tensor

from ispeed.train.losses import make_loss
from ispeed.train.losses.chroma import Chroma, chroma, stretch


def picture(*shape: int, seed: int = 1) -> Tensor:
    return 0.35 + 0.3 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_chroma(shown: Tensor, matrix: list[list[float]]) -> Tensor:
    """The picture whose Y is that of `shown`, and whose chroma is mapped."""
    colours = torch.einsum("ij,bjhw->bihw", torch.tensor(matrix, dtype=torch.float64), chroma(shown))
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    y = torch.tensordot(weights, shown.movedim(1, 0), 1)
    blue, red = y + colours[:, 0] / 0.564, y + colours[:, 1] / 0.713
    return torch.stack([red, (y - weights[0] * red - weights[2] * blue) / weights[1], blue], 1)


def test_chroma_is_cb_and_cr():
    shown = picture(1, 3, 4, 5)
    wanted = (rgb2ycbcr(shown[0].permute(1, 2, 0).numpy())[..., 1:] - 128) / 224  # broadcast range
    np.testing.assert_allclose(chroma(shown)[0].permute(1, 2, 0).numpy(), wanted, atol=5e-4)


@pytest.mark.parametrize("matrix", [[[2.0, 0.0], [0.0, 2.0]], [[1.8, -0.7], [-0.7, 1.1]], [[0.3, 0.0], [0.0, 0.9]]])
def test_a_stretch_of_colours_costs_nothing(matrix: list[list[float]]):
    wanted = picture(2, 3, 16, 16)
    assert Chroma(over=1)(with_chroma(wanted, matrix), wanted) < 1e-4


@pytest.mark.parametrize("matrix", [[[0.0, -1.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, -1.0]]])
def test_turning_hues_costs_all(matrix: list[list[float]]):
    wanted = picture(2, 3, 16, 16)
    assert Chroma(over=1)(with_chroma(wanted, matrix), wanted) > 0.9


def test_colouring_what_is_grey_costs_and_taking_colours_away_does_not():
    wanted = picture(2, 3, 16, 16)
    grey = with_chroma(wanted, [[0.0, 0.0], [0.0, 0.0]])
    by_brightness = wanted.clone()
    by_brightness[:, 0] += grey[:, 0] - 0.5
    loss = Chroma(over=1)
    assert loss(grey, wanted) < 1e-4
    assert loss(by_brightness, grey) > 0.9
    assert loss(by_brightness, wanted) > 0.05


def test_noise_is_no_colour():
    wanted = picture(1, 3, 2, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy = (wanted + 0.05 * noise).clamp(0, 1)
    assert Chroma(over=8)(noisy, wanted) < 0.2 * Chroma(over=1)(noisy, wanted)


def test_the_stretch_is_the_best_symmetric_one():
    chance = torch.Generator().manual_seed(3)
    wanted, shown = (torch.randn(2, 50, generator=chance, dtype=torch.float64) for _ in range(2))
    shown = shown + torch.tensor([[1.5, 0.4], [-0.3, 0.8]], dtype=torch.float64) @ wanted
    best = stretch(shown, wanted)
    torch.testing.assert_close(best, best.T)
    missed = float((shown - best @ wanted).square().sum())
    for step in ([[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]):
        for size in (-1e-3, 1e-3):
            other = best + size * torch.tensor(step, dtype=torch.float64)
            assert float((shown - other @ wanted).square().sum()) >= missed - 1e-9


def test_its_slope_is_that_of_the_values():
    wanted = picture(1, 3, 4, 4)
    shown = (wanted + 0.2 * (picture(1, 3, 4, 4, seed=2) - 0.5)).requires_grad_()  # no stretch of it is negative
    assert torch.autograd.gradcheck(lambda x: Chroma(over=1)(x, wanted), shown, atol=1e-3, rtol=1e-3)
    grey = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    Chroma()(grey, grey.detach()).backward()
    assert grey.grad is not None
    assert torch.isfinite(grey.grad).all()


def test_what_cannot_be():
    with pytest.raises(ValueError, match="at least 8 x 8"):
        Chroma()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="whole number of pixels"):
        Chroma(over=0)
    assert set(make_loss({"chroma": {"weight": 2, "over": 4}}).parts) == {"chroma"}
