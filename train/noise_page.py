"""Measures the noise of RHID's frames, synthesises frames of the same scenes, and shows both side by side.

    python -m ispeed.train.noise_page RHID PHOTOS -o docs/images

RHID is a folder that `data.rhid` reads, PHOTOS one with photographs. Writes noise-curve.png and noise-samples.png and
prints the tables of docs/results/noise.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import torch

from ..engines.bayer import RawFormat, pack
from ..engines.errors import UserError
from ..engines.quality import grey_world
from ..engines.reference import classic_reference
from .cli import run
from .curves import linear_from_srgb
from .data.cfa import mosaic
from .data.noise import SENSORS, SensorState, add_noise
from .data.photon_transfer import Curve, Rest, digital_gains, fit_line, flat_noise, planes_by_colour, rest, smoothed
from .data.photos import Photos
from .data.raw_pair import RawPair
from .data.rhid import SPLITS, Rhid
from .data.unprocess import Frames, make_unprocessing

WHITE = 4095
EDGE = 144
"""Of a sample on the page, in pixels."""

Codes = npt.NDArray[np.uint16]


SCENES = ("smooth", "picture")
"""What synthetic frames are of. The real frame, smoothed: what is measured there is noise alone, less than in the real
frame, which has texture too. And the reflex camera's picture, sharper than the real frame: more than there."""


class Measured(NamedTuple):
    """A real frame and synthetic ones of the same scene.

    Attributes:
        name, split: Which frame.
        gains: Its digital gains, which the synthetic ones have as well.
        codes: [H, W], of the real frame ("real") and by `SCENES`.
        curves: Their noise.
    """

    name: str
    split: str
    gains: npt.NDArray[np.float64]
    codes: dict[str, Codes]
    curves: dict[str, Curve]


def measure(pair: RawPair, split: str, seed: int) -> Measured:
    """The noise of a frame, and of synthetic ones of its scene."""
    gains = digital_gains(pair.samples)
    scenes = (smoothed(pair.samples / WHITE, "RGGB"), _mosaic_of_picture(pair))
    codes = {"real": pair.samples}
    codes |= {name: synthesise(scene, gains, seed) for name, scene in zip(SCENES, scenes, strict=True)}
    curves = {name: flat_noise(one / WHITE, gains) for name, one in codes.items()}
    return Measured(pair.name, split, gains, codes, curves)


def synthesise(scene: npt.NDArray[np.floating], gains: npt.NDArray[np.float64], seed: int) -> Codes:
    """A frame of a mosaic [H, W] without noise, with the middle noise of "rhid"."""
    light = torch.from_numpy(np.clip(scene, 0, 1).astype(np.float32))[None]
    noisy = add_noise(light, middle(gains), "RGGB", torch.Generator().manual_seed(seed))
    return np.rint(noisy[0].numpy() * WHITE).astype(np.uint16)


def _mosaic_of_picture(pair: RawPair) -> npt.NDArray[np.floating]:
    """The mosaic of a pair's picture, each colour as bright as in its frame."""
    light = linear_from_srgb(torch.from_numpy(pair.target.copy()).float().permute(2, 0, 1) / 255)
    means = np.zeros(3)
    for colour, plane in planes_by_colour(pair.samples, "RGGB"):
        means[colour] += plane.mean() / WHITE / (2 if colour == 1 else 1)
    light = light * (torch.from_numpy(means).float() / light.mean((1, 2)))[:, None, None]
    return mosaic(light[None], "RGGB")[0].numpy()


def middle(gains: npt.NDArray[np.float64]) -> SensorState:
    """The "rhid" preset with the geometric means of its ranges, without rows and hot pixels."""
    model, none = SENSORS["rhid"], torch.zeros(1)
    shot, read = (torch.tensor([math.sqrt(low * high)]) for low, high in (model.shot, model.read))
    steps = torch.tensor([float(WHITE)])
    return SensorState(shot, read, none, none, torch.from_numpy(gains).float()[None], steps, model.pedestal)


