"""Rendered scenes: random shapes with fine patterns in linear light, for want of photographs.

Nothing in them is natural. They hold what a demosaic gets wrong (edges at every angle, gratings up to the finest,
letters one pixel wide), what a denoiser gets wrong (flat fields beside texture), and colours up to burnt-out
highlights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]


class _Place(NamedTuple):
    """Pixels [h, 1] and [1, w] from the middle of a shape, and its size in pixels."""

    y: Image
    x: Image
    radius: float


def render_scene(rng: np.random.Generator, height: int, width: int) -> Image:
    """A scene that no other call returns.

    Args:
        rng: Where chance comes from.
        height, width: Pixels.

    Returns:
        float32 [height, width, 3]: linear sRGB, 1 is white, highlights go up to 8.
    """
    radius = float(np.hypot(height, width) / 2)
    whole = _Place(_ramp(height), _ramp(width).T, radius)
    scene = np.empty((height, width, 3), np.float32)
    scene[:] = _gradient(rng, whole)
    for _ in range(rng.integers(6, 40)):
        _add_shape(rng, scene, radius)
    if rng.random() < 0.4:
        scene *= 1 + rng.uniform(0.05, 0.4) * _cloud(rng, height, width)[..., None]
    if rng.random() < 0.3:
        scene = _softened(scene)
    return scene


def _add_shape(rng: np.random.Generator, scene: Image, largest: float) -> None:
    height, width = scene.shape[:2]
    radius = float(np.exp(rng.uniform(np.log(3), np.log(0.6 * largest))))
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = (int(np.clip(y + way * radius, 0, height)) for way in (-1, 1))
    left, right = (int(np.clip(x + way * radius, 0, width)) for way in (-1, 1))
    if bottom <= top or right <= left:
        return
    place = _Place(_ramp(bottom - top, y - top), _ramp(right - left, x - left).T, radius)
    fill = _FILLS[rng.choice(len(_FILLS), p=_SHARES)]
    cover = _outline(rng, place)[..., None]
    window = scene[top:bottom, left:right]
    window += cover * (fill(rng, place) - window)


def _ramp(length: int, middle: float | None = None) -> Image:
    return (np.arange(length, dtype=np.float32) - (length / 2 if middle is None else middle))[:, None]


def _outline(rng: np.random.Generator, place: _Place) -> Image:
    """How much of each pixel a rectangle, disc or polygon covers: [h, w] in [0, 1]."""
    kind = rng.integers(3)
    if kind == 0:
        return np.ones(np.broadcast_shapes(place.y.shape, place.x.shape), np.float32)
    if kind == 1:
        inside = place.radius - np.hypot(place.y, place.x)
    else:
        inside = np.full(np.broadcast_shapes(place.y.shape, place.x.shape), np.inf, np.float32)
        for angle in rng.uniform(0, 2 * np.pi, rng.integers(2, 6)):
            np.minimum(inside, place.radius * rng.uniform(0.2, 0.8) - _along(place, angle), out=inside)
    softness = 1.0 if rng.random() < 0.8 else rng.uniform(1, 12)
    return np.clip(0.5 + inside / softness, 0, 1, dtype=np.float32)


def _along(place: _Place, angle: float) -> Image:
    return place.x * np.float32(np.cos(angle)) + place.y * np.float32(np.sin(angle))


def _colour(rng: np.random.Generator) -> Image:
    """Linear sRGB [3]: grey, or evenly spread over display values; one in twelve a highlight."""
    shown = np.full(3, rng.random()) if rng.random() < 0.4 else rng.random(3)
    if rng.random() < 0.3:  # like most things: of little saturation
        shown = shown.mean() + 0.3 * (shown - shown.mean())
    strength = rng.uniform(1, 8) if rng.random() < 1 / 12 else 1.0
    return (strength * shown**2.2).astype(np.float32)


def _mixed(rng: np.random.Generator, share: npt.NDArray[Any]) -> Image:
    """Two colours, mixed by a share [h, w], which is limited to [0, 1]: [h, w, 3]."""
    first, second = _colour(rng), _colour(rng)
    mixed: Image = np.clip(share, 0, 1, dtype=np.float32)[..., None] * (second - first)
    mixed += first
    return mixed


def _plain(rng: np.random.Generator, place: _Place) -> Image:
    return _colour(rng)


def _gradient(rng: np.random.Generator, place: _Place) -> Image:
    along = _along(place, rng.uniform(0, 2 * np.pi)) / place.radius
    return _mixed(rng, 0.5 + rng.uniform(0.2, 1) * along)


def _grating(rng: np.random.Generator, place: _Place) -> Image:
    period = float(np.exp(rng.uniform(np.log(2), np.log(30))))
    wave = np.sin(_along(place, rng.uniform(0, np.pi)) * (2 * np.pi / period))
    sharpness = float(rng.choice([1.0, max(1.0, period / 3)]))  # a sine, or bars with edges a pixel wide
    return _mixed(rng, 0.5 + 0.5 * sharpness * wave)


def _star(rng: np.random.Generator, place: _Place) -> Image:
    sectors = int(rng.integers(4, 36))
    angle = np.arctan2(place.y, place.x) * sectors
    width = np.hypot(place.y, place.x) / sectors  # of the edge between two sectors, so that it is a pixel wide
    return _mixed(rng, 0.5 + np.sin(angle) * width)


def _letters(rng: np.random.Generator, place: _Place) -> Image:
    """Strokes on a grid, with gaps between lines and letters as in print."""
    height, width = place.y.size, place.x.size
    scale = int(rng.choice([1, 1, 2, 3, 4, 8]))
    cells = rng.random((-(-height // scale), -(-width // scale))) < 0.5
    cells[::9], cells[1::9], cells[:, ::6] = False, False, False
    share = np.repeat(np.repeat(cells, scale, 0), scale, 1)[:height, :width]
    return _mixed(rng, share)


def _noise(rng: np.random.Generator, place: _Place) -> Image:
    return _mixed(rng, 0.5 + _cloud(rng, place.y.size, place.x.size))


def _cloud(rng: np.random.Generator, height: int, width: int) -> Image:
    """Noise of all scales, the coarse ones stronger, -1 to 1: [h, w]."""
    total = np.zeros((height, width), np.float32)
    for scale, strength in ((1, 0.09), (2, 0.13), (4, 0.18), (8, 0.25), (16, 0.35)):
        size = height // scale + 1, width // scale + 1
        coarse = rng.uniform(-strength, strength, size).astype(np.float32)
        total += np.repeat(np.repeat(coarse, scale, 0), scale, 1)[:height, :width]
    return total


_FILLS = (_plain, _gradient, _grating, _star, _letters, _noise)
_SHARES = (0.35, 0.1, 0.2, 0.1, 0.15, 0.1)


def _softened(scene: Image) -> Image:
    """As through a lens a little out of focus: the mean of 3 x 3 neighbours, weighted 1 2 1."""
    for axis in (0, 1):
        scene = (np.roll(scene, 1, axis) + 2 * scene + np.roll(scene, -1, axis)) * np.float32(0.25)
    return scene
