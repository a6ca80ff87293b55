"""The protocols: `colour` against OpenCV, NumPy and scikit-image and against `score_pairs`, `flow` on known motion."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from ispeed.engines import UserError
from ispeed.engines.quality import load_material
from ispeed.train.metrics import ms_ssim, psnr, ssim
from ispeed.train.protocols import PROTOCOLS, colour, flow, plain, score


def textured(height: int = 96, width: int = 120, seed: int = 1) -> np.ndarray:
    """Smooth blobs of several sizes, [H, W, 3] in [0.1, 0.9]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    picture = np.zeros((height, width, 3))
    for _ in range(150):
        centre_y, centre_x, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 12)
        blob = np.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / (2 * size**2))
        picture += rng.normal(0, 1, 3) * blob[..., None]
    low, high = picture.min((0, 1)), picture.max((0, 1))
    return 0.1 + 0.8 * (picture - low) / (high - low)


def codes(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def test_plain_is_the_measures_themselves():
    reference = codes(textured(170, 180))
    shown = codes(reference / 255 + np.random.default_rng(2).normal(0, 0.05, reference.shape))
    result = score(shown, reference)
    assert result.psnr == psnr(shown / 255, reference / 255)
    assert result.ssim == ssim(shown, reference)
    assert result.ms_ssim == ms_ssim(shown, reference)
    assert (result.lpips, result.counted) == (None, 1.0)
    assert score(shown[:160], reference[:160]).ms_ssim is None, "too small for five scales"


def test_a_measure_with_weights_sees_what_is_compared():
    class Difference:
        def __call__(self, shown: np.ndarray, reference: np.ndarray) -> float:
            return float(np.abs(shown - reference).mean())

    reference = textured()
    result = score(reference / 2, reference, "colour", lpips=Difference())  # pyright: ignore[reportArgumentType]
    assert result.lpips == pytest.approx(0, abs=1e-9)


def test_colour_takes_an_affine_map_out():
    reference = textured()
    mix = np.array([[0.6, 0.1, 0.0], [0.1, 0.5, 0.1], [0.0, 0.2, 0.4]])
    shown = reference @ mix + [0.05, 0.0, 0.1]
    assert plain(shown, reference).shown is not shown
    assert score(shown, reference).psnr < 20
    assert score(shown, reference, "colour").psnr > 100
    assert colour(shown, reference).shown.shape == (80, 104, 3)


def test_colour_is_what_opencv_numpy_and_scikit_image_make_of_it():
    cv2 = pytest.importorskip("cv2")
    reference = codes(textured())
    noise = np.random.default_rng(3).normal(0, 0.06, reference.shape)
    shown = codes(0.6 * (reference / 255) ** 1.3 + 0.1 + noise)
    a, b = shown / 255, reference / 255
    blurred_a, blurred_b = cv2.GaussianBlur(a, (0, 0), 3)[::4, ::4], cv2.GaussianBlur(b, (0, 0), 3)[::4, ::4]
    samples = np.column_stack([blurred_a.reshape(-1, 3), np.ones(blurred_a.size // 3)])
    normal = np.linalg.solve(samples.T @ samples, samples.T @ blurred_b.reshape(-1, 3))
    mapped = np.clip(a @ normal[:3] + normal[3], 0, 1)[8:-8, 8:-8]
    result = score(shown, reference, "colour")
    assert result.psnr == pytest.approx(-10 * np.log10(np.mean((mapped - b[8:-8, 8:-8]) ** 2)), abs=1e-8)
    expected = structural_similarity(mapped, b[8:-8, 8:-8], channel_axis=-1, data_range=1.0)
    assert result.ssim == pytest.approx(expected, abs=1e-9)


def test_colour_of_real_pairs_is_that_of_the_script(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The same digits as `score_pairs` prints, for what the classic engine makes of the validation frames."""
    cv2 = pytest.importorskip("cv2")
    script = data_dir.parent / "tools" / "score_pairs.py"
    if not script.is_file():
        pytest.skip("needs score_pairs.py in the folder tools beside ISPEED_DATA")
    spec = importlib.util.spec_from_file_location("score_pairs", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    references = data_dir / "paired" / "rhid" / "val" / "rgb"
    expected = []
    for path in sorted(references.glob("*.png")):
        raw = references.parent / "raw" / f"{path.stem}.raw"
        shown = load_material([f"{raw}?width=512&height=512&format=BayerRG12"]).references[0]
        cv2.imwrite(str(tmp_path / path.name), shown[..., ::-1])
        result = score(shown, cv2.imread(str(path))[..., ::-1], "colour")
        expected.append(f"{path.stem:12s} {result.psnr:6.2f} dB  {result.ssim:.4f}")
    module.main(tmp_path, references)
    assert len(expected) == 2
    assert capsys.readouterr().out.splitlines()[:2] == expected


@pytest.mark.parametrize("motion", [(0, 0), (2, -3), (-1, 4)])
def test_flow_takes_a_shift_out(motion: tuple[int, int]):
    pytest.importorskip("cv2")
    whole = textured(120, 140)
    reference = whole[10:-10, 10:-10]
    shown = whole[10 + motion[0] : 110 + motion[0], 10 + motion[1] : 130 + motion[1]]
    result = score(codes(shown), codes(reference), "flow")
    assert result.psnr > 38
    assert result.ssim > 0.98
    assert 0.8 < result.counted <= 1
    assert result.ms_ssim is None
    if motion != (0, 0):
        assert score(codes(shown), codes(reference)).psnr < 30


def test_flow_keeps_the_colours():
    """A cast hides no motion, and counts."""
    pytest.importorskip("cv2")
    whole = textured(120, 140)
    reference, shown = whole[10:-10, 10:-10], whole[12:-8, 7:-13] * [0.9, 1.0, 0.8]
    pair = flow(codes(shown), codes(reference))
    assert pair.counts is not None
    ratio = pair.shown[pair.counts].mean(0) / pair.reference[pair.counts].mean(0)
    np.testing.assert_allclose(ratio, [0.9, 1.0, 0.8], atol=0.02)


def test_flow_leaves_out_what_the_reference_does_not_show():
    pytest.importorskip("cv2")
    whole = textured(120, 140)
    reference, shown = codes(whole[10:-10, 10:-10]), codes(whole[10:-10, 10:-10])
    reference[20:60, 30:80] = codes(textured(40, 50, seed=9))
    pair = flow(shown, reference)
    assert pair.counts is not None
    assert pair.counts[30:50, 40:70].mean() < 0.6
    assert pair.counts[70:, :].mean() > 0.95


def test_flow_of_a_guide_is_the_same_for_every_picture():
    pytest.importorskip("cv2")
    whole = textured(120, 140)
    reference, guide = codes(whole[10:-10, 10:-10]), codes(whole[12:-8, 7:-13])
    noisy = codes(guide / 255 + np.random.default_rng(4).normal(0, 0.2, guide.shape))
    alone, guided, itself = flow(noisy, reference), flow(noisy, reference, guide), flow(guide, reference)
    np.testing.assert_array_equal(guided.reference, itself.reference)
    np.testing.assert_array_equal(guided.counts, itself.counts)
    assert (alone.counts != itself.counts).any()
    assert score(noisy, reference, "flow", guide=guide).counted == score(guide, reference, "flow").counted
    with pytest.raises(ValueError, match="of one size"):
        flow(noisy, reference, guide[1:])


def test_flow_without_opencv(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"needs OpenCV.*pip install"):
        score(textured(), textured(), "flow")


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_wrong_pictures(protocol: str):
    picture = textured()
    with pytest.raises(ValueError, match="of one size"):
        score(picture, picture[1:], protocol)
    with pytest.raises(ValueError, match="colour pictures"):
        score(picture[..., 0], picture[..., 0], protocol)
    with pytest.raises(ValueError, match="uint8, or floating point"):
        score(picture, np.ones(picture.shape, int), protocol)
    with pytest.raises(ValueError, match=r"and up|at least"):
        score(picture[:6], picture[:6], protocol)


def test_no_such_protocol():
    with pytest.raises(UserError, match="choose one of plain, colour, flow"):
        score(textured(), textured(), "aligned")
