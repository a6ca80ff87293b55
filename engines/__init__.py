"""Engines: what a raw frame is, and what develops it to sRGB."""

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
