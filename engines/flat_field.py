"""Flat fields: what makes up for the shading of lens and sensor, as gains on a coarse mesh for each colour site.

The nodes of a mesh are evenly spread from the first to the last pixel of the plane that one site of the 2x2 filter
array gives; between them gains are interpolated linearly, along rows and along columns. A corrected sample is its
light, black at 0 and white at 1, times its gain. Defects are replaced before: a stand-in gets the gain of the place it
stands in, and, since gains hardly change from neighbour to neighbour, the other order would give the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat
from .errors import UserError

Floats = npt.NDArray[np.float64]

FlatField = Mapping[str, Any]
"""R, Gr, Gb, B, each with rows of gains: what `checked_mesh` takes."""

SITES = ("R", "Gr", "Gb", "B")
"""Sites of the filter array: Gr is the green in the rows of red, Gb that in the rows of blue."""

FEWEST_NODES, MOST_NODES = 2, 65
"""Of a mesh, each way."""

LEAST_GAIN, MOST_GAIN = 0.25, 16.0

_LIKE = "give R, Gr, Gb and B, each as rows of gains, as isp-calibrate flat writes"


def checked_mesh(flat_field: FlatField) -> Floats:
    """A flat field as one array.

    Args:
        flat_field: Rows of gains for each of `SITES`.

    Returns:
        float64 [4, rows, columns], in the order of `SITES`.

    Raises:
        UserError: A site is missing or unknown, the meshes are no meshes, not of one size or not of 2 to 65 nodes each
            way, or a gain is no number from 0.25 to 16.
    """
    if not isinstance(flat_field, Mapping):
        raise UserError(f"the flat field is no mapping: {_LIKE}")
    for name in flat_field:
        if name not in SITES:
            raise UserError(f"the flat field has a mesh {str(name)[:40]!r}, which no colour site is called: {_LIKE}")
    if missing := [name for name in SITES if name not in flat_field]:
        raise UserError(f"the flat field has no mesh for {', '.join(missing)}: {_LIKE}")
    meshes = [_mesh(name, flat_field[name]) for name in SITES]
    for name, mesh in zip(SITES, meshes, strict=True):
        if mesh.shape != meshes[0].shape:
            raise UserError(
                f"the meshes of the flat field are not of one size: R has {_size(meshes[0])} gains and {name} "
                f"{_size(mesh)}; measure it again with isp-calibrate flat"
            )
    return np.stack(meshes)


def _mesh(name: str, rows: Any) -> Floats:
    """One mesh [rows, columns]. Raises UserError."""
    try:
        plain = [[_number(value) for value in row] for row in rows]
        mesh = np.array(plain, np.float64)
    except (TypeError, ValueError):  # no rows, not of numbers, or of several lengths
        raise UserError(f"the mesh {name} of the flat field is no rows of as many numbers each: {_LIKE}") from None
    if mesh.ndim != 2 or not all(FEWEST_NODES <= nodes <= MOST_NODES for nodes in mesh.shape):
        has = _size(mesh) if mesh.ndim == 2 else "no"
        raise UserError(
            f"the mesh {name} of the flat field has {has} gains: give {FEWEST_NODES} to {MOST_NODES} rows of "
            f"{FEWEST_NODES} to {MOST_NODES} gains"
        )
    wrong = ~((mesh >= LEAST_GAIN) & (mesh <= MOST_GAIN))  # NaN is neither
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise UserError(
            f"the gain {mesh[row, column]:g} in row {row}, column {column} of the mesh {name} of the flat field is out "
            f"of range: gains are from {LEAST_GAIN:g} to {MOST_GAIN:g}"
        )
    return mesh


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes, bool)):
        raise TypeError
    return float(value)


def _size(mesh: Floats) -> str:
    return f"{mesh.shape[0]}x{mesh.shape[1]}"


def to_json(mesh: Floats) -> dict[str, list[list[float]]]:
    """What `checked_mesh` makes `mesh` of, in JSON values."""
    return {name: rows.tolist() for name, rows in zip(SITES, mesh, strict=True)}


def site_names(fmt: RawFormat) -> tuple[str, ...]:
    """Which of `SITES` each place of the 2x2 filter array is, in reading order. Bayer formats only."""
    cfa = fmt.cfa
    return tuple(c if c != "G" else f"G{cfa[place ^ 1].lower()}" for place, c in enumerate(cfa))


def node_weights(places: int, nodes: int) -> Floats:
    """How much each node counts at each place of an axis: [places, nodes], of which two beside each other are not 0.

    The mesh [rows, columns] of a plane [h, w] gives the gains
    `node_weights(h, rows) @ mesh @ node_weights(w, columns).T`.
    """
    below, share = _between(places, nodes)
    weights = np.zeros((places, nodes))
    weights[np.arange(places), below] = 1 - share
    weights[np.arange(places), below + 1] += share
    return weights


def _between(places: int, nodes: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The node before each place of an axis, but for the last one, and how far from it to the next, in [0, 1]."""
    at = np.arange(places, dtype=np.float64) * ((nodes - 1) / max(1, places - 1))
    before = np.minimum(at.astype(np.int64), nodes - 2)
    return before, np.subtract(at, before, dtype=np.float64)


