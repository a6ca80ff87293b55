"""The mapper: its encoder and its pipeline, each written out once more, and what training does with it."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from ispeed.train.data.demosaic import demosaic
from ispeed.train.models.misisp import START, Mapper, MapperModule, Prior, develop, make_prior


def parameters(network: torch.nn.Module) -> int:
    return sum(values.numel() for values in network.parameters())


def small(**options: object) -> Mapper:
    torch.manual_seed(3)
    return Mapper(**{"seen": 16, **options})  # pyright: ignore[reportArgumentType]


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# ---- the encoder -------------------------------------------------------------------------------------------------


def test_as_many_parameters_as_the_released_code():
    assert parameters(Mapper()) == 414_931
    convolutions = sum(9 * a * b + b for a, b in pairwise((6, 64, 128, 256, 512)))
    linear = sum(a * b + b for a, b in pairwise((512, 256, 128, 64, 19)))
    assert parameters(Mapper(repeats=3)) == convolutions + linear


@pytest.mark.parametrize("repeats", [2, 3])
def test_the_encoder_written_out(repeats: int):
    mapper = small(repeats=repeats)
    light, reference = drawn(1, 3, 22, 30), drawn(1, 3, 12, 40, seed=2)
    seen = [
        cv2.resize(x[0].permute(1, 2, 0).numpy(), (16, 16), interpolation=cv2.INTER_LINEAR) for x in (light, reference)
    ]
    x = torch.from_numpy(np.concatenate(seen, 2)).permute(2, 0, 1)[None]
    state = list(mapper.state_dict().values())
    weights = list(zip(state[::2], state[1::2], strict=True))
    x = conv2d(x, *weights[0], padding=1)
    for layer in weights[1 : repeats + 1]:
        x = conv2d(avg_pool2d(x, 2), *layer, padding=1).relu()
    x = x.mean((2, 3))
    for weight, bias in weights[repeats + 1 : -1]:
        x = (x @ weight.T + bias).relu()
    expected = make_prior(torch.tensor(START) + x @ weights[-1][0].T + weights[-1][1])
    for found, value in zip(mapper.set_by(light, reference), expected, strict=True):
        torch.testing.assert_close(found, value)


def test_pictures_of_the_size_that_is_seen_are_not_resized():
    mapper = small()
    light, reference = drawn(1, 3, 16, 16), drawn(1, 3, 32, 32, seed=2)
    halved = avg_pool2d(reference, 2)  # which is what bilinear resizing by two is
    torch.testing.assert_close(mapper(light, reference), mapper(light, halved))


# ---- the pipeline ------------------------------------------------------------------------------------------------


def by_hand(light: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One picture [3, H, W] by nineteen values, as section 2.1 of the facts has it."""
    gain, red, blue, gamma, s, p1, p2 = values[[0, 1, 2, 15, 16, 17, 18]]
    x = np.clip(np.clip(gain, 0.5, 10) * light, 0, 1)
    x = np.clip(np.stack([np.clip(red, 0.1, 5) * x[0], x[1], np.clip(blue, 0.1, 5) * x[2]]), 0, 1)
    x = np.clip(np.einsum("ij,jhw->ihw", values[3:12].reshape(3, 3), x) + values[12:15, None, None], 0, 1)
    x = np.clip(np.maximum(x, 1e-8) ** np.clip(gamma, 0.1, 5), 0, 1)
    s, p1, p2 = np.clip(s, 1, 10), np.clip(p1, 0.1, 5), np.clip(p2, 0.1, 5)
    x = np.maximum(x, 1e-8)
    return np.clip(s * x**p1 - (s - 1) * x**p2, 0, 1)


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 20.0])
def test_the_pipeline_by_hand(spread: float):
    """Up to far beyond the limits of the values."""
    values = torch.tensor(START, dtype=torch.float64) + spread * (2 * drawn(8, 19).double() - 1)
    light = drawn(8, 3, 5, 4, seed=4).double()
    light[:, :, 0] = torch.tensor([0.0, 1e-9, 1e-4, 1.0]).double()
    found = develop(light, make_prior(values))
    for one, picture, row in zip(found, light, values, strict=True):
        np.testing.assert_allclose(one.numpy(), by_hand(picture.numpy(), row.numpy()), atol=1e-9)


def test_the_start_is_a_gain_and_a_gamma():
    """Matrix, balance and tone map change nothing to begin with: 3 x - 2 x is x."""
    light = drawn(2, 3, 4, 4)
    start = make_prior(torch.tensor(START).expand(2, -1))
    torch.testing.assert_close(develop(light, start), (0.8 * light) ** 0.25)


