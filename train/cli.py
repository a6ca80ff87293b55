"""The commands of training: `isp-train` and `isp-export`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.errors import UserError
from .entry import INTERRUPTED

if TYPE_CHECKING:
    from .stages import Stage


def make_export_parser() -> argparse.ArgumentParser:
    """The command line of `isp-export`."""
    parser = argparse.ArgumentParser(
        prog="isp-export",
        description="Turns a checkpoint of a training run into a model core for engines (.onnx), or a torch program "
        "for the torch engine on a GPU (.pt2). A network that denoises or enhances pictures becomes a plain ONNX or "
        "torch program of pictures.",
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
    parser.add_argument("--name", default="", help="what engines call it (default: the name of the network)")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    return parser


def export(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-export` and returns its exit code."""
    args = make_export_parser().parse_args(argv)
    output = args.output or args.checkpoint.parent / f"{args.checkpoint.stem}.onnx"
    return run("isp-export", lambda: _export(args.checkpoint, output, args.name, args.force))


def make_train_parser() -> argparse.ArgumentParser:
    """The command line of `isp-train`."""
    parser = argparse.ArgumentParser(
        prog="isp-train",
        description="Trains a model as a recipe says. What it leaves is in runs/NAME: the recipe, metrics.jsonl and "
        "last.pt, which isp-export turns into a model core, as it does best.pt and step-*.pt, if the recipe asks for "
        "them. Over several GPUs or hosts: torchrun --nproc-per-node N "
        "--no-python isp-train RECIPE.",
        epilog="Exit codes: 0 done, 1 the gain that the recipe asks for was missed or the loss is no number any more, "
        "2 bad input, 130 stopped by Ctrl-C or SIGTERM, after a checkpoint.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", type=Path, nargs="?", metavar="RECIPE", help="recipe (.yaml), as in configs/train")
    add_settings(parser, " of the recipe", "optim.lr=1e-4 or data.train.0.crop=192")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="the data of a recipe that has a variable of this name, such as your own pairs",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run's last checkpoint; from the start where there is none",
    )
    parser.add_argument("--data-sets", action="store_true", help="say how to get each data set, and end")
    return parser


def train(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-train` and returns its exit code."""
    parser = make_train_parser()
    args = parser.parse_args(argv)
    if args.recipe is None and not (args.settings or args.data_sets):
        parser.error("name a recipe, such as configs/train/lwisp-quick.yaml")
    return run("isp-train", lambda: _train(args))


def add_settings(parser: argparse.ArgumentParser, of: str, such_as: str) -> None:
    """--set, which changes settings " of the recipe", such as "optim.lr=1e-4"; and --settings."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"change a setting{of}, such as {such_as} (may be repeated)",
    )
    parser.add_argument("--settings", action="store_true", help=f"list all settings{of}, and end")


def add_folder(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """-o, the folder that `what` is written to as a `WholeFolder`, and --force."""
    parser.add_argument("-o", "--output", type=Path, metavar=metavar, help=f"folder to write {what} to; new or empty")
    parser.add_argument("--force", action="store_true", help=f"replace the folder if it holds results of {parser.prog}")


def run(command: str, work: Callable[[], int | None]) -> int:
    """Does the work of a command and returns its exit code, 0 for None; what the user can mend is one line on stderr
    and 2."""
    try:
        return work() or 0
    except UserError as error:
        sys.stderr.write(f"{command}: error: {error}\n")
        return 2
    except KeyboardInterrupt:  # of a command that did not begin in `entry`
        return INTERRUPTED


def _export(source: Path, output: Path, name: str, force: bool) -> None:
    if os.path.exists(output) and not force:  # unlike Path.exists, no for a name that is too long
        raise UserError(f"{output} exists already; name another file, or replace it with --force")
    with needed():
        from .checkpoint import load_checkpoint
        from .export import export_checkpoint

    info = export_checkpoint(load_checkpoint(source), output, name)
    size = output.stat().st_size / 1e6
    sys.stdout.write(f"{output}: {info.name}, {info.precision}, {size:.1f} MB, weights {info.sha256[:12]}\n")


def _train(args: argparse.Namespace) -> int:
    with needed():
        from .data.readers import data_sets, how_to_get
        from .fit import TrainingFault
        from .stages import check_inputs, describe_settings, read_stages

    if args.settings:
        sys.stdout.write("\n".join(describe_settings()) + "\n")
        return 0
    if args.data_sets:
        sys.stdout.write("\n\n".join(f"{name}\n  {how_to_get(name)}" for name in data_sets()) + "\n")
        return 0
    stages = read_stages(args.recipe, args.set, [] if args.data is None else [f"data={args.data}"])
    check_inputs(stages)
    for stage in stages:
        try:
            code = _train_stage(stage, args.resume)
        except TrainingFault as error:
            sys.stderr.write(f"isp-train: error: {error}\n")
            return 1
        if code:
            return code
    return 0


def _train_stage(stage: Stage, resume: bool) -> int:
    from .config import TrainConfig
    from .fit import train as fit
    from .stages import other_stage

    config = stage.config
    if not isinstance(config, TrainConfig):
        return other_stage(config, stage.folder, resume=resume)
    done = fit(config, resume=resume)
    gained = f"{done.start_db:.2f} dB before, {done.end_db:.2f} dB after"
    if not int(os.environ.get("RANK", 0)):
        sys.stdout.write(f"{done.checkpoint}: {config.model.name}, {done.steps} steps, validation {gained}\n")
        if done.best:
            sys.stdout.write(f"{done.checkpoint.with_name('best.pt')}: {done.best}\n")
    if done.improved:
        return 0
    sys.stderr.write(f"isp-train: {gained}: the recipe asks for {config.validation.improve_db} dB more\n")
    return 1


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Around imports of what only the extra `train` installs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "lightning_fabric"):
            raise
        name = error.name.replace("_", "-")
        raise UserError(f"{name} is not installed; install it with: pip install 'ispeed[train]'") from error
