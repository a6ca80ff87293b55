"""`isp-eval`: how good the pictures are that engines make."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..engines.errors import UserError
from .cli import add_folder, add_settings, needed, run

if TYPE_CHECKING:
    from .evaluation.developers import Developer
    from .evaluation.page import Folder
    from .evaluation.run import Tuning
    from .evaluation.settings import EvalConfig
    from .metrics.lpips import Lpips
    from .metrics.no_reference import Found


def make_parser() -> argparse.ArgumentParser:
    """The command line of `isp-eval`."""
    parser = argparse.ArgumentParser(
        prog="isp-eval",
        description="Measures the pictures that engines make: PSNR, SSIM, MS-SSIM and LPIPS against references, noise "
        "in flat areas, TMQI and colour histograms of HDR scenes, NIMA, MUSIQ and LIQE without references; where "
        "nobody has pictures, colours against those of any photographs and structure against the classic engine's; "
        "colours of charts, sharpness of a slanted edge, flicker of a still scene. The classic engine is always among "
        "them.",
        epilog="Exit codes: 0 done, 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "engines",
        nargs="*",
        metavar="ENGINE",
        help="what isp-stream --engine takes (lwisp, FILE.onnx, FILE.plan, FILE.pt2), a checkpoint of isp-train "
        "(FILE.pt), cv2-ea (OpenCV's edge-aware demosaic), classic-curve (the classic engine and the best curve for "
        "each set), any of these and non-local means, as in classic+nlm:5,10, or any of these and a network for "
        "pictures, as in classic+filter:FILE.pt (default: the models that ship)",
    )
    parser.add_argument("--on", type=Path, metavar="FILE", help="what is measured (.yaml), as in configs/eval")
    add_settings(parser, " of that file", "sets.0.limit=4")
    add_folder(parser, "FOLDER", "results.json and index.html with crops")
    parser.add_argument("--pictures", action="store_true", help="write every picture to the folder, too")
    parser.add_argument(
        "--sheets",
        action="store_true",
        help="write a sheet for each set to the folder, too: the frames that the page shows crops of, whole, a column "
        "for each engine",
    )
    parser.add_argument("--quick", action="store_true", help="take only the first frames of each set, for a look")
    parser.add_argument(
        "--engine-precision",
        choices=("auto", "fp32", "bf16"),
        default="fp32",
        help="what models compute in, where there is a choice (default fp32; isp-stream takes auto, the fastest)",
    )
    parser.add_argument(
        "--tune-nlm",
        action="store_true",
        help="first find the strengths of non-local means that are best behind the classic engine, on the file's "
        "tune, and measure that baseline, too",
    )
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="measure LPIPS with this network (alexnet, vgg16)")
    parser.add_argument("--lpips-linear", type=Path, metavar="FILE", help="the linear layers that belong to it")
    parser.add_argument(
        "--no-reference",
        metavar="NAMES",
        help="of nima, musiq and liqe, with commas between: measure how good pictures look by themselves, through the "
        "package pyiqa, as far as it and its weights are here; nothing is fetched, and what is missing is told",
    )
    parser.add_argument(
        "--iqa-weights",
        type=Path,
        metavar="FOLDER",
        help="the weights of these, in FOLDER or FOLDER/pyiqa under pyiqa's names, CLIP's in FOLDER/clip (default: "
        "torch's folder of weights)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-eval` and returns its exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.on is None and not args.settings:
        parser.error("say what is measured by --on, such as configs/eval/quick.yaml")
    if (args.lpips is None) != (args.lpips_linear is None):
        parser.error("give --lpips and --lpips-linear together, or neither")
    if args.iqa_weights is not None and args.no_reference is None:
        parser.error("--iqa-weights says where --no-reference finds its weights; name measures there")
    if args.output is None and (args.pictures or args.sheets or args.force):
        parser.error("--pictures, --sheets and --force say what becomes of the folder of -o; name one")
    return run("isp-eval", lambda: _eval(args))


def _eval(args: argparse.Namespace) -> None:
    with needed():
        from .evaluation.opening import open_set
        from .evaluation.page import Folder
        from .evaluation.run import Evaluation, tune_nlm
        from .evaluation.settings import describe_settings, read_config
        from .evaluation.tables import show

    if args.settings:
        sys.stdout.write("\n".join(describe_settings()) + "\n")
        return
    config, lpips, found = read_config(args.on, args.set), _lpips(args), _no_reference(args)
    # all of them first: what is missing of the last is told before the others are measured
    sets = [(settings, open_set(settings, config.seed)) for settings in config.sets]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(Folder(args.output, replace=args.force)) if args.output else None
        tuning = None
        if args.tune_nlm:
            if config.tune is None:
                raise UserError(f"{args.on} has no tune, which says what --tune-nlm looks at; add one")
            tuning = tune_nlm(config.tune, config.seed, tell=_tell)
            sys.stdout.write(f"best of {len(tuning.grid)} strengths on {tuning.frames} frames: {tuning.name}\n")
        developers = stack.enter_context(_opened(args, tuning))
        keep: Any = {"keep": folder.keep} if folder and args.pictures else {}
        quality = found.measures if found else {}
        measured: Any = {"lpips": lpips, "quality": quality, "quick": args.quick, "sheets": args.sheets}
        evaluation = Evaluation(developers, config.seed, tell=_tell, **measured, **keep)
        results = [evaluation.measure(*each) for each in sets]
        show(results)
        if folder is not None:
            _write(folder, args, config, developers, tuning, results, found)
    missing = found.lines() if found else ["NIMA, MUSIQ and LIQE were not measured: they need --no-reference"]
    sys.stdout.write("".join(f"{line}\n" for line in missing))
    if lpips is None:
        sys.stdout.write("LPIPS was not measured: it needs --lpips and --lpips-linear, files of weights\n")
    if folder is not None:
        sys.stdout.write(f"{args.output / 'index.html'}\n")


@contextlib.contextmanager
def _opened(args: argparse.Namespace, tuning: Tuning | None) -> Iterator[list[Developer]]:
    """All that make pictures: the classic engine, then what was named, then what was tuned."""
    from ..engines.zoo.catalogue import names
    from .evaluation.developers import CLASSIC, make_developer

    specs = [CLASSIC, *(args.engines or names()), *([tuning.name] if tuning else [])]
    developers: list[Developer] = []
    try:
        for spec in specs:
            developer = make_developer(spec, cast(Any, args.engine_precision))
            if developer.label in [each.label for each in developers]:
                developer.close()
            else:
                developers.append(developer)
        yield developers
    finally:
        for developer in developers:
            developer.close()


def _lpips(args: argparse.Namespace) -> Lpips | None:
    if args.lpips is None:
        return None
    from .metrics.lpips import load_lpips

    return load_lpips(args.lpips, args.lpips_linear)


def _no_reference(args: argparse.Namespace) -> Found | None:
    if args.no_reference is None:
        return None
    from .metrics.no_reference import load_no_reference

    return load_no_reference([name.strip() for name in args.no_reference.split(",")], args.iqa_weights)


def _write(
    folder: Folder,
    args: argparse.Namespace,
    config: EvalConfig,
    developers: Sequence[Developer],
    tuning: Tuning | None,
    results: Sequence[Any],
    found: Found | None,
) -> None:
    from dataclasses import asdict

    from .evaluation.tables import machine, to_json
    from .runs import code_version

    report = {
        "command": "isp-eval",
        "version": code_version(),
        "machine": machine(),
        "on": args.on.name,
        "settings": config.model_dump(mode="json"),
        "quick": args.quick,
        "engine_precision": args.engine_precision,
        "lpips": None if args.lpips is None else [args.lpips.name, args.lpips_linear.name],
        "no_reference": None if found is None else {"weights": found.files, "not_measured": found.missing},
        "engines": {developer.label: developer.facts() for developer in developers},
        "tuning": None if tuning is None else asdict(tuning),
        "sets": [to_json(result) for result in results],
    }
    folder.end(report, results)


def _tell(line: str) -> None:
    sys.stderr.write(f"isp-eval: {line}\n")


if __name__ == "__main__":
    raise SystemExit(main())
