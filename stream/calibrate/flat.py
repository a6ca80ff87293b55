"""The flat field: gains under which frames of an evenly lit surface become even, fitted to their mean."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.cie import Floats
from ...engines.errors import UserError
from ...engines.flat_field import LEAST_GAIN, MOST_GAIN, SITES, gain_map, node_weights, site_names
from .outliers import local_level, sites

ROWS, COLUMNS = 13, 17
"""Nodes of a mesh, where frames are large enough: between them what a lens does to the light is all but straight."""

_PLACES_PER_NODE = 4  # each way, so that noise does not become a gain
_PLACES_PER_PART = 8  # so that noise does not look like shading
_LEAST_OF_LEVEL = 0.25


@dataclass(frozen=True, eq=False)
class FittedField:
    """A flat field, and what it leaves.

    Attributes:
        mesh: float64 [4, rows, columns], gains of R, Gr, Gb, B; the least gain of each is 1.
        left: By how much, by colour R, G, B, parts of the corrected mean differ from all of it at most, in parts of
            it. There are four parts from node to node, where frames are large enough for it: in halves, what a straight
            line is too high and too low would cancel.
    """

    mesh: Floats
    left: dict[str, float]


def fit_flat_field(light: Floats, good: npt.NDArray[np.bool_], fmt: RawFormat) -> FittedField:
    """The flat field of an evenly lit surface.

    Each mesh is the least-squares fit to one divided by the light. Its least gain is 1: in its brightest place each
    colour stays as it is, and so does white balance there.

    Args:
        light: [H, W], mean of the frames, black at 0 and white at 1.
        good: [H, W], where pixels are no defects; for those that are, what is around them stands.
        fmt: Of the frames.

    Raises:
        UserError: Some place is so dark that no gain makes up for it.
    """
    meshes: dict[str, Floats] = {}
    # of the smallest plane, because all meshes are of one size
    rows, columns = (
        max(2, min(most, size // 2 // _PLACES_PER_NODE))
        for size, most in zip(light.shape, (ROWS, COLUMNS), strict=True)
    )
    for (row, column, site), name in zip(sites(light), site_names(fmt), strict=True):
        level = local_level(site)
        if level.min() * MOST_GAIN < level.max():
            raise UserError(
                f"{name} is in some place only {max(0.0, level.min() / level.max()):.1%} of what it is in the "
                f"brightest one, and a flat field makes up for {1 / MOST_GAIN:.1%} at the least: light the surface as "
                "a whole, and take it with nothing before the lens"
            )
        clean = np.where(good[row::2, column::2], site, level)
        meshes[name] = _fit(1 / np.maximum(clean, _LEAST_OF_LEVEL * level), (rows, columns))
    mesh = np.stack([meshes[name] for name in SITES])
    mesh = (mesh / mesh.min((1, 2), keepdims=True)).clip(LEAST_GAIN, MOST_GAIN).round(4)
    return FittedField(mesh, _left(np.where(good, light * gain_map(mesh, fmt), np.nan), mesh.shape[1:], fmt))


def _fit(gains: Floats, nodes: tuple[int, int]) -> Floats:
    """The mesh [rows, columns] of so many nodes whose gains are nearest to those of a plane [h, w]."""
    rows, columns = (np.linalg.pinv(node_weights(size, n)) for size, n in zip(gains.shape, nodes, strict=True))
    return rows @ gains @ columns.T


def _left(even: Floats, nodes: tuple[int, ...], fmt: RawFormat) -> dict[str, float]:
    """See `FittedField.left`; even: [H, W], NaN where it does not count."""
    left = dict.fromkeys("RGB", 0.0)
    for (_, _, site), colour in zip(sites(even), fmt.cfa, strict=True):
        edges = [
            np.linspace(0, size, max(1, min(4 * (count - 1), size // _PLACES_PER_PART)) + 1).astype(int)
            for size, count in zip(site.shape, nodes, strict=True)
        ]
        parts = [
            np.nanmean(site[top:bottom, start:end])
            for top, bottom in itertools.pairwise(edges[0])
            for start, end in itertools.pairwise(edges[1])
        ]
        mean = float(np.nanmean(site))
        left[colour] = max(left[colour], float(np.max(np.abs(np.array(parts) / mean - 1))))
    return left
