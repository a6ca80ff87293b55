"""How two cameras' pictures lie, coarsely, and what they have in common."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ispeed.train.alignment import register as module
from ispeed.train.alignment.mask import inside
from ispeed.train.alignment.register import MULTIPLE, NEAR, Region, common, project, reduced, register
from ispeed.train.evaluation.frames import rendered

Array = np.ndarray[Any, Any]
LEAST = 20


def view(picture: Array, homography: Array, height: int, width: int) -> Array:
    """What a camera sees for which `homography` leads from its places to those of the picture."""
    size = (width, height)
    return cv2.warpPerspective(picture, homography, size, flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)


def turned(scale: float, degrees: float, x: float, y: float, tilt: float = 0.0) -> Array:
    a = np.deg2rad(degrees)
    return np.array(
        [[scale * np.cos(a), -scale * np.sin(a), x], [scale * np.sin(a), scale * np.cos(a), y], [tilt, tilt / 2, 1]]
    )


@pytest.fixture(scope="module")
def scene() -> Array:
    """A picture full of detail: 520 x 600."""
    parts = [rendered(300, seed) for seed in (0, 2, 6, 9)]
    rows = [np.concatenate(parts[k : k + 2], axis=1) for k in (0, 2)]
    return np.concatenate(rows, axis=0)[:520]


@pytest.mark.parametrize(
    "truth",
    [turned(1.4, 3.0, 70, 40), turned(0.8, -6.0, 120, 160, 1e-4), turned(1.0, 0.0, 60, 80)],
    ids=["wider and turned", "narrower and tilted", "shifted"],
)
def test_two_cameras(scene: Array, truth: Array):
    height, width = 240, 288
    frame = view(scene, truth, height, width)
    found = register(frame, scene, least=LEAST)
    assert found.usable
    assert not found.kept
    assert found.matches >= found.inliers >= LEAST
    y, x = np.mgrid[:height:40, :width:40].astype(np.float32)
    off = np.hypot(*(np.subtract(project(found.homography, x, y), project(truth, x, y))))
    assert np.median(off) < 1
    assert off.max() < NEAR / 2, "the rest is for flow"


def test_equal_sizes_that_lie_nearly_alike_keep_their_grid(scene: Array):
    piece = scene[:256, :256]
    near = view(scene, turned(1.0, 0.5, 2, -1), 256, 256)
    found = register(near, piece, least=LEAST)
    assert found.kept
    assert found.inliers >= LEAST
    np.testing.assert_array_equal(found.homography, np.eye(3))
    assert not register(near, piece, least=LEAST, registered="no").kept
    far = view(scene, turned(1.0, 0.0, 2 * NEAR, 0), 256, 256)
    assert not register(far, piece, least=LEAST).kept
    assert register(far, piece, least=LEAST, registered="yes").kept
    with pytest.raises(ValueError, match="of one size"):
        register(near, scene, least=LEAST, registered="yes")


def test_another_scene(scene: Array):
    other = rendered(320, 21)
    assert not register(scene[:256, :256], other, least=LEAST).usable
    kept = register(scene[:320, :320], other, least=LEAST)
    assert kept.kept, "what lies alike is left to flow, and to the checks behind it"
    blank = np.zeros((100, 120, 3), np.uint8)
    assert register(blank, scene, least=LEAST).inliers == 0


def test_views_that_no_two_cameras_have():
    for homography in (np.diag([-1.0, 1, 1]), np.array([[1, 0, 0], [0, 1, 0], [-1 / 200, 0, 1.0]])):
        assert not module._plausible(homography, 200, 300)
    assert module._plausible(turned(3.0, 170, 5, 5), 200, 300)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_largest_rectangle(data: st.DataObject):
    rows, columns, multiple = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)))
    cells = np.array(data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    cells = cells.reshape(rows, columns)
    sizes = [
        height * width
        for top in range(rows)
        for left in range(columns)
        for height in range(multiple, rows - top + 1, multiple)
        for width in range(multiple, columns - left + 1, multiple)
        if cells[top : top + height, left : left + width].all()
    ]
    found = module._largest(cells, multiple)
    if not sizes:
        assert found is None
        return
    assert found is not None
    top, left, height, width = found
    assert cells[top : top + height, left : left + width].all()
    assert height % multiple == width % multiple == 0
    assert height * width == max(sizes)


@pytest.mark.parametrize("truth", [np.eye(3), turned(1.3, 8.0, -60, 30), turned(0.5, -3.0, 20, 10, 1e-4)])
def test_what_both_see(truth: Array):
    height, width, seen = 250, 330, (260, 300)
    region = common(truth, height, width, seen)
    assert region is not None
    assert region.top % 2 == region.left % 2 == 0
    assert region.height % MULTIPLE == region.width % MULTIPLE == 0
    y, x = np.mgrid[:height, :width].astype(np.float32)
    there = inside(*project(truth, x, y), *seen)
    assert region.of(there).shape == (region.height, region.width)
    assert region.of(there).all()
    assert region.height * region.width > 0.6 * there.sum() or there.mean() < 0.2


def test_nothing_in_common():
    assert common(turned(1.0, 0.0, 500, 0), 200, 200, (300, 300)) is None
    assert common(np.eye(3), 30, 200, (300, 300)) is None
    assert common(np.eye(3), 64, 100, (64, 100)) == Region(0, 0, 64, 96)


def test_references_of_higher_resolution_are_made_smaller(scene: Array):
    fine = turned(2.5, 2.0, 10, 5)
    small, homography = reduced(scene, fine, 150, 180)
    assert small.shape[0] == pytest.approx(scene.shape[0] / 2.5, abs=1)
    assert np.sqrt(np.linalg.det(homography[:2, :2])) == pytest.approx(1, abs=0.02)
    smooth = cv2.GaussianBlur(scene, (0, 0), 4)
    small, homography = reduced(smooth, fine, 150, 180)
    seen = [view(p, h, 150, 180).astype(float) for p, h in ((smooth, fine), (small, homography))]
    assert np.abs(seen[0] - seen[1])[8:-8, 8:-8].mean() < 1.5, "it shows the same in the same place"
    same, kept = reduced(scene, np.eye(3), 150, 180)
    assert same is scene
    np.testing.assert_array_equal(kept, np.eye(3))


def test_the_identity_moves_nothing_at_all():
    x = np.array([0.1, 7.3], np.float32)
    to_x, to_y = project(np.eye(3), x, x)
    assert to_x is x
    assert to_y is x
