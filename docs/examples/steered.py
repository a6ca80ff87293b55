"""What ParamISP's two directions are good for together, measured on cameras of which all is known.

    python docs/examples/steered.py transfer --network INVERSE.pt --forward FORWARD.pt
        pictures of one camera as another one would have made them
    python docs/examples/steered.py hdr --network INVERSE.pt
        light from one picture: what a bracket of exposures would have to measure

The networks are those of configs/train/paramisp.yaml, stages inverse and forward. Both examples take photographs that
no recipe trains on, and print how close they come to the truth beside what a plain way comes to. `-o FOLDER` keeps the
pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ispeed.engines.errors import UserError
from ispeed.engines.inputs import CAMERA
from ispeed.train.checkpoint import load_checkpoint
from ispeed.train.cli import run
from ispeed.train.curves import linear_from_srgb
from ispeed.train.data.folder import encode_png
from ispeed.train.data.known_camera import Shot, draw_shot, looked, take
from ispeed.train.data.photos import find_photos, read_photo
from ispeed.train.data.profile import CameraProfile, read_profile
from ispeed.train.evaluation.frames import generator, middle, to_picture, to_tensor
from ispeed.train.models import NETWORKS, BothISPs, InverseISP
from ispeed.train.models.canonical import mixed, sampled, to_camera, unshown
from ispeed.train.models.param_net import OPTICS
from ispeed.train.models.paramisp import ForwardISP

LOWEST = 1e-3
"""Of light, below which noise is all there is: logarithms begin there."""


class Told(NamedTuple):
    """What the networks are told of a shot."""

    gains: Tensor
    matrix: Tensor
    optics: Tensor


class Networks(NamedTuple):
    """Pictures to light, and frames to pictures if there is one for that."""

    back: InverseISP
    forth: ForwardISP | None


def told(profile: CameraProfile, shot: Shot) -> Told:
    """Of a camera and how it was set."""
    values = dict(zip(CAMERA, shot.camera(profile.base_iso).tolist(), strict=True))
    optics = torch.tensor([[values[name] for name in OPTICS]])
    return Told(torch.tensor([shot.gains]), torch.tensor([profile.colour_matrix]), optics)


def db(error: Tensor) -> float:
    """PSNR of differences of values in [0, 1]."""
    return float(-10 * torch.log10(error.double().square().mean()))


def light_of(network: InverseISP, picture: Tensor, camera: Told) -> Tensor:
    """Linear sRGB of a picture, [1, 3, H, W], as the camera saw it."""
    colours = network(picture, camera.gains, camera.matrix, camera.optics)
    return mixed(camera.matrix, colours * camera.gains[:, :, None, None])


def transfer(
    networks: Networks, photo: Tensor, cameras: list[CameraProfile], number: int, keep: Any
) -> dict[str, float]:
    """One photograph from the first camera to the second, both at settings of their own."""
    shots = [draw_shot(camera, generator(1, number, k)) for k, camera in enumerate(cameras)]
    shots[1] = shots[1]._replace(light=shots[0].light)
    light = shots[0].light * linear_from_srgb(photo)
    here, there = (looked(light, camera, shot)[None] for camera, shot in zip(cameras, shots, strict=True))
    source, target = (told(camera, shot) for camera, shot in zip(cameras, shots, strict=True))
    linear = light_of(networks.back, here, source)
    colours = to_camera(linear, target.gains, target.matrix).clamp(0.0, 1.0)
    planes = sampled(colours)
    if networks.forth is None:
        raise UserError("transfer needs both directions: name a forward network by --forward")
    given = networks.forth(planes, *target).clamp(0.0, 1.0)
    keep({"first": here, "second": there, "made": given})
    return {"as it is": db(here - there), "ParamISP": db(given - there)}


def hdr(networks: Networks, photo: Tensor, cameras: list[CameraProfile], number: int, keep: Any) -> dict[str, float]:
    """Light of one picture, compared by its logarithm, as eyes and tone mapping do."""
    camera, shot = cameras[0], draw_shot(cameras[0], generator(1, number, 0))
    sample = take(photo, camera, shot, None, "RGGB")
    picture = (sample["target"][None] * 255).round() / 255
    truth = (shot.light * linear_from_srgb(photo))[None]
    found = {
        "sRGB curve undone": linear_from_srgb(picture),
        "canonical": unshown(picture),
        "ParamISP": light_of(networks.back, picture, told(camera, shot)),
    }
    keep({"picture": picture, **{name: logarithm(light) for name, light in found.items()}, "truth": logarithm(truth)})
    return {name: db(logarithm(light) - logarithm(truth)) for name, light in found.items()}


def logarithm(light: Tensor) -> Tensor:
    """Of light from `LOWEST` to 1, as 0 to 1."""
    return 1 - light.clamp(LOWEST, 1.0).log10() / np.log10(LOWEST)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs an example on all photographs and prints the means; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("example", choices=("transfer", "hdr"))
    parser.add_argument("--network", type=Path, required=True, help="checkpoint of the form inverse or cycle")
    parser.add_argument("--forward", type=Path, help="checkpoint of the form raw, for transfer")
    parser.add_argument("--photos", type=Path, default=Path("data/photos/val"), help="folder of photographs")
    parser.add_argument(
        "--cameras", type=Path, nargs=2, default=[Path("configs/cameras/track.yaml"), Path("configs/cameras/lab.yaml")]
    )
    parser.add_argument("--crop", type=int, default=384, help="edge of the pictures in pixels")
    parser.add_argument("-o", "--output", type=Path, help="folder for the pictures")
    args = parser.parse_args(argv)
    return run("steered", lambda: measure(args))


def measure(args: argparse.Namespace) -> None:
    """Prints the means. Raises UserError: a file is missing or of another kind, or the crop does not fit."""
    multiple = NETWORKS["paramisp"].multiple
    if args.crop < multiple or args.crop % multiple:
        raise UserError(f"--crop {args.crop}: the networks take multiples of {multiple}")
    networks = load(args.network, args.forward)
    cameras = [read_profile(path) for path in args.cameras]
    example: Callable[..., dict[str, float]] = transfer if args.example == "transfer" else hdr
    rows = []
    for number, file in enumerate(find_photos(args.photos)):
        photo = to_tensor(middle(read_photo(file.path), args.crop, str(file.path)))[0]
        with torch.inference_mode():
            rows.append(example(networks, photo, cameras, number, keeper(args.output, Path(file.name).stem)))
    means = {name: round(float(np.mean([row[name] for row in rows])), 2) for name in rows[0]}
    sys.stdout.write(json.dumps({"example": args.example, "pictures": len(rows), "psnr_db": means}) + "\n")


def load(path: Path, forward: Path | None) -> Networks:
    """Both directions, the second of its own file if there is one. Raises UserError: a file holds another network."""
    network = load_checkpoint(path).network.eval()
    back, forth = (network.back, network.forth) if isinstance(network, BothISPs) else (network, None)
    if not isinstance(back, InverseISP):
        raise UserError(f"{path} makes no frames of pictures: give a checkpoint of paramisp, form inverse or cycle")
    if forward is not None:
        forth = load_checkpoint(forward).network.eval()
        if not isinstance(forth, ForwardISP):
            raise UserError(f"{forward} makes no pictures of frames: give a checkpoint of paramisp, form raw")
    return Networks(back, forth)


def keeper(folder: Path | None, stem: str) -> Callable[[dict[str, Tensor]], None]:
    """What writes pictures side by side, or nothing."""

    def keep(pictures: dict[str, Tensor]) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            row = np.concatenate([to_picture(each.clamp(0.0, 1.0)) for each in pictures.values()], 1)
            (folder / f"{stem}.png").write_bytes(encode_png(row))

    return keep


if __name__ == "__main__":
    raise SystemExit(main())
