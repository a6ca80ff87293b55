"""The networks: what they count, and that every layer does its work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ispeed.train.models import VARIANTS, CleanModule, CoreModule, Form, form_of, make_lwisp, shown
from ispeed.train.models.core import PictureModule
from ispeed.train.models.lwisp import LWISP, Conv, Down, FineGrainedAttention

FAMILY = list(VARIANTS)
FULL = [name for name in FAMILY if not VARIANTS[name].half_resolution]
CHANNELS: dict[Form, int] = {"raw": 4, "rgb": 3, "clean": 3}
"""Of what a network of each form sees."""


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


def test_what_the_published_form_counts():
    """Of the file for denoising and enhancement, with its second upsampling branch."""
    network = make_lwisp(form="rgb", sup=True)
    assert parameters(network) == parameters(make_lwisp(form="rgb", residual=True)) == 1_997_449
    assert multiply_adds(network, torch.rand(1, 3, 256, 256)) / 1e9 == pytest.approx(5.49, abs=5e-3)


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


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in FAMILY for form in CHANNELS if form != "rgb" or name in FULL]
)
def test_the_gradient_reaches_every_weight(name: str, form: Form):
    network = make_lwisp(name, form=form)
    for module in network.modules():
        if isinstance(module, FineGrainedAttention):
            nn.init.constant_(module.squeeze.bias, 1.0)  # its rectifier of two units may start out closed
    network(torch.rand(2, CHANNELS[form], 64, 64)).sum().backward()
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


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "lwisp-xxl"}, "choose one of lwisp, lwisp-s, lwisp-xs"),
        ({"form": "yuv"}, "choose one of raw, rgb, clean"),
        ({"name": "lwisp-xs", "sup": True}, "second upsampling branch"),
        ({"name": "lwisp-xs", "form": "rgb"}, "for planes, not for pictures; use lwisp or lwisp-s"),
        ({"residual": True}, "not for the form raw"),
        ({"form": "clean", "residual": True}, "not for the form clean"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        make_lwisp(**options)


@pytest.mark.parametrize("name", FAMILY)
def test_sizes_that_do_not_divide_are_refused(name: str):
    half = VARIANTS[name].multiple // 2
    with pytest.raises(RuntimeError):
        make_lwisp(name)(torch.rand(1, 4, 4 * half + 1, 4 * half))


# ---- pictures to pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("residual", [False, True])
def test_a_picture_becomes_one_of_its_size(name: str, residual: bool):
    network = make_lwisp(name, form="rgb", residual=residual)
    with torch.inference_mode():
        shown = PictureModule(network).eval()(torch.rand(2, 3, 32, 48))
    assert shown.shape == (2, 3, 32, 48)
    assert 0 <= shown.min() < shown.max() <= 1


def test_a_change_can_darken_and_brighten():
    network, picture = LWISP(4, form="rgb", residual=True), torch.rand(1, 3, 32, 32)
    last = network.out[1]
    nn.init.zeros_(last.weight)
    for bias, expected in ((0.0, picture), (0.3, picture + 0.291), (-0.3, picture - 0.291)):
        nn.init.constant_(last.bias, bias)
        with torch.inference_mode():
            torch.testing.assert_close(network(picture), expected, atol=1e-3, rtol=0)
            module = PictureModule(network)
            torch.testing.assert_close(module(picture), expected, atol=1e-3, rtol=0)  # in training nothing is cut off
            torch.testing.assert_close(module.eval()(picture), expected.clamp(0, 1), atol=1e-3, rtol=0)


def test_a_picture_is_display_values():
    assert form_of(make_lwisp("lwisp-s", form="rgb")) == "rgb"
    with pytest.raises(ValueError, match="output must be srgb, not linear"):
        PictureModule(make_lwisp("lwisp-s", form="rgb"), "linear")


# ---- teachers ----------------------------------------------------------------------------------------------


def shapes(network: nn.Module, seen: Tensor) -> dict[str, tuple[int, ...]]:
    """Of what each layer gives."""
    found: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: found.update({name: tuple(output.shape)})

    for name, layer in network.named_children():
        layer.register_forward_hook(keep(name))
    with torch.inference_mode():
        network(seen)
    return found


@pytest.mark.parametrize("name", FAMILY)
def test_every_layer_of_a_teacher_has_the_shape_of_the_students(name: str):
    student = shapes(make_lwisp(name), torch.rand(1, 4, 32, 48))
    teacher = shapes(make_lwisp(name, form="clean"), torch.rand(1, 3, 64, 96))
    layers = [layer for layer in student if layer[0] == "c"]
    assert len(layers) == (10 if name in FULL else 4)
    assert {layer: teacher[layer] for layer in layers} == {layer: student[layer] for layer in layers}
    assert teacher["out"] == student["out"]


@pytest.mark.parametrize("name", FULL)
def test_a_teacher_copies_nothing_past_its_lower_layers(name: str):
    def gradient_past(layer: str, form: Form) -> float:
        network = make_lwisp(name, form=form)
        network.get_submodule(layer).register_forward_hook(lambda module, inputs, output: output.detach())
        network(torch.rand(1, CHANNELS[form], 64, 64)).sum().backward()
        given = network.c0[1].weight.grad
        return 0.0 if given is None else float(given.abs().sum())

    assert gradient_past("p1", "clean") == 0, "all that is known of the picture passes through p1, and c2"
    assert gradient_past("p1", "raw") > 0, "a student may take its first features as they are"


@pytest.mark.parametrize("output", ["srgb", "linear"])
def test_a_teacher_gives_what_its_student_gives(output: Any):
    """With a network that gives back what it sees: the picture, or the camera's colours of it."""
    module = CleanModule(nn.Identity(), output)
    picture = 0.2 + 0.6 * torch.rand(2, 3, 8, 8)
    matrix = torch.tensor([[1.4, -0.3, -0.1], [-0.2, 1.3, -0.1], [0.0, -0.4, 1.4]]).expand(2, 3, 3)
    grey = picture.mean(1, keepdim=True)
    picture = grey + 0.1 * (picture - grey)  # no colour that the camera does not see
    torch.testing.assert_close(shown(module(picture, matrix), matrix, output), picture, atol=1e-4, rtol=0)


def test_a_residual_one_changes_nothing_to_begin_with():
    network, picture = LWISP(4, form="rgb", residual=True), torch.rand(1, 3, 32, 32)
    assert torch.equal(network(picture), picture)
