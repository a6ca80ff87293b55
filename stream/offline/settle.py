"""What is settled before a job begins: which engine it is, and what of the file's calibration it takes."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.engine import EngineInfo
from ...engines.errors import UserError
from ...engines.opening import fitting_plan, open_engine
from ..footage import Footage

if TYPE_CHECKING:  # workers do without pydantic
    from .config import DevelopConfig

_PIECE = 1 << 20
_log = logging.getLogger(__name__)

Matrix = list[list[float]]
Mesh = dict[str, list[list[float]]]


@dataclass(frozen=True)
class Settled:
    """An engine that opens for the footage.

    Attributes:
        engine: A name or an absolute path that means the same everywhere.
        info: Its own.
        colour_matrix, defects, flat_field: With which it opens.
    """

    engine: str
    info: EngineInfo
    colour_matrix: Matrix | None
    defects: tuple[tuple[int, int], ...]
    flat_field: Mesh | None


def settle(config: DevelopConfig, footage: Footage) -> Settled:
    """The engine that the user asks for, with the calibration that he gives or the file has.

    The colour matrix of the file, unlike one that the user gives, is left out where the engine takes none: it says what
    the camera is, and asks for nothing.

    Raises:
        UserError: There is no such engine, or it does not take what it is given.
    """
    engines = [os.path.abspath(config.engine) if os.path.isfile(config.engine) else config.engine]
    if config.engine == "auto":
        plan = fitting_plan(footage.raw_format, _defects(config, footage), own_flat_field(config, footage))
        engines = ["classic"] if plan is None else [str(plan), "classic"]
    for engine in engines[:-1]:
        try:
            return _opened(engine, config, footage)
        except UserError as error:
            _log.warning("auto: not the plan %s but the classic engine, because %s", engine, error)
    return _opened(engines[-1], config, footage)


def own_flat_field(config: DevelopConfig, footage: Footage) -> Mesh | None:
    """The flat field that the user gives, else that of the file; None without, or where the user wants none."""
    return footage.calibration.flat_field if config.flat_field is None else config.flat_field or None


def digest_of(engine: str) -> str | None:
    """Hex digest of an engine's file, and of the one beside it that says what it is; None for a name."""
    if not os.path.isfile(engine):
        return None
    digest = hashlib.sha256()
    for path in (Path(engine), Path(f"{engine}.json")):
        if path.is_file():
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
    return digest.hexdigest()


def _defects(config: DevelopConfig, footage: Footage) -> tuple[tuple[int, int], ...]:
    return tuple(footage.calibration.defects if config.defects is None else config.defects)


def _opened(engine: str, config: DevelopConfig, footage: Footage) -> Settled:
    """Opens the engine, and closes it again. Raises UserError."""
    file_matrix = footage.calibration.colour_matrix
    matrices = [file_matrix, None] if config.colour_matrix is None and file_matrix else [config.colour_matrix or None]
    defects, flat_field = _defects(config, footage), own_flat_field(config, footage)
    for matrix in matrices:
        try:
            opened = open_engine(
                engine,
                precision=None if config.engine_precision == "auto" else config.engine_precision,
                colour_matrix=matrix,
                defects=defects,
                flat_field=flat_field,
                raw_format=footage.raw_format,
            )
        except UserError:
            if matrix is matrices[-1]:
                raise
            continue
        info = opened.info
        opened.close()
        return Settled(engine, info, matrix, defects, flat_field)
    raise AssertionError("there is always a matrix to try, or None")
