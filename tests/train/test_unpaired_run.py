"""Training against photographs: a run goes on as it would have, and recipes that cannot be are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ispeed.engines.errors import UserError
from ispeed.train.checkpoint import Checkpoint, load_checkpoint
from ispeed.train.config import TrainConfig
from ispeed.train.fit import train


def recipe(folder: Path, clean: Path, name: str = "a", **changes: Any) -> dict[str, Any]:
    source = {"source": "scenes", "crop": 64, "count": 16, "scenes": 2}
    return {
        "model": {"name": "efficientisp"},
        "data": {"train": [source], "validation": [{**source, "count": 1}], "batch": 2},
        "loss": {"content": {"weight": 1.0, "file": str(clean), "edge": 64}, "variation": 0.1},
        "adversary": {"texture": str(clean), "colour": str(clean), "every": 2, "lr": 1e-3},
        "balance": True,
        "optim": {"name": "adam", "lr": 1e-3, "betas": [0.5, 0.9]},
        "schedule": {"steps": 8, "warmup": 1},
        "clip": None,
        "threads": 1,
        "validation": {"every": 100},
        "run": {"name": name, "folder": str(folder), "log_every": 1, "checkpoint_every": 4},
        **changes,
    }


def run(values: dict[str, Any], *, resume: bool = False) -> Checkpoint:
    return load_checkpoint(train(TrainConfig.model_validate(values), resume=resume).checkpoint)


def test_a_run_that_stops_goes_on_to_the_same_weights(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The discriminators and their optimiser as well."""
    whole = run(recipe(tmp_path, clean, "whole"))
    steps = 0

    def stop_after(job: Any, batch: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return take(job, batch)

    from ispeed.train import fit

    take = fit._take_step
    monkeypatch.setattr(fit, "_take_step", stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(tmp_path, clean, "parts"))
    monkeypatch.setattr(fit, "_take_step", take)
    parts = run(recipe(tmp_path, clean, "parts"), resume=True)
    assert whole.training is not None
    assert parts.training is not None
    for name, weights in whole.training["weights"].items():
        torch.testing.assert_close(parts.training["weights"][name], weights, rtol=0, atol=0)
    judges = whole.training["objective"]["judges"]
    assert len(judges) > 20
    for name, weights in judges.items():
        torch.testing.assert_close(parts.training["objective"]["judges"][name], weights, rtol=0, atol=0)
    assert "against rendered scenes" in whole.data


def test_discriminators_take_their_steps_and_are_logged(clean: Path, tmp_path: Path):
    run(recipe(tmp_path, clean))
    lines = (tmp_path / "a/metrics.jsonl").read_text().splitlines()
    told = [line for line in lines if "judge_colour" in line]
    assert len(told) == 4, "every second step of eight"
    assert all("adversary_texture_deep" in line for line in lines if '"loss"' in line)


def test_without_discriminators_losses_can_be_balanced(clean: Path, tmp_path: Path):
    checkpoint = run(recipe(tmp_path, clean, adversary=None, loss={"charbonnier": 1.0, "variation": 100.0}))
    assert checkpoint.training is not None
    assert checkpoint.training["objective"] is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"name": "lwisp-s", "form": "clean"}}, "are for networks of the form raw"),
        ({"distill": {"teacher": "t.pt"}}, "without distill"),
        ({"adversary": {"texture": "a", "colour": "b", "weights": {"x": 1}}}, "there is no x"),
        ({"adversary": {"colour": "a"}}, "give the file texture"),
    ],
)
def test_recipes_that_cannot_be(changes: dict[str, Any], says: str, clean: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=says):
        TrainConfig.model_validate(recipe(tmp_path, clean, **changes))


@pytest.mark.parametrize(
    ("adversary", "says"),
    [
        ({"texture": "/no.pt"}, "cannot read the network for features /no.pt"),
        ({"photographs": "/no"}, "there is no folder /no"),
    ],
)
def test_files_that_are_not_there(adversary: dict[str, Any], says: str, clean: Path, tmp_path: Path):
    values = recipe(tmp_path, clean)
    values["adversary"] |= adversary
    with pytest.raises(UserError, match=says) as error:
        run(values)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a").exists()
