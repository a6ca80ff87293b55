"""Networks of several levels: what they learn, where each begins, and what cannot be mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import interpolate

from ispeed.engines import UserError
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.cli import train
from ispeed.train.config import TrainConfig
from ispeed.train.losses import make_loss
from ispeed.train.models import make_module, make_network
from ispeed.train.objectives import Objective, make_objective, wanted

DATA = {"source": "hdr", "operator": "none", "crop": 32, "scenes": 1}
SHARED: dict[str, Any] = {
    "data": {"train": [{**DATA, "repeats": 4}], "validation": [DATA], "batch": 2},
    "model": {"name": "hdrisp", "options": {"width": 4, "level": 4}},
    "loss": {"mse": 1.0},
    "schedule": {"steps": 2, "warmup": 0},
    "threads": 1,
}


def batch(edge: int = 64) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    sample = {"planes": torch.rand(2, 4, edge // 2, edge // 2), "gains": torch.ones(2, 3)}
    return sample | {"matrix": torch.eye(3).repeat(2, 1, 1), "target": torch.rand(2, 3, edge, edge)}


def hdrisp(level: int) -> Any:
    torch.manual_seed(1)
    return make_module(make_network("hdrisp", width=4, level=level))


@pytest.mark.parametrize("level", range(5))
def test_each_learns_the_picture_in_its_size(level: int):
    core, seen = hdrisp(level), batch()
    edge = 64 >> level
    smaller = interpolate(seen["target"], (edge, edge), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(wanted(core, seen), smaller if level else seen["target"])
    total, _ = Objective(make_loss({"mse": 1.0}), core)(core, seen)
    given = core(seen["planes"], seen["gains"])
    torch.testing.assert_close(total, (given - smaller).square().mean())


def test_small_places_count_where_all_of_them_does():
    core, seen = hdrisp(2), batch()
    seen["mask"] = torch.ones(2, 1, 64, 64)
    seen["mask"][:, :, 5, 9] = 0
    counted: list[torch.Tensor] = []

    class Keep(nn.Module):
        def forward(self, shown: Any, target: Any, mask: Any) -> Any:
            counted.append(mask)
            return shown.mean(), {}

    Objective(Keep(), core)(core, seen)
    assert counted[0].shape == (2, 1, 16, 16)
    assert (counted[0] == 0).nonzero().tolist() == [[0, 0, 1, 2], [1, 0, 1, 2]]


def test_each_begins_where_the_one_before_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    second = {"model": {"options": {"width": 4, "level": 3}, "weights": "$run/deep/last.pt"}}
    recipe = SHARED | {"run": {"name": "levels"}, "stages": {"deep": {}, "next": second}}
    Path("levels.yaml").write_text(yaml.safe_dump(recipe))
    assert train(["levels.yaml"]) == 0
    before, after = (load_checkpoint(Path(f"runs/levels/{name}/last.pt")) for name in ("deep", "next"))
    assert (before.options["level"], after.options["level"]) == (4, 3)
    old, new = before.network.state_dict(), after.network.state_dict()
    same = {name for name in old if torch.equal(old[name], new[name])}
    fresh = make_network("hdrisp", width=4, level=3).state_dict()
    # the head of level 4 is not needed any more, and is as it was left; all that runs has gone on
    left = {name for name in same if not torch.equal(old[name], fresh[name])}
    frozen = {name for name, p in after.network.named_parameters() if not p.requires_grad}
    assert frozen
    assert frozen <= same
    assert any(name in left for name in frozen), "the head that learned first"
    assert not {name for name, p in after.network.named_parameters() if p.requires_grad} & same


def test_a_teacher_is_of_the_same_level(tmp_path: Path):
    teacher = tmp_path / "coarse.pt"
    network = make_network("hdrisp", width=4, level=1)
    save_checkpoint(teacher, Checkpoint(network, "hdrisp", {"width": 4, "level": 1}))
    student = SHARED | {"model": {"name": "lwisp-xs"}, "distill": {"teacher": str(teacher)}}
    config = TrainConfig.model_validate(student)
    with pytest.raises(
        UserError, match=r"coarse\.pt gives pictures 2 times smaller than its frames, and this network 1"
    ):
        make_objective(config, make_module(make_network("lwisp-xs")))


def test_crops_that_a_loss_cannot_see_are_told_before_the_first_step():
    config = TrainConfig.model_validate(SHARED | {"loss": {"mse": 1.0, "ms_ssim": {"scales": 2}}})
    with pytest.raises(UserError, match=r"loss: what comes of crops of 32 cannot be compared: .*; change the crop"):
        make_objective(config, hdrisp(4))
