"""`isp-build`: its command line."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .colour import checked_matrix
from .errors import UserError
from .flat_field import checked_mesh
from .inputs import CAMERA
from .measured import Measured
from .settings import Settings, make_settings, read_yaml

if TYPE_CHECKING:
    from .build import BuildRequest, Built, Reporter

_EPILOG = (
    "Frames: a .npy, .raw, .bin or grey .png file with FILE.yaml beside it (isp-stream --snap writes such), or with "
    "what its samples are behind it: 'FILE?width=512&height=512&format=BayerRG12&black=0&white=4095'. "
    "Exit codes: 0 done, 1 the picture suffers more than the quality gate allows, 2 bad input."
)

_OPTICS = (("iso", "N", "ISO sensitivity"), ("f-number", "N", "f-number"), ("focal-length-mm", "MM", "focal length"))
"""Flags for what else a core may be told: name, placeholder, and what it is."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="isp-build",
        description="Builds what an engine runs of a model core: a TensorRT plan for one raw format, or a core in int8 "
        "for the CPU engine. A build whose picture falls behind float32 by more than allowed is refused.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="?", help="name of a model that ships, such as lwisp, or a core (.onnx)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write (default: MODEL.plan)")
    parser.add_argument(
        "--backend",
        choices=("tensorrt", "tensorrt_rtx", "openvino"),
        default="tensorrt",
        help="what will run it: tensorrt (built on its GPU), tensorrt_rtx (RTX GPUs, built anywhere), openvino (a core "
        "in int8 for the processor) (default %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "int8", "fp8"),
        default="fp16",
        help="of the network; int8 and fp8 are calibrated on the frames (default %(default)s)",
    )
    _add_format(parser)
    _add_target(parser)
    _add_quality(parser)
    parser.add_argument("--inspect", type=Path, metavar="FILE", help="say what a plan or a core is, check it, and end")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def _add_format(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the frames that a plan will see", "What is not given is as the frames have it.")
    group.add_argument("--pixel-format", metavar="NAME", help="PFNC name, such as BayerRG12p")
    group.add_argument("--size", type=_size, metavar="WxH", help="width and height in pixels, such as 1280x1024")
    group.add_argument("--black-level", type=float, metavar="DN", help="sample value of no light")
    group.add_argument("--white-level", type=float, metavar="DN", help="sample value of saturation")
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="what isp-calibrate wrote: defects and flat_field in it are built into the plan, which then takes those "
        "and no others; levels and colour matrix in it are as those given by flags, which go before it (default: none)",
    )
    group.add_argument("--camera", default="0", metavar="X", help="index or serial number (default %(default)s)")


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the plan")
    group.add_argument(
        "--batch",
        type=_batches,
        default=(1, 1, 1),
        metavar="MIN,OPT,MAX",
        help="frames per run: fewest, usual and most, such as 1,4,8; one number N is 1,N,N (default 1)",
    )
    group.add_argument(
        "--compute-capability",
        type=_capabilities,
        default=(),
        metavar="X.Y,...",
        help="GPUs to build for, such as 8.6,8.9 (default: the GPU here, else all that tensorrt_rtx knows)",
    )
    group.add_argument("--no-cache", action="store_true", help="build anew, and keep no copy in the cache of plans")


def _add_quality(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "calibration and the quality gate", "In int8 and fp8 every other frame calibrates, and the rest are measured."
    )
    group.add_argument(
        "--frames",
        action="append",
        default=[],
        metavar="FILE",
        help="raw frames (may be repeated) (default: 16 frames from the camera)",
    )
    group.add_argument(
        "--reference",
        type=Path,
        metavar="PATH",
        help="pictures that the frames should give, sRGB: a folder of PNG files in their order, or a .npy file uint8 "
        "[N, H, W, 3] (default: the classic engine's)",
    )
    group.add_argument(
        "--white-balance", type=float, nargs=3, metavar=("R", "G", "B"), help="gains (default: each frame's grey world)"
    )
    group.add_argument(
        "--exposure-us",
        type=_number,
        metavar="T",
        help="exposure with which the frames were taken, for cores that are told it (default: what they say)",
    )
    group.add_argument(
        "--gain-db",
        type=_number,
        metavar="DB",
        help="gain of the camera with which they were taken, likewise (default: what they say)",
    )
    for name, metavar, what in _OPTICS:
        group.add_argument(
            f"--{name}",
            type=_above_0,
            metavar=metavar,
            help=f"{what} with which they were taken, likewise (default: what they say, else not known)",
        )
    group.add_argument(
        "--colour-matrix",
        type=float,
        nargs=9,
        metavar="M",
        help="camera RGB to linear sRGB, row by row, for the classic engine's pictures, for cores that give light, and "
        "for those that are told the matrix",
    )
    group.add_argument(
        "--max-drop",
        type=float,
        metavar="DB",
        help="PSNR against the reference that may be lost (default 0.1; 0.3 in int8 and fp8)",
    )
    group.add_argument("--no-gate", action="store_true", help="build without measuring; the plan says so")


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, such as 1280x1024, not {text}")
    return int(width), int(height)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a number, not {text}")
    return number


def _above_0(text: str) -> float:
    if (number := _number(text)) <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}: leave it out where it is not known")
    return number


