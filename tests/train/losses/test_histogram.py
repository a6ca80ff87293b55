"""The distance of RGB-uv histograms, against a slow loop over pixels and bins, and its slopes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from ispeed.engines import UserError
from ispeed.train.losses import Histogram, hellinger, histogram, make_loss, rgb_uv_histogram

SLOPE_VALUES = 25
"""Values that may be kept for the slopes, for each pixel: one of its kernels alone has 64."""


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Clear of 0 and 1, where slopes break."""
    return 0.05 + 0.9 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_histogram(picture: np.ndarray, bins: int, reach: float, sigma: float, mask: np.ndarray) -> np.ndarray:
    """Of [3, H, W]: [3, bins, bins], pixel by pixel and bin by bin."""
    centres, whole = np.linspace(-reach, reach, bins), np.zeros((3, bins, bins))
    for y in range(picture.shape[1]):
        for x in range(picture.shape[2]):
            pixel = np.clip(picture[:, y, x], 0, 1)
            light = mask[y, x] * math.sqrt((pixel**2).sum() + 1e-6)
            for channel, (first, second) in enumerate(((1, 2), (0, 2), (0, 1))):
                u = math.log((pixel[channel] + 1e-6) / (pixel[first] + 1e-6))
                v = math.log((pixel[channel] + 1e-6) / (pixel[second] + 1e-6))
                near_u, near_v = (1 / (1 + ((z - centres) / sigma) ** 2) for z in (u, v))
                for i in range(bins):
                    whole[channel, i] += light * near_u[i] * near_v
    return whole / whole.sum()


def slow_distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(((np.sqrt(a) - np.sqrt(b)) ** 2).sum() / 2)


