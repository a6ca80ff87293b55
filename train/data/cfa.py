"""Colour filter arrays on batches: from colours to a mosaic of any phase, and from there to the planes of RGGB."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engines.errors import UserError

PHASES = ("RGGB", "GRBG", "GBRG", "BGGR")


def checked_phase(cfa: str) -> str:
    """`cfa` itself. Raises UserError: it is none of `PHASES`."""
    if cfa not in PHASES:
        raise UserError(f"the filter array {cfa!r} is unknown: use one of {', '.join(PHASES)}")
    return cfa


def _colours(cfa: str) -> list[int]:
    return ["RGB".index(letter) for letter in checked_phase(cfa)]


def spread(values: Tensor, cfa: str, height: int, width: int) -> Tensor:
    """A value for each colour, [B, 3], to where its samples are: [B, height, width]; both even."""
    cell = values[:, _colours(cfa)].reshape(-1, 2, 2)
    return cell.repeat(1, height // 2, width // 2)


def mosaic(colours: Tensor, cfa: str) -> Tensor:
    """The samples of a filter array: [B, 3, H, W] to [B, H, W]; H and W even."""
    samples = torch.empty_like(colours[:, 0])
    for place, colour in enumerate(_colours(cfa)):
        y, x = divmod(place, 2)
        samples[:, y::2, x::2] = colours[:, colour, y::2, x::2]
    return samples


def planes(samples: Tensor, cfa: str) -> Tensor:
    """R, Gr, Gb, B of the part of a mosaic that begins with red, [B, H, W] to [B, 4, h, w].

    The part is that of `red_part`.
    """
    part = red_part(samples, cfa)
    return torch.stack([part[:, y::2, x::2] for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))], 1)


def red_part(samples: Tensor, cfa: str) -> Tensor:
    """The largest part of [..., H, W] that begins with red and is even: where red is not in the first row or column,
    that and the last are left out."""
    top, left = divmod(checked_phase(cfa).index("R"), 2)
    height, width = samples.shape[-2:]
    return samples[..., top : height - top, left : width - left]
