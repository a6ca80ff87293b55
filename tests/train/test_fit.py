"""Training from end to end, on the smallest network and a handful of rendered scenes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from ispeed.engines import UserError
from ispeed.engines.core import read_core
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.cli import export
from ispeed.train.cli import train as isp_train
from ispeed.train.config import ScheduleSettings, TrainConfig
from ispeed.train.fit import TrainingFault, learning_rate_share, train
from ispeed.train.models import make_network

COMMAND = [sys.executable, "-c", "from ispeed.train.entry import train; raise SystemExit(train())"]
RECIPE = """
model: {name: lwisp-xs}
data:
  train: [{source: scenes, count: 20, crop: 32, scenes: 2}]
  validation: [{source: scenes, count: 3, crop: 32, scenes: 2}]
  batch: 4
  licence: Apache-2.0
loss: {charbonnier: 1, gradient: 0.5}
optim: {lr: 2.0e-3}
schedule: {steps: 60, warmup: 5}
ema: {decay: 0.9}
device: cpu
threads: 1
validation: {every: 25}
run: {log_every: 10, checkpoint_every: 7}
"""

LEARNING = ("schedule.steps=250", "optim.lr=5e-3", "validation.every=100", "data.batch=8")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def run(recipe: Path, name: str, *changes: str, resume: bool = False) -> int:
    return isp_train(words(recipe, name, *changes, resume=resume))


def words(recipe: Path, name: str, *changes: str, resume: bool = False) -> list[str]:
    given = [f"run.folder={recipe.parent}", f"run.name={name}", *changes]
    return [str(recipe), *(word for change in given for word in ("--set", change)), *["--resume"] * resume]


def state(recipe: Path, name: str) -> dict[str, Any]:
    return torch.load(recipe.parent / name / "last.pt", weights_only=True)


def metrics(recipe: Path, name: str) -> list[dict[str, Any]]:
    """What was logged, but for what depends on the clock."""
    lines = map(json.loads, (recipe.parent / name / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in ("samples_per_s", "data_wait")} for line in lines]


def wait_for(recipe: Path, name: str, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until the run logs that step, or a later one."""
    log, deadline = recipe.parent / name / "metrics.jsonl", time.monotonic() + 60
    while not any(int(done) >= step for done in re.findall(r'"step": (\d+)', log.read_text() if log.exists() else "")):
        assert process.poll() is None, "ended before its time"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def differing(one: Any, other: Any, name: str = "") -> list[str]:
    """Where two nests of tensors are not equal to the bit; the name of the run and of its folder do not count."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        keys = [key for key in one if (name, key) not in {("/training/config", "run"), ("", "run")}]
        return [found for key in keys for found in differing(one[key], other[key], f"{name}/{key}")]
    return [] if one == other else [name]


def test_it_learns_and_says_so(recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert run(recipe, "a", "validation.improve_db=2", *LEARNING) == 0
    lines = metrics(recipe, "a")
    measured = {line["step"]: line["psnr_db"] for line in lines if "psnr_db" in line}
    assert list(measured) == [0, 100, 200, 250]
    assert measured[250] > measured[0] + 2
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == sorted({*range(10, 251, 10), *range(7, 251, 7)})
    for line in logged:
        assert line["loss"] == pytest.approx(line["charbonnier"] + 0.5 * line["gradient"], rel=1e-5)
    assert "lwisp-xs, 250 steps, validation " in capsys.readouterr().out
    kept = load_checkpoint(recipe.parent / "a/last.pt")
    assert (kept.model, kept.data, kept.licence) == ("lwisp-xs", "rendered scenes", "Apache-2.0")
    assert kept.run.startswith("a: 250 of 250 steps, seed 1, validation ")
    assert kept.training is not None
    assert {"config", "manifest", "code", "torch", "step", "optimiser"} <= kept.training.keys()


def test_a_gain_that_is_missed_is_exit_code_1(recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert run(recipe, "a", "validation.improve_db=60", "schedule.steps=6") == 1
    assert "the recipe asks for 60.0 dB more" in capsys.readouterr().err


def test_a_checkpoint_becomes_a_core(recipe: Path):
    assert run(recipe, "a", "schedule.steps=6") == 0
    assert export([str(recipe.parent / "a/last.pt")]) == 0
    info = read_core(recipe.parent / "a/last.onnx").info
    assert (info.model, info.data) == ("lwisp-xs", "rendered scenes")


def test_equal_runs_are_equal_and_other_seeds_are_not(recipe: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(recipe, name, f"seed={seed}", "schedule.steps=12") == 0
    assert differing(state(recipe, "a"), state(recipe, "b")) == []
    assert differing(state(recipe, "a")["weights"], state(recipe, "c")["weights"])


def test_workers_change_nothing(recipe: Path):
    for workers in (0, 2):
        assert run(recipe, f"w{workers}", f"data.workers={workers}", "schedule.steps=12") == 0
    assert differing(state(recipe, "w0")["weights"], state(recipe, "w2")["weights"]) == []


def test_killed_at_any_moment_it_comes_to_the_same_weights(recipe: Path):
    longer = "schedule.steps=600"
    assert run(recipe, "whole", longer) == 0
    for step, often in ((20, 7), (90, 1)):  # a checkpoint at every step: most moments lie within its writing
        command = COMMAND + words(recipe, "killed", longer, f"run.checkpoint_every={often}", resume=True)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            wait_for(recipe, "killed", step, process)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert 0 < state(recipe, "killed")["training"]["step"] < 600
    assert run(recipe, "killed", longer, resume=True) == 0
    assert differing(state(recipe, "whole"), state(recipe, "killed")) == []
    ends = [[line for line in metrics(recipe, name) if line["step"] > 200] for name in ("whole", "killed")]
    assert ends[0] == ends[1]


def test_asked_to_stop_it_writes_a_checkpoint_and_goes_on_from_there(recipe: Path):
    changes = ("run.checkpoint_every=1000", "run.log_every=1", "schedule.steps=300")
    with subprocess.Popen(COMMAND + words(recipe, "stopped", *changes), stderr=subprocess.DEVNULL) as process:
        wait_for(recipe, "stopped", 5, process)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    assert 5 <= state(recipe, "stopped")["training"]["step"] < 300
    config = TrainConfig.model_validate(state(recipe, "stopped")["training"]["config"])
    done = train(config, resume=True)
    assert done.steps == 300
    assert train(config, resume=True) == done, "a run that is at its end has nothing to do"


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert run(recipe, "a", "schedule.steps=14") == 0
    before = (recipe.parent / "a/last.pt").read_bytes()
    assert run(recipe, "b", "schedule.steps=14", "loss={l1: 1.0e+38, gradient: 3.4e+38}", "clip=null") == 1
    problem = capsys.readouterr().err.splitlines()[-1]
    assert problem.startswith("isp-train: error: the loss is no finite number any more at step 7: set optim.lr")
    assert problem.endswith("there is no checkpoint yet")
    config = TrainConfig.model_validate(state(recipe, "a")["training"]["config"])
    longer = config.model_copy(update={"schedule": ScheduleSettings(steps=28, warmup=5)})
    poisoned = torch.load(recipe.parent / "a/last.pt", weights_only=True)
    poisoned["training"]["config"] = longer.model_dump(mode="json")
    poisoned["training"]["optimiser"]["state"][0]["exp_avg"].fill_(math.nan)
    torch.save(poisoned, recipe.parent / "a/last.pt")
    before = (recipe.parent / "a/last.pt").read_bytes()
    with pytest.raises(TrainingFault, match=r"no finite number any more.*the last good checkpoint is"):
        train(longer, resume=True)
    assert (recipe.parent / "a/last.pt").read_bytes() == before


def test_other_data_is_not_gone_on_with(recipe: Path):
    assert run(recipe, "a", "schedule.steps=6") == 0
    kept = state(recipe, "a")
    kept["training"]["manifest"]["train"] = "0" * 64
    torch.save(kept, recipe.parent / "a/last.pt")
    config = TrainConfig.model_validate(kept["training"]["config"])
    with pytest.raises(UserError, match="is not what the run began with"):
        train(config, resume=True)


def test_it_starts_from_weights_of_the_same_network(recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert run(recipe, "a") == 0
    weights = f"model.weights={recipe.parent / 'a/last.pt'}"
    assert run(recipe, "b", weights, "schedule.steps=6") == 0
    assert metrics(recipe, "b")[0]["psnr_db"] == metrics(recipe, "a")[-1]["psnr_db"]
    large = ("data.train.0.crop=64", "data.validation.0.crop=64")
    assert run(recipe, "c", weights, "model.name=lwisp-s", *large) == 2
    assert "is a checkpoint of lwisp-xs {}, not of lwisp-s" in capsys.readouterr().err


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.02), ("fp16", 0.005)])
def test_half_precision_begins_as_full_precision_does(recipe: Path, precision: str, tolerance: float):
    for name in ("fp32", precision):
        assert run(recipe, name, f"precision={name}", "schedule.steps=10") == 0
    full, half = ([line["loss"] for line in metrics(recipe, name) if "loss" in line] for name in ("fp32", precision))
    assert half != full
    assert half == pytest.approx(full, rel=tolerance)
    kept = state(recipe, precision)["training"]
    assert (kept["scaler"] is not None) == (precision == "fp16")
    assert all(tensor.dtype == torch.float32 for tensor in kept["weights"].values())


def test_two_processes_train_as_one_does(recipe: Path):
    assert run(recipe, "one", "schedule.steps=8") == 0
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--no-python", *COMMAND, *words(recipe, "two", "schedule.steps=8")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 steps, validation") == 1, "one of the two speaks"
    one, two = state(recipe, "one"), state(recipe, "two")
    for name, weights in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weights, rtol=1e-3, atol=2e-4)
    assert two["training"]["end_db"] == pytest.approx(one["training"]["end_db"], abs=0.01)


def test_pictures_and_curves(recipe: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(recipe, "a", "schedule.steps=6", "run.tensorboard=true", "run.log_every=3") == 0
    events = EventAccumulator(str(recipe.parent / "a/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 6]
    picture = events.Images("samples")[-1]
    assert (picture.step, picture.width, picture.height) == (6, 3 * 32, 3 * 32)


def test_the_learning_rate():
    schedule = ScheduleSettings(steps=110, warmup=10, final=0.1)
    shares = [learning_rate_share(schedule, step) for step in range(111)]
    assert shares[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert shares[10] == 1
    assert shares[60] == pytest.approx(0.55)
    assert shares[110] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(shares[10:]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("loss={l3: 1}", "l3"),
        ("model.sup=true", "no second upsampling"),
        ("data.batch=64", "20 samples for batches of 64"),
        ("model.weights=none.pt", "cannot read the checkpoint"),
        ("data.train=[{source: pairs, data_set: zrr, root: none}]", "there is no folder none"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], change: str, problem: str
):
    assert run(recipe, "a", change) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]):
    assert isp_train(["--settings"]) == 0
    assert "optim.lr: learning rate after the warm-up (default 0.0005)" in capsys.readouterr().out
    assert isp_train(["--data-sets"]) == 0
    assert "Zurich RAW to RGB" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        isp_train([])


# ---- paramisp: parts of a circle, and weights of others ----------------------------------------------------

STILL = (
    "schedule={steps: 1, warmup: 0}",
    "optim.lr=1e-300",
    "ema.decay=0",
    "data.batch=2",
    "data.validation.0.count=1",
)
"""A run that leaves the weights as they were."""


def model(form: str, **values: object) -> str:
    return "model=" + json.dumps({"name": "paramisp", "form": form, "options": {"width": 2}, **values})


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, str]:
    """Checkpoints of both directions, trained with other rates of dropping."""
    torch.manual_seed(9)
    files = {}
    for part, options in (("forward", {"dropped": 0.5}), ("inverse", {"form": "inverse", "all_dropped": 0.0})):
        options = {"width": 2, **options}
        files[part] = str(tmp_path / f"{part}.pt")
        save_checkpoint(Path(files[part]), Checkpoint(make_network("paramisp", **options), "paramisp", options))
    return files


def test_a_circle_starts_from_its_parts(recipe: Path, parts: dict[str, str]):
    assert run(recipe, "both", model("cycle", parts=parts), *STILL) == 0
    both = load_checkpoint(recipe.parent / "both/last.pt")
    assert both.options == {"form": "cycle", "width": 2}
    weights = both.network.state_dict()
    for part, prefix in (("forward", "forth."), ("inverse", "back.")):
        for name, values in load_checkpoint(Path(parts[part])).network.state_dict().items():
            assert torch.equal(weights.pop(prefix + name), values)
    assert not weights
    assert any("frames" in line for line in metrics(recipe, "both"))
    assert run(recipe, "one", model("cycle", parts={"inverse": parts["inverse"]}), *STILL) == 0
    assert differing(state(recipe, "one")["weights"], state(recipe, "both")["weights"])


@pytest.mark.parametrize("form", ["raw", "inverse"])
def test_weights_of_other_rates_of_dropping_are_trained_on(recipe: Path, parts: dict[str, str], form: str):
    begun = parts["forward" if form == "raw" else "inverse"]
    assert run(recipe, "later", model(form, weights=begun), *STILL) == 0
    one, other = (load_checkpoint(Path(path)).network.state_dict() for path in (begun, recipe.parent / "later/last.pt"))
    assert differing(one, other) == []


@pytest.mark.parametrize(
    ("form", "values", "problem"),
    [
        ("cycle", {"parts": {"forward": "inverse"}}, "model.parts.forward is a checkpoint of paramisp {'width': 2, 'f"),
        ("cycle", {"parts": {"inverse": "forward"}}, "model.parts.inverse is a checkpoint of paramisp {'width': 2, 'd"),
        ("cycle", {"parts": {"forward": "forward"}, "options": {"width": 4}}, "not of paramisp {'width': 4}"),
        ("cycle", {"parts": {"forward": "nowhere"}}, "cannot read the checkpoint nowhere"),
        ("cycle", {"weights": "forward"}, "model.weights is a checkpoint of paramisp"),
        ("inverse", {"weights": "forward"}, "not of paramisp {'form': 'inverse', 'width': 2}"),
        ("raw", {"weights": "forward", "options": {"width": 2, "ranges": "high_speed"}}, "model.weights is"),
        ("raw", {"options": {"depth": 3}}, "model.options: paramisp does not take all of depth"),
        ("raw", {"options": {"width": 3}}, "model: width is 3"),
        ("raw", {"output": "linear"}, "model: ParamISP makes pictures: output must be srgb"),
    ],
)
def test_what_a_model_cannot_start_from(
    recipe: Path,
    parts: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    form: str,
    values: dict[str, Any],
    problem: str,
):
    if "parts" in values:
        values = {**values, "parts": {name: parts.get(file, file) for name, file in values["parts"].items()}}
    if "weights" in values:
        values = {**values, "weights": parts[values["weights"]]}
    assert run(recipe, "wrong", model(form, **values), *STILL) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1
