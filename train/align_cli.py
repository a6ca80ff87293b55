"""`isp-align`: pairs of a raw frame and another camera's picture, brought to lie on each other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.errors import UserError
from .cli import add_folder, add_settings, needed, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from .alignment.align import Record
    from .alignment.look import Look
    from .alignment.settings import AlignSettings
    from .losses.phase import PhaseMask


def make_parser() -> argparse.ArgumentParser:
    """The command line of `isp-align`."""
    parser = argparse.ArgumentParser(
        prog="isp-align",
        description="Aligns pairs of a high-speed camera's raw frame and another camera's picture of the same scene: "
        "finds how the two lie, cuts out what both see, moves the picture onto the frame along dense flow, and masks "
        "what cannot be relied on. Pairs that would teach something wrong are refused, with the reason. What it leaves "
        "is a data set of the kind folder for isp-train, with a page that shows it.",
        epilog="Exit codes: 0 done, 1 every pair was refused, 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="FOLDER",
        help="pairs: frames in raw/ and pictures in rgb/, or --data-set",
    )
    add_folder(parser, "ALIGNED", "the aligned pairs")
    parser.add_argument(
        "--data-set",
        metavar="NAME",
        help="how the pairs are laid out (default folder; isp-train --data-sets lists them)",
    )
    parser.add_argument(
        "--flow",
        metavar="NAME",
        help="how displacement is found: dis (default), raft, which needs --flow-weights, or none",
    )
    parser.add_argument(
        "--flow-weights", type=Path, metavar="FILE", help="state dict of torchvision's raft_large or raft_small"
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="a checkpoint of the form clean, or the weights of VGG-19, on whose features flow is refined besides",
    )
    parser.add_argument(
        "--registered",
        action="store_true",
        help="frames and pictures share one grid already, but for what flow finds (default: looked at for each pair)",
    )
    add_settings(parser, "", "least_valid=0.5 or options.split=val")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-align` and returns its exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if not args.settings and (args.folder is None or args.output is None):
        parser.error("name the folder of the pairs, and the one to write by -o")
    return run("isp-align", lambda: _align(args))


def _align(args: argparse.Namespace) -> int:
    with needed():
        from .alignment.settings import describe_settings, make_align_settings

    if args.settings:
        sys.stdout.write("\n".join(describe_settings()) + "\n")
        return 0
    named = {name: getattr(args, name) for name in ("data_set", "flow", "flow_weights", "features")}
    values: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if args.registered:
        values["registered"] = "yes"
    settings = make_align_settings(values, args.set)
    return say(align_folder(args.folder, args.output, settings, replace=args.force), args.output)


def say(records: Sequence[Record], output: Path) -> int:
    """Tells what became of pairs, and where to look at them. Returns the exit code."""
    refused = [each for each in records if each.reason is not None]
    for each in refused:
        sys.stderr.write(f"isp-align: {each.name} is refused: {each.reason}\n")
    done = len(records) - len(refused)
    sys.stdout.write(f"{output / 'index.html'}: {done} of {len(records)} pairs aligned\n")
    if not done:
        sys.stderr.write("isp-align: every pair was refused: the page shows why\n")
    return 0 if done else 1


def align_folder(
    root: Path, output: Path, settings: AlignSettings, *, replace: bool = False, look: Look | None = None
) -> list[Record]:
    """Align a data set and write what `alignment.page` describes.

    Args:
        root: The folder that holds the data set.
        output: The folder to write, empty or not there.
        settings: How.
        replace: Replace `output` if it holds such results.
        look: A trained mapper that makes frames look like their pictures; None develops and matches colours.

    Returns:
        What became of each pair.

    Raises:
        UserError: No such data set, a setting that does not fit, or the folder cannot be written.
    """
    from .alignment.flow import make_flow
    from .alignment.page import AlignedFolder, file_name, finished
    from .alignment.run import align_all
    from .data.readers import open_data_set
    from .protocols import opencv

    opencv("isp-align")
    # networks before any pair is looked for
    flow = make_flow(settings.flow, settings.flow_weights, settings.features)
    phases = _phases(settings)
    options = {"apart": True, **settings.options} if settings.data_set == "folder" else settings.options
    reader = open_data_set(settings.data_set, root, **options)
    files = reader.files()
    names = [file_name(each.name) for each in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two pairs of {root} would both be written as {twice}; rename one of them")
    records: list[Record] = []
    shown: list[str] = []
    with AlignedFolder(output, replace=replace) as folder, _Progress(len(files)) as progress:
        for record, pair in align_all(reader, files, settings, flow, finished, look, phases):
            records.append(record)
            if pair is not None:
                folder.keep(record, pair, shown=len(shown) < settings.shown)
                shown += [record.name] if len(shown) < settings.shown else []
            progress.step()
        folder.end(_report(settings, flow.facts(), look), records, shown)
    return records


def _phases(settings: AlignSettings) -> PhaseMask | None:
    """What tells which blocks count. Raises UserError: the network cannot be read."""
    if settings.phase is None:
        return None
    from .features import load_features
    from .losses.phase import DEPTH, PhaseMask

    features = load_features(settings.phase, [DEPTH])
    return PhaseMask(features, settings.phase_block, settings.phase_threshold)


def _report(settings: AlignSettings, flow: dict[str, Any], look: Look | None) -> dict[str, Any]:
    from .evaluation.tables import machine
    from .runs import code_version

    return {
        "command": "isp-align",
        "version": code_version(),
        "machine": machine(),
        "settings": settings.model_dump(mode="json"),
        "flow": flow,
        "look": "classic engine, colours matched" if look is None else type(look).__name__,
    }


class _Progress:
    """A bar on a terminal, nothing elsewhere. Use it as a context."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.add_task("aligned", total=total)

    def __enter__(self) -> _Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def step(self) -> Callable[[], None]:
        """One more is done."""
        return (lambda: self._bar.advance(0)) if self._bar else (lambda: None)


if __name__ == "__main__":
    raise SystemExit(main())
