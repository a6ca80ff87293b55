"""How close a model core comes to the classic engine without noise: on rendered scenes that nothing was trained on, or
on frames of the simulated camera.

    python -m ispeed.train.evaluate lwisp
    isp-stream --snap noisy.npy --pixel-format BayerRG12 --frames 4
    isp-stream --snap clean.npy --pixel-format BayerRG12 --frames 4 --set SimNoise=false
    python -m ispeed.train.evaluate lwisp --frames noisy.npy --reference clean.npy

Beside it stands what the classic engine itself makes of the same noisy frames. OpenVINO runs the core, in float32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..engines._openvino import openvino_core
from ..engines.core import read_core
from ..engines.errors import UserError
from ..engines.raw_files import load_raw
from ..engines.zoo.catalogue import names, zoo_path
from .cli import run
from .data import CAMERA_FROM_SRGB, Batches, ClassicTarget
from .metrics import HELD_OUT_SEED, mean_psnr, psnr

Floats = npt.NDArray[np.float32]
Develop = Callable[[Floats, Floats], Floats]
"""Planes [B, 4, H/2, W/2] and gains [B, 3] to sRGB [B, 3, H, W] in [0, 1]."""

STAMP_ROWS = 64
"""The camera writes the frame number into the rows above; it is as hard as no picture, and differs from run to run."""


def open_core(name: str) -> Develop:
    """A core of the zoo, or of a file. Raises UserError."""
    core = read_core(zoo_path(name) if name in names() else Path(name))
    if core.info.inputs != ("wb_r", "wb_g", "wb_b") or core.info.output != "srgb":
        raise UserError(f"{name} does not take white-balance gains alone, or does not give sRGB; it cannot be compared")
    compiled = openvino_core().compile_model(core.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda planes, gains: compiled([planes, gains])[0]


def classic(planes: Floats, gains: Floats) -> Floats:
    """The classic engine, as a `Develop`."""
    target = ClassicTarget(2 * planes.shape[2], 2 * planes.shape[3])
    pictures = [target.develop(frame, balance) for frame, balance in zip(planes, gains, strict=True)]
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255


def on_scenes(develop: Develop) -> float:
    """Mean PSNR in dB on held-out scenes."""

    def develop_tensors(planes: Tensor, gains: Tensor) -> Floats:
        return develop(planes.numpy(), gains.numpy())

    return mean_psnr(develop_tensors, Batches(HELD_OUT_SEED))


def on_frames(develop: Develop, frames: str, reference: str) -> float:
    """Mean PSNR in dB on raw frames of the simulated camera, against the classic engine on the same without noise."""
    noisy, clean = _planes(frames), _planes(reference)
    if noisy.shape != clean.shape:
        raise UserError(f"{frames} and {reference} differ in number or size of frames; take both in the same way")
    sees = CAMERA_FROM_SRGB.sum(1)
    gains = np.tile(sees[1] / sees, (len(noisy), 1)).astype(np.float32)
    pairs = zip(develop(noisy, gains), classic(clean, gains), strict=True)
    return float(np.mean([psnr(shown[:, STAMP_ROWS:], wanted[:, STAMP_ROWS:]) for shown, wanted in pairs]))


def _planes(spec: str) -> Floats:
    raw = load_raw(spec)
    fmt = raw.raw_format
    if fmt.cfa != "RGGB" or fmt.width % 32 or fmt.height % 32:
        raise UserError(f"{spec} cannot be compared; take BayerRG frames whose width and height are multiples of 32")
    light = (raw.samples.astype(np.float32) - fmt.black_level) / (fmt.white_level - fmt.black_level)
    return np.stack([light[:, y::2, x::2] for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))], 1).astype(np.float32)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ispeed.train.evaluate", description="PSNR of a model core.")
    parser.add_argument("core", help="name of a model that ships, or the path of a core (.onnx)")
    parser.add_argument(
        "--frames", metavar="FILE", help="raw frames of the simulated camera (default: rendered scenes)"
    )
    parser.add_argument("--reference", metavar="FILE", help="the same frames without noise")
    args = parser.parse_args(argv)
    if bool(args.frames) != bool(args.reference):
        raise UserError("give --frames and --reference together, or neither")
    sides: list[tuple[str, Develop]] = [(args.core, open_core(args.core)), ("classic", classic)]
    for name, develop in sides:
        score = on_frames(develop, args.frames, args.reference) if args.frames else on_scenes(develop)
        sys.stdout.write(f"{name}: {score:.2f} dB\n")


if __name__ == "__main__":
    sys.exit(run("evaluate", main))
