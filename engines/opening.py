"""The door to open an engine by name. What a backend needs is imported when one of its engines is opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .bayer import RawFormat
from .engine import MODES, Engine, Mode, Precision, WhiteBalance
from .errors import UserError
from .flat_field import FlatField

Options = dict[str, Any]

_log = logging.getLogger(__name__)


def open_engine(
    spec: str,
    *,
    mode: Mode = "throughput",
    precision: Precision | None = None,
    threads: int | None = None,
    white_balance: WhiteBalance = "auto",
    colour_matrix: npt.ArrayLike | None = None,
    tone: str = "srgb",
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
    clamp_outliers: bool = False,
    raw_format: RawFormat | None = None,
) -> Engine:
    """The engine that `spec` names.

    Args:
        spec: "classic"; "auto" (a plan from the cache that fits this machine's GPU and `raw_format`, else classic); a
            model of the zoo, such as "lwisp-xs", which runs on the processor; or a path: a model core (.onnx), a
            TensorRT plan (.plan, .engine), or an exported torch model (.pt2).
        mode: "throughput" (several frames at once, where the engine can) or "latency" (each frame as soon as may be).
        precision: What to compute in: "fp32", or "bf16" for a model on a processor that has it; None is what the engine
            does best.
        threads: Processor threads to develop with; None lets the engine choose. Not for engines on a GPU.
        white_balance: "auto", or gains of R, G, B from 0.25 to 8.
        colour_matrix: 3x3, camera RGB to linear sRGB, applied after white balance; None is the identity. A
            model that is told it at run time must be able to invert it; other models that give sRGB take none.
        tone: "srgb" (the sRGB curve) or "linear" (none).
        defects: (x, y) of pixels to replace by the mean of their neighbours of the same colour.
        flat_field: Gains against shading, R, Gr, Gb and B, each as rows of gains (see `flat_field.checked_mesh`); Bayer
            frames only. A plan has it built in: it takes the one that it was built with, and no other.
        clamp_outliers: Also limit every sample to the range of its neighbours of the same colour. Classic only.
        raw_format: Format of the frames to come, where it is known already; "auto" finds no plan without it.

    Raises:
        UserError: Nothing of that name or path can be opened here, or an option is out of range or not for this engine.
    """
    if mode not in MODES:
        raise UserError(f"engine mode {mode!r} is unknown; use one of {', '.join(MODES)}")
    options: Options = {"white_balance": white_balance, "colour_matrix": colour_matrix, "tone": tone}
    options |= {"defects": tuple(defects), "threads": threads, "mode": mode, "precision": precision}
    options["flat_field"] = flat_field
    plan = fitting_plan(raw_format, defects, flat_field) if spec == "auto" else None
    if plan and threads is None and not clamp_outliers:
        try:
            return _trt(plan, options)
        except UserError as error:  # it does not fit after all, or takes none of these options, as classic does
            _log.warning("auto: not the plan %s but the classic engine, because %s", plan, error)
    if spec in ("auto", "classic"):
        return _classic(options, clamp_outliers)
    if clamp_outliers:
        raise UserError("only the classic engine can clamp outliers; leave that out, or use classic")
    from .zoo.catalogue import names, zoo_path

    if spec in names():
        return _cpu(zoo_path(spec), options)
    path = Path(spec)
    open_file = _BY_SUFFIX.get(path.suffix.lower())
    if open_file is None:
        known = ", ".join(["classic", "auto", *names()])
        raise UserError(f"there is no engine {spec!r}; use one of {known}, or the path of a .onnx, .plan or .pt2 file")
    if not os.path.isfile(path):  # unlike Path.is_file, no for a name that is too long
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise UserError(f"engine file {spec} {what}; give the path of a file, or classic")
    return open_file(path, options)


def _classic(options: Options, clamp_outliers: bool) -> Engine:
    from .classic import ClassicEngine  # here, because Numba takes a quarter of a second to import

    if options["precision"] not in (None, "fp32"):
        raise UserError(f"the classic engine computes in fp32 alone, not in {options['precision']}; leave that out")
    # it is finished at once in either mode
    rest = {name: value for name, value in options.items() if name not in ("mode", "precision")}
    return ClassicEngine(clamp_outliers=clamp_outliers, **rest)


def _cpu(path: Path, options: Options) -> Engine:
    from .cpu import open_on_processor

    return open_on_processor(path, **options)


def _trt(path: Path, options: Options) -> Engine:
    rest = _on_gpu(path, options)
    asked = rest.pop("precision")
    from .trt import TrtEngine

    engine = TrtEngine(path, **rest)
    if asked not in (None, engine.info.precision):
        engine.close()
        raise UserError(f"{path} was built to compute in {engine.info.precision}, not in {asked}; leave that out")
    return engine


def _torch(path: Path, options: Options) -> Engine:
    rest = _on_gpu(path, options)
    if rest["precision"] not in (None, "fp32"):
        raise UserError(f"{path} computes in fp16 or fp32 on a GPU, not in {rest['precision']}; leave that out")
    from .cuda.driver import NoGpu, gpu

    try:
        gpu()  # before torch, which nobody should install in vain
    except NoGpu as error:
        raise UserError(
            f"{path} is a torch program for an NVIDIA GPU, and {error}; use the .onnx model, or classic"
        ) from error
    from .torch_gpu import TorchEngine

    return TorchEngine(path, **rest)


def _on_gpu(path: Path, options: Options) -> Options:
    if options["threads"] is not None:
        raise UserError(f"{path} runs on a GPU, which has no use for threads; leave --threads out")
    return {name: value for name, value in options.items() if name != "threads"}


_BY_SUFFIX: dict[str, Callable[[Path, Options], Engine]] = {
    ".onnx": _cpu,
    ".plan": _trt,
    ".engine": _trt,
    ".pt2": _torch,
}


def fitting_plan(
    raw_format: RawFormat | None, defects: Sequence[tuple[int, int]] = (), flat_field: FlatField | None = None
) -> Path | None:
    """The plan that "auto" takes: none without a GPU, and then nothing heavy is imported."""
    if raw_format is None:
        return None
    from .cuda.driver import gpu

    try:
        found = gpu()
    except UserError:
        return None
    from .plan import find_plan

    return find_plan(None, raw_format, found, defects, flat_field)