def _batches(text: str) -> tuple[int, int, int]:
    parts = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if len(parts) not in (1, 3) or min(parts) < 1:
        raise argparse.ArgumentTypeError(f"must be one number or MIN,OPT,MAX, such as 1,4,8, not {text}")
    return (1, parts[0], parts[0]) if len(parts) == 1 else (parts[0], parts[1], parts[2])


def _capabilities(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        major, dot, minor = name.partition(".")
        if not (dot and major.isdecimal() and minor.isdecimal()):
            raise argparse.ArgumentTypeError(f"must be numbers such as 8.6,8.9, not {text}")
    return names


def main(argv: Sequence[str]) -> int:
    """Runs `isp-build` with `argv` and returns its exit code."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        if options.inspect is not None:
            from .inspect_plan import inspect

            _say(inspect(options.inspect, as_json=options.json))
            return 0
        if not options.model:
            parser.error("give a model, such as lwisp, or --inspect FILE")
        return _build(options, argv)
    except UserError as error:
        sys.stderr.write(f"isp-build: error: {error}\n")
        return 2


def _build(options: argparse.Namespace, argv: Sequence[str]) -> int:
    from .build import build
    from .gate import BelowGate

    request = _request(options, argv)
    try:
        with _reporter() as report:
            built = build(request, report)
    except BelowGate as error:
        sys.stderr.write(f"isp-build: {error}\n")
        return 1
    _say(_as_json(built) if options.json else _in_words(built))
    return 0


def _request(options: argparse.Namespace, argv: Sequence[str]) -> BuildRequest:
    from .build import BuildRequest

    suffix = "-int8.onnx" if options.backend == "openvino" else ".plan"
    same = ("model", "backend", "precision", "pixel_format", "size", "camera")
    calibrated = {} if options.calibration is None else _calibration(options.calibration)
    if options.colour_matrix is not None:
        calibrated["colour_matrix"] = checked_matrix(np.reshape(options.colour_matrix, (3, 3)))
    for name in ("black_level", "white_level"):
        if (level := getattr(options, name)) is not None:
            calibrated[name] = level
    return BuildRequest(
        **{name: getattr(options, name) for name in (*same, "reference", *CAMERA)},
        **calibrated,
        output=options.output or Path(Path(options.model).stem + suffix),
        frames=tuple(options.frames),
        white_balance=None if options.white_balance is None else tuple(options.white_balance),
        batches=options.batch,
        compute_capabilities=options.compute_capability,
        max_drop_db=options.max_drop,
        gate=not options.no_gate,
        cache=not options.no_cache,
        command=shlex.join(["isp-build", *argv]),
    )


class _Calibrated(Settings):
    """What a calibration file says that a build takes."""

    defects: tuple[tuple[int, int], ...] = ()
    """defect pixels as (x, y)"""
    flat_field: dict[str, Any] | None = None
    """gains against shading"""
    colour_matrix: list[list[float]] | None = None
    """3x3, camera RGB to linear sRGB"""
    black_level: float | None = None
    """black level in DN"""
    white_level: float | None = None
    """white level in DN"""
    measured: Measured | None = None
    """on which frames it was measured"""


def _calibration(path: Path) -> dict[str, Any]:
    """What a calibration file says, by the fields of `BuildRequest`. Raises UserError."""
    values = {name: value for name, value in read_yaml(path).items() if name in _Calibrated.model_fields}
    try:
        said = make_settings(_Calibrated, values, "isp-calibrate --help")
        if said.flat_field is not None:
            checked_mesh(said.flat_field)
        matrix = None if said.colour_matrix is None else checked_matrix(said.colour_matrix)
    except UserError as error:
        raise UserError(f"{path}: {error}; write it with isp-calibrate") from None
    found = dict(said) | {"colour_matrix": matrix}
    if not said.defects and all(found[name] is None for name in found if name not in ("defects", "measured")):
        raise UserError(f"{path} has nothing that a build takes, such as defects; leave out --calibration")
    return found


@contextmanager
def _reporter() -> Iterator[Reporter]:
    """Progress on stderr: moving on a terminal, a line per step elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from .build import Reporter

    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal:
        yield Reporter(tell=lambda text: console.print(f"isp-build: {text}"))
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, object] = {}

        def progress(phase: str, done: int, steps: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=max(steps, 1))
            bars.update(tasks[phase], completed=done, visible=done < steps)  # type: ignore[arg-type]

        yield Reporter(tell=lambda text: bars.console.print(text), progress=progress)


def _as_json(built: Built) -> str:
    import json

    values = built.info.to_json() if built.info else {}
    if built.verdict.score and not built.info:
        values = {"score": vars(built.verdict.score), "measured": built.verdict.how}
    return json.dumps({"file": str(built.path), "from_cache": built.from_cache, "in_float": built.in_float, **values})


def _in_words(built: Built) -> str:
    from .inspect_plan import describe

    lines = [f"{built.path}" + (" (from the cache of plans)" if built.from_cache else "")]
    if built.info:
        lines += describe(built.info)
    elif built.verdict.score:
        score = built.verdict.score
        lines.append(
            f"quality: {score.psnr_db:.2f} dB, {score.fp32_db:.2f} in fp32, {score.drop_db:.3f} lost, "
            f"on {score.frames} frames, by {built.verdict.how}"
        )
    if built.in_float:
        lines.append(f"{len(built.in_float)} convolutions stay in float")
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
