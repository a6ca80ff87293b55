"""The networks: what they count, and that every layer does its work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ispeed.train.models import VARIANTS, CoreModule, make_lwisp
from ispeed.train.models.lwisp import LWISP, Conv, Down, FineGrainedAttention

FAMILY = list(VARIANTS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: nn.Module, planes: Tensor) -> int:
    """Of convolutions and linear layers."""
    total = 0

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.inference_mode():
        network(planes)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(("name", "expected"), [("lwisp", 2_009_193), ("lwisp-s", 503_242), ("lwisp-xs", 55_668)])
def test_parameters(name: str, expected: int):
    assert parameters(make_lwisp(name)) == expected


def test_operations_of_the_paper():
    assert multiply_adds(make_lwisp(), torch.rand(1, 4, 224, 224)) / 1e9 == pytest.approx(4.163, abs=5e-4)


def test_the_smaller_ones_cost_less():
    planes = torch.rand(1, 4, 64, 64)
    costs = [multiply_adds(make_lwisp(name), planes) for name in FAMILY]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 3.5 * costs[1] > 10 * costs[2]


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("sizes", [(2, 3), (5, 2)])
def test_picture_of_twice_the_packed_size(name: str, sizes: tuple[int, int]):
    height, width = (size * VARIANTS[name].multiple // 2 for size in sizes)
    with torch.inference_mode():
        picture = make_lwisp(name)(torch.rand(2, 4, height, width))
    assert picture.shape == (2, 3, 2 * height, 2 * width)
    assert 0 <= picture.min() < picture.max() <= 1


@pytest.mark.parametrize("name", FAMILY)
def test_frames_of_a_batch_do_not_touch_each_other(name: str):
    network, planes = make_lwisp(name), torch.rand(3, 4, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(planes)[1], network(planes[1:2])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILY)
def test_the_gradient_reaches_every_weight(name: str):
    network = make_lwisp(name)
    for module in network.modules():
        if isinstance(module, FineGrainedAttention):
            nn.init.constant_(module.squeeze.bias, 1.0)  # its rectifier of two units may start out closed
    network(torch.rand(2, 4, 64, 64)).sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_second_branch_shares_its_weights():
    plain, sup = make_lwisp(), make_lwisp(sup=True)
    assert parameters(plain) == parameters(sup)
    sup.load_state_dict(plain.state_dict())
    planes = torch.rand(1, 4, 64, 64)
    with torch.inference_mode():
        assert (plain(planes) - sup(planes)).abs().max() > 1e-5
    costs = [multiply_adds(network, torch.rand(1, 4, 224, 224)) for network in (plain, sup)]
    assert costs[1] / 1e9 == pytest.approx(5.203, abs=5e-4)


def test_borders_are_mirrored():
    conv, x = Conv(1, 1), torch.rand(1, 1, 5, 6)
    mirrored = torch.cat([x[..., 1:2], x, x[..., -2:-1]], 3)
    mirrored = torch.cat([mirrored[:, :, 1:2], mirrored, mirrored[:, :, -2:-1]], 2)
    torch.testing.assert_close(conv(x), conv[2](conv[1](mirrored)))


def test_slope_below_zero_is_a_fifth():
    conv = Conv(1, 1)
    nn.init.zeros_(conv[1].weight)
    nn.init.constant_(conv[1].bias, -1.0)
    assert conv(torch.rand(1, 1, 4, 4)).unique().tolist() == pytest.approx([-0.2])


def test_attention_doubles_the_channels():
    attention, x = FineGrainedAttention(8), torch.rand(2, 8, 6, 6) + 0.1
    shown = attention(x)
    assert shown.shape == (2, 16, 6, 6)
    by_channel, by_place = (shown / torch.cat([x, x], 1)).chunk(2, 1)
    for factors in (by_channel, by_place):  # residual: from once to twice
        assert 1 < factors.min() < factors.max() < 2
    assert by_channel.flatten(2).std(2).max() < 1e-5, "the same factor at each place of a channel"
    assert by_place.std(1).max() < 1e-5, "the same factor in each channel of a place"


def test_attention_of_few_channels_has_a_way_through():
    assert FineGrainedAttention(4).squeeze.out_channels == 1
    assert Down(4)(torch.rand(1, 4, 8, 8)).shape == (1, 8, 4, 4)


def test_the_first_features_multiply_the_last():
    network = LWISP(4)
    seen: dict[str, Tensor] = {}
    network.c9.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    network.u4.register_forward_pre_hook(lambda module, inputs: seen.update(product=inputs[0]))
    network(torch.rand(1, 4, 32, 32))
    assert not seen["product"].any()


def test_the_scene_vector_carries_far():
    network, planes = make_lwisp("lwisp-s"), torch.rand(1, 4, 160, 160)
    changed = planes.clone()
    changed[..., 128:, 128:] = 1
    with torch.inference_mode():
        away = (network(planes) - network(changed)).abs()[..., :32, :32]
    assert away.max() > 0, "a pixel out of reach of every convolution changes by the global means"


def test_core_white_balances_and_limits():
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, planes: Tensor) -> Tensor:
            seen.append(planes)
            return planes

    raw = torch.tensor([-0.02, 0.2, 0.4, 0.9]).repeat(2, 4, 1, 1)
    CoreModule(Spy())(raw, torch.tensor([[2.0, 1.0, 1.5], [1.0, 1.0, 1.0]]))
    expected = [[-0.04, 0.4, 0.8, 1.0], [-0.02, 0.2, 0.4, 0.9], [-0.02, 0.2, 0.4, 0.9], [-0.03, 0.3, 0.6, 1.0]]
    torch.testing.assert_close(seen[0][0, :, 0], torch.tensor(expected))
    torch.testing.assert_close(seen[0][1], raw[1])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="choose one of lwisp, lwisp-s, lwisp-xs"):
        make_lwisp("lwisp-xxl")
    with pytest.raises(ValueError, match="second upsampling branch"):
        make_lwisp("lwisp-xs", sup=True)


@pytest.mark.parametrize("name", FAMILY)
def test_sizes_that_do_not_divide_are_refused(name: str):
    half = VARIANTS[name].multiple // 2
    with pytest.raises(RuntimeError):
        make_lwisp(name)(torch.rand(1, 4, 4 * half + 1, 4 * half))
