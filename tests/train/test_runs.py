"""The folder of a run: held by one, never half written, and gone on with only by the same recipe."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from ispeed.engines import UserError
from ispeed.train.checkpoint import Checkpoint, load_checkpoint
from ispeed.train.config import TrainConfig
from ispeed.train.models import make_lwisp
from ispeed.train.runs import RunFolder, code_version


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    data = {"train": [{"source": "scenes"}], "validation": [{"source": "scenes"}]}
    return TrainConfig.model_validate({"data": data, "run": {"name": "x", "folder": tmp_path / "runs"}})


def checkpoint(config: TrainConfig, step: int) -> Checkpoint:
    training = {"config": config.model_dump(mode="json"), "step": step}
    return Checkpoint(make_lwisp("lwisp-xs"), "lwisp-xs", training=training)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write more, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_is_held_by_one(config: TrainConfig):
    with RunFolder(config, resume=False), pytest.raises(UserError, match="in use by another isp-train"):
        RunFolder(config, resume=True)
    RunFolder(config, resume=True).close()


def test_the_recipe_lies_with_the_run(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        kept = yaml.safe_load((folder.path / "config.yaml").read_text())
    assert TrainConfig.model_validate(kept) == config


def test_metrics_after_the_checkpoint_are_forgotten(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        for step in (0, 10, 20):
            folder.log({"step": step, "loss": 0.5})
        folder.save(checkpoint(config, 10))
        path = folder.path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 30, "lo')  # killed while it wrote
    with RunFolder(config, resume=True) as folder:
        assert folder.begun is not None
        folder.log({"step": 20, "loss": 0.25})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(0, 0.5), (10, 0.5), (20, 0.25)]


def test_measurements_that_came_late_stay(config: TrainConfig):
    logged = [(0, "loss"), (10, "loss"), (14, "loss"), (0, "psnr_db"), (10, "psnr_db"), (20, "loss"), (14, "psnr_db")]
    with RunFolder(config, resume=False) as folder:
        for step, name in logged:
            folder.log({"step": step, name: 0.5})
        folder.save(checkpoint(config, 14))
    with RunFolder(config, resume=True) as folder:
        kept = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], *(line.keys() - {"step"})) for line in kept] == [each for each in logged if each[0] <= 14]


def test_what_was_kept_after_the_checkpoint_is_removed(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        for name in ("best", "step-000005", "step-000015", "step-1000000", "step-none"):
            folder.keep(name, Checkpoint(make_lwisp("lwisp-xs"), "lwisp-xs"))
        folder.save(checkpoint(config, 10))
    with RunFolder(config, resume=True) as folder:
        kept = sorted(path.name for path in folder.path.glob("*.pt"))
    assert kept == ["best.pt", "last.pt", "step-000005.pt", "step-none.pt"]


def test_killed_before_its_first_checkpoint_it_begins_again(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        folder.log({"step": 0, "loss": 0.5})
    with RunFolder(config, resume=False) as folder:
        assert folder.begun is None
        assert (folder.path / "metrics.jsonl").read_text() == ""


def test_a_run_is_not_written_over(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        folder.save(checkpoint(config, 10))
    with pytest.raises(UserError, match=r"holds a run; go on with it by --resume"):
        RunFolder(config, resume=False)
    other = config.model_copy(update={"seed": 2, "precision": "bf16"})
    with pytest.raises(UserError, match=r"precision was 'fp32', is 'bf16'; seed was 1, is 2"):
        RunFolder(other, resume=True)
    torch.save({"x": 1}, config.run.folder / "x/last.pt")
    with pytest.raises(UserError, match="no checkpoint of ispeed"):
        RunFolder(config, resume=True)


def test_settings_that_came_later_have_their_defaults(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        before = checkpoint(config, 10)
        assert before.training is not None
        del before.training["config"]["balance"], before.training["config"]["adversary"]
        folder.save(before)
    RunFolder(config, resume=True).close()
    other = config.model_copy(update={"balance": True})
    with pytest.raises(UserError, match="balance was False, is True"):
        RunFolder(other, resume=True)


def test_weights_alone_are_nothing_to_go_on_from(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        folder.save(Checkpoint(make_lwisp("lwisp-xs"), "lwisp-xs"))
    with pytest.raises(UserError, match="holds weights alone"):
        RunFolder(config, resume=True)


def test_a_full_disk_leaves_the_last_checkpoint(config: TrainConfig):
    with RunFolder(config, resume=False) as folder:
        with files_of_at_most(50_000), pytest.raises(UserError, match=r"File too large; there is no checkpoint yet"):
            folder.save(checkpoint(config, 10))
        folder.save(checkpoint(config, 20))
        with files_of_at_most(50_000), pytest.raises(UserError, match=r"File too large; the last good checkpoint is"):
            folder.save(checkpoint(config, 30))
        assert (load_checkpoint(folder.checkpoint).training or {})["step"] == 20
        assert not list(folder.path.glob("*.part"))


def test_where_no_folder_can_be_made(config: TrainConfig, tmp_path: Path):
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        RunFolder(config, resume=False)


@pytest.mark.parametrize("logged", [[], [0], [0, 10]])
def test_what_ends_before_a_step_leaves_nothing(config: TrainConfig, tmp_path: Path, logged: list[int]):
    def ends() -> None:
        with RunFolder(config, resume=False) as folder:
            for step in logged:
                folder.log({"step": step})
            raise UserError("no data")

    with pytest.raises(UserError, match="no data"):
        ends()
    assert (tmp_path / "runs").exists() == (10 in logged)


def test_what_was_there_before_stays(config: TrainConfig, tmp_path: Path):
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "note").touch()
    with pytest.raises(UserError, match="no data"), RunFolder(config, resume=False):
        raise UserError("no data")
    assert (tmp_path / "runs" / "x" / "note").exists()


def test_other_runs_stay(config: TrainConfig, tmp_path: Path):
    (tmp_path / "runs" / "y").mkdir(parents=True)
    with pytest.raises(UserError, match="no data"), RunFolder(config, resume=True):
        raise UserError("no data")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["y"]


def test_the_code_has_a_version():
    assert code_version() == code_version()
    assert len(code_version().partition("+")[2]) == 12
