"""ParamISP's networks: against what is published, written down once more in NumPy, and what each input is good for."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ispeed.train.models import NETWORKS, form_of, make_network
from ispeed.train.models.canonical import inverse, to_linear
from ispeed.train.models.paramisp import (
    BINS,
    FEATURES,
    BothISPs,
    Direction,
    Features,
    ForwardISP,
    InverseISP,
    Mapped,
    extended_gamma,
    overexposure,
)

Array = npt.NDArray[Any]
Make = Callable[..., Any]
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


# ---- what both networks see --------------------------------------------------------------------------------


def slowly(picture: Array, mask: Array) -> Array:
    """The 96 channels of a picture [3, H, W], place by place."""
    _, height, width = picture.shape
    seen = np.empty((96, height, width))
    for y, x in np.ndindex(height, width):
        up, down, left, right = max(y - 1, 0), min(y + 1, height - 1), max(x - 1, 0), min(x + 1, width - 1)
        channels = [*picture[:, y, x]]
        for p in picture:
            channels.append(((p[up, right] - p[up, left]) + 2 * (p[y, right] - p[y, left]) + p[down, right]) / 8)
            channels[-1] -= p[down, left] / 8
            channels.append(((p[down, left] - p[up, left]) + 2 * (p[down, x] - p[up, x]) + p[down, right]) / 8)
            channels[-1] -= p[up, right] / 8
        for n in (4, 8, 16):
            for i in range(n):
                channels += [max(0.0, 1 - abs(v - i / (n - 1)) * (n - 1)) for v in picture[:, y, x]]
        seen[:, y, x] = [*channels, *mask[:, y, x]]
    return seen


def test_features_against_one_place_after_the_other():
    picture = 1.6 * torch.rand(2, 3, 5, 7, dtype=torch.float64) - 0.3
    mask = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    given = Features()(picture, mask)
    assert given.shape == (2, FEATURES, 5, 7)
    for each, one, over in zip(given, picture, mask, strict=True):
        np.testing.assert_allclose(each.numpy(), slowly(one.numpy(), over.numpy()), atol=2e-6, rtol=0)


def test_bins_of_a_histogram_sum_to_one_inside_of_the_limits():
    values = torch.linspace(0, 1, 60, dtype=torch.float64).view(1, 3, 4, 5)
    first = 9
    for bins in BINS:
        of_bins = Features()(values, values)[:, first : first + 3 * bins].unflatten(1, (bins, 3))
        torch.testing.assert_close(of_bins.sum(1), torch.ones_like(values), atol=2e-6, rtol=0)
        assert ((of_bins > 0).sum(1) <= 2).all()
        first += 3 * bins
    assert first + 3 == FEATURES
    beyond = Features()(values + 1.5, values)[:, 9 : FEATURES - 3]
    assert not beyond.any()


def test_overexposure_rises_from_nearly_white_on():
    values = torch.tensor([-1.0, 0.5, 0.95, 0.975, 1.0, 1.05], dtype=torch.float64)
    torch.testing.assert_close(overexposure(values), torch.tensor([0, 0, 0, 0.5, 1.0, 2.0]).double())


# ---- gamma -------------------------------------------------------------------------------------------------


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


def curve(x: Tensor, gamma: Tensor, start: Tensor, width: Tensor) -> Tensor:
    """`extended_gamma` of [N] with the same three numbers everywhere."""
    each = (value.expand(1, 3) for value in (gamma, start, width))
    given = extended_gamma(x.expand(1, 3, 1, -1), *each)
    assert torch.equal(given[0, 0], given[0, 2])
    return given[0, 1, 0]


class TestGamma:
    @settings(max_examples=100, deadline=None)
    @given(numbers(-1.5, 1.5), st.just(0.0) | numbers(0, 4), numbers(-1.5, 2), st.sampled_from([4, 8]))
    def test_black_and_white_stay_and_it_rises(self, log_gamma: float, start: float, log_width: float, size: int):
        dtype = torch.float32 if size == 4 else torch.float64
        values = torch.tensor([math.exp(log_gamma), start, math.exp(log_width)], dtype=dtype)
        black, white = curve(torch.tensor([0.0, 1.0], dtype=dtype), *values).tolist()
        assert black == 0
        assert white == pytest.approx(1, abs=4 * torch.finfo(dtype).eps)
        x = torch.linspace(-2, 2, 401, dtype=torch.float64)
        steps = curve(x, *values.double()).diff()
        assert torch.isfinite(steps).all()
        assert (steps > 0).all()

    @settings(max_examples=60, deadline=None)
    @given(numbers(-1, 2), st.just(0.0) | numbers(0, 4), numbers(-1, 2))
    def test_slopes_are_finite_at_and_below_black(self, log_gamma: float, start: float, log_width: float):
        values = torch.tensor([math.exp(log_gamma), start, math.exp(log_width)], requires_grad=True)
        x = torch.tensor([-0.5, -1e-3, -1e-12, 0.0, 1e-12, 0.3, 1.7], requires_grad=True)
        curve(x, *values).sum().backward()
        assert x.grad is not None
        assert values.grad is not None
        assert torch.isfinite(x.grad).all()
        assert torch.isfinite(values.grad).all()
        assert (x.grad >= 0).all()

    def test_it_is_the_published_curve_but_for_the_darkest(self):
        x, gamma, start, width = np.linspace(0.05, 1, 20), 0.6, 0.3, 1.4
        given = curve(torch.tensor(x), *torch.tensor([gamma, start, width]).double())
        np.testing.assert_allclose(given.numpy(), published_curve(x, gamma, start, width), atol=2e-3)

    def test_without_a_power_it_is_a_straight_line(self):
        x = torch.linspace(-1, 2, 50).double()
        one = torch.tensor(1.0).double()
        torch.testing.assert_close(curve(x, one, 0 * one, 3 * one), x)


def published_curve(x: Array, gamma: float, start: float, width: float) -> Array:
    low = start**gamma
    return ((width * x + start) ** gamma - low) / ((width + start) ** gamma - low)


def test_a_stage_by_hand():
    """Nine numbers for curves, after thirty for what is added: the products of two of R, G, B and 1, three times."""
    chance = np.random.default_rng(4)
    picture, values = chance.uniform(0.2, 0.9, (2, 3, 4, 5)), chance.uniform(-0.05, 0.15, (2, 39))
    values[:, 31::3] = -0.4  # the start, of which only the size counts
    given = Mapped()(torch.tensor(picture), torch.tensor(values)).numpy()
    for frame, y, x in np.ndindex(2, 4, 5):
        v, colours = [*picture[frame, :, y, x], 1.0], []
        products = [v[i] * v[j] for i in range(4) for j in range(i, 4)]
        for k, of in enumerate(values[frame, :30].reshape(3, 10)):
            log_gamma, start, log_width = values[frame, 30 + 3 * k : 33 + 3 * k]
            added = np.array(v[k] + of @ products)
            colours.append(published_curve(added, math.exp(log_gamma), abs(start), math.exp(log_width)))
        np.testing.assert_allclose(given[frame, :, y, x], colours, atol=2e-3)
    still = np.zeros((2, 39))
    np.testing.assert_allclose(Mapped()(torch.tensor(picture), torch.tensor(still)).numpy(), picture, atol=1e-9)


# ---- the networks ------------------------------------------------------------------------------------------


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameters_and_forms():
    assert NETWORKS["paramisp"].forms == ("raw", "inverse", "cycle")
    kinds = {"raw": ForwardISP, "inverse": InverseISP, "cycle": BothISPs}
    for form, kind in kinds.items():
        network = make_network("paramisp", form=form)
        assert type(network) is kind
        assert form_of(network) == form
        assert network.noise is None
        assert parameters(network) == 709_885 * (1 + (form == "cycle"))
    without = make_network("paramisp", optics=False)
    assert parameters(without) == 709_885 - 4 * (15 + 1) * 64


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        ({"width": 3}, ValueError, "width is 3: it is an even number"),
        ({"width": 0}, ValueError, "width is 0"),
        ({"ranges": "wide"}, ValueError, "ranges is 'wide': it is one of published, high_speed"),
        ({"dropped": 1.0}, ValueError, "dropped 1 and all_dropped 0.1 are rates"),
        ({"all_dropped": -0.1}, ValueError, "are rates"),
        ({"form": "clean"}, ValueError, "paramisp has no form 'clean'; it has raw, inverse, cycle"),
        ({"form": "cycle", "width": 5}, ValueError, "width is 5"),
        ({"depth": 3}, TypeError, "depth"),
        ({"noise": {"gain_db": [0, 24]}}, ValueError, "is told no noise level"),
    ],
)
def test_what_cannot_be_made(options: dict[str, Any], kind: type[Exception], problem: str):
    with pytest.raises(kind, match=problem):
        make_network("paramisp", **options)


@pytest.fixture
def made(lively: Make) -> Callable[..., tuple[nn.Module, Tensor]]:
    """Makes a network in use whose inputs show, and frames or pictures for it."""

    def make(form: str, **options: Any) -> tuple[nn.Module, Tensor]:
        seen = 0.05 + 0.5 * torch.rand(2, *((4, 8, 12) if form == "raw" else (3, 16, 24)))
        return lively(form, **options).eval(), seen

    return make


BOTH = pytest.mark.parametrize("form", ["raw", "inverse"])


@BOTH
@pytest.mark.parametrize("ranges", ["published", "high_speed"])
@torch.inference_mode()
def test_all_that_it_is_told_shows(made: Make, form: str, ranges: str):
    """Frames of a batch that differ in one of the numbers each."""
    network, seen = made(form, ranges=ranges)
    optics, gains, matrix = told(20)
    for k in range(4):
        optics[1 + k, k] *= 2
        optics[5 + k, k] = 0
    gains[9, 0] += 0.2
    gains[10, 2] += 0.2
    matrix[11:].view(9, 9).diagonal().add_(0.1)
    given = network(seen[:1].expand(20, -1, -1, -1), gains, matrix, optics)
    assert given.shape == (20, 3, 16, 24)
    assert torch.isfinite(given).all()
    apart = (given[1:] - given[:1]).abs().amax((1, 2, 3))
    assert apart.min() > 1e-4, apart
    alone = network(seen[:1], gains[:1], matrix[:1], optics[:1])
    torch.testing.assert_close(alone, given[:1], atol=1e-5, rtol=1e-5, msg="frames of a batch do not touch each other")


@BOTH
@torch.inference_mode()
def test_white_balance_and_matrix_reach_the_learned_part_too(made: Make, form: str):
    network, _ = made(form)
    assert isinstance(network, Direction)
    optics, gains, matrix = told()
    before = network.vector(optics, gains, matrix)
    assert (network.vector(optics, gains + torch.tensor([0.3, 0, 0]), matrix) - before).abs().max() > 1e-4
    assert (network.vector(optics, gains, matrix + 0.1 * torch.eye(3)) - before).abs().max() > 1e-4
    torch.testing.assert_close(before, network.told(optics, gains, matrix, inverse(matrix)))


@BOTH
@torch.inference_mode()
def test_without_optics_none_of_them_shows(made: Make, form: str):
    network, seen = made(form, optics=False)
    optics, gains, matrix = told(2)
    before = network(seen, gains, matrix, optics)
    assert torch.equal(network(seen, gains, matrix, 3 * optics), before)
    assert torch.equal(network(seen, gains, matrix, optics[:, :0]), before)
    assert (network(seen, gains + torch.tensor([0.2, 0, 0]), matrix, optics) - before).abs().max() > 1e-3


@BOTH
def test_every_weight_learns(made: Make, form: str):
    network, seen = made(form, dropped=0.0, all_dropped=0.0)
    optics, gains, matrix = told(2)
    network.train()(1.6 * seen, gains, matrix, optics).square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@torch.inference_mode()
def test_it_begins_near_to_what_is_known():
    network, seen = ForwardISP(16).eval(), torch.rand(2, 4, 8, 8) / 3
    optics, gains, matrix = told(2)
    linear = to_linear(seen, gains, matrix)
    assert (network(seen, gains, matrix, optics) - linear).abs().mean() < 0.05


@BOTH
@pytest.mark.parametrize("size", [(8, 8), (12, 20), (100, 8)])
@torch.inference_mode()
def test_of_any_multiple_of_four(made: Make, form: str, size: tuple[int, int]):
    network, _ = made(form)
    height, width = size
    seen = torch.rand(1, 4, height // 2, width // 2) if form == "raw" else torch.rand(1, 3, height, width)
    optics, gains, matrix = told()
    given = network(seen, gains, matrix, optics)
    assert given.shape == (1, 3, height, width)
    assert torch.isfinite(given).all()


@torch.inference_mode()
def test_attention_is_the_same_in_training_and_in_use(made: Make):
    network, seen = made("raw", dropped=0.0, all_dropped=0.0)
    optics, gains, matrix = told(2)
    used = network(seen, gains, matrix, optics)
    torch.testing.assert_close(network.train()(seen, gains, matrix, optics), used, atol=1e-6, rtol=1e-6)


def test_what_was_looked_at_first_can_be_trained_then():
    """In a process of its own, as a run begins: it is measured before the first step, in inference mode."""
    code = (
        "import torch; from ispeed.train.models import make_module, make_network\n"
        "module = make_module(make_network('paramisp', form='inverse', width=2))\n"
        "given = torch.rand(1, 3, 8, 8), torch.ones(1, 3), torch.eye(3)[None], torch.ones(1, 5)\n"
        "with torch.inference_mode(): module.eval()(*given)\n"
        "module.train()(*given).mean().backward()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
