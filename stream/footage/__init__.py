"""Footage: raw frames in a file, whatever made it. `open_footage` opens it.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engines.lazy import lazily

if TYPE_CHECKING:
    from .base import FRAME, Calibration, Footage, FootageOptions
    from .opening import SUFFIXES, open_footage

__all__ = ["FRAME", "SUFFIXES", "Calibration", "Footage", "FootageOptions", "open_footage"]

_HOMES = {
    **dict.fromkeys(("FRAME", "Calibration", "Footage", "FootageOptions"), "base"),
    **dict.fromkeys(("SUFFIXES", "open_footage"), "opening"),
}

__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
