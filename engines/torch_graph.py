"""Head and tail around a core in torch: the same arithmetic as in `graph.graft`, for those who have no TensorRT."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ._head import phase, reflected
from .bayer import RawFormat
from .core import CoreInfo
from .defects import neighbours
from .flat_field import FlatField, checked_mesh, gain_map
from .graph import padded_size


class RawToSrgb(nn.Module):
    """Raw bytes of one format to sRGB bytes."""

    _rows: Tensor | None
    _columns: Tensor | None
    _matrix: Tensor | None
    _defects: Tensor | None
    _gains: Tensor | None
    _sources: Tensor
    _weights: Tensor

    def __init__(
        self,
        core: nn.Module,
        info: CoreInfo,
        fmt: RawFormat,
        *,
        precision: Literal["fp32", "fp16"] = "fp32",
        colour_matrix: npt.NDArray[np.float32] | None = None,
        curve: bool = False,
        defects: Sequence[tuple[int, int]] = (),
        flat_field: FlatField | None = None,
    ) -> None:
        """Put a core between head and tail.

        Args:
            core: What a core is, as a module: float32 planes (and params) in, float32 RGB out.
            info: Its metadata.
            fmt: Format of the frames.
            precision: In which the core's convolutions run; in fp16 its weights are converted here, in place.
            colour_matrix: 3x3, camera RGB to linear sRGB, applied to what the core gives; None is the identity.
            curve: Apply the sRGB curve.
            defects: (x, y) of pixels to replace by the mean of their neighbours of the same colour.
            flat_field: Gains against shading, see `flat_field.checked_mesh`.
        """
        super().__init__()
        self._fmt, self._half = fmt, precision == "fp16"
        self.core = core
        if self._half:
            cast(Any, core.half()).to(memory_format=torch.channels_last)
        self._takes_params = bool(info.inputs)
        self._scale = 1.0 / (fmt.white_level - fmt.black_level)
        self._curve = curve
        left, top = phase(fmt)
        width, height = padded_size(fmt, info.multiple)
        self._crop = np.s_[:, :, top : top + fmt.height, left : left + fmt.width]
        self._keep("_rows", reflected(fmt.height, top, height), fmt.height)
        self._keep("_columns", reflected(fmt.width, left, width), fmt.width)
        self._keep_defects(defects)
        gains = None if flat_field is None else torch.from_numpy(gain_map(checked_mesh(flat_field), fmt)).float()
        self.register_buffer("_gains", gains, persistent=False)
        matrix = None if colour_matrix is None else torch.from_numpy(np.asarray(colour_matrix, np.float32))
        self.register_buffer("_matrix", matrix, persistent=False)

    def forward(self, raw: Tensor, params: Tensor | None = None) -> Tensor:
        """Develop a batch.

        Args:
            raw: uint8 [B, *graph.raw_shape(fmt)].
            params: float32 [B, K]; None where the core takes none.

        Returns:
            uint8 [B, H, W, 3].
        """
        samples = (_unpacked(raw, self._fmt).float() - self._fmt.black_level) * self._scale
        samples = self._mended(samples)
        samples = samples if self._gains is None else samples * self._gains
        for axis, places in ((1, self._rows), (2, self._columns)):
            samples = samples if places is None else samples.index_select(axis, places)
        planes = nn.functional.pixel_unshuffle(samples[:, None], 2)
        if self._half:
            planes = planes.contiguous(memory_format=torch.channels_last)
        with self._precision(raw.device.type):
            rgb = self.core(planes, params) if self._takes_params else self.core(planes)
        return self._finished(rgb.float()[self._crop])

    def _precision(self, device: str) -> AbstractContextManager[Any]:
        # Casts are not cached: what is cached during the capture of a graph would be freed with that graph's memory.
        return torch.autocast(device, torch.float16, cache_enabled=False) if self._half else nullcontext()

    def _keep(self, name: str, places: npt.NDArray[np.int64], size: int) -> None:
        """A buffer of places along an axis, None where nothing is added."""
        unchanged = np.array_equal(places, np.arange(size))
        self.register_buffer(name, None if unchanged else torch.from_numpy(places), persistent=False)

    def _keep_defects(self, defects: Sequence[tuple[int, int]]) -> None:
        fmt, unique = self._fmt, sorted(set(defects))
        mendable = [(at, near) for at, near in zip(unique, neighbours(unique, fmt), strict=True) if near]
        at = sources = weights = None
        if mendable:
            most = max(len(near) for _, near in mendable)
            at = torch.tensor([y * fmt.width + x for (x, y), _ in mendable])
            # stand-ins that a defect does not have are pixel 0 with no weight
            sources, weights = torch.zeros(len(mendable), most, dtype=torch.int64), torch.zeros(len(mendable), most)
            for row, (_, near) in enumerate(mendable):
                sources[row, : len(near)] = torch.tensor([v * fmt.width + u for u, v in near])
                weights[row, : len(near)] = 1 / len(near)
        for name, value in (("_defects", at), ("_sources", sources), ("_weights", weights)):
            self.register_buffer(name, value, persistent=False)

    def _mended(self, samples: Tensor) -> Tensor:
        """Samples [B, H, W] with defects replaced."""
        if self._defects is None:
            return samples
        flat = samples.flatten(1)
        return flat.index_copy(1, self._defects, (flat[:, self._sources] * self._weights).sum(2)).view_as(samples)

    def _finished(self, rgb: Tensor) -> Tensor:
        """Float32 [B, 3, H, W] to bytes [B, H, W, 3]."""
        if self._matrix is not None:
            rgb = torch.einsum("ij,bjhw->bihw", self._matrix, rgb)
        rgb = rgb.clamp(0.0, 1.0)
        if self._curve:
            rgb = torch.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
        return (rgb * 255.0 + 0.5).permute(0, 2, 3, 1).to(torch.uint8)


def _unpacked(raw: Tensor, fmt: RawFormat) -> Tensor:
    """Bytes [B, *graph.raw_shape(fmt)] to samples [B, H, W] in DN, int32 (uint8 where they are bytes already)."""
    if fmt.bits_per_pixel == 8:
        return raw
    if fmt.bits_per_pixel == 16:
        low, high = raw.int().unbind(3)
        return low | high << 8
    group = {12: 3, 10: 5}[fmt.bits_per_pixel]
    part = raw.view(raw.shape[0], fmt.height, -1, group).int().unbind(3)
    if fmt.bits_per_pixel == 12:
        samples = [part[0] | (part[1] & 15) << 8, part[1] >> 4 | part[2] << 4]
    else:
        samples = [
            part[0] | (part[1] & 3) << 8,
            part[1] >> 2 | (part[2] & 15) << 6,
            part[2] >> 4 | (part[3] & 63) << 4,
            part[3] >> 6 | part[4] << 2,
        ]
    return torch.stack(samples, 3).view(raw.shape[0], fmt.height, fmt.width)
