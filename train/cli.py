"""The commands of training. So far `isp-export`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..engines.errors import UserError
from .entry import INTERRUPTED


def make_export_parser() -> argparse.ArgumentParser:
    """The command line of `isp-export`."""
    parser = argparse.ArgumentParser(
        prog="isp-export",
        description="Turns a checkpoint of a training run into a model core for engines (.onnx), or a torch program "
        "for the torch engine on a GPU (.pt2).",
        epilog="Exit codes: 0 done, 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint to read (.pt)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=None,
        metavar="FILE",
        help="file to write, .onnx or .pt2 (default: the checkpoint's name with .onnx)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    return parser


def export(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-export` and returns its exit code."""
    args = make_export_parser().parse_args(argv)
    output = args.output or args.checkpoint.parent / f"{args.checkpoint.stem}.onnx"
    return run("isp-export", lambda: _export(args.checkpoint, output, args.force))


def run(command: str, work: Callable[[], object]) -> int:
    """Does the work of a command and returns its exit code; what the user can mend is one line on stderr."""
    try:
        work()
    except UserError as error:
        sys.stderr.write(f"{command}: error: {error}\n")
        return 2
    except KeyboardInterrupt:  # of a command that did not begin in `entry`
        return INTERRUPTED
    return 0


def _export(source: Path, output: Path, force: bool) -> None:
    if os.path.exists(output) and not force:  # unlike Path.exists, no for a name that is too long
        raise UserError(f"{output} exists already; name another file, or replace it with --force")
    try:
        from .checkpoint import load_checkpoint
        from .export import export_checkpoint
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UserError("torch is not installed; install it with: pip install 'ispeed[train]'") from error

    info = export_checkpoint(load_checkpoint(source), output)
    size = output.stat().st_size / 1e6
    sys.stdout.write(f"{output}: {info.model}, {info.precision}, {size:.1f} MB, weights {info.sha256[:12]}\n")
