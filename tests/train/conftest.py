"""Checkpoints without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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