# ---- against a slow loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bins", "reach", "sigma"), [(64, 3.0, 0.02), (5, 1.5, 0.3), (2, 1.0, 0.1)])
def test_histograms_are_what_a_slow_loop_computes(bins: int, reach: float, sigma: float):
    pictures = 1.4 * drawn(2, 3, 4, 5) - 0.2  # also beyond [0, 1]
    pictures[0, :, 0, 0], pictures[0, :, 0, 1], pictures[0, :, 0, 2] = 0.0, 1.0, torch.tensor([1.0, 0.0, 0.0])
    mask = drawn(2, 1, 4, 5, seed=1)
    everywhere = np.ones((4, 5))
    for kept in (None, mask):
        result = rgb_uv_histogram(pictures, bins, reach, sigma, kept).numpy()
        for index, picture in enumerate(pictures.numpy()):
            weights = everywhere if kept is None else kept[index, 0].numpy()
            expected = slow_histogram(picture, bins, reach, sigma, weights)
            np.testing.assert_allclose(result[index], expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_what_a_slow_loop_computes(dtype: torch.dtype):
    """The mean over the pictures, and the norm over the whole batch that the published code divides by its size."""
    shown, wanted = (drawn(3, 3, 4, 5, seed=seed) ** power for seed, power in ((0, 1), (1, 2)))
    slow = [
        [slow_histogram(x, 64, 3.0, 0.02, np.ones((4, 5))) for x in pictures.numpy()] for pictures in (shown, wanted)
    ]
    each = [slow_distance(a, b) for a, b in zip(*slow, strict=True)]
    pair = shown.to(dtype), wanted.to(dtype)
    close = 1e-7 if dtype == torch.float64 else 2e-5
    assert float(Histogram()(*pair)) == pytest.approx(np.mean(each), rel=close)
    batch = np.sqrt(np.array(slow))
    published = 1 / math.sqrt(2) * np.linalg.norm((batch[0] - batch[1]).ravel()) / 3
    assert float(Histogram(norm="batch")(*pair)) == pytest.approx(published, rel=close)
    assert Histogram()(*pair).dtype == dtype


@pytest.mark.parametrize("size", [(7, 30), (30, 7), (31, 31)])
def test_pictures_with_a_longer_side_are_made_smaller(size: tuple[int, int]):
    shown, wanted = drawn(1, 3, *size), drawn(1, 3, *size, seed=1)
    small = [interpolate(x, (30, 30), mode="bilinear", align_corners=False) for x in (shown, wanted)]
    whole = Histogram(edge=None)
    assert float(Histogram(edge=29)(shown, wanted)) != float(whole(shown, wanted))
    expected = whole(*small) if max(size) > 30 else whole(shown, wanted)
    assert float(Histogram(edge=30)(shown, wanted)) == pytest.approx(float(expected), rel=1e-12)


# ---- slopes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"edge": 3}, {"edge": None}])
def test_slopes_are_those_of_the_values(options: dict[str, Any]):
    loss = Histogram(bins=6, reach=1.0, sigma=0.2, **options)
    pair = [drawn(2, 3, 4, 3, seed=seed).requires_grad_() for seed in (3, 4)]
    mask = drawn(2, 1, 4, 3, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(loss, pair)
    assert torch.autograd.gradcheck(loss, (*pair, mask))


def test_slopes_with_the_published_kernel():
    shown, wanted = drawn(1, 3, 3, 3, seed=6).requires_grad_(), drawn(1, 3, 3, 3, seed=7)
    assert torch.autograd.gradcheck(lambda x: Histogram()(x, wanted), shown, eps=1e-7, rtol=1e-3)


@pytest.mark.parametrize("norm", ["picture", "batch"])
def test_equal_pictures_cost_nothing_and_have_no_slope(norm: Any):
    shown = drawn(2, 3, 5, 6, dtype=torch.float32).requires_grad_()
    value = Histogram(norm=norm)(shown, shown.detach().clone())
    value.backward()
    assert value.item() == 0
    assert shown.grad is not None
    assert not shown.grad.any()


@pytest.mark.parametrize("first", ["black", "white", "red", "dim", "grey"])
@pytest.mark.parametrize("second", ["black", "white", "drawn"])
def test_pictures_of_one_colour_are_sane(first: str, second: str):
    colours = {
        "black": (0, 0, 0),
        "white": (1, 1, 1),
        "red": (1, 0, 0),
        "dim": (1e-5, 0, 2e-5),
        "grey": (0.5, 0.5, 0.5),
    }
    flat = {
        name: torch.tensor(rgb).float().view(1, 3, 1, 1).expand(1, 3, 6, 5).clone() for name, rgb in colours.items()
    }
    flat["drawn"] = drawn(1, 3, 6, 5, dtype=torch.float32)
    shown = flat[first].requires_grad_()
    value = Histogram()(shown, flat[second].detach())
    value.backward()
    assert 0 <= value.item() <= 1
    assert shown.grad is not None
    assert torch.isfinite(shown.grad).all()


def test_half_precision_in_autocast():
    shown, wanted = (drawn(1, 3, 160, 9, seed=seed, dtype=torch.bfloat16).requires_grad_() for seed in (1, 2))
    expected = Histogram()(shown.float(), wanted.float())
    (slope,) = torch.autograd.grad(expected, shown)
    with torch.autocast("cpu", torch.bfloat16):
        value = Histogram()(shown, wanted)
        (rounded,) = torch.autograd.grad(value, shown)
    assert value.dtype == torch.float32
    assert value.item() == expected.item()
    assert torch.equal(rounded, slope)


# ---- what it says ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**20), height=st.integers(1, 6), width=st.integers(1, 6), power=st.floats(0.3, 4))
def test_it_is_a_distance(seed: int, height: int, width: int, power: float):
    loss, shown, wanted = Histogram(), drawn(2, 3, height, width, seed=seed) ** power, drawn(2, 3, height, width)
    value = float(loss(shown, wanted))
    assert 0 <= value <= 1
    assert float(loss(wanted, shown)) == pytest.approx(value, rel=1e-12)
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    moved = shown.flatten(2)[..., order].view_as(shown)
    assert float(Histogram(edge=None)(moved, shown)) == pytest.approx(0, abs=1e-6), "where a colour lies is nothing"


def test_a_cast_counts_and_brightness_hardly():
    wanted = drawn(1, 3, 24, 24)
    dark = Histogram()(0.5 * wanted, wanted)
    assert float(dark) < 0.01
    casts = [
        Histogram()(wanted * torch.tensor([1, by, 1 / by]).view(1, 3, 1, 1).clamp(max=1), wanted) for by in (0.9, 0.6)
    ]
    assert 10 * float(dark) < float(casts[0]) < float(casts[1])


def test_histograms_that_share_nothing_are_at_one():
    a, b = torch.eye(2, dtype=torch.float64)
    assert hellinger(torch.stack([a, a]), torch.stack([b, a])).tolist() == pytest.approx([1, 0], abs=1e-5)


def test_only_what_is_kept_counts():
    """Also where pictures are made smaller: no colour comes in over the border of the mask."""
    shown, wanted, mask = drawn(1, 3, 12, 10), drawn(1, 3, 12, 10, seed=1), torch.zeros(1, 1, 12, 10)
    mask[..., 2:9, 3:8] = 1
    cut = Histogram(edge=None)(*(x[..., 2:9, 3:8] for x in (shown, wanted)))
    assert float(Histogram()(shown, wanted, mask)) == pytest.approx(float(cut), rel=1e-9)
    loss = Histogram(edge=7)
    value = loss(shown, wanted, mask)
    other = torch.where(mask > 0, shown, 1 - shown)
    assert float(loss(other, wanted, mask)) == pytest.approx(float(value), rel=1e-9)
    assert float(loss(other, wanted)) != pytest.approx(float(loss(shown, wanted)), rel=1e-3)


def test_nothing_kept_costs_nothing():
    shown = drawn(2, 3, 8, 8).requires_grad_()
    value = Histogram(edge=5)(shown, drawn(2, 3, 8, 8, seed=1), torch.zeros(2, 1, 8, 8))
    value.backward()
    assert value.item() == 0
    assert shown.grad is not None
    assert not shown.grad.any()


# ---- memory ------------------------------------------------------------------------------------------------------


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    results = []
    for at_once in (1, 7, 64, 10**6):
        monkeypatch.setitem(histogram._AT_ONCE, "cpu", at_once)
        shown, wanted = drawn(2, 3, 9, 11).requires_grad_(), drawn(2, 3, 9, 11, seed=1)
        value = Histogram(edge=None)(shown, wanted)
        value.backward()
        assert shown.grad is not None
        results.append((value.item(), shown.grad))
    for value, slope in results[:-1]:
        assert value == pytest.approx(results[-1][0], rel=1e-12)
        torch.testing.assert_close(slope, results[-1][1], rtol=1e-9, atol=1e-12)


class Largest(TorchDispatchMode):
    """The most values of any tensor that was made."""

    values = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **kwargs or {})
        self.values = max(
            [self.values, *(x.numel() for x in (made if isinstance(made, tuple) else [made]) if isinstance(x, Tensor))]
        )
        return made


@pytest.mark.parametrize("at_once", [16, 256])
def test_memory_grows_with_the_pixels_and_not_with_pixels_times_bins(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(histogram._AT_ONCE, "cpu", at_once)
    shown, wanted = (drawn(1, 3, 96, 64, seed=seed, dtype=torch.float32) for seed in (1, 2))
    pixels, kept = 96 * 64, {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = max(kept.get(tensor.data_ptr(), 0), tensor.untyped_storage().nbytes())
        return tensor

    with Largest() as largest, saved_tensors_hooks(keep, lambda tensor: tensor):
        value = Histogram(edge=None)(shown.requires_grad_(), wanted)
        value.backward()
    small = 16 * 3 * 64 * 64  # histograms and their roots
    assert 4 * 3 * pixels < sum(kept.values()) < 4 * (SLOPE_VALUES * pixels + small)
    assert 3 * pixels <= largest.values <= max(3 * pixels, 3 * 3 * 64 * at_once)
    assert shown.grad is not None
    assert shown.grad.any()


# ---- recipes and wrong input -------------------------------------------------------------------------------------


def test_a_recipe_asks_for_it():
    shown, wanted = drawn(2, 3, 6, 6), drawn(2, 3, 6, 6, seed=1)
    asked = {"bins": 8, "reach": 2.0, "sigma": 0.1, "edge": 4, "norm": "batch"}
    total, parts = make_loss({"mse": 10, "histogram": {"weight": 0.25, **asked}})(shown, wanted)
    assert float(parts["histogram"]) == float(Histogram(8, 2.0, 0.1, 4, "batch")(shown, wanted))
    assert float(total) == pytest.approx(10 * float(parts["mse"]) + 0.25 * float(parts["histogram"]))
    assert float(make_loss({"histogram": 1})(shown, wanted)[0]) == float(Histogram()(shown, wanted))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bins": 1}, "bins is 1; give a whole number of at least 2"),
        ({"bins": 6.0}, "bins is 6.0"),
        ({"edge": 0}, "edge is 0; give a whole number of at least 1"),
        ({"edge": True}, "edge is True"),
        ({"reach": 0}, "reach is 0; give a positive number"),
        ({"sigma": math.nan}, "sigma is nan"),
        ({"norm": "mean"}, "norm is 'mean'; choose one of picture, batch"),
        ({"kernel": "box"}, "unknown: kernel; it takes weight, bins, reach, sigma, edge, norm"),
    ],
)
def test_wrong_settings(options: dict[str, Any], problem: str):
    with pytest.raises(UserError, match=f"histogram: {problem}") as caught:
        make_loss({"histogram": options})
    assert "\n" not in str(caught.value)


def test_wrong_pictures():
    loss, shown = Histogram(), drawn(1, 3, 6, 6)
    for wanted, problem in (
        (shown[:, :, 1:], "of one shape"),
        (shown[0], "of one shape"),
        ((255 * shown).to(torch.uint8), "floating point"),
    ):
        with pytest.raises(ValueError, match=problem):
            loss(shown, wanted)
    with pytest.raises(ValueError, match="at least"):
        loss(shown[:, :, :0], shown[:, :, :0])
    with pytest.raises(ValueError, match=r"colours are counted of pictures \[B, 3, H, W\], not \[1, 2, 6, 6\]"):
        loss(shown[:, :2], shown[:, :2])
    with pytest.raises(ValueError, match="the mask of pictures"):
        loss(shown, shown, torch.ones(1, 1, 6, 5))
