"""A float32 core in the precision that a build asks for. The only place where precision is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from .core import Core
from .errors import UserError
from .half import rounded_to_half, to_half
from .quality import Judge, Material, feeds, session
from .quantize import FP8_OPSET, Kind, activation_limits, convolutions, in_opset, quantize

PRECISIONS = ("fp32", "fp16", "int8", "fp8")

_GOAL = 0.6
"""Part of the allowed drop at which no more convolutions are put back into float: frames differ."""

_JUDGED = 2
"""Calibration frames on which convolutions are compared; the gate's frames are others, and more."""

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Converted:
    """A core in another precision.

    Attributes:
        core: For runtimes that choose types themselves: float32, with quantise/dequantise pairs in int8 and fp8.
        typed: For strongly typed builders: everything else in float16, unless the precision is fp32.
        as_typed: Computes in float32 what `typed` computes in float16, rounding included.
        in_float: Names of convolutions that were left in float to keep the picture.
    """

    core: Core
    typed: onnx.ModelProto
    as_typed: onnx.ModelProto
    in_float: tuple[str, ...] = ()


def convert(
    core: Core,
    precision: str,
    calibration: Material | None,
    max_drop_db: float,
    colour_matrix: npt.NDArray[np.float32] | None = None,
    tell: Tell = lambda text: None,
) -> Converted:
    """Convert a core.

    Args:
        core: A float32 core.
        precision: One of `PRECISIONS`.
        calibration: Real frames, for int8 and fp8; None otherwise.
        max_drop_db: PSNR against the reference that may be lost.
        colour_matrix: For cores that give linear light or are told it.
        tell: Called with what is being done.

    Raises:
        UserError: The core is not float32, has nothing to quantise, or cannot be held in float16.
    """
    if core.info.precision != "fp32":
        raise UserError(f"{core.path} is in {core.info.precision} already; give the float32 core that isp-export wrote")
    model = core.model
    if precision == "fp32":
        return Converted(core, model, model)
    if precision == "fp16":
        typed = to_half(model)
        return Converted(replace(core, info=replace(core.info, precision="fp16")), typed, rounded_to_half(model))
    if calibration is None:
        raise ValueError("int8 and fp8 need frames to calibrate with")
    kind: Kind = "int8" if precision == "int8" else "fp8"
    judged = calibration.only(range(min(_JUDGED, len(calibration.frames))))
    judge = Judge(core, judged, colour_matrix)
    inputs = _core_feeds(core, calibration, colour_matrix)
    quantized, in_float = _quantized(core, kind, inputs, judge, max_drop_db, tell)
    later = in_opset(quantized, FP8_OPSET)  # the first in which a scale may be float16
    info = replace(core.info, precision=precision)
    return Converted(replace(core, info=info, model=quantized), to_half(later), rounded_to_half(later), in_float)


def _quantized(
    core: Core, kind: Kind, inputs: list[Mapping[str, Any]], judge: Judge, max_drop_db: float, tell: Tell
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    names = convolutions(core.model)
    if not names:
        raise UserError(f"{core.path} has no convolutions to quantise; use --precision fp16")
    tell(f"calibrating {len(names)} convolutions on {len(inputs)} frames")
    limits = activation_limits(core.model, inputs, kind)

    def lost(chosen: list[str]) -> float:
        return judge.score(quantize(core.model, limits, chosen, kind)).drop_db

    goal = _GOAL * max_drop_db
    if (drop := lost(names)) <= goal:
        return quantize(core.model, limits, names, kind), ()
    tell(f"{kind} throughout loses {drop:.3f} dB; measuring what each convolution costs")
    costs = {name: -judge.score(quantize(core.model, limits, [name], kind)).to_fp32_db for name in names}
    dearest = sorted(names, key=lambda name: costs[name], reverse=True)
    for count in range(1, len(names) // 2 + 1):  # with fewer than half of them in 8 bits, float16 is the better build
        chosen = [name for name in names if name not in dearest[:count]]
        if (drop := lost(chosen)) <= goal:
            tell(f"{count} of {len(names)} convolutions stay in float: loses {drop:.3f} dB")
            return quantize(core.model, limits, chosen, kind), tuple(dearest[:count])
    # nothing helps: quantise all, and let the gate say so with its figure
    return quantize(core.model, limits, names, kind), ()


def _core_feeds(
    core: Core, material: Material, colour_matrix: npt.NDArray[np.float32] | None
) -> list[Mapping[str, Any]]:
    """Inputs of the bare core: planes as the head makes them, and what it is told."""
    from .graph import make_head

    head = session(make_head(material.raw_format, core.info.multiple, batch=1, **material.corrections))
    return [
        {"raw": head.run(None, {"raw": feed["raw"]})[0], **{k: v for k, v in feed.items() if k == "params"}}
        for feed in feeds(core, material, head, colour_matrix)
    ]
