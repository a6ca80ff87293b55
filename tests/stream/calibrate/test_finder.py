"""Charts are found, whichever way round they lie, and nothing else is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError
from ispeed.engines.chart import read_charts
from ispeed.engines.raw_files import load_raw
from ispeed.stream.calibrate.finder import chart_at, find_chart
from ispeed.stream.calibrate.measure import Cells, cells_of

TURNS = ("GR", "BG", "GB", "RG")  # how a mosaic of GR begins after each quarter turn to the left


def cells(samples: np.ndarray, pattern: str) -> Cells:
    height, width = samples.shape
    return cells_of(samples, RawFormat(width, height, f"Bayer{pattern}12", 64))


@pytest.fixture
def frame(chart: SimpleNamespace) -> np.ndarray:
    return chart.mosaic(chart.light(), RawFormat(512, 432, "BayerGR12", 64), noise=15)


@pytest.mark.parametrize("turn", range(4))
def test_a_tilted_chart_is_found_whichever_way_round(chart: SimpleNamespace, frame: np.ndarray, turn: int):
    found = find_chart(cells(np.rot90(frame, turn), TURNS[turn])).mean(1)[[0, 5, 23, 18]]
    height, width = frame.shape
    x, y = chart.corners.T
    wanted = [(x, y), (y, width - 1 - x), (width - 1 - x, height - 1 - y), (height - 1 - y, x)][turn]
    np.testing.assert_allclose(found, np.stack(wanted, -1), atol=2)


def test_corners_by_hand_are_the_same_places(chart: SimpleNamespace, frame: np.ndarray):
    np.testing.assert_allclose(chart_at(chart.corners.reshape(-1)), find_chart(cells(frame, "GR")), atol=3)


def test_patches_that_are_not_seen_are_where_they_must_be(chart: SimpleNamespace):
    wanted = chart_at(chart.corners.reshape(-1)).mean(1)
    samples = chart.mosaic(chart.light(), RawFormat(512, 432, "BayerGR12", 64))
    samples[60:100, 60:140] = 300  # and something over the first one
    np.testing.assert_allclose(find_chart(cells(samples, "GR")).mean(1), wanted, atol=3)


def test_a_mirrored_chart_and_other_grids_are_none(chart: SimpleNamespace, frame: np.ndarray):
    fmt = RawFormat(512, 432, "BayerGR12", 64)
    shuffled = np.random.default_rng(5).uniform(0.05, 0.8, (24, 3))
    for samples, pattern in (
        (frame[:, ::-1], "RG"),
        (chart.mosaic(chart.light(shown=shuffled), fmt), "GR"),
        (chart.mosaic(np.full((432, 512, 3), 0.4), fmt), "GR"),
        (np.full((40, 40), 64, np.uint16), "GR"),
    ):
        with pytest.raises(UserError, match="no chart of 24 patches was found"):
            find_chart(cells(samples, pattern))


@pytest.mark.parametrize("points", [[0] * 8, [0, 0, 10, 0, 20, 0, 30, 0], [0, 0, 10, 10, 10, 0, 0, 10]])
def test_corners_that_are_none(points: list[float]):
    with pytest.raises(UserError, match="no corners of a chart"):
        chart_at(points)


def test_without_opencv_a_sentence_says_what_to_install(frame: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"OpenCV is needed: pip install 'ispeed\[calibrate\]', or say by --corners"):
        find_chart(cells(frame, "GR"))


def test_charts_in_real_frames(data_dir: Path):
    for name, corners in read_charts(data_dir / "charts.json").items():
        frames = load_raw(f"{data_dir / name}?format=BayerGR8")
        fmt = RawFormat(frames.raw_format.width, frames.raw_format.height, "BayerGR8", 12.5)
        pitch = np.linalg.norm(corners[1].mean(0) - corners[0].mean(0))
        found = find_chart(cells_of(frames.samples, fmt))
        assert np.linalg.norm(found.mean(1) - corners.mean(1), axis=1).max() < 0.12 * pitch


def test_no_chart_in_other_real_frames(data_dir: Path):
    frames = load_raw(f"{data_dir / 'raw/openisp/test.png'}?format=BayerRG16")
    with pytest.raises(UserError, match="no chart"):
        find_chart(cells_of(frames.samples, frames.raw_format))
