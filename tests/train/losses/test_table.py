"""A recipe's losses by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ispeed.engines import UserError
from ispeed.train.losses import L1, LOSSES, BlurredColour, Charbonnier, MsSsim, make_loss


class Encoder(nn.Module):
    def forward(self, picture: Tensor) -> list[Tensor]:
        return [picture]


def test_weighted_sum():
    shown, wanted = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    loss = make_loss({"l1": 2, "ms_ssim": {"weight": 0.5, "scales": 1}, "colour": {"sigma": 2.0}})
    total, parts = loss(shown, wanted)
    expected = {
        "l1": L1()(shown, wanted),
        "ms_ssim": MsSsim(1)(shown, wanted),
        "colour": BlurredColour(2.0)(shown, wanted),
    }
    assert parts == expected
    assert float(total) == pytest.approx(float(2 * parts["l1"] + 0.5 * parts["ms_ssim"] + parts["colour"]))


def test_parts_carry_no_graph():
    shown, wanted = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)
    total, parts = make_loss({"charbonnier": 1, "gradient": 1, "colour_angle": 1})(shown, wanted)
    assert total.requires_grad
    assert not any(value.requires_grad for value in parts.values())


def test_every_name_can_be_made():
    for name in LOSSES:
        total, _ = make_loss({name: 0.3}, encoder=Encoder())(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
        assert float(total) > 0


def test_options_reach_the_loss():
    loss = make_loss({"charbonnier": {"epsilon": 0.5}})
    assert float(loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))[0]) == pytest.approx(0.5)
    assert isinstance(loss.parts["charbonnier"], Charbonnier)


@pytest.mark.parametrize(
    ("terms", "problem"),
    [
        ({}, "no loss is asked for"),
        ({"l3": 1}, "l3: there is no such loss, choose among l1, charbonnier"),
        ({"l1": 0}, "l1: weight is 0; give a positive number"),
        ({"l1": math.nan}, "weight is nan"),
        ({"l1": "much"}, "weight is 'much'"),
        ({"l1": {"weight": 1, "power": 2}}, "l1: unknown: power; it takes weight"),
        ({"perceptual": {"encoder": 3, "file": "x"}}, "unknown: encoder; it takes weight, file, taps"),
        ({"ms_ssim": {"scales": 9}}, "give 1 to 5"),
        ({"perceptual": 0.1}, "perceptual: file is missing"),
        ({"perceptual": {"file": "none.pth"}}, "cannot read the network for features none.pth"),
        ({"perceptual": {"file": 3}}, "perceptual: "),
        ({"l3": 1, "l1": -1}, r"l3: there is no such loss.*; l1: weight is -1"),
    ],
)
def test_wrong_recipes(terms: dict[str, Any], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=problem):
        make_loss(terms)
