"""`isp-bench`: its command line."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engines.bayer import RawFormat
from ..engines.errors import UserError
from .develop_cli import add_develop, run_develop_command
from .pipeline import PipelineError, Settings

_EPILOG = "Exit codes: 0 target reached, 1 target missed or the pipeline failed, 2 bad input."


def make_parser() -> argparse.ArgumentParser:
    """The command line: without a command the benchmark at a given rate, else one of the others."""
    parser = argparse.ArgumentParser(
        prog="isp-bench",
        description="Benchmarks the real pipeline with a camera (by default the simulated one) at a given rate. "
        "The target: that rate within 1 %, and no frame lost outside the times when the machine itself stood still.",
        epilog=_EPILOG,
    )
    _add_run(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="other benchmarks")
    _add_compare(_command(commands, "compare", "our engine against OpenCV's, our transport against imagezmq"))
    _add_memory(_command(commands, "memory", "does memory grow, and does anything allocate a frame per frame?"))
    _add_kill(_command(commands, "kill", "kills every process of the pipeline, and presses Ctrl-C at any moment"))
    _add_soak(_command(commands, "soak", "one fault after the other, of every kind, for a million frames"))
    _add_max(_command(commands, "max", "the highest rate held without loss"))
    _add_engines(_command(commands, "engines", "every engine that this machine can run, on the same frames"))
    _add_monitor(_command(commands, "monitor", "does the monitor, with clients that look, cost the pipeline a frame?"))
    _add_record(_command(commands, "record", "the rate at which raw frames are recorded, against dd"))
    _add_pretrigger(_command(commands, "pretrigger", "triggers in a row: is every frame recorded, byte for byte?"))
    add_develop(_command(commands, "develop", "what a second worker is worth to isp-develop, on a Ray cluster or not"))
    _add_train(_command(commands, "train", "does training wait for its samples, or what does a loss cost?"))
    _add_fuzz(_command(commands, "fuzz", "wrong inputs for everything that reads what others wrote"))
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=text[0].upper() + text[1:], epilog=_EPILOG)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_camera(parser, 1000.0, 640, 480, "BayerRG8")
    parser.add_argument("--seconds", type=_positive, default=30.0, help="seconds to measure (default %(default)g)")
    parser.add_argument("--subscribers", type=_count, default=1, help="subscriber processes (default %(default)s)")
    parser.add_argument("--repeat", type=_count, default=1, help="runs, with medians at the end (default %(default)s)")
    _add_warm_up(parser)
    _add_out(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=_count, default=1280, help="pixels (default %(default)s)")
    parser.add_argument("--height", type=_count, default=1024, help="pixels (default %(default)s)")
    parser.add_argument("--pixel-format", default="BayerRG12", help="of the raw frames (default %(default)s)")
    parser.add_argument("--repeat", type=_count, default=5, help="runs of each, in turn (default %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=2.0, help="length of one run (default %(default)g)")
    parser.add_argument(
        "--only", action="append", choices=("engine", "transport", "subscribers"), help="one part (may be repeated)"
    )
    _add_out(parser)


def _add_memory(parser: argparse.ArgumentParser) -> None:
    _add_camera(parser, 1000.0, 640, 480, "BayerRG8")
    parser.add_argument("--minutes", type=_positive, default=10.0, help="length of the run (default %(default)g)")
    parser.add_argument(
        "--settle",
        type=_positive,
        default=60.0,
        metavar="S",
        help="seconds before the watch begins (default %(default)g)",
    )
    _add_out(parser)


def _add_kill(parser: argparse.ArgumentParser) -> None:
    _add_camera(parser, 200.0, 320, 240, "BayerRG8")
    parser.add_argument("--times", type=_count, default=50, help="turns of each scenario (default %(default)s)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="X",
        help="subscriber, grab, develop, main or ctrl-c (may be repeated)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (default %(default)s)")
    _add_out(parser)


def _add_soak(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=_count, default=1_000_000, help="frames to see (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and their moments (default %(default)s)")
    parser.add_argument("--cameras", type=_count, default=1, help="simulated cameras, at most 2 (default %(default)s)")
    parser.add_argument("--fps", type=_positive, default=1000.0, help="of each camera, Hz (default %(default)g)")
    parser.add_argument("--width", type=_count, default=160, help="pixels, at least 128 (default %(default)s)")
    parser.add_argument("--height", type=_count, default=120, help="pixels (default %(default)s)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="FAULT", help="a fault by its name (may be repeated)"
    )
    _add_out(parser)


def _add_max(parser: argparse.ArgumentParser) -> None:
    _add_camera(parser, None, 1280, 1024, "BayerRG8")
    parser.add_argument("--seconds", type=_positive, default=4.0, help="seconds of each try (default %(default)g)")
    parser.add_argument(
        "--confirm", type=_positive, default=15.0, metavar="S", help="seconds of the last run (default %(default)g)"
    )
    _add_warm_up(parser)
    _add_out(parser)


def _add_monitor(parser: argparse.ArgumentParser) -> None:
    _add_camera(parser, 1000.0, 640, 480, "BayerRG8")
    parser.add_argument("--seconds", type=_positive, default=20.0, help="seconds of each run (default %(default)g)")
    parser.add_argument("--clients", type=_count, default=5, help="WebSockets that look (default %(default)s)")
    parser.add_argument(
        "--picture-fps", type=_positive, default=5.0, help="pictures a second of each (default %(default)g)"
    )
    parser.add_argument("--repeat", type=_count, default=5, help="rounds (default %(default)s)")
    parser.add_argument(
        "--record",
        type=Path,
        default=None,
        metavar="DIR",
        help="a third run in each round, which records there too",
    )
    _add_warm_up(parser)
    _add_out(parser)


def _add_engines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="X",
        help="as in isp-stream (may be repeated; default: classic and every model that ships)",
    )
    parser.add_argument("--camera", default="0", help="whose frames: index or serial number (default %(default)s)")
    parser.add_argument("--width", type=_count, default=640, help="pixels (default %(default)s)")
    parser.add_argument("--height", type=_count, default=480, help="pixels (default %(default)s)")
    parser.add_argument("--pixel-format", default="BayerRG8", help="PFNC name (default %(default)s)")
    parser.add_argument("--threads", type=_count, default=None, help="engine threads (default: the engine's choice)")
    parser.add_argument("--repeat", type=_count, default=5, help="rounds over all engines (default %(default)s)")
    parser.add_argument(
        "--seconds", type=_positive, default=2.0, help="length of one measurement (default %(default)g)"
    )
    parser.add_argument(
        "--colour-matrix",
        type=float,
        nargs=9,
        default=None,
        metavar="M",
        help="camera RGB to linear sRGB, row by row, for the classic engine's pictures, which are the reference",
    )
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE", help="draw the rates into a PNG file")
    _add_out(parser)


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=_count, default=640, help="pixels (default %(default)s)")
    parser.add_argument("--height", type=_count, default=480, help="pixels (default %(default)s)")
    parser.add_argument("--pixel-format", default="BayerRG12p", help="of the raw frames (default %(default)s)")
    parser.add_argument("--mib", type=_count, default=1024, help="size of a recording in MiB (default %(default)s)")
    parser.add_argument("--repeat", type=_count, default=7, help="rounds, each of all (default %(default)s)")
    _add_folder(parser)
    _add_out(parser)


def _add_pretrigger(parser: argparse.ArgumentParser) -> None:
    _add_camera(parser, 1000.0, 640, 480, "BayerRG12p")
    parser.add_argument("--triggers", type=_count, default=20, help="how many (default %(default)s)")
    parser.add_argument("--pre", type=_positive, default=2.0, help="seconds before a trigger (default %(default)g)")
    parser.add_argument("--post", type=_positive, default=0.5, help="seconds after it (default %(default)g)")
    _add_folder(parser)
    _add_out(parser)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, default=Path("."), help="folder on the disk to write to (default: this one)"
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", type=Path, nargs="?", metavar="RECIPE", help="recipe as for isp-train (default: rendered scenes)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting of the recipe, such as data.workers=4 or, for photographs, "
        "'data.train=[{source: photos, folder: DIR, crop: 128, repeats: 40}]' (may be repeated)",
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="X", help="network to train (may be repeated; default: all)"
    )
    parser.add_argument(
        "--steps", type=_count, default=60, help="steps of a run, the first sixth not measured (default %(default)s)"
    )
    parser.add_argument("--repeat", type=_count, default=3, help="rounds over all models (default %(default)s)")
    parser.add_argument(
        "--without",
        default=None,
        metavar="LOSS",
        help="measure instead what one of the recipe's losses costs: the same steps on one batch with it and without "
        "it, in turn; the target: it makes a step longer by less than 15 %%",
    )
    _add_out(parser)


def _add_fuzz(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inputs", type=_count, default=1_000_000, help="of all targets together (default %(default)s)"
    )
    parser.add_argument(
        "--engine",
        choices=("both", "atheris", "hypothesis", "mutator"),
        default="both",
        help="what makes them: atheris (guided by coverage), hypothesis, both, or mutator, which is fast and needs "
        "nothing installed (default %(default)s)",
    )
    parser.add_argument("--target", action="append", default=[], metavar="X", help="one of them (may be repeated)")
    parser.add_argument("--seed", type=int, default=1, help="of the generators (default %(default)s)")
    parser.add_argument(
        "--findings",
        type=Path,
        default=Path("runs/fuzz"),
        metavar="DIR",
        help="folder for the inputs of findings (default %(default)s)",
    )
    parser.add_argument("--replay", type=Path, default=None, metavar="FILE", help="feed one kept input again")
    _add_out(parser)


def _add_camera(parser: argparse.ArgumentParser, fps: float | None, width: int, height: int, pixel_format: str) -> None:
    if fps is not None:
        parser.add_argument("--fps", type=_positive, default=fps, help="camera's frame rate, Hz (default %(default)g)")
    parser.add_argument("--width", type=_count, default=width, help="pixels (default %(default)s)")
    parser.add_argument("--height", type=_count, default=height, help="pixels (default %(default)s)")
    parser.add_argument("--pixel-format", default=pixel_format, help="PFNC name (default %(default)s)")
    parser.add_argument("--camera", default="0", help="index or serial number (default %(default)s)")
    parser.add_argument("--engine", default="classic", help="as in isp-stream (default %(default)s)")
    parser.add_argument(
        "--policy", choices=("every", "latest", "block"), default="every", help="as in isp-stream (default %(default)s)"
    )
    parser.add_argument("--slots", type=_count, default=None, help="slots in each ring (default: isp-stream's own)")
    parser.add_argument("--threads", type=_count, default=None, help="engine threads (default: the engine's choice)")


def _add_warm_up(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--warm-up",
        type=_positive,
        default=2.0,
        metavar="S",
        help="seconds that are not measured (default %(default)g)",
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="write the figures as JSON")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return value


def _require_place(file: Path | None) -> None:
    """Raises UserError if a file cannot be written there."""
    if file is not None and not file.absolute().parent.is_dir():
        raise UserError(f"cannot write {file}: there is no folder {file.absolute().parent}")
    if file is not None and file.is_dir():
        raise UserError(f"cannot write {file}: it is a folder; name a file")


def _settings(options: argparse.Namespace) -> Settings:
    names = ("width", "height", "pixel_format", "camera", "engine", "policy", "slots", "threads")
    return Settings(fps=getattr(options, "fps", None), **{name: getattr(options, name) for name in names})


def run(argv: Sequence[str]) -> int:
    """Runs `isp-bench` with `argv` and returns its exit code."""
    options = make_parser().parse_args(argv)
    try:
        _require_place(options.out)
        return _COMMANDS[options.command](options)
    except UserError as error:
        sys.stderr.write(f"isp-bench: error: {error}\n")
        return 2
    except (PipelineError, ProcessLookupError) as error:
        sys.stderr.write(f"isp-bench: {error}\n")
        return 1


def _run(options: argparse.Namespace) -> int:
    from .rate import benchmark

    return benchmark(
        _settings(options), options.seconds, options.subscribers, options.repeat, options.warm_up, options.out
    )


def _compare(options: argparse.Namespace) -> int:
    from .compare import run_compare

    size = (options.width, options.height, options.pixel_format)
    return run_compare(*size, options.repeat, options.seconds, options.only, options.out)


def _memory(options: argparse.Namespace) -> int:
    from .memory import run_memory

    if options.minutes * 60 <= options.settle:
        raise UserError(f"--minutes {options.minutes:g} ends before --settle {options.settle:g} seconds are over")
    return run_memory(_settings(options), options.minutes, options.settle, options.out)


def _kill(options: argparse.Namespace) -> int:
    from .kill import run_kill

    return run_kill(_settings(options), options.times, options.only, options.seed, options.out)


def _soak(options: argparse.Namespace) -> int:
    from .soak import run_soak
    from .soak_subscriber import STRIP_PIXELS

    if options.cameras > 2:
        raise UserError(f"--cameras {options.cameras}: there are two simulated cameras")
    if options.width < STRIP_PIXELS:
        raise UserError(f"--width {options.width}: the number that is looked for in each frame needs {STRIP_PIXELS}")
    size = (options.width, options.height)
    return run_soak(options.frames, options.seed, options.cameras, options.fps, *size, options.only, options.out)


def _max(options: argparse.Namespace) -> int:
    from .maxrate import run_max

    return run_max(_settings(options), options.seconds, options.confirm, options.warm_up, options.out)


def _monitor(options: argparse.Namespace) -> int:
    from .monitor import run_monitor

    looks = (options.clients, options.picture_fps, options.repeat)
    return run_monitor(_settings(options), options.seconds, *looks, options.warm_up, options.record, options.out)


def _engines(options: argparse.Namespace) -> int:
    from .engines import run_engines

    fmt = RawFormat(options.width, options.height, options.pixel_format)
    _require_place(options.plot)
    if options.plot is not None:
        from .engine_plot import require_plot

        require_plot(options.plot)  # now, and not when all is measured
    if fmt.cfa == "MONO":
        raise UserError(f"{options.pixel_format} has no colours to compare; use a Bayer format")
    limits = (options.threads, options.repeat, options.seconds)
    return run_engines(options.engine, fmt, options.camera, *limits, options.out, options.plot, options.colour_matrix)


def _train(options: argparse.Namespace) -> int:
    from .loss_cost import run_loss_cost
    from .training import run_train

    asked = (options.recipe, options.set, options.model, options.steps, options.repeat)
    if options.without is not None:
        return run_loss_cost(*asked, options.without, options.out)
    return run_train(*asked, options.out)


def _record(options: argparse.Namespace) -> int:
    from .record import run_record

    fmt = RawFormat(options.width, options.height, options.pixel_format)
    return run_record(fmt, options.mib, options.repeat, options.folder, options.out)


def _pretrigger(options: argparse.Namespace) -> int:
    from .pretrigger import run_pretrigger

    asked = (options.triggers, options.pre, options.post, options.folder)
    return run_pretrigger(_settings(options), *asked, options.out)


def _fuzz(options: argparse.Namespace) -> int:
    from .fuzz import replay, run_fuzz

    if options.replay is not None:
        return replay(options.replay, options.target)
    return run_fuzz(options.inputs, options.engine, options.target, options.seed, options.findings, options.out)


_COMMANDS = {
    None: _run,
    "compare": _compare,
    "memory": _memory,
    "kill": _kill,
    "soak": _soak,
    "max": _max,
    "engines": _engines,
    "monitor": _monitor,
    "record": _record,
    "pretrigger": _pretrigger,
    "develop": run_develop_command,
    "train": _train,
    "fuzz": _fuzz,
}
