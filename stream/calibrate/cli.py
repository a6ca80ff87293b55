"""`isp-calibrate`: its command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...engines.errors import UserError
from .file import CalibrationFile
from .frames import Taken, add_format, said_levels, take

_EPILOG = (
    "Frames: a .npy, .raw, .bin or grey .png file with FILE.yaml beside it (isp-stream --snap writes such), or with "
    "what its samples are by the flags below. isp-stream --config FILE applies the calibration, isp-stream --config "
    "camera.yaml --config mine.yaml with settings of your own. Exit codes: 0 done, 2 bad input."
)


def make_parser() -> argparse.ArgumentParser:
    """The command line of `isp-calibrate`."""
    parser = argparse.ArgumentParser(
        prog="isp-calibrate",
        description="Measures a camera in its raw frames, and writes what it finds into a config of isp-stream: each "
        "measurement adds to the file and leaves the rest of it.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{colour}")
    _add_colour(commands)
    return parser


def _add(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    short = text.split(".", maxsplit=1)[0]
    parser = commands.add_parser(
        name, help=short[0].lower() + short[1:], description=text, epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("camera.yaml"),
        metavar="FILE",
        help="calibration file to write, or to add to where it is there (default camera.yaml)",
    )
    parser.add_argument("--serial", metavar="SERIAL", help="the camera's serial number: isp-stream refuses others")
    add_format(parser)
    return parser


def _add_colour(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "colour",
        "White balance and colour matrix from a chart. The frame shows a ColorChecker Classic of 24 patches, whole, "
        "evenly lit and not clipped, in the light that the camera will work in.",
    )
    parser.add_argument("frames", nargs=1, metavar="FRAME", help="file with a frame; of several their mean is measured")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--corners",
        type=float,
        nargs=8,
        metavar=("X", "Y") * 4,
        help="where the chart is, in pixels: the centres of the patches dark skin, bluish green, black and white, in "
        "this order (default: it is looked for)",
    )
    where.add_argument(
        "--charts",
        type=Path,
        metavar="FILE",
        help='where it is: {FRAME: {"patches": [{"index": 1 to 24, "polygon_xy": [[x, y], four times]}, ...]}} in JSON',
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png",
        help="write the chart as it is developed before and after, with the right colour inside each patch",
    )
    parser.add_argument(
        "--haze",
        action="store_true",
        help="take off what lies over the whole chart as haze or flare does before the matrix is fitted",
    )
    parser.set_defaults(run=_colour)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-calibrate` and returns its exit code."""
    args = make_parser().parse_args(argv)
    try:
        file = CalibrationFile(args.output)
        args.run(args, file, take(args.frames, args, file))
    except UserError as error:
        sys.stderr.write(f"isp-calibrate: error: {error}\n")
        return 2
    return 0


def _colour(args: argparse.Namespace, file: CalibrationFile, taken: Taken) -> None:
    from .colour import calibrate_colour, corners_of, report
    from .picture import require_png, write_check

    if args.picture is not None:
        require_png(args.picture)
    result = calibrate_colour(taken, corners_of(taken, args.charts, args.corners), haze=args.haze)
    if args.picture is not None:
        write_check(args.picture, result.pictures, result.gain, result.corners)
    values = {"white_balance": result.white_balance.tolist(), "colour_matrix": result.matrix.tolist()}
    before, after = (
        {"mean": round(result.mean(each), 2), "worst": round(result.worst(each)[1], 2), "of": result.worst(each)[0]}
        for each in (result.before, result.after)
    )
    record = {"ciede2000_before": before, "ciede2000_after": after}
    file.add("colour", taken.raw_format, said_levels(args) | values, taken.to_json() | record, args.serial)
    _say(*report(result), _written(args, "white_balance, colour_matrix"))


def _written(args: argparse.Namespace, keys: str) -> str:
    return f"{args.output}: {', '.join([keys, *said_levels(args)])}"


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
