"""CIELAB, CIEDE2000 and charts, against published values and scikit-image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000

from ispeed.engines import UserError
from ispeed.engines.chart import PATCHES, REFERENCE_LAB, chart_score, patch_light, read_charts
from ispeed.engines.cie import XYZ_D50_FROM_SRGB, ciede2000, lab_from_linear, light, linear_from_lab
from ispeed.engines.reference import srgb_curve

# From table 1 of Sharma, Wu, Dalal (2005), whose pairs find the usual mistakes.
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0011), 7.2195),
    ((50.0, -0.0010, 2.4900), (50.0, 0.0009, -2.4900), 4.8045),
    ((50.0, -0.0010, 2.4900), (50.0, 0.0011, -2.4900), 4.7461),
    ((50.0, 2.5000, 0.0), (50.0, 0.0, -2.5000), 4.3065),
    ((50.0, 2.5000, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_published_differences(first: tuple[float, ...], second: tuple[float, ...], expected: float):
    assert float(ciede2000(first, second)) == pytest.approx(expected, abs=5e-5)
    assert float(ciede2000(second, first)) == pytest.approx(expected, abs=5e-5)


def test_differences_are_those_of_scikit_image():
    rng = np.random.default_rng(1)
    a, b = (rng.uniform([0, -100, -100], [100, 100, 100], (500, 3)) for _ in range(2))
    np.testing.assert_allclose(ciede2000(a, b), deltaE_ciede2000(a, b), atol=1e-9)
    assert ciede2000(a[:4, None], b[None, :5]).shape == (4, 5)
    with pytest.raises(ValueError, match="colours are"):
        ciede2000(a[:, :2], b[:, :2])


def test_matrix_is_that_of_the_primaries_adapted_after_bradford():
    primaries = np.array([[0.64, 0.33], [0.30, 0.60], [0.15, 0.06]])
    xyz = np.stack([primaries[:, 0], primaries[:, 1], 1 - primaries.sum(1)])
    d65, d50 = np.array([0.95047, 1, 1.08883]), np.array([0.96422, 1, 0.82521])
    matrix = xyz * np.linalg.solve(xyz, d65)
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapted = np.linalg.inv(cone) @ np.diag((cone @ d50) / (cone @ d65)) @ cone @ matrix
    np.testing.assert_allclose(XYZ_D50_FROM_SRGB, adapted, atol=2e-5)


def test_greys_have_no_colour():
    lab = lab_from_linear(np.array([[0.0] * 3, [0.001] * 3, [0.1841865] * 3, [1.0] * 3]))
    np.testing.assert_allclose(lab[:, 1:], 0, atol=1e-9)
    np.testing.assert_allclose(lab[:, 0], [0, 0.9033, 50, 100], atol=1e-4)


def test_light_undoes_the_curve():
    values = np.linspace(0, 1, 257)
    np.testing.assert_allclose(light(srgb_curve(values)), values, atol=1e-7)


def test_lab_and_back():
    linear = np.random.default_rng(2).uniform(-0.05, 1.1, (200, 3))
    np.testing.assert_allclose(linear_from_lab(lab_from_linear(linear)), linear, atol=1e-12)


# ---- charts ------------------------------------------------------------------------------------------------------


def rendered(gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A chart of the reference colours, and its corners, tilted within patches of 20 x 20 pixels."""
    linear = gain * linear_from_lab(REFERENCE_LAB)
    picture = np.kron(srgb_curve(linear).reshape(4, 6, 3), np.ones((20, 20, 1)))
    tilted = np.array([[4.0, 6.0], [14.0, 3.0], [16.0, 13.0], [5.0, 16.0]])
    corners = np.stack([tilted + np.array([20 * (k % 6), 20 * (k // 6)]) for k in range(24)])
    return picture, corners


def test_a_right_chart_has_no_error():
    """But for cyan, which sRGB cannot show."""
    score = chart_score(*rendered())
    in_gamut = np.arange(24) != PATCHES.index("cyan")
    assert score.each[in_gamut].max() < 1e-4
    assert score.worst[0] == "cyan"
    assert 0.5 < score.worst[1] < 5
    assert score.mean == pytest.approx(score.worst[1] / 24, abs=1e-4)


def test_brightness_is_no_fault_but_colour_is():
    picture, corners = rendered(0.5)
    score = chart_score(picture, corners)
    assert score.gain == pytest.approx(2, rel=1e-6)
    assert score.each[18:].max() < 1e-4
    tinted = chart_score(np.clip(picture * [1.0, 1.0, 0.9], 0, 1), corners)
    assert tinted.each[18:].min() > 2


def test_only_the_inside_of_a_patch_counts():
    picture, corners = rendered()
    means = patch_light(picture, corners)
    spoilt = picture.copy()
    spoilt[:3], spoilt[:, :4], spoilt[37:] = 1, 1, 0  # rows and columns that no patch of the first row reaches into
    np.testing.assert_allclose(patch_light(spoilt, corners)[1:6], means[1:6], atol=1e-12)
    np.testing.assert_allclose(patch_light(picture, corners[:, ::-1]), means, atol=1e-12)
    pixel = np.array([[[4.0, 5.0], [4.0, 5.0], [4.0, 5.0], [4.0, 5.0]]])
    np.testing.assert_allclose(patch_light(picture, pixel)[0], light(picture[5, 4]), atol=1e-12)


def test_wrong_charts(tmp_path: Path):
    picture, corners = rendered()
    with pytest.raises(ValueError, match="patch 19 of the chart reaches out"):
        chart_score(picture[:70], corners)
    with pytest.raises(ValueError, match="patch 1 of the chart holds no pixel"):
        chart_score(picture, corners / 100 + 0.2)
    with pytest.raises(ValueError, match=r"patches \[N, 4, 2\]"):
        chart_score(picture, corners[:, :3])
    with pytest.raises(ValueError, match="are black"):
        chart_score(0 * picture, corners)
    path = tmp_path / "charts.json"
    with pytest.raises(UserError, match="cannot read the charts"):
        read_charts(path)
    patches = [{"index": k + 1, "polygon_xy": corner.tolist()} for k, corner in enumerate(corners)]
    for broken in ("[", "[]", json.dumps({"a": {"patches": patches[:23]}}), json.dumps({"a": {"patches": [1]}})):
        path.write_text(broken)
        with pytest.raises(UserError, match=r"patches 1 to 24"):
            read_charts(path)
    path.write_text(json.dumps({"a.png": {"patches": [*patches[:23], {"index": 24, "polygon_xy": [[1, 2]] * 3}]}}))
    with pytest.raises(UserError, match="patches 1 to 24"):
        read_charts(path)
    path.write_text(json.dumps({"a.png": {"patches": patches[::-1]}}))
    np.testing.assert_array_equal(read_charts(path)["a.png"], corners)


def test_charts_of_real_frames(data_dir: Path):
    charts = read_charts(data_dir / "charts.json")
    assert len(charts) == 2
    for name, corners in charts.items():
        assert (data_dir / name).is_file()
        assert (corners > 0).all()
