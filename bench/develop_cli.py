"""The options of `isp-bench develop`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engines.bayer import RawFormat
from ..engines.errors import UserError


def add_develop(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument("--engine", default="lwisp", metavar="X", help="as in isp-develop (default %(default)s)")
    for name, number in (("width", 640), ("height", 480)):
        parser.add_argument(f"--{name}", type=int, default=number, help="pixels (default %(default)s)")
    parser.add_argument("--pixel-format", default="BayerRG12p", help="of the raw frames (default %(default)s)")
    parser.add_argument("--frames", type=int, default=96, help="of each run (default %(default)s)")
    parser.add_argument(
        "--format", choices=("png", "tiff", "mp4", "h5"), default="png", help="what is made (default %(default)s)"
    )
    parser.add_argument("--only", action="append", default=[], choices=("ray", "processes"), help="one way of two")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="write the figures as JSON")


def run_develop_command(options: argparse.Namespace) -> int:
    """Runs it, and returns its exit code."""
    from .develop import run_develop

    if min(options.frames, options.repeat) < 1:
        raise UserError("isp-bench develop needs a frame and a round: give 1 or more to --frames and --repeat")
    fmt = RawFormat(options.width, options.height, options.pixel_format)
    asked = (options.engine, options.frames, options.format, options.only, options.repeat)
    return run_develop(fmt, *asked, options.out)
