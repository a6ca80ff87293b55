"""Checkpoints without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ispeed.train.checkpoint import Checkpoint, save_checkpoint
from ispeed.train.models import make_network


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a checkpoint of a model with random weights, the same ones every time."""

    def make(model: str = "lwisp-xs") -> Path:
        torch.manual_seed(5)
        path = tmp_path / f"{model}.pt"
        save_checkpoint(path, Checkpoint(make_network(model), model, run="none", data="chance", licence="Apache-2.0"))
        return path

    return make


@pytest.fixture
def make_told(tmp_path: Path) -> Callable[[str, dict[str, object]], Path]:
    """Writes a checkpoint of a network with a noise plane that shows: its weights are chance, but large there."""

    def make(model: str, noise: dict[str, object]) -> Path:
        torch.manual_seed(6)
        network = make_network(model, noise=noise)
        with torch.no_grad():
            if model == "liteisp-s":
                network.tail[0].weight[:, -1] *= 30  # the plane reaches the tail past all scales
                network.tail[2].bias += 0.5
            else:
                network.c0[1].weight[:, -1] *= 30
        path = tmp_path / f"{model}.pt"
        save_checkpoint(path, Checkpoint(network, model, {"noise": noise}, run="none", data="chance", licence="CC0"))
        return path

    return make


@pytest.fixture(scope="session")
def lively() -> Callable[..., nn.Module]:
    """Makes a small network of paramisp with larger weights where it begins with small ones, so that every input
    shows; the same ones every time."""

    def make(form: str = "raw", **options: Any) -> nn.Module:
        torch.manual_seed(4)
        network = make_network("paramisp", form=form, **{"width": 4, **options})
        for name, weight in network.named_parameters():
            if name.endswith(("tail.weight", "told.weight", "mix.2.weight")) or (".set." in name and weight.ndim > 1):
                nn.init.xavier_uniform_(weight, 0.5)
        return network

    return make


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an auto-encoder of clean pictures, of chance: what losses and discriminators see through."""
    torch.manual_seed(6)
    network, path = make_network("lwisp-s", form="clean"), tmp_path_factory.mktemp("clean") / "clean.pt"
    save_checkpoint(path, Checkpoint(network, "lwisp-s", {"form": "clean"}, run="none", data="chance", licence="CC0"))
    return path
