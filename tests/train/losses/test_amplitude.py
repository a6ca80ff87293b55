"""The sliced Wasserstein distance of amplitudes: against NumPy and SciPy, under shifts, and with little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ispeed.engines import UserError
from ispeed.train.checkpoint import Checkpoint, save_checkpoint
from ispeed.train.features import load_features
from ispeed.train.losses import Amplitude, make_loss, sliced_wasserstein
from ispeed.train.losses.amplitude import random_filters
from ispeed.train.models import make_lwisp


class Two(nn.Module):
    """Features by name: the picture, and its two-by-two means, squared."""

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        return {"conv2_2": picture, "conv4_2": avg_pool2d(picture, 2).square()}


class Wide(nn.Module):
    def forward(self, picture: Tensor) -> list[Tensor]:
        return [picture.repeat(1, 4, 1, 1)]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def answers(features: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[C, h, w] by [C, k, k], place by place."""
    k = kernel.shape[-1]
    rows, columns = features.shape[1] - k + 1, features.shape[2] - k + 1
    return np.array([(features[:, y : y + k, x : x + k] * kernel).sum() for y in range(rows) for x in range(columns)])


# ---- sliced Wasserstein ------------------------------------------------------------------------------------------


def test_filters_are_directions_and_always_the_same():
    filters = random_filters(256, 7, 5, seed=3)
    assert filters.shape == (256, 7, 5, 5)
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(256))
    assert torch.equal(filters, random_filters(256, 7, 5, seed=3))
    assert not torch.equal(filters, random_filters(256, 7, 5, seed=4))
    assert float(filters.flatten(1).mean(0).abs().max()) < 4 / np.sqrt(256 * 175), "no direction is preferred"


def test_by_scipy():
    """Which takes the area between two distribution functions, and sorts no pairs."""
    a, b, filters = drawn(2, 3, 7, 6), drawn(2, 3, 7, 6, seed=1), random_filters(4, 3, 3, seed=0).double()
    expected = [
        wasserstein_distance(answers(x, kernel), answers(y, kernel))
        for x, y in zip(a.numpy(), b.numpy(), strict=True)
        for kernel in filters.numpy()
    ]
    assert float(sliced_wasserstein(a, b, filters)) == pytest.approx(np.mean(expected), rel=1e-9)


def test_of_one_value_at_a_time():
    """Filters of one value: distributions alone count, not places."""
    a = drawn(1, 1, 6, 6)
    shuffled = a.flatten()[torch.randperm(36, generator=torch.Generator().manual_seed(1))].view_as(a)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    assert float(sliced_wasserstein(a, shuffled, one)) == pytest.approx(0, abs=1e-12)
    assert float(sliced_wasserstein(a, shuffled + 0.3, one)) == pytest.approx(0.3)
    assert float(sliced_wasserstein(2 * a, shuffled, one)) == pytest.approx(float(a.mean())), "twice as far from 0"


def test_less_memory_gives_the_same():
    a, b, filters = drawn(2, 3, 8, 8), drawn(2, 3, 8, 8, seed=1), random_filters(10, 3, 3, seed=0).double()
    slopes = []
    for at_once in (None, 3, 10, 99):
        x = a.clone().requires_grad_()
        value = sliced_wasserstein(x, b, filters, at_once)
        assert float(value.detach()) == pytest.approx(float(sliced_wasserstein(a, b, filters)), rel=1e-12)
        value.backward()
        slopes.append(x.grad)
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0])


def test_little_is_kept_for_the_slopes():
    """Of twelve filters run one by one, no answers are kept."""
    a, b, filters = drawn(1, 2, 12, 12).requires_grad_(), drawn(1, 2, 12, 12, seed=1), random_filters(12, 2, 3, seed=0)

    def kept(at_once: int | None) -> int:
        there: dict[int, Tensor] = {}

        def keep(x: Tensor) -> Tensor:
            there[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = sliced_wasserstein(a, b, filters.double(), at_once)
        assert loss.requires_grad
        return sum(x.untyped_storage().nbytes() for x in there.values())

    assert kept(1) < kept(None) / 2


# ---- the loss ----------------------------------------------------------------------------------------------------


def test_by_numpy():
    shown, wanted = drawn(2, 3, 12, 14), drawn(2, 3, 12, 14, seed=1)
    loss = Amplitude(Two(), filters=3, seed=5)
    expected = 0.0
    for place, name in enumerate(("conv2_2", "conv4_2")):
        a, b = (np.abs(np.fft.fft2(Two()(x)[name].numpy())) for x in (shown, wanted))
        filters = loss.get_buffer(f"filters_{place}").double().numpy()
        expected += np.mean(
            [
                np.abs(np.sort(answers(x, kernel)) - np.sort(answers(y, kernel))).mean()
                for x, y in zip(a, b, strict=True)
                for kernel in filters
            ]
        )
    assert float(loss(shown, wanted)) == pytest.approx(expected, rel=1e-9)


def test_shifts_cost_nothing_and_blur_does():
    wanted = drawn(1, 3, 32, 32)
    loss = Amplitude(Two(), filters=16)
    shifted, blurred = wanted.roll((6, 10), (2, 3)), wanted.clone()
    blurred[..., 1:-1, 1:-1] = avg_pool2d(wanted, 3, 1)
    assert float(loss(shifted, wanted)) == pytest.approx(0, abs=1e-9)
    assert float(loss(blurred, wanted)) > 0.1
    assert float((shifted - wanted).abs().mean()) > float((blurred - wanted).abs().mean()), "an L1 has it the other way"


def test_slopes():
    shown, wanted = drawn(1, 3, 6, 6), drawn(1, 3, 6, 6, seed=1)
    mask = (drawn(1, 1, 6, 6, seed=2) > 0.3).double()
    for at_once in (None, 1):
        loss = Amplitude(Two(), filters=2, size=2, at_once=at_once)
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, wanted, mask), shown.requires_grad_())


