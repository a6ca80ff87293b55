"""`isp-build --inspect`: what a plan or a core is, whether it is whole, and whether it runs here."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

from .plan import PlanInfo, Tensor, read_plan_info, why_not

_FIGURES = ("psnr_db", "fp32_db", "drop_db", "max_drop_db", "to_fp32_db", "frames")


def inspect(path: Path, *, as_json: bool = False) -> str:
    """What there is to say of a file, as text or as one JSON object.

    Raises:
        UserError: It is missing, damaged, or neither a plan nor a core.
    """
    if path.suffix.lower() == ".onnx":
        return _inspect_core(path, as_json)
    info = read_plan_info(path)
    reason, tensors = _look_here(path, info)
    if as_json:
        runs = {"runs_here": reason is None, "why_not": reason}
        return json.dumps({"file": str(path), **info.to_json(), **runs})
    opened = "" if tensors is None else "; opened, and its inputs and outputs are these"
    verdict = f"runs here: yes{opened}" if reason is None else f"runs here: no, because {reason}"
    return "\n".join([f"{path}: whole, checksum right", *describe(info), f"made by: {info.command or '-'}", verdict])


def describe(info: PlanInfo) -> list[str]:
    """What a plan is for, in lines."""
    fmt = info.format
    fewest, usual, most = info.batches
    batches = f"batch {most}" if fewest == most else f"batches {fewest} to {most}, best {usual}"
    lines = [
        f"{info.name} in {info.precision}, {info.plan_bytes / 1e6:.1f} MB, for {info.backend} {info.version} "
        f"on GPUs of compute capability {', '.join(info.compute_capabilities)}",
        f"frames: {fmt.width}x{fmt.height} {fmt.pixel_format}, black {fmt.black_level:g}, white {fmt.white_level:g}, "
        f"{batches}",
    ]
    lines += [f"{t.mode}: {t.name} {t.dtype} {list(t.shape)}" for t in info.tensors]
    if info.defects or info.flat_field:
        mesh = next(iter(info.flat_field.values())) if info.flat_field else []
        flat = f"a flat field of {len(mesh)}x{len(mesh[0])} gains" if mesh else "no flat field"
        lines.append(f"built in: {len(info.defects)} defect pixels, {flat}")
    if info.colour_matrix:
        rows = ", ".join(" ".join(f"{value:g}" for value in row) for row in info.colour_matrix)
        lines.append(f"built in: the colour matrix {rows}")
    if info.quality is None:
        return [*lines, "quality: not measured"]
    q = dict.fromkeys(_FIGURES, math.nan) | dict(info.quality)
    return [
        *lines,
        f"quality: {q['psnr_db']:.2f} dB, {q['fp32_db']:.2f} in fp32, {q['drop_db']:.3f} lost of {q['max_drop_db']:g} "
        f"allowed, {q['to_fp32_db']:.1f} to fp32 itself, on {q['frames']:g} frames, by {info.measured}",
    ]


def _look_here(path: Path, info: PlanInfo) -> tuple[str | None, tuple[Tensor, ...] | None]:
    """Why the plan does not run here, None if it does; then also the inputs and outputs that the runtime sees."""
    from .cuda.driver import gpu_or_none

    reason = why_not(info, gpu_or_none(), file=path.name)
    if reason is not None:
        return reason, None
    tensors = _opened(path, info)
    if tensors != info.tensors:
        return f"{info.backend} does not open it as the plan that its sidecar describes; build it again", None
    return None, tensors


def _opened(path: Path, info: PlanInfo) -> tuple[Tensor, ...] | None:
    """Inputs and outputs of the plan as TensorRT sees them; None where it refuses the plan."""
    from .trt_builder import make_logger, started, type_name

    trt: Any = importlib.import_module(info.backend)
    log = make_logger(trt)
    runtime = started(trt.Runtime, log)
    engine = None if runtime is None else runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        return None
    found = {}
    for name in (engine.get_tensor_name(k) for k in range(engine.num_io_tensors)):
        mode = "input" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output"
        shape = tuple(engine.get_tensor_shape(name))
        found[name] = Tensor(name, mode, type_name(engine.get_tensor_dtype(name)), shape)
    return tuple(found[t.name] for t in info.tensors) if set(found) == {t.name for t in info.tensors} else None


def _inspect_core(path: Path, as_json: bool) -> str:
    from .core import read_core

    core = read_core(path)
    info = core.info
    values = [("input", value) for value in core.model.graph.input]
    values += [("output", value) for value in core.model.graph.output]
    tensors = [
        (mode, value.name, [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim])
        for mode, value in values
    ]
    if as_json:
        return json.dumps({"file": str(path), **info.to_json(), "tensors": tensors})
    told = f" (network {info.model})" if info.title else ""
    lines = [
        f"{path}: whole, checksum right",
        f"{info.name}{told} in {info.precision}, width {info.width}, gives {info.output}, for multiples of "
        f"{info.multiple}",
        *(f"{mode}: {name} float32 [{', '.join(map(str, shape))}]" for mode, name, shape in tensors),
        f"params: {', '.join(info.inputs) or '-'}",
        *(f"{name}: {getattr(info, name) or '-'}" for name in ("run", "data", "licence", "sha256")),
    ]
    return "\n".join(lines)
