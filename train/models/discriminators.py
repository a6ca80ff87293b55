"""What tells pictures that were made from photographs: by texture, and by colour.

Source: Arhire, Timofte, "Learned Lightweight Smartphone ISP with Unpaired Data" (CVPR workshops 2025), and the code
released with it. Neither sees pixels: they see the features of a network that stays as it is (`train.adversary`).

What differs: the layer behind the flattened features is made with the rest, for features of a size that is told. In the
release it is made at the first call, when the optimiser has been given its parameters, and so never learns.
"""

from __future__ import annotations

from torch import Tensor, nn

SLOPE = 0.2
"""Of every leaky rectifier."""

_LAYERS = ((48, 5, 2), (128, 3, 2), (192, 3, 1), (192, 3, 1), (128, 3, 2))
"""Channels, kernel and stride of the convolutions of the texture discriminator."""

_FULL = 1024
"""Outputs of its first fully connected layer."""

_TOKEN = 512
"""Of the hidden layers of the colour discriminator."""


class TextureDiscriminator(nn.Module):
    """Five convolutions and two fully connected layers, without norms.

    Args:
        channels: Of the features.
        height, width: Of the features, in places.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for outputs, kernel, stride in _LAYERS:
            layers += [nn.Conv2d(channels, outputs, kernel, stride, kernel // 2), nn.LeakyReLU(SLOPE)]
            channels, height, width = outputs, -(-height // stride), -(-width // stride)
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.judge = nn.Sequential(
            nn.Linear(channels * height * width, _FULL), nn.LeakyReLU(SLOPE), nn.Linear(_FULL, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, channels, height, width] to [B]: larger for what looks real."""
        return self.judge(self.layers(features))[:, 0]


class ColourDiscriminator(nn.Module):
    """The same three layers for each place or token, and the mean of what they say.

    Args:
        channels: Of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(channels, _TOKEN), nn.ReLU()), *(nn.Linear(_TOKEN, _TOKEN), nn.ReLU()), nn.Linear(_TOKEN, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, tokens, channels], or [B, channels, H, W], to [B]: larger for what looks real."""
        tokens = features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
        return self.layers(tokens).mean((1, 2))
