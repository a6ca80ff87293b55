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
