"""What is exported: a network behind the contract of a model core."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INPUTS = ("wb_r", "wb_g", "wb_b")
"""Columns of `params`."""


class CoreModule(nn.Module):
    """A network that white-balances what it sees, as `engines.core` asks of a core."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, raw: Tensor, params: Tensor) -> Tensor:
        """Develop planes that are not white balanced.

        A sample is limited to 1 after its gain, as in the classic engine, so that burnt-out highlights stay white.

        Args:
            raw: float32 [B, 4, H/2, W/2], R, Gr, Gb, B, black 0, white 1.
            params: float32 [B, 3], gains of red, green and blue.

        Returns:
            float32 [B, 3, H, W], sRGB in [0, 1].
        """
        gains = torch.cat([params[:, :2], params[:, 1:]], 1)[:, :, None, None]  # of R, Gr and of Gb, B
        return self.network(torch.clamp(raw * gains, max=1.0))
