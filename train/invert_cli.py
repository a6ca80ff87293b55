"""`isp-invert`: raw frames of photographs, as a camera would have taken them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..engines.errors import UserError
from .cli import add_folder, needed, run

NETWORK = Path("runs/paramisp/inverse/last.pt")
"""Where the recipe of ParamISP leaves its inverse network."""

GB_PER_MEGAPIXEL = 2
"""What the published width takes: 2.5 GB were measured for 1.0 megapixels, and 4.5 GB for 2.0."""

_FRAMES = ("count", "crop", "per_photo", "downscale", "motion_rate")
_CAMERA = ("exposure_us", "iso", "f_number", "focal_length_mm")


def make_parser() -> argparse.ArgumentParser:
    """The command line of `isp-invert`."""
    parser = argparse.ArgumentParser(
        prog="isp-invert",
        description="Turns photographs into raw frames of a camera by ParamISP's inverse network, with the noise of "
        "the camera's profile. What it leaves is a data set of the kind folder for isp-train ({source: pairs, "
        "data_set: folder, root: RAW}); isp-stream --scene RAW/raw/NAME.png plays a frame.",
        epilog="Exit codes: 0 done, 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "photos", type=Path, nargs="*", metavar="PHOTOS", help="photographs (JPEG, PNG), or folders of them"
    )
    parser.add_argument(
        "--network",
        type=Path,
        metavar="FILE",
        help=f"checkpoint of paramisp, of the form inverse or cycle (default {NETWORK})",
    )
    parser.add_argument(
        "--camera", type=Path, metavar="FILE", help="the camera's profile (.yaml), as in configs/cameras"
    )
    add_folder(parser, "RAW", "the frames")
    _add_frames(parser)
    camera = parser.add_argument_group("the same for all frames (default: drawn from the profile for each)")
    camera.add_argument("--exposure-us", type=float, metavar="US", help="exposure in microseconds")
    camera.add_argument("--iso", type=float, metavar="ISO", help="sensitivity")
    camera.add_argument("--f-number", type=float, metavar="F", help="aperture")
    camera.add_argument("--focal-length-mm", type=float, metavar="MM", help="focal length in millimetres")
    parser.add_argument("--settings", action="store_true", help="list what a profile may say, and end")
    return parser


def _add_frames(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, metavar="N", help="take the first N photographs alone")
    parser.add_argument(
        "--crop",
        type=int,
        metavar="EDGE",
        help="take the middle of each, EDGE pixels wide and high (default: all of it, in one piece, for which the "
        f"network takes some {GB_PER_MEGAPIXEL} GB of memory per megapixel, {12 * GB_PER_MEGAPIXEL} GB for 12)",
    )
    parser.add_argument("--per-photo", type=int, metavar="K", help="frames of each photograph (default 1)")
    parser.add_argument(
        "--downscale",
        type=float,
        metavar="FACTOR",
        help="make photographs smaller first, to be rid of their noise (default 2 for JPEG, 1 for PNG)",
    )
    parser.add_argument(
        "--motion-rate",
        type=float,
        metavar="SHARE",
        help="share of the frames that something moved in, from 0 to 1: pairs to learn deblurring from (default 0)",
    )
    parser.add_argument("--no-noise", action="store_true", help="leave out the camera's noise")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all that is drawn (default 1)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-invert` and returns its exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if not args.settings and (not args.photos or args.camera is None or args.output is None):
        parser.error("name photographs, the camera's profile by --camera, and the folder to write by -o")
    return run("isp-invert", lambda: _invert(args))


def _invert(args: argparse.Namespace) -> None:
    with needed():
        from .config import described
        from .data.profile import CameraProfile, read_profile
        from .invert import invert_photos, make_invert_settings

    if args.settings:
        sys.stdout.write("\n".join(described(CameraProfile)) + "\n")
        return
    named = {name: getattr(args, name) for name in (*_FRAMES, *_CAMERA)}
    given = {name: value for name, value in named.items() if value is not None}
    settings = make_invert_settings({**given, "noise": not args.no_noise, "seed": args.seed})
    photos, frames = invert_photos(
        args.photos,
        _network(args.network),
        read_profile(args.camera),
        settings,
        args.output,
        replace=args.force,
        tell=_tell,
    )
    sys.stdout.write(f"{args.output}: {frames} frames of {photos} photographs\n")


def _network(given: Path | None) -> Path:
    """The checkpoint. Raises UserError: none is named, and there is none where the recipe leaves it."""
    if given is None and not NETWORK.is_file():
        raise UserError(f"there is no network {NETWORK}: name one by --network, or train it by isp-train")
    return given or NETWORK


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