def require_bayer(fmt: RawFormat) -> None:
    """Raises UserError for frames without colour filters: a flat field has a mesh for each of those."""
    if fmt.cfa == "MONO":
        raise UserError(f"a flat field is for Bayer frames, and {fmt.pixel_format} is none; leave flat_field out")


def gain_map(mesh: Floats, fmt: RawFormat) -> Floats:
    """The gain of every pixel: float64 [H, W].

    Raises:
        UserError: A Mono format.
    """
    require_bayer(fmt)
    gains = np.empty((fmt.height, fmt.width))
    for place, name in enumerate(site_names(fmt)):
        plane = gains[place // 2 :: 2, place % 2 :: 2]
        rows, columns = (node_weights(size, nodes) for size, nodes in zip(plane.shape, mesh.shape[1:], strict=True))
        plane[:] = rows @ mesh[SITES.index(name)] @ columns.T
    return gains


class RowTables(NamedTuple):
    """A flat field as the kernels read it: interpolated along the rows, which takes no memory worth telling, and left
    to be interpolated between them. Empty arrays where there is none.

    Attributes:
        gains: float32 [4 * nodes * half], of each place of the filter array in reading order, of each row of nodes, at
            each of its `half` columns.
        before: int64 [H], the row of nodes before each row of the frame.
        share: float32 [H], how far it is from there to the next.
        nodes: Rows of nodes.
        half: Columns of a place, (W + 1) // 2; in frames of odd width the last one of some places is not used.
    """

    gains: npt.NDArray[np.float32]
    before: npt.NDArray[np.int64]
    share: npt.NDArray[np.float32]
    nodes: int
    half: int


def row_tables(mesh: Floats | None, fmt: RawFormat) -> RowTables:
    """The tables of a mesh, or of none.

    Raises:
        UserError: A Mono format.
    """
    if mesh is None:
        return RowTables(np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.float32), 0, 0)
    require_bayer(fmt)
    nodes, half = mesh.shape[1], (fmt.width + 1) // 2
    gains = np.ones((4, nodes, half), np.float32)
    before, share = np.zeros(fmt.height, np.int64), np.zeros(fmt.height, np.float32)
    for place, name in enumerate(site_names(fmt)):
        row, column = divmod(place, 2)
        width, height = (fmt.width - column + 1) // 2, (fmt.height - row + 1) // 2
        gains[place, :, :width] = mesh[SITES.index(name)] @ node_weights(width, mesh.shape[2]).T
        before[row::2], share[row::2] = _between(height, nodes)
    return RowTables(gains.reshape(-1), before, share, nodes, half)
