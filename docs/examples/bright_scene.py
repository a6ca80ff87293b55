"""A scene that no exposure holds, with sparks that fly, as raw frames for the simulated camera.

    python docs/examples/bright_scene.py -o bright
    isp-stream --config bright/stream.yaml --engine lwisp-hdr --save out

The folder then holds the frames (frames.npy, 10 bits), how to stream them (stream.yaml: white balance, colour matrix
and levels), and what all of the light looks like, tone-mapped (reference.png): the frames have lost some of it.
`--photo FILE` takes a photograph in place of a rendered scene, with its highlights brightened.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from ispeed.engines.errors import UserError
from ispeed.train.cli import run
from ispeed.train.data.cfa import mosaic
from ispeed.train.data.folder import encode_png
from ispeed.train.data.noise import add_noise
from ispeed.train.data.photos import read_photo
from ispeed.train.data.radiance import Extension, extended
from ispeed.train.data.scene import render_scene
from ispeed.train.data.tonemap import OPERATORS, tone_mapped
from ispeed.train.data.unprocess import draw, make_unprocessing
from ispeed.train.evaluation.frames import to_picture

BITS, BLACK = 10, 64
"""Of the frames, in digital numbers."""

LEAST = 16
"""Width and height of a scene, in pixels."""

SCENE = Extension(uneven_rate=1.0, spark_rate=0.0, lamp_rate=1.0, lamps=(1, 1))
SPARKS = Extension(highlight_stops=(0.0, 0.0), uneven_rate=0.0, spark_rate=1.0, lamp_rate=0.0)
"""What stays for all frames, and what each has of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the example and returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="what is written; a new one")
    parser.add_argument("--photo", type=Path, metavar="FILE", help="a photograph (JPEG, PNG), not a rendered scene")
    parser.add_argument("--frames", type=int, default=64, help="how many (default 64)")
    parser.add_argument("--width", type=int, default=640, help="of a rendered scene, in pixels (default 640)")
    parser.add_argument("--height", type=int, default=480, help="of a rendered scene, in pixels (default 480)")
    parser.add_argument("--clipped", type=float, default=0.05, help="share of the places that are white (default 0.05)")
    parser.add_argument("--operator", choices=sorted(OPERATORS), default="mertens", help="of reference.png")
    parser.add_argument("--seed", type=int, default=1, help="of everything drawn")
    args = parser.parse_args(argv)
    return run("bright_scene", lambda: _write(args))


def _write(args: argparse.Namespace) -> None:
    if args.frames < 1 or not 0 < args.clipped < 1 or not 0 <= args.seed < 2**63:
        raise UserError("give at least one frame, a share between 0 and 1, and a seed from 0 to 2**63 - 1")
    chance = torch.Generator().manual_seed(args.seed)
    light = extended(_scene(args), SCENE, chance)
    unprocessing = make_unprocessing("rhid", colours="simulated", motion_rate=0.0, defocus_rate=0.0)
    unprocessing = replace(unprocessing, sensor=replace(unprocessing.sensor, bits=(BITS,), pedestal=BLACK / 2**BITS))
    camera = draw(unprocessing, 1, chance)
    sees = camera.camera_from_srgb[0] / camera.white_balance[0][:, None]
    brightest = (sees @ light.flatten(1)).amax(0)
    exposure = 1 / float(brightest.kthvalue(max(1, round((1 - args.clipped) * len(brightest)))).values)
    span, frames, first = 2**BITS - 1 - BLACK, [], None
    for _ in range(args.frames):
        lit = extended(light, SPARKS, chance) * exposure
        first = lit if first is None else first
        seen = (sees @ lit.flatten(1)).view_as(lit)[None]
        samples = add_noise(mosaic(seen, "RGGB").clamp_(0.0, 8.0), camera.sensor, "RGGB", chance)[0]
        frames.append((samples * span + BLACK).round().clamp(0, 2**BITS - 1).numpy().astype(np.uint16))
    _save(args, np.stack(frames), first, camera.gains[0].tolist(), torch.linalg.inv(camera.camera_from_srgb[0]))


def _scene(args: argparse.Namespace) -> Tensor:
    """[3, H, W]: a photograph of even size, or a rendered scene's light. Raises UserError: it is too small."""
    picture = None if args.photo is None else read_photo(args.photo)
    sizes = (args.height, args.width) if picture is None else picture.shape[:2]
    if min(sizes) < LEAST:
        raise UserError(f"the scene is {sizes[1]}x{sizes[0]}; give one of {LEAST}x{LEAST} pixels or more")
    height, width = (size // 2 * 2 for size in sizes)
    scene = (
        render_scene(np.random.default_rng(args.seed), height, width) if picture is None else picture[:height, :width]
    )
    return torch.from_numpy(np.ascontiguousarray(scene.transpose(2, 0, 1)))


def _save(args: argparse.Namespace, frames: np.ndarray, light: Tensor, gains: list[float], matrix: Tensor) -> None:
    reference = tone_mapped(light.permute(1, 2, 0).numpy(), args.operator)
    file = args.output / "frames.npy"
    means = {"format": f"BayerRG{BITS}", "black": BLACK, "white": 2**BITS - 1}
    levels = {"pixel_format": means["format"], "black_level": BLACK, "white_level": 2**BITS - 1}
    size = {"width": frames.shape[2], "height": frames.shape[1]}
    colours = {"white_balance": [round(gain, 4) for gain in gains], "colour_matrix": matrix.tolist()}
    try:
        args.output.mkdir(parents=True, exist_ok=False)
        np.save(file, frames)
        Path(f"{file}.yaml").write_text(yaml.safe_dump(means))
        streamed = {"scene": str(file), **levels, **size, **colours}
        (args.output / "stream.yaml").write_text(yaml.safe_dump(streamed, sort_keys=False))
        picture = to_picture(torch.from_numpy(reference.transpose(2, 0, 1))[None])
        (args.output / "reference.png").write_bytes(encode_png(picture))
    except OSError as error:
        raise UserError(f"{args.output} cannot be written: {error.strerror}; give a new folder") from error
    white = float((frames == 2**BITS - 1).mean())
    sys.stdout.write(f"{file}: {len(frames)} frames, {white:.1%} of the samples white\n")
    sys.stdout.write(f"isp-stream --config {args.output / 'stream.yaml'} --engine lwisp-hdr --save out\n")


if __name__ == "__main__":
    raise SystemExit(main())
