"""ViT-B/16 as what looks at the colours of pictures, with weights of a file that the user brings.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021); the layout of names is that of the model
google/vit-base-patch16-224 in the package transformers. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from ..engines.errors import UserError
from .vgg import load_layers

EDGE, PATCH = 224, 16
"""Of the picture and of what becomes a token, in pixels."""

WIDTH, DEPTH, HEADS = 768, 12, 12

_EPS = 1e-12
"""Of the layer norms, as published."""

WHERE_FROM = (
    "give pytorch_model.bin of google/vit-base-patch16-224, or what torch.save writes of that model's state_dict()"
)


class ViT(nn.Module):
    """The encoder, without what classifies. Its parts have the names that they have in the file.

    Args:
        width, depth, heads: Those of ViT-B unless a test wants fewer.
    """

    def __init__(self, width: int = WIDTH, depth: int = DEPTH, heads: int = HEADS) -> None:
        super().__init__()
        self.embeddings = _Embeddings(width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(width, heads) for _ in range(depth))})
        self.layernorm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """The last hidden state of sRGB [B, 3, H, W] in [0, 1], which is brought to 224 x 224: one [B, 196, width],
        without the token that stands for the whole.

        Raises:
            ValueError: Not of three channels.
        """
        if picture.ndim != 4 or picture.shape[1] != 3:
            raise ValueError(f"ViT sees [B, 3, H, W], not {[*picture.shape]}")
        if tuple(picture.shape[2:]) != (EDGE, EDGE):
            picture = interpolate(picture, (EDGE, EDGE), mode="bilinear", align_corners=False)
        x = self.embeddings(2 * picture - 1)
        for layer in self.encoder["layer"]:  # pyright: ignore[reportGeneralTypeIssues]
            x = layer(x)
        return [self.layernorm(x)[:, 1:]]


class _Embeddings(nn.Module):
    """Patches as tokens, behind one for the whole."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, (EDGE // PATCH) ** 2 + 1, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, width, PATCH, stride=PATCH)})

    def forward(self, picture: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](picture).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.position_embeddings


class _Layer(nn.Module):
    """Attention and two fully connected layers, each behind a norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.layernorm_before, self.layernorm_after = (nn.LayerNorm(width, eps=_EPS) for _ in range(2))
        looked = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"attention": looked, "output": _dense(width, width)})
        self.intermediate, self.output = _dense(width, 4 * width), _dense(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layernorm_before(x)
        looked: Any = self.attention["attention"]
        query, key, value = (looked[name](y).unflatten(2, (self.heads, -1)).transpose(1, 2) for name in looked)
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        joined: Any = self.attention["output"]
        x = x + joined["dense"](mixed)
        return x + self.output["dense"](gelu(self.intermediate["dense"](self.layernorm_after(x))))


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})


def is_vit(state: Mapping[str, Any]) -> bool:
    """Whether these are weights of a ViT in the layout of transformers."""
    return any(name.removeprefix("vit.") == "embeddings.cls_token" for name in state)


def vit_of(state: Mapping[str, Tensor], path: Path) -> ViT:
    """The network with these weights. Raises UserError: they are of another network."""
    named = {name.removeprefix("vit."): value for name, value in state.items()}
    depth = len({name.split(".")[2] for name in named if name.startswith("encoder.layer.")})
    token = named.get("embeddings.cls_token")
    if token is None or not depth or token.ndim != 3 or token.shape[2] % HEADS:
        raise UserError(f"{path} does not hold a ViT; {WHERE_FROM}")
    network = ViT(token.shape[2], depth)
    load_layers(network, named, path, WHERE_FROM)
    return network