def test_slopes_of_the_pipeline():
    values = torch.tensor(START, dtype=torch.float64).repeat(2, 1) + 0.05 * (2 * drawn(2, 19).double() - 1)
    light = 0.2 + 0.3 * drawn(2, 3, 2, 2, seed=4).double()  # no step at its limits: there slopes jump

    def developed(light: Tensor, values: Tensor) -> Tensor:
        return develop(light, make_prior(values))

    assert torch.autograd.gradcheck(developed, (light.requires_grad_(), values.requires_grad_()))


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e-8, 1.0])
@pytest.mark.parametrize("power", [0.0, 0.25, 30.0])
def test_slopes_are_finite_in_black_and_in_white(level: float, power: float):
    light = torch.full((1, 3, 4, 4), level, requires_grad=True)
    values = torch.tensor([START])
    values[:, 15:] = power  # beyond the lower limit, within, beyond the upper one
    values.requires_grad_()
    develop(light, make_prior(values)).sum().backward()
    for leaf in (light, values):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


# ---- both --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [8, 16, 33])
def test_full_resolution_whatever_the_encoder_sees(seen: int):
    mapper = small(seen=seen)
    light, reference = drawn(2, 3, 18, 26), drawn(2, 3, 40, 21, seed=2)
    shown = mapper(light, reference)
    assert shown.shape == light.shape
    assert shown.dtype == torch.float32
    prior = mapper.set_by(light, reference)
    torch.testing.assert_close(shown[:, :, 3:7, 5:9], develop(light[:, :, 3:7, 5:9], prior), msg="pixel by pixel")


def test_the_prior_is_there_for_reports():
    mapper = small()
    assert mapper.prior is None
    shown = mapper(drawn(2, 3, 18, 26), drawn(2, 3, 18, 26, seed=2))
    prior = mapper.prior
    assert isinstance(prior, Prior)
    assert [tuple(values.shape) for values in prior] == [(2,), (2,), (2,), (2, 3, 3), (2, 3), (2,), (2,), (2,), (2,)]
    assert not any(values.requires_grad for values in prior)
    torch.testing.assert_close(develop(drawn(2, 3, 18, 26), prior), shown.detach())
    assert set(mapper.state_dict()) == {name for name, _ in mapper.named_parameters()}, "weights alone are saved"


def test_it_learns_the_look_of_a_picture_that_lies_elsewhere():
    """Another gain, balance and tone, upside down: colours and tones are found, and the frame stays where it is."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 24), torch.linspace(0, 4, 32), indexing="ij")
    light = 0.15 + 0.1 * torch.stack([torch.sin(x + y), torch.cos(x), torch.sin(2 * y)])[None]
    wanted = (light * torch.tensor([2.0, 1.2, 1.6])[:, None, None]).clamp(0, 1) ** 0.45
    mapper = small(seen=8)
    optimiser = torch.optim.Adam(mapper.parameters(), lr=3e-3)
    errors = []
    for _ in range(25):
        shown = mapper(light, wanted.flip(2))
        loss = (shown - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.1 * errors[0]


def test_as_training_calls_it():
    planes, gains, target = 0.4 * drawn(2, 4, 8, 10), torch.tensor([[2.0, 1.0, 1.5]] * 2), drawn(2, 3, 16, 20, seed=2)
    module = MapperModule(small())
    assert (module.takes, module.output) == (("planes", "gains", "target"), "srgb")
    shown = module(planes, gains, target)
    torch.testing.assert_close(shown, module.network(demosaic(planes).clamp(0, 1), target))
    torch.testing.assert_close(module(planes, 3 * gains, target), shown, msg="gains are of no use")
    assert shown.shape == target.shape
    balanced = MapperModule(small(balanced=True))
    lit = planes * torch.tensor([2.0, 1.0, 1.0, 1.5])[:, None, None]
    torch.testing.assert_close(balanced(planes, gains, target), module(lit, gains, target))
    torch.testing.assert_close(
        balanced(planes, 9 * gains, target), module((9 * lit).clamp(max=1), gains, target), msg="limited to white"
    )


def test_few_bits_come_close():
    module = MapperModule(small())
    sample = drawn(1, 4, 8, 8), torch.ones(1, 3), drawn(1, 3, 16, 16, seed=2)
    exact = module(*sample)
    with torch.autocast("cpu", torch.bfloat16):
        shown = module(*sample)
    assert shown.dtype == torch.float32
    assert float((shown - exact).abs().max().detach()) < 0.02


def test_wrong_use():
    for options, problem in (
        ({"repeats": 0}, "repeats is 0; give 2"),
        ({"repeats": True}, "repeats is True"),
        ({"seen": 3}, "seen is 3; give a whole number of pixels, 4 at least"),
        ({"seen": "all"}, "seen is 'all'"),
    ):
        with pytest.raises(ValueError, match=problem):
            Mapper(**options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="output must be srgb"):
        MapperModule(small(), "linear")
    light = drawn(2, 3, 16, 16)
    with pytest.raises(ValueError, match="reference is"):
        small()(light, light[:1])
    with pytest.raises(ValueError, match="light is"):
        small()(light[:, :2], light)
