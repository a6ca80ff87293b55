"""Batches of rendered scenes with the classic engine's pictures of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .scene import render_scene
from .sensor import ClassicTarget, expose

CROPS = {64: 32, 128: 16, 192: 8, 256: 4, 320: 3}
"""Crops per batch by their edge in pixels. Edges vary because the networks see means over the whole picture."""

EDGE = 352
"""Of a scene, in pixels."""


class Batches:
    """Random crops of a pool of scenes, one of which is replaced with every second batch."""

    def __init__(self, seed: int, pool: int = 96) -> None:
        self._rng = np.random.default_rng(seed)
        self._scenes = [render_scene(self._rng, EDGE, EDGE) for _ in range(pool)]
        self._targets = {size: ClassicTarget(size, size) for size in CROPS}
        self._drawn = 0

    def draw(self, size: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """A batch that no other call returns.

        Args:
            size: Edge of the crops, a key of `CROPS`; None takes any.

        Returns:
            Planes with noise, float32 [B, 4, size/2, size/2]; white-balance gains, float32 [B, 3]; the pictures to
            reach, float32 [B, 3, size, size], sRGB in [0, 1].
        """
        self._drawn += 1
        if self._drawn % 2 == 0:
            self._scenes[self._drawn // 2 % len(self._scenes)] = render_scene(self._rng, EDGE, EDGE)
        size = size or int(self._rng.choice(list(CROPS)))
        frames = [expose(self._rng, self._crop(size)) for _ in range(CROPS[size])]
        pictures = np.stack([self._targets[size].develop(frame.clean, frame.gains) for frame in frames])
        return (
            torch.from_numpy(np.stack([frame.planes for frame in frames])),
            torch.from_numpy(np.stack([frame.gains for frame in frames])),
            torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255,
        )

    def _crop(self, size: int) -> npt.NDArray[np.float32]:
        """In any of the eight orientations."""
        y, x = self._rng.integers(0, EDGE - size, 2)
        crop = self._scenes[self._rng.integers(len(self._scenes))][y : y + size, x : x + size]
        return np.rot90(crop[:, :: self._rng.choice([-1, 1])], int(self._rng.integers(4)))
