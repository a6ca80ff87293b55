"""Every loss: against a closed form or a slow loop, in half precision, on odd sizes, with wrong input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from ispeed.train.losses import (
    L1,
    MSE,
    Amplitude,
    BlurredColour,
    Charbonnier,
    ColourAngle,
    Gradient,
    MaskedL1,
    MsSsim,
    Perceptual,
    ms_ssim,
)
from ispeed.train.losses.ms_ssim import C1, C2, SCALE_WEIGHTS, least_edge


class Steps(nn.Module):
    """An encoder whose features anyone can compute: the picture, and its two-by-two means."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.drop = nn.Dropout(0.5)

    def forward(self, picture: Tensor) -> list[Tensor]:
        return [self.drop(picture * self.gain), nn.functional.avg_pool2d(picture, 2)]


def everything() -> list[nn.Module]:
    return [
        L1(),
        MSE(),
        Charbonnier(),
        Gradient(),
        MsSsim(),
        BlurredColour(),
        ColourAngle(),
        Perceptual(Steps()),
        Perceptual(Steps(), "l1"),
        MaskedL1(),
        Amplitude(Steps(), filters=8),
    ]


def pictures(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A smooth picture, and itself with noise."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 5, shape[-2]), torch.linspace(0, 7, shape[-1]), indexing="ij")
    phase = torch.rand(*shape[:2], 1, 1, generator=generator) * 6
    wanted = 0.5 + 0.3 * torch.sin(x + phase) * torch.cos(y)
    shown = (wanted + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
    return shown.to(dtype), wanted.to(dtype)


each = pytest.mark.parametrize("loss", everything(), ids=lambda loss: type(loss).__name__)


@each
def test_equal_pictures_cost_nothing(loss: nn.Module):
    _, wanted = pictures(2, 3, 33, 47)
    least = 1e-3 if isinstance(loss, Charbonnier) else 0.0
    assert float(loss(wanted, wanted)) == pytest.approx(least, abs=1e-6)


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_autocast(loss: nn.Module, dtype: torch.dtype):
    """The loss of rounded pictures is what float32 makes of them, also where the surroundings compute in few bits."""
    shown, wanted = pictures(2, 3, 48, 40, dtype=dtype)
    expected = loss(shown.float(), wanted.float())
    with torch.autocast("cpu", dtype):
        result = loss(shown, wanted)
    assert result.dtype == torch.float32
    assert float(result) == pytest.approx(float(expected), rel=1e-5)


@each
@pytest.mark.parametrize("shown", ["black", "white", "equal", "noise"])
def test_gradients_are_finite(loss: nn.Module, shown: str):
    _, wanted = pictures(1, 3, 24, 24)
    starts = {
        "black": torch.zeros_like(wanted),
        "white": torch.ones_like(wanted),
        "equal": wanted.clone(),
        "noise": torch.rand(wanted.shape, generator=torch.Generator().manual_seed(3)),
    }
    start = starts[shown].requires_grad_()
    for goal in (wanted, torch.zeros_like(wanted)):
        start.grad = None
        loss(start, goal).backward()
        assert start.grad is not None
        assert torch.isfinite(start.grad).all()
        assert float(start.grad.abs().max()) < 1e3


@each
def test_a_step_down_the_slope_helps(loss: nn.Module):
    shown, wanted = pictures(1, 3, 24, 31)
    shown.requires_grad_()
    before = loss(shown, wanted)
    before.backward()
    assert shown.grad is not None
    with torch.no_grad():
        after = loss(shown - 1e-3 * shown.grad / shown.grad.norm(), wanted)
    assert after < before


@each
def test_wrong_pictures(loss: nn.Module):
    shown, wanted = pictures(1, 3, 24, 24)
    with pytest.raises(ValueError, match="of one shape"):
        loss(shown, wanted[:, :, 1:])
    with pytest.raises(ValueError, match="of one shape"):
        loss(shown[0], wanted[0])
    with pytest.raises(ValueError, match="floating point"):
        loss(shown, (255 * wanted).to(torch.uint8))
    with pytest.raises(ValueError, match="at least"):
        loss(shown[:, :, :0], wanted[:, :, :0])


@pytest.mark.parametrize("size", [(1, 1), (3, 9)])
def test_small_pictures(size: tuple[int, int]):
    shown, wanted = pictures(1, 3, *size)
    for loss in (L1(), Charbonnier(), BlurredColour(), ColourAngle()):
        assert torch.isfinite(loss(shown, wanted))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        MsSsim()(shown, wanted)


def test_values_of_the_simple_ones():
    shown, wanted = pictures(2, 3, 9, 8, dtype=torch.float64)
    a, b = shown.numpy(), wanted.numpy()
    assert float(L1()(shown, wanted)) == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
    assert float(MSE()(shown, wanted)) == pytest.approx(((a - b) ** 2).mean(), rel=1e-12)
    expected = np.mean([math.hypot(d, 0.02) for d in (a - b).ravel()])
    assert float(Charbonnier(0.02)(shown, wanted)) == pytest.approx(expected, rel=1e-12)
    right = [
        abs((a[..., y, x + 1] - a[..., y, x]) - (b[..., y, x + 1] - b[..., y, x])) for y in range(9) for x in range(7)
    ]
    down = [
        abs((a[..., y + 1, x] - a[..., y, x]) - (b[..., y + 1, x] - b[..., y, x])) for y in range(8) for x in range(8)
    ]
    assert float(Gradient()(shown, wanted)) == pytest.approx(np.mean(right) + np.mean(down), rel=1e-12)


def test_gradient_sees_no_brightness():
    _, wanted = pictures(1, 3, 12, 12, dtype=torch.float64)
    assert float(Gradient()(wanted + 0.1, wanted)) < 1e-12


# ---- structural similarity ---------------------------------------------------------------------------------------


def test_one_scale_is_what_scikit_image_computes():
    shown, wanted = pictures(2, 3, 40, 33, dtype=torch.float64)
    for index, similarity in enumerate(ms_ssim(shown, wanted, scales=1)):
        expected = structural_similarity(
            shown[index].numpy(),
            wanted[index].numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert float(similarity) == pytest.approx(expected, abs=1e-10)


def slow_ms_ssim(a: np.ndarray, b: np.ndarray, scales: int) -> float:
    """Of one channel, window by window."""
    bell = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2
    result, weights = 1.0, np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    for scale in range(scales):
        values = []
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                contrast = (2 * (window * (p - mp) * (q - mq)).sum() + C2) / (
                    (window * (p - mp) ** 2).sum() + (window * (q - mq) ** 2).sum() + C2
                )
                luminance = (2 * mp * mq + C1) / (mp**2 + mq**2 + C1) if scale == scales - 1 else 1
                values.append(luminance * contrast)
        result *= np.mean(values) ** weights[scale]
        a, b = halved(a), halved(b)
    return result


def halved(a: np.ndarray) -> np.ndarray:
    rows, columns = ((n + 1) // 2 for n in a.shape)
    return np.array([[a[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(columns)] for y in range(rows)])


def test_several_scales_are_what_a_slow_loop_computes():
    shown, wanted = pictures(1, 2, 45, 42, dtype=torch.float64)
    expected = np.mean([slow_ms_ssim(a.numpy(), b.numpy(), 3) for a, b in zip(shown[0], wanted[0], strict=True)])
    assert float(ms_ssim(shown, wanted, scales=3)[0]) == pytest.approx(expected, abs=1e-10)
    assert float(MsSsim()(shown, wanted)) == pytest.approx(1 - expected, abs=1e-10), "as many scales as fit: three"


def test_float32_is_precise_enough():
    shown, wanted = pictures(1, 3, 176, 161, dtype=torch.float64)
    wanted = 0.9 + 0.001 * wanted  # nearly flat and bright: where E[x**2] - E[x]**2 loses most
    shown = wanted + 0.001 * shown
    in_double, in_single = ms_ssim(shown, wanted), ms_ssim(shown.float(), wanted.float())
    assert float(in_single) == pytest.approx(float(in_double), abs=1e-6)


def test_sizes_of_scales():
    assert [least_edge(scales) for scales in range(1, 6)] == [11, 21, 41, 81, 161]
    shown, wanted = pictures(1, 1, 161, 161)
    assert 0 < float(ms_ssim(shown, wanted)) < 1
    with pytest.raises(ValueError, match="at least 161 x 161"):
        ms_ssim(shown[..., 1:], wanted[..., 1:])
    for scales in (0, 6):
        with pytest.raises(ValueError, match="give 1 to 5"):
            ms_ssim(shown, wanted, scales)
        with pytest.raises(ValueError, match="give 1 to 5"):
            MsSsim(scales or 6)


# ---- colour ------------------------------------------------------------------------------------------------------


def test_blurred_colour_is_a_wide_gaussian():
    """Of a single bright pixel far from the border the absolute mean stays; noise all but vanishes; a cast stays."""
    wanted = torch.zeros(1, 3, 41, 41, dtype=torch.float64)
    shown = wanted.clone()
    shown[..., 20, 20] = 1.0
    assert float(BlurredColour()(shown, wanted)) == pytest.approx(1 / 41**2, rel=1e-9)
    noise = 0.1 * torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left = 0.1 * math.sqrt(2 / math.pi) / (2 * 3 * math.sqrt(math.pi))  # of white noise behind a Gaussian of sigma 3
    assert float(BlurredColour(3.0)(noise, 0 * noise)) == pytest.approx(left, rel=0.15)
    assert float(BlurredColour()(wanted + 0.25, wanted)) == pytest.approx(0.25, rel=1e-9)


def test_blurred_colour_against_opencv():
    cv2 = pytest.importorskip("cv2")
    shown, wanted = pictures(1, 3, 40, 52, dtype=torch.float64)
    difference = (shown - wanted)[0].permute(1, 2, 0).numpy()
    expected = np.abs(cv2.GaussianBlur(difference, (13, 13), 2.0, borderType=cv2.BORDER_REPLICATE)).mean()
    assert float(BlurredColour(2.0)(shown, wanted)) == pytest.approx(expected, rel=1e-9)


def test_angle_between_colours():
    red, yellow = torch.tensor([0.5, 0, 0]), torch.tensor([0.5, 0.5, 0])
    shown, wanted = (colour.view(1, 3, 1, 1).expand(1, 3, 4, 5).double() for colour in (red, yellow))
    assert float(ColourAngle(1e-6)(shown, wanted)) == pytest.approx(1 - math.cos(math.pi / 4), rel=1e-6)
    assert float(ColourAngle(1e-6)(shown, 0.2 * shown)) == pytest.approx(0, abs=1e-9), "brightness is no hue"
    assert float(ColourAngle()(1e-3 * shown, 1e-3 * wanted)) < 1e-3, "in the dark nothing has a hue"


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "wide", True])
def test_wrong_settings(value: object):
    for loss in (Charbonnier, BlurredColour, ColourAngle):
        with pytest.raises(ValueError, match="positive number"):
            loss(value)  # pyright: ignore[reportArgumentType]
