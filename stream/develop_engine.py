"""The engine of the develop stage, as the settings of the run have it."""

from __future__ import annotations

import logging
from typing import Any

from ..engines.bayer import RawFormat
from ..engines.engine import Engine
from ..engines.errors import UserError
from ..engines.opening import open_engine

_log = logging.getLogger(__name__)


def open_as_set(settings: dict[str, Any], raw_format: RawFormat | None = None) -> Engine:
    """Opens the engine.

    A colour matrix that isp-calibrate measured is left out, with a warning, where the engine has learned its colours:
    it says what the camera is, and the rest of the calibration holds for this engine, too.

    Args:
        settings: `StreamConfig` in JSON values.
        raw_format: Format of the frames to come, where it is known already.

    Raises:
        UserError: See `open_engine`.
    """
    try:
        return _open(settings, settings["colour_matrix"], raw_format)
    except UserError as error:
        if settings["colour_matrix"] is None or not (settings["measured"] or {}).get("colour"):
            raise
        engine = _open(settings, None, raw_format)
        _log.warning("the colour matrix of the calibration is left out: %s", error)
        return engine


def _open(settings: dict[str, Any], matrix: Any, raw_format: RawFormat | None) -> Engine:
    white_balance, precision = settings["white_balance"], settings["engine_precision"]
    return open_engine(
        settings["engine"],
        raw_format=raw_format,
        mode=settings["engine_mode"],
        precision=None if precision == "auto" else precision,
        threads=settings["threads"],
        white_balance="auto" if white_balance is None else tuple(white_balance),
        colour_matrix=matrix,
        defects=[tuple(xy) for xy in settings["defects"]],
        flat_field=settings["flat_field"],
    )
