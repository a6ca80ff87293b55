"""LiteISPNet: what it counts, that its wavelets are wavelets, and that every layer does its work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ispeed.train.models import CoreModule, form_of, make_network
from ispeed.train.models.liteisp import MULTIPLE, ChannelAttention, Haar, InverseHaar, LiteISPNet

NOISE = {"gain_db": [0, 32]}
HALF = MULTIPLE // 2


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


@pytest.fixture
def small() -> LiteISPNet:
    return LiteISPNet(4, noise_plane=True).eval()


def level(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: nn.Module, *seen: Tensor) -> int:
    """Of convolutions, on a device that computes no numbers."""
    total = 0

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(*seen)
    return total


def test_parameters_of_the_published_one():
    plain = make_network("liteisp")
    filters = sum(fixed.numel() for fixed in plain.buffers())
    assert parameters(plain) == 9_014_979
    assert parameters(plain) + filters == 9_023_171, "published counts include the filters of the wavelets"
    assert parameters(make_network("liteisp", noise=NOISE)) == parameters(plain) - (4 * 9 + 1)
    assert parameters(make_network("liteisp-s")) == 570_115


def test_operations_of_the_published_one():
    with torch.device("meta"):
        plain, told, narrow = LiteISPNet(), LiteISPNet(noise_plane=True), LiteISPNet(16)
        planes, noise = torch.empty(1, 4, 224, 224), torch.empty(1, 1, 1, 1)
    assert multiply_adds(plain, planes) / 1e9 == pytest.approx(71.9, abs=0.05)
    assert multiply_adds(told, planes, noise) / 1e9 == pytest.approx(71.9, abs=0.05)
    assert multiply_adds(narrow, planes) / 1e9 == pytest.approx(4.56, abs=0.05), "about as much as LW-ISP"


def test_wavelets():
    x = torch.rand(2, 3, 6, 10)
    step = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)  # mean and difference of two neighbours, of length 1
    expected = np.empty((2, 3, 4, 3, 5))
    for row in range(2):
        for column in range(2):
            cells = x.numpy().reshape(2, 3, 3, 2, 5, 2)
            expected[:, :, 2 * row + column] = np.einsum("bcyixj,i,j->bcyx", cells, step[row], step[column])
    given = Haar(3)(x)
    np.testing.assert_allclose(given.numpy(), expected.reshape(2, 12, 3, 5), atol=1e-6)
    torch.testing.assert_close(InverseHaar(3)(given), x)


@pytest.mark.parametrize("sizes", [(2, 3), (5, 2)])
@pytest.mark.parametrize("batch", [1, 2])
def test_picture_of_twice_the_packed_size(small: LiteISPNet, sizes: tuple[int, int], batch: int):
    height, width = (size * HALF for size in sizes)
    nn.init.constant_(small.tail[2].bias, 0.5)
    with torch.inference_mode():
        picture = small(torch.rand(batch, 4, height, width), level(*range(batch)))
    assert picture.shape == (batch, 3, 2 * height, 2 * width)
    assert 0 <= picture.min() < picture.max() <= 1


def test_nothing_is_limited_in_training(small: LiteISPNet):
    nn.init.constant_(small.tail[2].bias, 1.5)
    planes = torch.rand(1, 4, 16, 16)
    assert small(planes, level(0.5)).max() == 1
    assert small.train()(planes, level(0.5)).max() > 1


def test_what_came_out_below_black_is_led_back():
    core = CoreModule(make_network("liteisp-s"), "linear").train()
    nn.init.zeros_(core.network.tail[2].weight)
    nn.init.constant_(core.network.tail[2].bias, -0.5)
    light = core(torch.rand(1, 4, 16, 16), torch.ones(1, 3))
    torch.testing.assert_close(light, torch.full_like(light, -0.25))
    light.sum().backward()
    assert (core.network.tail[2].bias.grad > 0).all(), "a higher bias gives more light"
    assert core.eval()(torch.rand(1, 4, 16, 16), torch.ones(1, 3)).max() == 0


def test_frames_of_a_batch_do_not_touch_each_other(small: LiteISPNet):
    planes, levels = torch.rand(3, 4, 16, 24), level(0.0, 0.5, 1.0)
    with torch.inference_mode():
        torch.testing.assert_close(small(planes, levels)[1], small(planes[1:2], levels[1:2])[0], atol=1e-5, rtol=0)


def test_the_gradient_reaches_every_weight():
    network = LiteISPNet(8, noise_plane=True)
    for module in network.modules():
        if isinstance(module, ChannelAttention):
            nn.init.constant_(module.squeeze.bias, 1.0)  # its rectifiers may start out closed
    network(torch.rand(2, 4, 32, 32), level(0.3, 0.9)).square().sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_the_noise_level_is_a_plane_beside_the_first_features(small: LiteISPNet):
    seen: list[Tensor] = []
    small.down1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    planes = torch.rand(2, 4, 16, 16)
    with torch.inference_mode():
        small(planes, level(0.25, 1.0))
    assert torch.equal(seen[0][:, :3], small.head(planes))
    assert torch.equal(seen[0][:, 3], level(0.25, 1.0)[:, 0].expand(2, 16, 16))
    with pytest.raises(ValueError, match="called with planes and the noise level"):
        small(planes)


def test_far_places_are_told_of_each_other(small: LiteISPNet):
    """By the means that channel attention takes."""
    planes = torch.rand(1, 4, 96, 96)
    changed = planes.clone()
    changed[..., 80:, 80:] = 1
    with torch.no_grad():
        small.train()
        assert (small(planes, level(0)) - small(changed, level(0))).abs()[..., :16, :16].max() > 0


def test_sizes_that_do_not_divide_are_refused(small: LiteISPNet):
    with pytest.raises(RuntimeError):
        small(torch.rand(1, 4, 4 * HALF + 2, 4 * HALF), level(0))


def test_it_has_one_form():
    assert form_of(make_network("liteisp-s")) == form_of(make_network("liteisp-s", form="raw")) == "raw"
    with pytest.raises(ValueError, match="liteisp-s has no form rgb; it has raw alone"):
        make_network("liteisp-s", form="rgb")
    with pytest.raises(TypeError, match="sup"):
        make_network("liteisp-s", sup=True)
