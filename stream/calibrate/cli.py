"""`isp-calibrate`: its command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...engines.errors import UserError
from ...engines.flat_field import to_json
from .file import CalibrationFile
from .frames import Taken, add_format, said_levels, take

_EPILOG = (
    "Frames: a .npy, .raw, .bin or grey .png file with FILE.yaml beside it (isp-stream --snap writes such), or with "
    "what its samples are by flags. isp-stream --config FILE applies the calibration, isp-stream --config "
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="{dark,flat,grey,colour}")
    _add_sensor(commands)
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


def _add_sensor(commands: argparse._SubParsersAction) -> None:
    dark = _add(
        commands,
        "dark",
        "Black level, read noise and defect pixels from frames without light. Take 16 or more with the cap on, with"
        " the exposure and gain that the camera will work at.",
    )
    flat = _add(
        commands,
        "flat",
        "Flat field, and dead and odd pixels, from frames of an even surface. Take 16 or more of a white wall or "
        "through a diffuser, out of focus, not clipped, with the lens and aperture to work with; after isp-calibrate "
        "dark, whose black level is in the calibration file. Both hold for frames of this size at this place on the "
        "sensor.",
    )
    for parser, run in ((dark, _dark), (flat, _flat)):
        parser.add_argument("frames", nargs="+", metavar="FRAMES", help="files with frames, 4 or more altogether")
        parser.set_defaults(run=run)
    grey = _add(commands, "grey", "White balance from a grey card. It is not clipped, and in the light to work in.")
    grey.add_argument("frames", nargs=1, metavar="FRAME", help="file with a frame; of several their mean is measured")
    grey.add_argument(
        "--area",
        type=int,
        nargs=4,
        metavar=("X", "Y", "W", "H"),
        help="where the card is, in pixels: left, top, width, height (default: a quarter of the frame each way, in its "
        "middle)",
    )
    grey.set_defaults(run=_grey)


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
        args.run(args, file, take(args.frames, args, file, mend=args.command in ("grey", "colour")))
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
    _add_to(file, "colour", args, taken, values, record)
    _say(*report(result), _written(args, "white_balance, colour_matrix"))


def _dark(args: argparse.Namespace, file: CalibrationFile, taken: Taken) -> None:
    from .sensor import calibrate_dark, report_dark

    result = calibrate_dark(taken)
    values = {"black_level": result.black_level, "defects": _together(file, result.defects)}
    record = {"black_level": result.sites, "read_noise": round(result.read_noise, 3)}
    record |= {"fixed_pattern": round(result.pattern, 3), "defects": len(result.defects)}
    _add_to(file, "dark", args, taken, values, record)
    others = file.of_other_black(result.black_level)
    again = f"note: measured with another black level, so measure again: {', '.join(others)}"
    _say(*report_dark(result), f"{args.output}: black_level, {_count(values['defects'])}", *([again] if others else []))


def _flat(args: argparse.Namespace, file: CalibrationFile, taken: Taken) -> None:
    from .sensor import calibrate_flat, report_flat

    result = calibrate_flat(taken)
    values = {"defects": _together(file, result.defects), "flat_field": to_json(result.field.mesh)}
    left = {colour: round(value, 4) for colour, value in result.field.left.items()}
    record = {"defects": len(result.defects), "darkest_corner": result.shading, "uneven_after": left}
    _add_to(file, "flat", args, taken, values, record)
    _say(*report_flat(result), _written(args, f"{_count(values['defects'])}, flat_field"))


def _grey(args: argparse.Namespace, file: CalibrationFile, taken: Taken) -> None:
    from .sensor import calibrate_grey, report_grey

    result = calibrate_grey(taken, args.area)
    values = {"white_balance": result.white_balance.tolist()}
    record = {"area": list(result.area)}
    _add_to(file, "grey", args, taken, values, record)
    _say(*report_grey(result), _written(args, "white_balance"))


def _add_to(
    file: CalibrationFile,
    kind: str,
    args: argparse.Namespace,
    taken: Taken,
    values: dict[str, Any],
    record: dict[str, Any],
) -> None:
    """Adds a measurement to the file, and says where it may be wrong. Raises UserError."""
    with_black = {} if kind == "dark" else {"black_level": taken.raw_format.black_level}
    record = taken.to_json() | with_black | record
    file.add(kind, taken.raw_format, said_levels(args) | values, record, args.serial, taken.offset)
    if taken.unknown_black and kind != "dark":
        _say("note: nothing says what the black level is, and 0 is taken: run isp-calibrate dark, then this again")


def _together(file: CalibrationFile, found: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The defects that stand in the file and these, each once, by rows."""
    both = sorted({*file.defects, *found}, key=lambda place: (place[1], place[0]))
    return [list(place) for place in both]


def _count(defects: list[list[int]]) -> str:
    return f"defects ({len(defects)} altogether)"


def _written(args: argparse.Namespace, keys: str) -> str:
    return f"{args.output}: {', '.join([keys, *said_levels(args)])}"


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
