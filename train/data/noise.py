"""What a sensor adds to light and takes from it: shot noise, read noise, rows, hot pixels, gains, conversion, clipping.

Everything is counted in the white of the frame: a signal of 1 at digital gain 1 is the white level. The variance of a
sample of signal x and digital gain g (of its colour) is

    g * shot * x + g^2 * read

which is one straight line for all colours once samples are divided by their gain. Electrons are counted (Poisson), so
that dark areas are skewed as in real frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .cfa import spread
from .sensor import FULL_WELL

Range = tuple[float, float]
"""Lowest and highest; equal where nothing varies."""


@dataclass(frozen=True)
class SensorModel:
    """A kind of camera. What varies is drawn for each frame, evenly on a logarithmic scale unless said otherwise.

    Attributes:
        shot: Variance per signal.
        read: Variance without light, or what it is for the geometric mean of `shot` where `read_slope` is given.
        read_slope: How log(read) grows with log(shot), as gain is turned up; 0 for read noise of its own.
        read_spread: Standard deviation of log(read) about that line.
        digital_gains: Of red, green and blue, already applied in the camera.
        white_balance: Gains of red and blue that are left to apply; green is 1.
        exposure: Usual range of the light, 1 is that of the photograph.
        row: Standard deviation of a whole row's offset as a share of that of read noise, drawn evenly.
        hot_pixels: Share of the samples, drawn evenly.
        bits: Depths of conversion, before the digital gain; one is drawn.
        pedestal: What is kept below black, as a share of white: the camera's black level; 0 cuts off all noise below.
    """

    shot: Range = (0.0, 0.0)
    read: Range = (0.0, 0.0)
    read_slope: float = 0.0
    read_spread: float = 0.0
    digital_gains: tuple[Range, Range, Range] = ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    white_balance: tuple[Range, Range] = ((1.0, 1.0), (1.0, 1.0))
    exposure: Range = (1.0, 1.0)
    row: Range = (0.0, 0.0)
    hot_pixels: Range = (0.0, 0.0)
    bits: tuple[int, ...] = ()
    pedestal: float = 1 / 64

    @property
    def noisy(self) -> bool:
        """Whether it adds anything."""
        return max(self.shot[1], self.read[1], self.hot_pixels[1]) > 0


SENSORS: dict[str, SensorModel] = {
    # measured on the four RHID training frames: see docs/results/noise.md
    "rhid": SensorModel(
        shot=(0.00145, 0.00167),
        read=(5e-7, 3e-6),
        digital_gains=((2.4, 3.5), (2.0, 2.0), (3.8, 6.8)),
        white_balance=((0.88, 1.14), (0.88, 1.14)),
        exposure=(0.3, 1.2),
        row=(0.0, 0.25),
        hot_pixels=(0.0, 1e-4),
        bits=(12,),
        pedestal=0.0,
    ),
    # shot and read noise as Brooks et al. (2019) fitted them to phones and system cameras
    "camera": SensorModel(
        shot=(1e-4, 0.012),
        read=(1.17e-6, 1.17e-6),
        read_slope=2.18,
        read_spread=0.26,
        white_balance=((1.5, 2.6), (1.3, 2.4)),
        exposure=(0.4, 1.25),
        row=(0.0, 0.2),
        hot_pixels=(0.0, 1e-4),
        bits=(10, 12),
    ),
    "none": SensorModel(white_balance=((1.5, 2.6), (1.3, 2.4))),
}
"""Cameras to synthesise: the high-speed camera of RHID, ordinary ones, and one without noise or conversion."""


class SensorState(NamedTuple):
    """What was drawn for each of B frames, float32 on the CPU.

    Attributes:
        shot, read: [B], variances.
        row: [B], standard deviation.
        hot_pixels: [B], share.
        digital_gains: [B, 3].
        steps: [B], codes from black to white; all infinite without conversion.
        pedestal: What is kept below black.
    """

    shot: Tensor
    read: Tensor
    row: Tensor
    hot_pixels: Tensor
    digital_gains: Tensor
    steps: Tensor
    pedestal: float


def gain_db(shot: Tensor, full_well: float = FULL_WELL) -> Tensor:
    """The gain that a camera is at whose shot noise is that.

    White is `full_well` electrons at 0 dB and, as gain is turned up, as many times fewer: shot noise, which is one
    divided by them, grows as fast as the gain. Digital gains, which come after conversion, are not counted.

    Args:
        shot: float32 [B], variances per signal, as of `SensorState`.
        full_well: Electrons at white at 0 dB; that of the simulated camera where nothing is known.

    Returns:
        float32 [B], in dB; 0 without noise.
    """
    return torch.where(shot > 0, 20 * torch.log10(shot.clamp(min=1e-12) * full_well), 0.0)


def draw_even(limits: Range, count: int, generator: torch.Generator) -> Tensor:
    """[count], evenly between the limits."""
    return torch.rand(count, generator=generator).mul_(limits[1] - limits[0]).add_(limits[0])


def draw_log(limits: Range, count: int, generator: torch.Generator) -> Tensor:
    """[count], evenly between the logarithms of the limits, which are positive or both 0."""
    if limits[1] == 0:
        return torch.zeros(count)
    return draw_even((math.log(limits[0]), math.log(limits[1])), count, generator).exp_()


def draw_sensor(model: SensorModel, count: int, generator: torch.Generator) -> SensorState:
    """Draw what varies from frame to frame; the generator is of the CPU."""
    shot, read = draw_log(model.shot, count, generator), draw_log(model.read, count, generator)
    if model.read_slope:
        middle = math.sqrt(model.shot[0] * model.shot[1])
        scatter = model.read_spread * torch.randn(count, generator=generator)
        read = read * (shot / middle) ** model.read_slope * scatter.exp()
    steps = torch.tensor([2.0**bits - 1 for bits in model.bits] or [math.inf])
    steps = steps[torch.randint(len(steps), (count,), generator=generator)]
    return SensorState(
        shot,
        read,
        draw_even(model.row, count, generator) * read.sqrt(),
        draw_even(model.hot_pixels, count, generator),
        torch.stack([draw_log(limits, count, generator) for limits in model.digital_gains], 1),
        steps,
        model.pedestal,
    )


def add_noise(mosaic: Tensor, state: SensorState, cfa: str, generator: torch.Generator) -> Tensor:
    """Take frames.

    Args:
        mosaic: float32 [B, H, W], light as the frame would show it without noise, 0 or more; above 1 it saturates.
        state: Of the B frames.
        cfa: Colours of the top left 2x2 samples: RGGB, GRBG, GBRG or BGGR.
        generator: Where the noise comes from, on the device of `mosaic`.

    Returns:
        float32 [B, H, W], from -pedestal to 1, black 0.
    """
    # as pairs of rows, [B, H / 2, 2, W], because all pairs have the same gains
    gains = spread(state.digital_gains.to(mosaic), cfa, 2, mosaic.shape[2])[:, None]
    signal = mosaic.unflatten(1, (-1, 2)) / gains  # changed in place from here on
    if state.shot.any():
        shot = _column(state.shot, mosaic)
        counted = torch.poisson(signal / shot.clamp(min=1e-12), generator=generator).mul_(shot)
        signal = counted if state.shot.all() else torch.where(shot > 0, counted, signal)
    if state.read.any():
        signal.addcmul_(_normal(signal.shape, mosaic, generator), _column(state.read.sqrt(), mosaic))
    if state.row.any():
        signal.addcmul_(_normal((*signal.shape[:3], 1), mosaic, generator), _column(state.row, mosaic))
    if state.hot_pixels.any():
        lit = torch.rand(signal.shape, generator=generator, device=mosaic.device) < _column(state.hot_pixels, mosaic)
        amount = torch.rand(signal.shape, generator=generator, device=mosaic.device)
        signal.add_(amount.mul_(lit).div_(gains))  # up to white, whatever the colour
    if state.steps.isinf().all():
        return signal.mul_(gains).clamp_(-state.pedestal, 1.0).flatten(1, 2)
    steps = _column(state.steps, mosaic)
    frame = _convert(signal.clamp_(min=-state.pedestal), steps).mul_(gains)
    return _convert(frame.clamp_(-state.pedestal, 1.0), steps).flatten(1, 2)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like)[:, None, None, None]


def _convert(values: Tensor, steps: Tensor) -> Tensor:
    """To whole codes, in place."""
    return values.mul_(steps).round_().div_(steps)
