"""Lightness, what is compared of it, and total variation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torch import Tensor, nn

from ispeed.train.losses import make_loss
from ispeed.train.losses.content import Content, Variation, lightness


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Halves(nn.Module):
    """An encoder whose features can be written down: the picture, and its means over 2 x 2."""

    def forward(self, seen: Tensor) -> list[Tensor]:
        return [seen, nn.functional.avg_pool2d(seen, 2)]


def test_lightness_is_that_of_cielab():
    colours = torch.cat([picture(1, 3, 8, 8), 0.05 * picture(1, 3, 8, 8, seed=2), torch.zeros(1, 3, 8, 8)])
    wanted = [rgb2lab(each.permute(1, 2, 0).numpy())[..., 0] / 100 for each in colours]
    np.testing.assert_allclose(lightness(colours)[:, 0].numpy(), np.stack(wanted), atol=2e-4)
    assert lightness(torch.ones(1, 3, 2, 2)) == pytest.approx(1.0, abs=1e-5)


def test_slopes_of_lightness_are_finite_and_those_of_the_values():
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lightness(black).sum().backward()
    assert torch.isfinite(black.grad).all()  # pyright: ignore[reportArgumentType]
    seen = (0.1 + 0.8 * picture(1, 3, 3, 3)).double().requires_grad_()
    assert torch.autograd.gradcheck(lightness, seen)


def test_content_is_the_squared_distance_of_the_last_features():
    a, b = picture(2, 3, 8, 12), picture(2, 3, 8, 12, seed=2)
    means = [nn.functional.avg_pool2d(lightness(each), 2) for each in (a, b)]
    loss = Content(Halves(), edge=None)
    torch.testing.assert_close(loss(a, b), 2 * (means[0] - means[1]).square().mean())
    assert loss(a, a) == 0


def test_colours_of_one_lightness_are_one_content():
    grey = torch.full((1, 3, 4, 4), 0.5)
    level = lightness(grey)[0, 0, 0, 0]
    red = grey * torch.tensor([1.3, 1.0, 1.0]).view(3, 1, 1)
    low, high = 0.1, 1.0
    for _ in range(40):  # the green that has the lightness of grey beside that red
        green = (low + high) / 2
        red[:, 1] = green
        low, high = (low, green) if lightness(red)[0, 0, 0, 0] > level else (green, high)
    assert (red - grey).abs().max() > 0.05
    assert Content(Halves(), None)(red, grey) < 1e-10


def test_pictures_are_brought_to_the_published_size():
    seen = []

    class Noting(nn.Module):
        def forward(self, given: Tensor) -> list[Tensor]:
            seen.append(given.shape)
            return [given]

    Content(Noting())(picture(1, 3, 20, 30), picture(1, 3, 20, 30, seed=2))
    assert seen == [(1, 3, 256, 256)] * 2


@pytest.mark.parametrize("edge", [0, True, 2.5])
def test_edges_that_cannot_be(edge: object):
    with pytest.raises(ValueError, match="whole number of pixels"):
        Content(Halves(), edge)  # pyright: ignore[reportArgumentType]


def test_variation():
    shown = picture(2, 3, 5, 7)
    across, down = np.diff(shown.numpy(), axis=3), np.diff(shown.numpy(), axis=2)
    wanted = (across**2).mean() + (down**2).mean()
    assert float(Variation()(shown, torch.zeros_like(shown))) == pytest.approx(wanted, rel=1e-5)
    assert Variation()(torch.ones(1, 3, 4, 4), shown[:1, :, :4, :4]) == 0
    with pytest.raises(ValueError, match="at least 2 x 2"):
        Variation()(torch.ones(1, 3, 1, 4), torch.ones(1, 3, 1, 4))


def test_a_recipe_asks_for_both(clean: Path):
    loss = make_loss({"content": {"weight": 1.0, "file": str(clean), "edge": 32}, "variation": 0.5})
    shown = picture(1, 3, 32, 32).requires_grad_()
    total, parts = loss(shown, picture(1, 3, 32, 32, seed=2))
    torch.testing.assert_close(total.detach(), parts["content"] + 0.5 * parts["variation"])
    total.backward()
    assert shown.grad is not None
    assert shown.grad.abs().max() > 0


def test_lightness_is_compared_pixel_by_pixel():
    a, b = picture(2, 3, 8, 12), picture(2, 3, 8, 12, seed=2)
    loss = make_loss({"lightness": 1.0})
    torch.testing.assert_close(loss(a, b)[0], (lightness(a) - lightness(b)).abs().mean())
