"""Engines: what a raw frame is, and what develops it to sRGB."""

from .bayer import PIXEL_FORMAT_NAMES, PIXEL_FORMATS, RawFormat, pack, unpack
from .engine import Engine, EngineInfo, SlotArray, Ticket, WhiteBalance, open_engine
from .errors import UserError

__all__ = [
    "PIXEL_FORMATS",
    "PIXEL_FORMAT_NAMES",
    "Engine",
    "EngineInfo",
    "RawFormat",
    "SlotArray",
    "Ticket",
    "UserError",
    "WhiteBalance",
    "open_engine",
    "pack",
    "unpack",
]
