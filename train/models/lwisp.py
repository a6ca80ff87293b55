"""LW-ISP, the lightweight image signal processor: a small U-Net from packed Bayer planes to sRGB.

Source: Hongyang Chen, Kaisheng Ma, "LW-ISP: A Lightweight Model with ISP and Deep Learning", arXiv 2210.03904.

What is reconstruction: the authors published the network only for RGB-to-RGB tasks (denoising, enhancement). The RAW
form here differs from that by its first convolution (four planes in) and by a last upsampling block behind the
multiplicative skip. It counts 2,009,193 parameters and 4.163 GMACs for 4 x 224 x 224, which are the paper's ratios to
PyNET (23 times fewer parameters, 81 times fewer operations) within the conventions of counting. That the parallel
channel and spatial attention is what the paper calls fine-grained attention is an inference: it is the only attention
there is. The weight-shared second upsampling branch ("sup") of the published file does not fit the paper's operation
count and is off by default.

The form "rgb" is the published one, for pictures that are to be denoised or enhanced: three channels in, no last
upsampling block, 1,997,449 parameters. Where the file adds its input to a sigmoid, which can only make it brighter,
`residual` adds it to a hyperbolic tangent.

What is ours: `noise_plane` lets the first convolution see a fifth plane, which holds the noise level; `width` scales
every layer; `half_resolution` builds the same blocks at half the packed resolution, with two levels and no bottleneck,
for machines on which the layers at full packed resolution are what takes the time. The form "clean" is the teacher of
heterogeneous distillation, of which the paper says no more than that it sees the clean image: the same graph with the
picture itself folded into planes, so that every layer has the shape of the student's. Skips at the highest resolution
are cut, or it would learn to copy; the small form keeps its second, because too little passes below it to give a
picture back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..forms import Form
from .noise_level import with_plane

SLOPE = 0.2
"""Of every leaky rectifier."""

FORMS: tuple[Form, ...] = ("raw", "rgb", "clean")
"""Those that the family has."""


@dataclass(frozen=True)
class Variant:
    """One member of the family.

    Attributes:
        width: Channels at the highest resolution.
        half_resolution: The small form, at half the packed resolution.
        multiple: What width and height of the mosaic must be divisible by, in pixels.
    """

    width: int
    half_resolution: bool = False

    @property
    def multiple(self) -> int:
        return 8 if self.half_resolution else 32


VARIANTS = {"lwisp": Variant(16), "lwisp-s": Variant(8), "lwisp-xs": Variant(16, half_resolution=True)}
"""The family by name: 2.0 M, 0.5 M and 56 k parameters."""


class Conv(nn.Sequential):
    """Reflection pad, convolution, LeakyReLU. No normalisation anywhere in the network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3), nn.LeakyReLU(SLOPE))


class Double(nn.Sequential):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(Conv(inputs, outputs), Conv(outputs, outputs))