def test_the_target_has_no_slope():
    shown, wanted = drawn(1, 3, 12, 12).requires_grad_(), drawn(1, 3, 12, 12, seed=1).requires_grad_()
    Amplitude(Two(), filters=3)(shown, wanted).backward()
    assert shown.grad is not None
    assert wanted.grad is None


def test_both_are_multiplied_by_the_mask():
    shown, wanted = drawn(1, 3, 12, 12), drawn(1, 3, 12, 12, seed=1)
    mask = (drawn(1, 1, 12, 12, seed=2) > 0.5).double()
    loss = Amplitude(Two(), filters=3)
    assert float(loss(shown, wanted, mask)) == pytest.approx(float(loss(shown * mask, wanted * mask)), rel=1e-12)
    assert float(loss(shown, wanted, mask)) != pytest.approx(float(loss(shown, wanted)), rel=0.01)


def test_encoder_and_filters_stay_as_they_are():
    encoder = nn.Sequential(Wide(), Dropped())
    loss = Amplitude(encoder, filters=4).train()
    assert not any(module.training for module in encoder.modules())
    assert not loss.state_dict(), "filters are drawn anew from the seed"
    assert loss.get_buffer("filters_0").shape == (4, 12, 5, 5)


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [self.drop(x) for x in features]


def test_wrong_settings():
    options: list[tuple[dict[str, Any], str]] = [
        ({"filters": 0}, "filters is 0"),
        ({"size": 2.5}, "size is 2.5"),
        ({"at_once": -1}, "at_once is -1"),
        ({"seed": "x"}, "seed is 'x'"),
    ]
    for given, problem in options:
        with pytest.raises(ValueError, match=problem):
            Amplitude(Two(), **given)
    with pytest.raises(ValueError, match="features of 4 x 5 are smaller than filters of 5; give larger pictures"):
        Amplitude(Two(), filters=2)(drawn(1, 3, 8, 10), drawn(1, 3, 8, 10))


# ---- in a recipe -------------------------------------------------------------------------------------------------


def test_as_a_recipe_asks_for_it(tmp_path: Path):
    torch.manual_seed(2)
    path = tmp_path / "clean.pt"
    save_checkpoint(path, Checkpoint(make_lwisp("lwisp-s", form="clean"), "lwisp-s", {"form": "clean"}))
    loss = make_loss({"phase": 1, "amplitude": {"weight": 1e-4, "file": str(path), "filters": 8, "at_once": 4}})
    shown, wanted = drawn(1, 3, 48, 48, dtype=torch.float32), drawn(1, 3, 48, 48, seed=1, dtype=torch.float32)
    total, parts = loss(shown, wanted, torch.ones(1, 1, 48, 48))
    expected = Amplitude(load_features(path, ["conv2_2", "conv4_2"]), filters=8)(shown, wanted)
    assert float(parts["amplitude"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(total) == pytest.approx(float(parts["phase"] + 1e-4 * parts["amplitude"]), rel=1e-6)


@pytest.mark.parametrize(
    ("terms", "problem"),
    [
        ({"amplitude": 1e-4}, "amplitude: file is missing; give the path of a checkpoint of the form clean"),
        ({"amplitude": {"file": "none.pt"}}, "amplitude: cannot read the network for features none.pt"),
        ({"amplitude": {"file": "none.pt", "depths": ["conv9"]}}, "give a list of some of conv2_2"),
        ({"amplitude": {"file": "none.pt", "encoder": 1}}, "unknown: encoder; it takes weight, file, depths, filters"),
        ({"phase": {"over": "all"}}, "phase: over is 'all'; choose one of"),
        ({"phase": {"block": 64}}, "unknown: block; it takes weight, over"),
    ],
)
def test_wrong_recipes(terms: dict[str, Any], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=problem):
        make_loss(terms)
