"""What measures noise finds the noise that was put in; the page that shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from ispeed.train import noise_page
from ispeed.train.data.noise import SENSORS, add_noise
from ispeed.train.data.photon_transfer import digital_gains, fit_line, flat_noise, rest, smoothed

GAINS = np.array([2.46, 2.0, 5.2])


@pytest.fixture
def scene() -> np.ndarray:
    """Light [256, 256] that grows across, with a dark half and an edge: 0.01 to 0.5."""
    across = np.linspace(0.02, 0.5, 256)[None] * np.linspace(0.5, 1, 256)[:, None]
    across[128:] *= 0.4
    return across


def frame_of(scene: np.ndarray, **changes: torch.Tensor) -> np.ndarray:
    """Codes of 12 bits."""
    state = noise_page.middle(GAINS)._replace(**changes)
    light = torch.from_numpy(scene).float()[None]
    noisy = add_noise(light, state, "RGGB", torch.Generator().manual_seed(1))[0]
    return np.rint(noisy.numpy() * 4095).astype(np.uint16)


def test_gains_are_read_from_the_gaps(scene: np.ndarray):
    np.testing.assert_allclose(digital_gains(frame_of(scene)), GAINS, rtol=0.01)
    whole = frame_of(scene, digital_gains=torch.ones(1, 3))
    assert digital_gains(whole).tolist() == [1, 1, 1]


def test_the_line_is_found(scene: np.ndarray):
    state = noise_page.middle(GAINS)
    line = fit_line(flat_noise(frame_of(scene) / 4095, GAINS))
    assert line.shot == pytest.approx(float(state.shot), rel=0.1)
    assert line.scatter < 0.35
    # lighter, so that nothing is cut off at black
    more = frame_of(0.06 + scene, shot=2 * state.shot, read=torch.tensor([4e-5]))
    line = fit_line(flat_noise(more / 4095, GAINS))
    assert line.shot == pytest.approx(2 * float(state.shot), rel=0.15)
    assert line.read == pytest.approx(4e-5, rel=0.5)


def test_rows_and_outliers_are_found(scene: np.ndarray):
    quiet = frame_of(scene)
    line = fit_line(flat_noise(quiet / 4095, GAINS))
    clean = rest(quiet / 4095, line, GAINS)
    assert abs(clean.rows) < 0.005
    assert abs(clean.columns) < 0.005
    assert clean.outliers < 5e-5
    striped = rest(frame_of(scene, row=torch.tensor([0.003])) / 4095, line, GAINS)
    assert striped.rows > 0.02
    assert abs(striped.columns) < 0.005
    hot = rest(frame_of(scene, hot_pixels=torch.tensor([1e-3])) / 4095, line, GAINS)
    assert hot.outliers == pytest.approx(1e-3, rel=0.4)


def test_smoothing_leaves_the_scene(scene: np.ndarray):
    smooth = smoothed(frame_of(scene) / 4095, "RGGB")
    away = np.s_[20:100, 20:236]
    np.testing.assert_allclose(smooth[away], scene[away], rtol=0.15)
    assert abs((smooth[away] / scene[away]).mean() - 1) < 0.01


def test_real_frames_have_the_presets_noise(data_dir: Path):
    """Of the training frames that the preset is measured on; texture only adds."""
    model = SENSORS["rhid"]
    for path in sorted((data_dir / "paired/rhid/train/raw").glob("*.raw")):
        codes = np.fromfile(path, "<u2").reshape(512, 512)
        gains = digital_gains(codes)
        for gain, (low, high) in zip(gains, model.digital_gains, strict=True):
            assert low * 0.99 <= gain <= high * 1.01
        line = fit_line(flat_noise(codes / 4095, gains))
        assert model.shot[0] <= line.shot <= model.shot[1] * 1.02
        assert line.read < 1e-5


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    for split, name in (("train", "1_1"), ("val", "2_1")):
        picture = np.kron(rng.integers(40, 220, (8, 8, 3)), np.ones((32, 32, 1))).astype(np.uint8)
        write(tmp_path / f"rhid/{split}/rgb/{name}.png", picture)
        raw = tmp_path / f"rhid/{split}/raw/{name}.raw"
        raw.parent.mkdir()
        frame_of(0.02 + 0.4 * (picture[..., 1] / 255) ** 2).tofile(raw)
    write(tmp_path / "photos/a.png", rng.integers(0, 256, (160, 150, 3)).astype(np.uint8))
    arguments = [str(tmp_path / "rhid"), str(tmp_path / "photos"), "-o", str(tmp_path / "page")]
    assert noise_page.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| 1_1 | train | 2.4" in printed
    assert "| 2_1 | val | 2.4" in printed
    for name in ("noise-curve.png", "noise-samples.png"):
        with PIL.Image.open(tmp_path / "page" / name) as picture:
            assert picture.size[0] > 400
    assert noise_page.main([str(tmp_path / "rhid"), str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(picture).save(path)