class Up(nn.Sequential):
    """The plug-in upsampling block: four times the channels, pixel shuffle to twice the size, one more convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(Conv(inputs, 4 * outputs), nn.PixelShuffle(2), Conv(outputs, outputs))


class FineGrainedAttention(nn.Module):
    """Channel and spatial attention side by side, each residual, concatenated: C channels become 2 C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(1, channels // 8)
        self.squeeze = nn.Conv2d(channels, reduced, 1)
        self.excite = nn.Conv2d(reduced, channels, 1)
        self.spatial = nn.Conv2d(2, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, 2 C, H, W]."""
        means = x.mean((2, 3), keepdim=True)
        by_channel = torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))
        extremes = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        by_place = torch.sigmoid(self.spatial(extremes))
        return torch.cat([x + x * by_channel, x + x * by_place], 1)


class Down(nn.Sequential):
    """Half the size by max pooling, twice the channels by attention."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.MaxPool2d(2), FineGrainedAttention(channels))


class LWISP(nn.Module):
    """The network of the paper.

    Args:
        width: Channels at packed resolution, 16 in the paper.
        sup: Add the upsampled encoder feature to each upsampled decoder feature, through the same weights.
        form: See `Form`.
        residual: For "rgb": what is learned is the change of the picture.
        noise_plane: For "raw": see a plane that holds the noise level.
    """

    def __init__(
        self,
        width: int = 16,
        *,
        sup: bool = False,
        form: Form = "raw",
        residual: bool = False,
        noise_plane: bool = False,
    ) -> None:
        super().__init__()
        w = width
        self.sup, self.form, self.residual, self.noise_plane = sup, form, residual, noise_plane
        self.fold = nn.PixelUnshuffle(2) if form == "clean" else nn.Identity()
        self.c0, self.c1 = Conv({"raw": 4, "rgb": 3, "clean": 12}[form] + noise_plane, w), Double(w, w)
        self.p1, self.c2 = Down(w), Double(2 * w, 2 * w)
        self.p2, self.c3 = Down(2 * w), Double(4 * w, 4 * w)
        self.p3, self.c4 = Down(4 * w), Double(8 * w, 8 * w)
        self.p4, self.c5 = Down(8 * w), Conv(16 * w, 16 * w)
        self.g = nn.Sequential(nn.Linear(16 * w, 8 * w), nn.ReLU())
        self.c6 = Double(16 * w, 8 * w)
        self.u1, self.c7 = Up(8 * w, 4 * w), Conv(8 * w, 4 * w)
        self.u2, self.c8 = Up(4 * w, 2 * w), Conv(4 * w, 2 * w)
        self.u3, self.c9 = Up(2 * w, w), Conv(2 * w, w)
        self.u4 = nn.Identity() if form == "rgb" else Up(w, w)
        last = nn.Conv2d(w, 3, 3)
        self.out = nn.Sequential(nn.ReflectionPad2d(1), last, nn.Tanh() if residual else nn.Sigmoid())
        if residual:  # no change to begin with
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]: there is one

    def forward(self, planes: Tensor, noise: Tensor | None = None) -> Tensor:
        """Develop packed planes, or a picture.

        Args:
            planes: float [B, 4, H, W], the R, Gr, Gb and B samples of a mosaic of 2 H x 2 W pixels, in [0, 1], white
                balanced; H and W divisible by 16. For the form "rgb" a picture [B, 3, H, W], and for "clean" one of
                twice that size.
            noise: float [B, 1, 1, 1], the noise level from 0 to 1, with `noise_plane`.

        Returns:
            float [B, 3, 2 H, 2 W], RGB in [0, 1]; of the size of the picture for the other forms, and beyond [0, 1]
            with `residual`.
        """
        seen = self.fold(planes)
        c0 = self.c0(with_plane(seen, noise) if self.noise_plane else seen)
        c1 = self.c1(c0)
        c2 = self.c2(self.p1(c1))
        c3 = self.c3(self.p2(c2))
        c4 = self.c4(self.p3(c3))
        scene = self.g(self.c5(self.p4(c4)).mean((2, 3)))
        c6 = self.c6(torch.cat([c4, scene[:, :, None, None].expand_as(c4)], 1))
        c7 = self.c7(torch.cat([self._up(self.u1, c6, c4), c3], 1))
        c8 = self.c8(torch.cat([self._up(self.u2, c7, c3), c2], 1))
        if self.form == "clean":
            return self.out(self.u4(self.c9(torch.cat([self._up(self.u3, c8, c2), torch.zeros_like(c1)], 1))))
        c9 = self.c9(torch.cat([self._up(self.u3, c8, c2), c1], 1))
        picture = self.out(self.u4(c0 * c9))
        return planes + picture if self.residual else picture

    def _up(self, block: Up, decoded: Tensor, encoded: Tensor) -> Tensor:
        return block(decoded) + block(encoded) if self.sup else block(decoded)


class HalfResolutionLWISP(nn.Module):
    """The blocks of LW-ISP at half the packed resolution, with two levels: `lwisp-xs`. Forms are "raw" and "clean"."""

    def __init__(self, width: int = 16, *, form: Form = "raw", noise_plane: bool = False) -> None:
        super().__init__()
        w = width
        self.form, self.noise_plane = form, noise_plane
        self.unshuffle = nn.PixelUnshuffle(4 if form == "clean" else 2)
        self.c0, self.c1 = Conv((48 if form == "clean" else 16) + noise_plane, w), Conv(w, w)
        self.p1, self.c2 = Down(w), Double(2 * w, 2 * w)
        self.u1, self.c3 = Up(2 * w, w), Conv(2 * w, w)
        self.out = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(w, 48, 3), nn.Sigmoid(), nn.PixelShuffle(4))

    def forward(self, planes: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `LWISP.forward`; H and W divisible by 4."""
        seen = self.unshuffle(planes)
        c0 = self.c0(with_plane(seen, noise) if self.noise_plane else seen)
        c1 = self.c1(c0)
        c2 = self.c2(self.p1(c1))
        c3 = self.c3(torch.cat([self.u1(c2), c1], 1))
        return self.out(c3 if self.form == "clean" else c0 * c3)


def make_lwisp(
    name: str = "lwisp", *, sup: bool = False, form: Form = "raw", residual: bool = False, noise_plane: bool = False
) -> nn.Module:
    """A member of the family with fresh weights.

    Raises:
        ValueError: No such name or form, or a form or option that the member does not have.
    """
    for what, known in ((name, VARIANTS), (form, FORMS)):
        if what not in known:
            raise ValueError(f"there is no {what!r}; choose one of {', '.join(known)}")
    if residual and form != "rgb":
        raise ValueError(f"residual is for pictures that are given, not for the form {form}")
    if noise_plane and form != "raw":
        raise ValueError(f"a noise plane is for raw frames, not for the form {form}")
    variant = VARIANTS[name]
    if not variant.half_resolution:
        return LWISP(variant.width, sup=sup, form=form, residual=residual, noise_plane=noise_plane)
    if sup:
        raise ValueError(f"{name} has no second upsampling branch")
    if form == "rgb":
        raise ValueError(f"{name} is for planes, not for pictures; use lwisp or lwisp-s")
    return HalfResolutionLWISP(variant.width, form=form, noise_plane=noise_plane)
