"""The mean of the weights over the last steps."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class WeightMean(Generic[M]):
    """An exponential mean of a module's weights, as a module of its own.

    Args:
        module: Whose weights; it is copied.
        decay: Share of the mean that stays with a step. In the first steps it is less, so that the weights of the
            start are soon forgotten: after n steps at most (1 + n) / (10 + n).
    """

    def __init__(self, module: M, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: M, step: int) -> None:
        """Take in the weights after a step, of which this is the number, from 0 on."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, share)
        for mean, now in zip(self.module.buffers(), module.buffers(), strict=True):
            mean.copy_(now)
