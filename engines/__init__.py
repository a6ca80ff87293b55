"""Engines: what a raw frame is, and what develops it to sRGB.

Names are loaded when they are first asked for, so that the commands can be quiet about Ctrl-C from their first line on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazily

if TYPE_CHECKING:
    from .bayer import PIXEL_FORMAT_NAMES, PIXEL_FORMATS, RawFormat, pack, unpack
    from .engine import Engine, EngineInfo, Mode, SlotArray, Ticket, WhiteBalance
    from .errors import UserError
    from .opening import open_engine

__all__ = [
    "PIXEL_FORMATS",
    "PIXEL_FORMAT_NAMES",
    "Engine",
    "EngineInfo",
    "Mode",
    "RawFormat",
    "SlotArray",
    "Ticket",
    "UserError",
    "WhiteBalance",
    "open_engine",
    "pack",
    "unpack",
]

_HOMES = {
    **dict.fromkeys(("PIXEL_FORMATS", "PIXEL_FORMAT_NAMES", "RawFormat", "pack", "unpack"), "bayer"),
    **dict.fromkeys(("Engine", "EngineInfo", "Mode", "SlotArray", "Ticket", "WhiteBalance"), "engine"),
    "UserError": "errors",
    "open_engine": "opening",
}

__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
