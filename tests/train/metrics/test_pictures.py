"""Closeness of pictures, against scikit-image, closed forms and slow loops; LPIPS written out with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn.functional import conv2d, max_pool2d

from ispeed.engines import UserError
from ispeed.train.metrics import load_lpips, ms_ssim, psnr, ssim, ssim_map


def pictures(height: int, width: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 9
    reference = 0.5 + 0.3 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)
    shown = np.clip(reference + rng.normal(0, 0.08, reference.shape), 0, 1)
    return (255 * shown).astype(np.uint8), (255 * reference).astype(np.uint8)


def test_psnr_and_ssim_are_those_of_scikit_image():
    shown, reference = pictures(61, 48)
    assert psnr(shown, reference, 255) == pytest.approx(peak_signal_noise_ratio(reference, shown), rel=1e-12)
    score, each = structural_similarity(shown / 255.0, reference / 255.0, channel_axis=-1, data_range=1.0, full=True)
    assert ssim(shown, reference) == pytest.approx(score, abs=1e-12)
    np.testing.assert_allclose(ssim_map(shown, reference), each[3:-3, 3:-3], atol=1e-11)
    grey = structural_similarity(shown[..., 0] / 255.0, reference[..., 0] / 255.0, data_range=1.0)
    assert ssim(shown[..., 0], reference[..., 0] / 255.0) == pytest.approx(grey, abs=1e-12)


def test_equal_pictures():
    shown, _ = pictures(170, 165)
    assert psnr(shown, shown) == float("inf")
    assert ssim(shown, shown) == pytest.approx(1, abs=1e-12)
    assert ms_ssim(shown, shown) == pytest.approx(1, abs=1e-12)


def test_ms_ssim_of_flat_pictures_is_their_luminance_term():
    """Without contrast only the last scale says anything: (2 a b + C1) / (a**2 + b**2 + C1) to the power 0.1333."""
    a, b = np.full((161, 161, 3), 0.25), np.full((161, 161, 3), 0.75)
    term = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    # the five weights as published sum to 1.0001
    assert ms_ssim(a, b) == pytest.approx(term ** (0.1333 / 1.0001), rel=1e-9)


def test_noise_makes_it_worse():
    shown, reference = pictures(164, 170)
    worse = np.clip(shown + np.random.default_rng(2).normal(0, 30, shown.shape), 0, 255).astype(np.uint8)
    for measure in (psnr, ssim, ms_ssim):
        assert measure(worse, reference) < measure(shown, reference) < measure(reference, reference)


def test_wrong_pictures():
    shown, reference = pictures(20, 20)
    for measure in (ssim, ms_ssim):
        with pytest.raises(ValueError, match="of one size"):
            measure(shown, reference[1:])
        with pytest.raises(ValueError, match="is uint8, or floating point"):
            measure(shown.astype(np.int32), reference)
        with pytest.raises(ValueError, match=r"is \[H, W, 3\]"):
            measure(shown[None], reference[None])
        with pytest.raises(ValueError, match="at least"):
            measure(shown[:6], reference[:6])
    with pytest.raises(ValueError, match="at least 161 x 161"):
        ms_ssim(shown, reference)
    for wrong in (reference[1:], reference[:1], reference[:0]):  # the second would broadcast
        with pytest.raises(ValueError, match="of one shape"):
            psnr(shown[: len(wrong) + 1], wrong)


# ---- LPIPS -------------------------------------------------------------------------------------------------------

ALEX = [(0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3)]


@pytest.fixture(scope="module")
def alex(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files in the published layouts, with random weights."""
    folder, generator = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(7)
    state, linear = {"classifier.1.bias": torch.zeros(3)}, {}
    for number, (place, inputs, outputs, size) in enumerate(ALEX):
        spread = (2 / (inputs * size**2)) ** 0.5
        state[f"features.{place}.weight"] = spread * torch.randn(outputs, inputs, size, size, generator=generator)
        state[f"features.{place}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        linear[f"lin{number}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
    torch.save(state, folder / "alexnet.pth")
    torch.save(linear, folder / "alex.pth")
    return folder / "alexnet.pth", folder / "alex.pth"


def written_out(shown: np.ndarray, reference: np.ndarray, files: tuple[Path, Path]) -> float:
    """As the paper has it, with the normalisation that the authors write for [-1, 1]."""
    state, linear = (torch.load(file) for file in files)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    seen = []
    for picture in (shown, reference):
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
        x = (x - shift[:, None, None]) / scale[:, None, None]
        features = []
        for number, (place, _, _, size) in enumerate(ALEX):
            if number in (1, 2):
                x = max_pool2d(x, 3, 2)
            stride, margin = (4, 2) if number == 0 else (1, size // 2)
            x = conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], stride, margin).relu()
            features.append(x[0].double().numpy())
        seen.append(features)
    total = 0.0
    for number, (a, b) in enumerate(zip(*seen, strict=True)):
        weights = linear[f"lin{number}.model.1.weight"].double().numpy().ravel()
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                p, q = (f[:, y, x] / (np.linalg.norm(f[:, y, x]) + 1e-10) for f in (a, b))
                total += weights @ (p - q) ** 2 / a[0].size
    return total


def test_lpips_is_what_the_paper_says(alex: tuple[Path, Path]):
    lpips = load_lpips(*alex)
    shown, reference = pictures(40, 47)
    assert lpips(shown, reference) == pytest.approx(written_out(shown, reference, alex), rel=1e-4)
    assert lpips(shown, shown) == 0
    with pytest.raises(ValueError, match="at least 31 x 31"):
        lpips(shown[:30], reference[:30])
    with pytest.raises(ValueError, match="of one size"):
        lpips(shown[1:], reference)


def test_lpips_of_vgg16(alex: tuple[Path, Path], tmp_path: Path):
    """The other published network: each feature's part of the sum is weighted by the layer of its number."""
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # of torchvision's vgg16
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    state = {}
    for place, inputs, outputs in zip(convolutions, channels, channels[1:], strict=False):
        state[f"features.{place}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"features.{place}.bias"] = torch.zeros(outputs)
    torch.save(state, tmp_path / "vgg16.pth")
    shown, reference = pictures(20, 16)
    parts = []
    for kept in [*range(5), None]:
        linear = {
            f"lin{k}.model.1.weight": torch.full((1, c, 1, 1), float(kept in (k, None)))
            for k, c in enumerate([64, 128, 256, 512, 512])
        }
        torch.save(linear, tmp_path / "vgg.pth")
        parts.append(load_lpips(tmp_path / "vgg16.pth", tmp_path / "vgg.pth")(shown, reference))
    assert min(parts) > 0
    assert parts[5] == pytest.approx(sum(parts[:5]), rel=1e-5)
    with pytest.raises(UserError, match="does not fit the network"):
        load_lpips(alex[0], tmp_path / "vgg.pth")


def test_lpips_without_weights(alex: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot read the network of LPIPS .*torchvision's alexnet"):
        load_lpips(tmp_path / "none.pth", alex[1])
    with pytest.raises(UserError, match="of the package lpips"):
        load_lpips(alex[0], tmp_path / "none.pth")
    with pytest.raises(UserError, match="is missing or of another shape"):
        load_lpips(alex[1], alex[1])
