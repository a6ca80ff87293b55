"""The loop that makes first weights, two steps of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ispeed.engines import UserError
from ispeed.train import bootstrap
from ispeed.train.checkpoint import load_checkpoint
from ispeed.train.data import Batches
from ispeed.train.models import CoreModule, make_lwisp


class OneBatch(Batches):
    """Draws the same batch each time."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, pool=2)
        self._batch = super().draw(64)

    def draw(self, size: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._batch


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    """Two little pictures a step, always the same."""
    monkeypatch.setattr("ispeed.train.data.batches.CROPS", {64: 2})
    monkeypatch.setattr(bootstrap, "Batches", OneBatch)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).network.state_dict()


def test_two_steps_and_two_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    bootstrap.main(["lwisp-xs", "--steps", "2", "-o", str(first)])
    resumed = ["--resume", str(first), "--seed", "7"]
    bootstrap.main(["lwisp-xs", "--steps", "2", *resumed, "-o", str(second)])
    shown = capsys.readouterr()
    assert "step 0 loss" in shown.err
    checkpoint = load_checkpoint(second)
    assert (checkpoint.model, checkpoint.licence) == ("lwisp-xs", "Apache-2.0")
    assert checkpoint.run.count("2 steps at 0.001") == 2
    assert "seed 1" in checkpoint.run
    assert "seed 7" in checkpoint.run
    assert checkpoint.run in shown.out
    before, after = weights(first), weights(second)
    assert all(not torch.equal(before[name], after[name]) for name in before if name.startswith("out"))


def test_it_learns():
    torch.manual_seed(1)
    core, batch = CoreModule(make_lwisp("lwisp-xs")), OneBatch(1)
    evaluate = torch.inference_mode()(core)
    before = bootstrap.mean_psnr(evaluate, batch, count=1)
    assert bootstrap.fit(core, seed=1, minutes=0, steps=100, rate=2e-3) == 100
    assert bootstrap.mean_psnr(evaluate, batch, count=1) > before + 1


def test_time_runs_out():
    assert bootstrap.fit(CoreModule(make_lwisp("lwisp-xs")), seed=1, minutes=1e-9, steps=0, rate=1e-3) == 0


def test_same_seed_same_weights(tmp_path: Path):
    paths = [tmp_path / f"{name}.pt" for name in "abc"]
    for path, seed in zip(paths, (4, 4, 5), strict=True):
        bootstrap.main(["lwisp-xs", "--steps", "2", "--seed", str(seed), "-o", str(path)])
    a, b, c = (weights(path) for path in paths)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_checkpoint_of_another_model(tmp_path: Path, make_checkpoint: Callable[..., Path]):
    with pytest.raises(UserError, match="is of lwisp-xs, not of lwisp-s"):
        bootstrap.main(["lwisp-s", "--resume", str(make_checkpoint()), "-o", str(tmp_path / "x.pt")])


def test_wrong_input_is_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "ispeed.train.bootstrap", "lwisp", "--resume", "none.pt", "-o", "x.pt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    problem = "bootstrap: error: cannot read the checkpoint none.pt: No such file or directory\n"
    assert (done.returncode, done.stderr, done.stdout) == (2, problem, "")