def agreement(measured: Measured, scene: str) -> npt.NDArray[np.float64]:
    """Variance of a synthetic frame over that of the real one, at the signals of the real one's bins: [N]."""
    ratios = []
    for colour in range(3):
        real, synthetic = (_of_colour(measured.curves[name], colour) for name in ("real", scene))
        inside = (real[0] >= synthetic[0][0]) & (real[0] <= synthetic[0][-1])
        ratios.append(np.interp(real[0], *synthetic)[inside] / real[1][inside])
    return np.concatenate(ratios)


def _of_colour(curve: Curve, colour: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    chosen = np.flatnonzero(curve.colour == colour)
    order = chosen[np.argsort(curve.signal[chosen])]
    return curve.signal[order], curve.variance[order]


# ---- tables ------------------------------------------------------------------------------------------------


def table(frames: Sequence[Measured]) -> str:
    """Figures of every frame, in Markdown."""
    lines = [
        "| frame | split | gains R / G / B | shot | read | scatter | synthetic, smooth: shot | read | variance to real "
        "| of the picture: variance to real |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for frame in frames:
        real, smooth = (fit_line(frame.curves[name]) for name in ("real", "smooth"))
        gains = " / ".join(f"{gain:.2f}" for gain in frame.gains)
        ratios = [_ratios(agreement(frame, scene)) for scene in SCENES]
        lines.append(
            f"| {frame.name} | {frame.split} | {gains} | {real.shot:.2e} | {real.read:.1e} | {real.scatter:.0%} | "
            f"{smooth.shot:.2e} | {smooth.read:.1e} | {ratios[0]} | {ratios[1]} |"
        )
    total = [_ratios(np.concatenate([agreement(frame, scene) for frame in frames])) for scene in SCENES]
    return "\n".join([*lines, f"| all | | | | | | | | {total[0]} | {total[1]} |"])


def _ratios(values: npt.NDArray[np.float64]) -> str:
    """Median, and between what eight tenths lie."""
    low, high = np.quantile(values, [0.1, 0.9])
    return f"{np.median(values):.2f} ({low:.2f} to {high:.2f})"


def table_of_rest(frames: Sequence[Measured]) -> str:
    """Rows, columns and outliers of real and synthetic frames, in Markdown."""
    lines = [
        "| frame | rows | columns | outliers per million | synthetic, smooth | synthetic, of the picture |",
        "|---|---|---|---|---|---|",
    ]
    for frame in frames:
        line = fit_line(frame.curves["real"])
        figures = [_rest(rest(frame.codes[name] / WHITE, line, frame.gains)) for name in ("real", *SCENES)]
        others = " | ".join(" / ".join(one) for one in figures[1:])
        lines.append(f"| {frame.name} | {' | '.join(figures[0])} | {others} |")
    return "\n".join(lines)


def _rest(one: Rest) -> tuple[str, str, str]:
    return f"{one.rows:+.2%}", f"{one.columns:+.2%}", f"{one.outliers * 1e6:.0f}"


# ---- pictures ----------------------------------------------------------------------------------------------


def draw_curves(frames: Sequence[Measured], path: Path) -> None:
    """Variance against signal, real and synthetic, with the lines that the preset lies between.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError("matplotlib is not installed; install it with: pip install 'ispeed[bench]'") from error

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    titles = ("RHID frames", "synthetic, of the frames smoothed", "synthetic, of the pictures")
    for axes, title, name in zip(panels, titles, ("real", *SCENES), strict=True):
        for frame in frames:
            _scatter(axes, frame.curves[name], frame.split)
        _band(axes)
        axes.set(xscale="log", yscale="log", title=title, xlabel="signal / gain (1 is white)")
    panels[0].set_ylabel("variance / gain\N{SUPERSCRIPT TWO}")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=80)


def _scatter(axes: Any, curve: Curve, split: str) -> None:
    for colour, name in enumerate(("tab:red", "tab:green", "tab:blue")):
        chosen = curve.colour == colour
        filled = name if split == "train" else "none"
        axes.scatter(curve.signal[chosen], curve.variance[chosen], s=14, facecolors=filled, edgecolors=name, lw=0.7)


def _band(axes: Any) -> None:
    signal, model = np.geomspace(1e-3, 0.5, 50), SENSORS["rhid"]
    low, high = (model.shot[end] * signal + model.read[end] for end in (0, 1))
    axes.fill_between(signal, low, high, color="0.6", alpha=0.5, label='preset "rhid"')
    axes.plot([], [], "ko", ms=4, label="training frames")
    axes.plot([], [], "ko", ms=4, mfc="none", label="validation frames")


def draw_samples(frames: Sequence[Measured], photos: Path, path: Path) -> None:
    """Pieces of frames as the classic engine shows them: real, synthetic of the same scenes, and of photographs."""
    chosen = frames[:4]
    rows = [
        ("RHID frame", [_shown(frame.codes["real"]) for frame in chosen]),
        ("synthetic, same scene", [_shown(frame.codes["picture"]) for frame in chosen]),
    ]
    for noise in ("rhid", "camera"):
        data = Photos(photos, make_unprocessing(noise, motion_rate=0, defocus_rate=0), seed=1)
        picked = [data.frame(index) for index in np.linspace(0, len(data) - 1, 4).astype(int)]
        rows.append((f'photograph, "{noise}"', [_developed(frame) for frame in picked]))
    label = 14
    page = PIL.Image.new("RGB", (4 * EDGE + 3, len(rows) * (EDGE + label)), "white")
    pen = PIL.ImageDraw.Draw(page)
    for row, (title, pictures) in enumerate(rows):
        pen.text((2, row * (EDGE + label) + 1), title, fill="black")
        for column, picture in enumerate(pictures):
            page.paste(PIL.Image.fromarray(picture), (column * (EDGE + 1), row * (EDGE + label) + label))
    page.quantize(192, dither=PIL.Image.Dither.NONE).save(path, optimize=True)


def _shown(codes: Codes) -> npt.NDArray[np.uint8]:
    """The middle of a frame."""
    top, left = ((size - EDGE) // 4 * 2 for size in codes.shape)
    piece = np.ascontiguousarray(codes[top : top + EDGE, left : left + EDGE])
    fmt = RawFormat(EDGE, EDGE, "BayerRG12")
    gains = grey_world(codes, RawFormat(codes.shape[1], codes.shape[0], "BayerRG12"))
    return classic_reference(pack(piece, fmt), fmt, tuple(map(float, gains)))


def _developed(frame: Frames) -> npt.NDArray[np.uint8]:
    """The middle of a synthetic frame, with its own gains and matrix."""
    black = 256
    codes = np.rint(black + frame.mosaic[0].numpy() * (WHITE - black)).clip(0, WHITE).astype(np.uint16)
    top, left = ((size - EDGE) // 4 * 2 for size in codes.shape)
    fmt = RawFormat(EDGE, EDGE, "BayerRG12", black)
    piece = pack(codes[top : top + EDGE, left : left + EDGE], fmt)
    return classic_reference(piece, fmt, tuple(frame.gains[0].tolist()), frame.matrices[0].numpy())


def write_page(rhid: Path, photos: Path, output: Path) -> None:
    """Measure, write both pictures into `output`, print the tables. Raises UserError: data are missing or damaged."""
    readers = [(split, Rhid(rhid, split)) for split in SPLITS]
    pairs = [(split, reader.load(files)) for split, reader in readers for files in reader.files()]
    frames = [measure(pair, split, seed) for seed, (split, pair) in enumerate(pairs)]
    output.mkdir(parents=True, exist_ok=True)
    draw_curves(frames, output / "noise-curve.png")
    draw_samples(frames, photos, output / "noise-samples.png")
    sys.stdout.write(f"{table(frames)}\n\n{table_of_rest(frames)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ispeed.train.noise_page", description="Measures real and synthetic noise, and shows both."
    )
    parser.add_argument("rhid", type=Path, help="folder of RHID")
    parser.add_argument("photos", type=Path, help="folder of photographs of 144 x 144 pixels or more")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"), help="folder to write to")
    args = parser.parse_args(argv)
    return run("noise_page", lambda: write_page(args.rhid, args.photos, args.output))


if __name__ == "__main__":
    sys.exit(main())
