"""ViT as what sees colours: against the same layers written out with a file in the layout of transformers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, softmax

from ispeed.engines.errors import UserError
from ispeed.train.sight import load_colour
from ispeed.train.vit import DEPTH, HEADS, ViT, is_vit, vit_of

WIDTH = 24
PATH = Path("vit.bin")


def weights(width: int = WIDTH, depth: int = 2, prefix: str = "vit.") -> dict[str, Tensor]:
    """Random ones under the names that transformers gives them."""
    chance = torch.Generator().manual_seed(7)

    def some(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=chance)

    state = {
        "embeddings.cls_token": some(1, 1, width),
        "embeddings.position_embeddings": some(1, 197, width),
        "embeddings.patch_embeddings.projection.weight": some(width, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": some(width),
        "layernorm.weight": some(width),
        "layernorm.bias": some(width),
        "classifier.weight": some(5, width),
    }
    for number in range(depth):
        sizes = {
            "attention.attention.query": (width, width),
            "attention.attention.key": (width, width),
            "attention.attention.value": (width, width),
            "attention.output.dense": (width, width),
            "intermediate.dense": (4 * width, width),
            "output.dense": (width, 4 * width),
        }
        for name, (outputs, inputs) in sizes.items():
            state[f"encoder.layer.{number}.{name}.weight"] = some(outputs, inputs)
            state[f"encoder.layer.{number}.{name}.bias"] = some(outputs)
        for name in ("layernorm_before", "layernorm_after"):
            state[f"encoder.layer.{number}.{name}.weight"] = 1 + some(width)
            state[f"encoder.layer.{number}.{name}.bias"] = some(width)
    return {prefix + name: value for name, value in state.items()}


def written_out(picture: Tensor, state: dict[str, Tensor], depth: int = 2) -> Tensor:
    """The last hidden state, with the token for the whole, of pictures [B, 3, 224, 224]."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"vit.{name}.weight"].T + state[f"vit.{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (WIDTH,), state[f"vit.{name}.weight"], state[f"vit.{name}.bias"], 1e-12)

    patch = "vit.embeddings.patch_embeddings.projection"
    patches = conv2d((picture - 0.5) / 0.5, state[f"{patch}.weight"], state[f"{patch}.bias"], stride=16)
    x = torch.cat([state["vit.embeddings.cls_token"].expand(len(picture), 1, WIDTH), patches.flatten(2).mT], 1)
    x = x + state["vit.embeddings.position_embeddings"]
    for number in range(depth):
        at = f"encoder.layer.{number}"
        y = norm(x, f"{at}.layernorm_before")
        parts = [linear(y, f"{at}.attention.attention.{name}") for name in ("query", "key", "value")]
        heads = []
        for each in zip(*(part.chunk(HEADS, 2) for part in parts), strict=True):
            query, key, value = each
            heads.append(softmax(query @ key.mT / math.sqrt(WIDTH // HEADS), 2) @ value)
        x = x + linear(torch.cat(heads, 2), f"{at}.attention.output.dense")
        y = norm(x, f"{at}.layernorm_after")
        x = x + linear(gelu(linear(y, f"{at}.intermediate.dense")), f"{at}.output.dense")
    return norm(x, "layernorm")


@torch.no_grad()
def test_tokens_are_those_of_the_layers_written_out():
    picture = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    (seen,) = vit_of(weights(), PATH)(picture)
    assert seen.shape == (2, 196, WIDTH)
    torch.testing.assert_close(seen, written_out(picture, weights())[:, 1:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_other_sizes_are_brought_to_its_own():
    small = torch.full((1, 3, 40, 60), 0.3)
    network = vit_of(weights(), PATH)
    torch.testing.assert_close(network(small)[0], network(torch.full((1, 3, 224, 224), 0.3))[0])
    with pytest.raises(ValueError, match=r"ViT sees \[B, 3, H, W\]"):
        network(torch.zeros(1, 1, 224, 224))


def test_the_size_of_the_published_one():
    with torch.device("meta"):
        network = ViT()
    assert len(network.encoder["layer"]) == DEPTH == 12  # pyright: ignore[reportArgumentType]
    assert sum(p.numel() for p in network.parameters()) == 85_798_656  # ViT-B/16 without pooling and classifier


@pytest.mark.parametrize("prefix", ["vit.", ""])
def test_files_with_and_without_the_classifier(prefix: str, tmp_path: Path):
    path = tmp_path / "vit.bin"
    torch.save(weights(prefix=prefix), path)
    assert is_vit(weights(prefix=prefix))
    assert load_colour(path)(torch.rand(1, 3, 64, 64))[0].shape == (1, 196, WIDTH)


def test_files_that_hold_something_else(tmp_path: Path):
    path = tmp_path / "other.bin"
    torch.save({"features.0.weight": torch.zeros(2, 3, 3, 3)}, path)
    with pytest.raises(UserError, match="holds neither a ViT nor a checkpoint of the form clean; give a checkpoint"):
        load_colour(path)
    state = weights()
    del state["vit.encoder.layer.1.output.dense.weight"]
    with pytest.raises(UserError, match=r"encoder\.layer\.1\.output\.dense\.weight is missing or of another shape"):
        vit_of(state, PATH)
    with pytest.raises(UserError, match="does not hold a ViT"):
        vit_of({"vit.embeddings.cls_token": torch.zeros(1, 1, WIDTH)}, PATH)
    with pytest.raises(UserError, match="cannot read the network for features"):
        load_colour(tmp_path / "none.bin")
