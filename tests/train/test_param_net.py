"""What ParamISP is told of the camera: against what is published, written down once more in NumPy, and the unknown."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ispeed.train.models.param_net import OPTICS, SCALES, ParamNet, Scale, equalised

Array = npt.NDArray[Any]
MATRIX = torch.tensor([[1.62, -0.48, -0.14], [-0.22, 1.46, -0.24], [0.02, -0.52, 1.50]])
TAKEN = torch.tensor([50.0, 4.0, 2000.0, 800.0])
"""Of `OPTICS`."""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def told(rows: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Optics, gains and matrices."""
    gains = torch.tensor([1.8, 1.0, 1.5], dtype=dtype)
    return TAKEN.to(dtype).repeat(rows, 1), gains.repeat(rows, 1), MATRIX.to(dtype).repeat(rows, 1, 1)


PUBLISHED = {
    "focal_length_mm": (200, 4.2, 1.9, 5.8, (50, 30, 20)),
    "f_number": (32, 1.7, 0.7, 4.3, (11, 5, 2)),
    "exposure_us": (30, 1 / 28800, -15, 20, (11, 5, 2)),
    "iso": (8000, 64, 6, 7, (3100, 1300, 500)),
}
"""a, b, c, d and the three periods, as the paper's code has them; exposure in seconds."""


def by_hand(value: float, constants: tuple[float, float, float, float, tuple[float, ...]]) -> list[float]:
    a, b, c, d, periods = constants
    up, down, log = value / a, 1 / (value / b), math.log2(value)
    found = [
        up,
        math.sqrt(up),
        up**0.25,
        down,
        math.sqrt(down),
        down**0.25,
        (log - c) / d,
        math.sin(log),
        math.cos(log),
    ]
    for period in periods:
        found += [math.sin(value / period), math.cos(value / period)]
    return found


@pytest.mark.parametrize("place", range(4), ids=OPTICS)
def test_equalisation_is_the_published_one(place: int):
    values = torch.logspace(-6, 4, 40, dtype=torch.float64)
    given = equalised(values, SCALES["published"][place]).numpy()
    wanted = [by_hand(value, PUBLISHED[OPTICS[place]]) for value in values.tolist()]
    np.testing.assert_allclose(given, wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("exposure_us", 1e-6, 1), ("iso", 50, 102_400), ("f_number", 0.95, 32), ("focal_length_mm", 4, 400)],
)
def test_high_speed_ranges_tell_all_values_apart(name: str, low: float, high: float):
    scale: Scale = SCALES["high_speed"][OPTICS.index(name)]
    values = torch.logspace(math.log10(low), math.log10(high), 100, dtype=torch.float64).float()
    given = equalised(values, scale)
    assert torch.isfinite(given).all()
    assert given.abs().max() <= 1.001, "all of the range is at most about 1"
    assert given[[0, -1], 6].tolist() == pytest.approx([0, 1], abs=1e-4)
    apart = torch.cdist(given, given) + 9 * torch.eye(100)
    assert apart.min() > 0.02


# ---- ParamNet ----------------------------------------------------------------------------------------------


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


@pytest.mark.parametrize("ranges", ["published", "high_speed"])
def test_the_vector_by_hand(ranges: Any):
    net = ParamNet(4, ranges).double().eval()
    optics, gains, matrix = told(dtype=torch.float64)
    given = net(optics, gains, matrix, torch.linalg.inv(matrix))[0].detach().numpy()

    def linear(layer: Any, x: Array) -> Array:
        return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()

    wb, m = gains[0].numpy(), matrix[0].numpy()
    x = linear(net.canonical, np.concatenate([wb, 1 / wb, m.ravel(), np.linalg.inv(m).ravel()]))
    seconds = TAKEN.double().numpy() * np.array([1, 1, 1e-6, 1])
    for layer, value, scale in zip(net.embed, seconds, SCALES[ranges], strict=True):
        x = x + linear(layer, np.array(by_hand(value, tuple(scale))))
    for layer in net.mix:
        x = linear(layer, elu(x))
    np.testing.assert_allclose(given, x, atol=1e-7)


