"""Frames of a chart that nobody photographed, and the real `isp-calibrate`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.engines.chart import REFERENCE_LAB
from ispeed.engines.cie import linear_from_lab

CAMERA = np.array([[0.62, 0.30, 0.08], [0.20, 0.70, 0.10], [0.04, 0.26, 0.70]])
"""Linear sRGB to the light that a camera sees; its rows sum to 1."""

LIGHT = np.array([0.55, 1.0, 0.4])
"""What is left of white in the camera's colours."""

CORNERS = np.array([[110.0, 90.0], [420.0, 120.0], [400.0, 340.0], [95.0, 300.0]])
"""Of the chart as it is looked for: centres of dark skin, bluish green, black and white, in pixels."""


def homography(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """What brings four points to four others, [3, 3]."""
    rows = []
    for (x, y), (u, v) in zip(of, to, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), to.reshape(-1)), 1).reshape(3, 3)


def chart_light(
    corners: np.ndarray = CORNERS, size: tuple[int, int] = (512, 432), *, shown: np.ndarray | None = None
) -> np.ndarray:
    """Linear sRGB [H, W, 3] of a grey wall with a chart on it; `shown`, the colours of its patches, [24, 3]."""
    width, height = size
    back = np.linalg.inv(homography(np.array([[0.0, 0.0], [5, 0], [5, 3], [0, 3]]), corners))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    column, row, scale = np.moveaxis(np.stack([x, y, np.ones_like(x)], -1) @ back.T, -1, 0)
    column, row = column / scale, row / scale
    picture = np.full((height, width, 3), 0.4)
    picture[(np.abs(column - 2.5) < 3.3) & (np.abs(row - 1.5) < 2.3)] = 0.02  # the frame of the chart
    nearest = np.rint(column).clip(0, 5).astype(int), np.rint(row).clip(0, 3).astype(int)
    on_patch = (np.abs(column - nearest[0]) < 0.43) & (np.abs(row - nearest[1]) < 0.43)
    colours = linear_from_lab(REFERENCE_LAB) if shown is None else shown
    picture[on_patch] = colours[nearest[1] * 6 + nearest[0]][on_patch]
    return picture


def mosaic(
    light: np.ndarray, fmt: RawFormat, exposure: float = 0.9, *, noise: float = 2.0, seed: int = 1
) -> np.ndarray:
    """uint16 [H, W]: what `CAMERA` sees of linear sRGB under `LIGHT`, with noise in DN."""
    seen = exposure * np.maximum(light @ CAMERA.T, 0) * LIGHT
    samples = np.empty(light.shape[:2])
    for place, colour in enumerate(fmt.cfa):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        samples[at] = seen[(*at, "RGB".index(colour))]
    samples = fmt.black_level + samples * (fmt.white_level - fmt.black_level)
    samples += np.random.default_rng(seed).normal(0, noise, samples.shape)
    return np.rint(samples).clip(0, fmt.white_level).astype(np.uint16)


@pytest.fixture
def chart() -> SimpleNamespace:
    """What makes frames of a chart."""
    return SimpleNamespace(camera=CAMERA, light_colour=LIGHT, corners=CORNERS, light=chart_light, mosaic=mosaic)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Saves samples with what they are beside them; returns the path."""

    def write(
        name: str, samples: np.ndarray, fmt: str = "BayerGR12", black: int = 64, white: int = 4095, more: str = ""
    ) -> str:
        path = tmp_path / name
        np.save(path, samples)
        Path(f"{path}.yaml").write_text(f"format: {fmt}\nblack: {black}\nwhite: {white}\n{more}")
        return str(path)

    return write


@pytest.fixture
def isp_calibrate(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs isp-calibrate in a folder of its own, as its script does; checks that all went well, or the one sentence."""
    start = "import sys; from ispeed.stream.entry import calibrate; sys.exit(calibrate())"

    def run(*arguments: str | Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-c", start, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=os.environ)
        assert done.returncode == (2 if fails else 0), done.stderr
        if fails:
            assert done.stdout == ""
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert done.stderr.startswith("isp-calibrate: error: ")
        else:
            assert done.stderr == ""
        return done

    return run
