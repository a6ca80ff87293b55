"""The L1 distance without borders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ispeed.engines import UserError
from ispeed.train.losses import L1, make_loss


@pytest.mark.parametrize("border", [0, 1, 2, 3])
def test_only_what_lies_inside_counts(border: int):
    chance = torch.Generator().manual_seed(1)
    shown, wanted = (torch.rand(2, 3, 9, 7, generator=chance, dtype=torch.float64) for _ in range(2))
    shown.requires_grad_()
    loss = L1(border)(shown, wanted)
    inside = (shown - wanted)[:, :, border : 9 - border, border : 7 - border]
    assert inside.numel() == 6 * (9 - 2 * border) * (7 - 2 * border)
    assert loss.item() == pytest.approx(inside.abs().mean().item(), rel=1e-12)
    loss.backward()
    assert shown.grad is not None
    assert int((shown.grad != 0).sum()) == inside.numel()
    assert (shown.grad[:, :, border : 9 - border, border : 7 - border] != 0).all()


def test_a_recipe_gives_it_a_border():
    shown, wanted = torch.zeros(1, 3, 6, 6), torch.zeros(1, 3, 6, 6)
    wanted[..., 0], wanted[..., 3, 3] = 9.0, 0.4
    total, parts = make_loss({"l1": {"weight": 3, "border": 2}})(shown, wanted)
    assert parts["l1"].item() == pytest.approx(0.1)
    assert total.item() == pytest.approx(0.3)


@pytest.mark.parametrize("border", [-1, 1.5, True, "2", None])
def test_wrong_borders(border: Any):
    with pytest.raises(ValueError, match=r"border is .*: it is a whole number of pixels, 0 or more"):
        L1(border)
    with pytest.raises(UserError, match="l1: border is") as caught:
        make_loss({"l1": {"border": border}})
    assert "\n" not in str(caught.value)


def test_pictures_that_are_nothing_but_border():
    with pytest.raises(ValueError, match="pictures of at least 5 x 5 are compared"):
        L1(2)(torch.zeros(1, 3, 4, 9), torch.zeros(1, 3, 4, 9))