class TestUnknown:
    """Of parameters that are not known, or taken for that in training."""

    @staticmethod
    def net(**options: Any) -> ParamNet:
        net = ParamNet(6, **options).double()
        nn.init.xavier_uniform_(net.mix[-1].weight)  # pyright: ignore[reportArgumentType]
        return net

    @staticmethod
    def vectors(net: ParamNet, optics: Tensor) -> Tensor:
        _, gains, matrix = told(len(optics), torch.float64)
        return net(optics.double(), gains, matrix, torch.linalg.inv(matrix))

    @pytest.mark.parametrize(("dropped", "every"), [(0.2, 0.1), (0.5, 0.0), (0.0, 0.3)])
    def test_dropped_is_exactly_what_0_gives_and_as_often_as_asked(self, dropped: float, every: float):
        net, count = self.net(dropped=dropped, all_dropped=every), 1500
        masks = torch.tensor(list(product([0.0, 1.0], repeat=4)))
        with torch.inference_mode():
            possible = self.vectors(net.eval(), masks * TAKEN)
            assert (torch.cdist(possible, possible) + torch.eye(16)).min() > 1e-3
            drawn = self.vectors(net.train(), TAKEN.repeat(count, 1))
        distance, which = torch.cdist(drawn, possible, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        assert distance.max() < 1e-12
        known = masks[which]
        rate = (1 - dropped) * (1 - every)
        within = 4 * math.sqrt(rate * (1 - rate) / count)
        assert known.mean(0).tolist() == pytest.approx([rate] * 4, abs=within)
        none = every + (1 - every) * dropped**4
        assert (known.sum(1) == 0).double().mean().item() == pytest.approx(none, abs=4 * math.sqrt(none / count))

    def test_nothing_is_dropped_in_use(self):
        net = self.net(dropped=0.9, all_dropped=0.9).eval()
        drawn = self.vectors(net, TAKEN.repeat(50, 1))
        torch.testing.assert_close(drawn, drawn[:1].expand_as(drawn), rtol=0, atol=1e-12)
        torch.testing.assert_close(drawn[:1], self.vectors(self.net_like(net), TAKEN[None]), rtol=0, atol=1e-12)

    def net_like(self, net: ParamNet) -> ParamNet:
        """With its weights, in training, and nothing ever dropped."""
        other = self.net(dropped=0.0, all_dropped=0.0)
        other.load_state_dict(net.state_dict())
        return other.train()

    def test_nothing_known_is_the_vector_of_white_balance_and_matrix_alone(self):
        net, alone = self.net().eval(), ParamNet(6, optics=False).double()
        missing = alone.load_state_dict(net.state_dict(), strict=False)
        assert not missing.missing_keys
        assert {name.split(".")[0] for name in missing.unexpected_keys} == {"embed"}
        for unknown in (0.0, -1.0, math.nan):
            given = self.vectors(net, torch.full((1, 4), unknown))
            torch.testing.assert_close(given, self.vectors(alone, TAKEN[None]), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("place", range(4), ids=OPTICS)
    def test_no_slope_reaches_what_was_not_used(self, place: int):
        net, optics = self.net(dropped=0.0, all_dropped=0.0), TAKEN.repeat(3, 1)
        optics[:, place] = 0.0
        self.vectors(net, optics).square().sum().backward()
        for k, layer in enumerate(net.embed):
            grads = [p.grad for p in layer.parameters()]
            assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
            assert any(bool(grad.any()) for grad in grads if grad is not None) is (k != place)
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())

    def test_each_known_one_counts(self):
        net = self.net().eval()
        vectors = self.vectors(net, torch.cat([TAKEN[None], TAKEN * (1 + torch.eye(4))]))
        assert ((vectors[1:] - vectors[:1]).abs().amax(1) > 1e-3).all()
