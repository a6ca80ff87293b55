"""Blur before the sensor: what moves during the exposure, and what is out of focus."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

SIZE = 13
"""Edge of a kernel, in pixels."""

LONGEST = 10.0
"""Longest path of a motion, in pixels."""

WIDEST = 2.5
"""Largest radius of the disc of a point out of focus, in pixels."""

_SUBPIXELS = 5


def draw_kernels(motion_rate: float, defocus_rate: float, count: int, generator: torch.Generator) -> Tensor | None:
    """Blur of so many pictures, each moved, out of focus, or most often neither.

    Args:
        motion_rate, defocus_rate: Shares of the pictures; their sum is at most 1.
        count: How many.
        generator: Where chance comes from, on the CPU; as much is drawn whatever comes of it.

    Returns:
        float32 [count, SIZE, SIZE], each of a sum of 1, or None if none is blurred.
    """
    kind, size, angle = torch.rand(3, count, generator=generator).tolist()
    if all(one >= motion_rate + defocus_rate for one in kind):
        return None
    kernels = torch.zeros(count, SIZE, SIZE)
    kernels[:, SIZE // 2, SIZE // 2] = 1
    for index in range(count):
        if kind[index] < motion_rate:
            kernels[index] = motion_kernel(1 + size[index] * (LONGEST - 1), angle[index] * math.pi)
        elif kind[index] < motion_rate + defocus_rate:
            kernels[index] = defocus_kernel(0.5 + size[index] * (WIDEST - 0.5))
    return kernels


def motion_kernel(length: float, angle: float) -> Tensor:
    """A straight path at constant speed.

    Args:
        length: Pixels, at most `LONGEST`.
        angle: Radians from the row, counted downwards.

    Returns:
        float32 [SIZE, SIZE], of a sum of 1.
    """
    along = torch.linspace(-0.5, 0.5, SIZE * _SUBPIXELS) * length
    y, x = (SIZE // 2 + along * way for way in (math.sin(angle), math.cos(angle)))
    kernel = torch.zeros(SIZE, SIZE)
    for dy in (0, 1):  # each point of the path is shared out among the four pixels around it
        for dx in (0, 1):
            share = (1 - (y - y.floor() - dy).abs()) * (1 - (x - x.floor() - dx).abs())
            kernel.index_put_((y.floor().long() + dy, x.floor().long() + dx), share, accumulate=True)
    return kernel / kernel.sum()


def defocus_kernel(radius: float) -> Tensor:
    """A disc, its edge as much as each pixel is covered.

    Args:
        radius: Pixels, at most `WIDEST`.

    Returns:
        float32 [SIZE, SIZE], of a sum of 1.
    """
    fine = SIZE * _SUBPIXELS
    place = (torch.arange(fine) + 0.5 - fine / 2) / _SUBPIXELS
    inside = (torch.hypot(place[:, None], place[None]) <= radius).float()
    kernel = inside.reshape(SIZE, _SUBPIXELS, SIZE, _SUBPIXELS).mean((1, 3))
    return kernel / kernel.sum()


def blur(light: Tensor, kernels: Tensor | None) -> Tensor:
    """Each picture by its own kernel, reflected at the borders; None leaves them.

    Args:
        light: float32 [B, C, H, W], linear; H and W above SIZE // 2.
        kernels: float32 [B, SIZE, SIZE], on the CPU.
    """
    if kernels is None:
        return light
    return torch.stack([_blurred(picture, kernel) for picture, kernel in zip(light, kernels, strict=True)])


def _blurred(picture: Tensor, kernel: Tensor) -> Tensor:
    """The sum of the picture, moved and weighed: most of a kernel is 0, so that a convolution is ten times as slow."""
    places = kernel.nonzero().tolist()
    if places == [[SIZE // 2, SIZE // 2]]:
        return picture
    (height, width), edge = picture.shape[1:], SIZE // 2
    spread = pad(picture[None], (edge, edge, edge, edge), mode="reflect")[0]
    blurred = torch.zeros_like(picture)
    for y, x in places:
        blurred.add_(spread[:, y : y + height, x : x + width], alpha=float(kernel[y, x]))
    return blurred
