"""Which colours a picture holds, and how much of each, wherever they lie: the RGB-uv histogram, and the Hellinger
distance of two.

Source: Afifi, Brubaker, Brown, "HistoGAN" (CVPR 2021), as Erbas and Celebi use it for an ISP of tone-mapped pictures.
For each of R, G and B the logarithms of its ratios to the other two, u and v, are binned: the brightness of a pixel
moves neither, a colour cast moves all of them. A pixel counts by its brightness, and in every bin, by a kernel that
falls with the square of the distance; so the histogram has slopes.

A histogram sums over pixels, so it says nothing of where a colour is: this goes beside a loss that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import interpolate

from .basic import checked, checked_mask, positive

BINS, REACH, SIGMA = 64, 3.0, 0.02
"""Bins along u and along v, their centres from -reach to reach, and the width of the kernel; u and v are natural
logarithms."""

EDGE = 150
"""Larger pictures are brought to this height and width in pixels, which bounds the time that the loss takes."""

LIGHT_FLOOR = 1e-6
"""Added to a value before its logarithm, and to squared brightness before its root, as published: black is grey and of
next to no weight. Beside what is bright that holds slopes down, but those of a picture all of which is below 1e-3
are some thousands and more: clip gradients (a recipe's `clip`)."""

BIN_FLOOR = 1e-12
"""Added to a bin before its root, whose slope at 0 is infinite; a bin holds 1e-4 of a picture on average."""

_AT_ONCE = {"cpu": 1024, "cuda": 65536}
"""Pixels whose kernels are held at once, which bounds memory; few on a processor, so that they stay in its cache."""

_PAIRS = ((0, 1), (0, 2), (1, 2))
"""Places in the three log ratios R/G, R/B, G/B of u and v of the channels R, G, B, but for signs."""

Norm = Literal["picture", "batch"]


def rgb_uv_histogram(
    pictures: Tensor,
    bins: int = BINS,
    reach: float = REACH,
    sigma: float = SIGMA,
    mask: Tensor | None = None,
) -> Tensor:
    """How much of the light of each picture has which ratios of colours.

    Args:
        pictures: float [B, 3, H, W], sRGB in [0, 1]; values beyond count as 0 and 1.
        bins, reach, sigma: As of `Histogram`.
        mask: float [B, 1, H, W] that the pixels' weights are multiplied by; None counts all of them.

    Returns:
        [B, 3, bins, bins], whose sum is 1 for each picture (0 where nothing is kept), float32, or float64 of float64.
        Channel c at (i, j) is what lies near u = centre i and v = centre j; (u, v) are the logarithms of R/G and R/B,
        of G/R and G/B, of B/R and B/G. Memory is kept for its slopes by pixel and not by pixel and bin.

    Raises:
        ValueError: Not three channels, or another shape of the mask.
    """
    with torch.autocast(pictures.device.type, enabled=False):
        pictures, _ = checked(pictures, pictures)
        if pictures.shape[1] != 3:
            raise ValueError(f"colours are counted of pictures [B, 3, H, W], not {[*pictures.shape]}")
        values = pictures.clamp(0.0, 1.0).flatten(2)
        weights = (values.square().sum(1) + LIGHT_FLOOR).sqrt()
        if mask is not None:
            weights = weights * checked_mask(mask, pictures).flatten(1)
        red, green, blue = (values + LIGHT_FLOOR).log().unbind(1)
        ratios = torch.stack([red - green, red - blue, green - blue], 1)
        centres = torch.linspace(-reach, reach, bins, dtype=values.dtype, device=values.device)
        counted: Any = _Binned.apply(ratios / sigma, weights, centres / sigma)
        counted = torch.stack([counted[:, 0], counted[:, 1].flip(1), counted[:, 2].flip(1, 2)], 1)
        whole = counted.sum((1, 2, 3), keepdim=True)
        return counted / whole.clamp(min=torch.finfo(whole.dtype).tiny)


def hellinger(a: Tensor, b: Tensor) -> Tensor:
    """Distance between histograms [B, ...] of sum 1: [B], 0 for equal ones and 1 for those that share no bin."""
    return _roots_apart(a, b).flatten(1).norm(dim=1) / 2**0.5


def _roots_apart(a: Tensor, b: Tensor) -> Tensor:
    return (a + BIN_FLOOR).sqrt() - (b + BIN_FLOOR).sqrt()


class Histogram(nn.Module):
    """The Hellinger distance between the RGB-uv histograms of the pictures.

    Args:
        bins: Along u and along v.
        reach: Centre of the last bin; the first is at -reach. A ratio of colours of 20 is at 3.
        sigma: Distance from a centre at which a pixel counts by half along u or v.
        edge: Pictures that are higher or wider are brought to edge x edge pixels, bilinearly and without smoothing, as
            published; None takes every pixel.
        norm: "picture" is the mean over the pictures of a batch. "batch" is what the published code computes, the norm
            of the differences of all roots of a batch, divided by the number of pictures: for pictures that are
            equally far off it falls with the root of that number, so its weight would go with one size of batches. The
            mean does not, and is the default.

    Raises:
        ValueError: A value out of range.
    """

    takes_mask = True

    def __init__(
        self,
        bins: int = BINS,
        reach: float = REACH,
        sigma: float = SIGMA,
        edge: int | None = EDGE,
        norm: Norm = "picture",
    ) -> None:
        super().__init__()
        for name, value, least in ("bins", bins, 2), ("edge", 1 if edge is None else edge, 1):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
        if norm not in ("picture", "batch"):
            raise ValueError(f"norm is {norm!r}; choose one of picture, batch")
        self.bins, self.reach, self.sigma = bins, positive("reach", reach), positive("sigma", sigma)
        self.edge, self.norm = edge, norm

    def forward(self, shown: Tensor, wanted: Tensor, mask: Tensor | None = None) -> Tensor:
        """Of pictures of any size; a scalar in [0, 1].

        Args:
            shown, wanted: float [B, 3, H, W] in [0, 1].
            mask: float [B, 1, H, W]: a pixel counts by it in both histograms; None counts all of them. A picture of
                which nothing is kept has a distance of 0.

        Raises:
            ValueError: Other shapes.
        """
        with torch.autocast(shown.device.type, enabled=False):
            a, b = (self.histogram(pictures, mask) for pictures in checked(shown, wanted))
            if self.norm == "batch":
                return _roots_apart(a, b).norm() / (2**0.5 * len(a))
            return hellinger(a, b).mean()

    def histogram(self, pictures: Tensor, mask: Tensor | None = None) -> Tensor:
        """`rgb_uv_histogram` of pictures of any size, which are made smaller first; arguments and errors as there."""
        values, _ = checked(pictures, pictures)
        kept = None if mask is None else checked_mask(mask, values)
        if self.edge is not None and max(values.shape[2:]) > self.edge:
            values, kept = _smaller(values, kept, self.edge)
        return rgb_uv_histogram(values, self.bins, self.reach, self.sigma, kept)


def _smaller(pictures: Tensor, mask: Tensor | None, edge: int) -> tuple[Tensor, Tensor | None]:
    """Both at edge x edge; a pixel takes its colour from what is kept alone."""
    if mask is None:
        return _resized(pictures, edge), None
    kept = _resized(mask, edge)
    return _resized(pictures * mask, edge) / kept.clamp(min=torch.finfo(kept.dtype).eps), kept


def _resized(values: Tensor, edge: int) -> Tensor:
    return interpolate(values, (edge, edge), mode="bilinear", align_corners=False)


class _Binned(torch.autograd.Function):
    """Sums over the pixels of weight times kernel times kernel, for each of `_PAIRS`.

    The kernels of a pixel are some hundred numbers, so they are made for a few pixels at a time, twice: for the sums,
    and anew for the slopes. Centres are symmetric, so -x lies at the mirrored bin of x: three kernels do for six.
    """

    @staticmethod
    def forward(ctx: Any, ratios: Tensor, weights: Tensor, centres: Tensor) -> Tensor:
        """Of [B, 3, N], [B, N] and [bins], ratios and centres in widths of the kernel: [B, 3, bins, bins]."""
        ctx.save_for_backward(ratios, weights, centres)
        roots, bins = weights.sqrt(), len(centres)
        sums = ratios.new_zeros(len(ratios), len(_PAIRS), bins, bins)
        room = _room(ratios, bins, 2)
        for picture, part in _parts(ratios, room):
            _, kernels = _kernels(ratios[picture, :, part], centres, room, roots[picture, part])
            for place, (u, v) in enumerate(_PAIRS):
                sums[picture, place].addmm_(kernels[u].T, kernels[v])
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        """Slopes of the ratios and of the weights."""
        ratios, weights, centres = ctx.saved_tensors
        of_ratios, of_weights = torch.empty_like(ratios), torch.empty_like(weights)
        of_bins = slopes[0].contiguous()
        room = _room(ratios, len(centres), 3)
        for picture, part in _parts(ratios, room):
            away, kernels = _kernels(ratios[picture, :, part], centres, room)
            shares = _slopes_of_kernels(kernels, of_bins[picture], room[2]).mul_(kernels)
            of_weights[picture, part] = shares.sum(2).sum(0) / 2  # each pair is in it twice, once for either kernel
            steps = shares.mul_(kernels).mul_(away).sum(2)  # d/dx 1 / (1 + x**2) is -2 x kernel**2
            of_ratios[picture, :, part] = -2 * weights[picture, part] * steps
        return of_ratios, of_weights, None


def _room(ratios: Tensor, bins: int, tables: int) -> Tensor:
    """Tables [3, n, bins] that are used again and again: fresh memory would cost more than what is put there."""
    at_once = min(ratios.shape[2], _AT_ONCE.get(ratios.device.type, _AT_ONCE["cuda"]))
    return ratios.new_empty(tables, 3, at_once, bins)


def _parts(ratios: Tensor, room: Tensor) -> Iterator[tuple[int, slice]]:
    for picture in range(len(ratios)):
        for start in range(0, ratios.shape[2], room.shape[2]):
            yield picture, slice(start, start + room.shape[2])


def _kernels(ratios: Tensor, centres: Tensor, room: Tensor, tops: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distances of ratios [3, n] from the centres, and the kernels there, 1 high or as high as `tops` [n] say: both
    [3, n, bins], in the first two tables of the room."""
    count = ratios.shape[1]
    one = ratios.new_ones(())
    away = torch.sub(ratios[..., None], centres, out=room[0, :, :count])
    kernels = torch.addcmul(one, away, away, out=room[1, :, :count])
    return away, torch.div(one if tops is None else tops[:, None], kernels, out=kernels)


def _slopes_of_kernels(kernels: Tensor, of_bins: Tensor, table: Tensor) -> Tensor:
    """Of pixels of weight 1, from those of the bins [3, bins, bins], for `_PAIRS`: [3, n, bins], in the table."""
    first, second, third = kernels
    slopes = table[:, : len(first)]
    torch.mm(second, of_bins[0].T, out=slopes[0]).addmm_(third, of_bins[1].T)
    torch.mm(first, of_bins[0], out=slopes[1]).addmm_(third, of_bins[2].T)
    torch.mm(first, of_bins[1], out=slopes[2]).addmm_(second, of_bins[2])
    return slopes
