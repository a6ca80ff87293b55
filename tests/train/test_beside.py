"""Validation beside training: the same weights, measurements and choice, whatever ends which of the two processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from ispeed.engines.errors import UserError
from ispeed.train.beside import Beside
from ispeed.train.cli import train as isp_train
from ispeed.train.data.scenes import Scenes
from ispeed.train.judging import Judge
from ispeed.train.models import make_module, make_network

COMMAND = [sys.executable, "-c", "from ispeed.train.entry import train; raise SystemExit(train())"]
SOURCE = {"source": "scenes", "crop": 64, "count": 16, "scenes": 2}
RECIPE = {
    "model": {"name": "efficientisp"},
    "data": {"train": [SOURCE], "validation": [{**SOURCE, "count": 2}], "batch": 2},
    "optim": {"name": "adam", "lr": 5e-3},
    "schedule": {"steps": 300, "warmup": 1},
    "ema": {"decay": 0.5},
    "device": "cpu",
    "threads": 1,
    "validation": {"every": 6, "choose": "psnr"},
    "run": {"log_every": 5, "checkpoint_every": 10},
}
BESIDE = "validation.beside=true"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def words(recipe: Path, name: str, *changes: str) -> list[str]:
    given = [f"run.folder={recipe.parent}", f"run.name={name}", *changes]
    return [str(recipe), *(word for change in given for word in ("--set", change))]


def state(recipe: Path, name: str, file: str = "last.pt") -> dict[str, Any]:
    return torch.load(recipe.parent / name / file, weights_only=True)


def lines(recipe: Path, name: str) -> list[dict[str, Any]]:
    """What was logged, by step, but for what depends on the clock."""
    log = recipe.parent / name / "metrics.jsonl"
    # the last one may be half written
    found = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
    kept = [{key: each[key] for key in each if key not in ("samples_per_s", "data_wait")} for each in found]
    return sorted(kept, key=lambda line: (line["step"], "psnr_db" in line))


def differing(one: Any, other: Any, name: str = "") -> list[str]:
    """Where two nests of tensors are not equal to the bit, but for the run's name and how it validates."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        told = {("/training/config", "run"), ("", "run"), ("/training/config/validation", "beside")}
        keys = [key for key in one if (name, key) not in told]
        return [found for key in keys for found in differing(one[key], other[key], f"{name}/{key}")]
    return [] if one == other else [name]


@contextlib.contextmanager
def started(recipe: Path, *changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a group of its own, which ends with the context; what it says is in a file beside the recipe."""
    with (recipe.parent / "stderr").open("wb") as said:
        command = COMMAND + words(recipe, "a", BESIDE, *changes)
        with subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True) as process:
            try:
                yield process
                process.wait(timeout=60)
            finally:
                process.kill()


def wait_for(recipe: Path, measurements: int, process: subprocess.Popen[bytes], step: int = 0) -> None:
    """Until so many measurements are logged, and a checkpoint is there if a step is asked for."""
    deadline = time.monotonic() + 60
    while sum("psnr_db" in line for line in lines(recipe, "a")) < measurements or (
        step and not (recipe.parent / "a/last.pt").exists()
    ):
        assert process.poll() is None, "ended before its time"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The process that validates."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    (found,) = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def said(recipe: Path) -> str:
    return (recipe.parent / "stderr").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a run `a` that measured between its steps."""
    path = tmp_path_factory.mktemp("whole") / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    assert isp_train(words(path, "a")) == 0
    return path


def test_nothing_is_different(whole: Path, recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert isp_train(words(recipe, "a", BESIDE)) == 0
    for file in ("last.pt", "best.pt"):
        assert differing(state(whole, "a", file), state(recipe, "a", file)) == []
    assert state(whole, "a", "best.pt")["run"] == state(recipe, "a", "best.pt")["run"]
    assert lines(recipe, "a") == lines(whole, "a")
    measured = [line["step"] for line in lines(recipe, "a") if "psnr_db" in line]
    assert measured == [0, *range(6, 301, 6)]
    assert "300 steps, validation " in capsys.readouterr().out


def test_killed_both_are_gone_and_it_goes_on_to_the_same(whole: Path, recipe: Path):
    with started(recipe) as process:
        wait_for(recipe, 5, process, step=1)
        child = child_of(process)
        process.send_signal(signal.SIGKILL)
    assert gone(child)
    assert 0 < state(recipe, "a")["training"]["step"] < 300
    assert isp_train([*words(recipe, "a", BESIDE), "--resume"]) == 0
    for file in ("last.pt", "best.pt"):
        assert differing(state(whole, "a", file), state(recipe, "a", file)) == []
    assert lines(recipe, "a") == lines(whole, "a")


def test_asked_to_stop_it_waits_for_what_is_measured(whole: Path, recipe: Path):
    """The signal reaches the whole group, as some schedulers send it. The rest is measured between the steps."""
    with started(recipe, "run.checkpoint_every=1000") as process:
        wait_for(recipe, 3, process)
        child = child_of(process)
        os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == 130
    assert gone(child)
    assert "Traceback" not in said(recipe)
    stopped = state(recipe, "a")["training"]["step"]
    assert stopped < 300
    assert [line for line in lines(recipe, "a") if "psnr_db" in line] == [
        line for line in lines(whole, "a") if "psnr_db" in line and line["step"] <= stopped
    ]
    assert isp_train([*words(recipe, "a", "run.checkpoint_every=1000"), "--resume"]) == 0
    assert differing(state(whole, "a")["training"]["weights"], state(recipe, "a")["training"]["weights"]) == []


def test_stopped_at_once_it_says_nothing(recipe: Path):
    """The other process is still at its imports when Ctrl-C reaches both."""
    with started(recipe, "schedule.steps=100000") as process:
        deadline = time.monotonic() + 60
        while not lines(recipe, "a"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGINT)
    assert process.returncode == 130
    assert "Traceback" not in said(recipe)
    assert "error" not in said(recipe)


def test_killed_alone_it_is_one_sentence(recipe: Path):
    with started(recipe, "schedule.steps=100000") as process:
        wait_for(recipe, 2, process)
        os.kill(child_of(process), signal.SIGKILL)
    assert process.returncode == 2
    assert (
        said(recipe)
        .splitlines()[-1]
        .startswith(
            "isp-train: error: the process that validates beside training was killed, as when memory runs out; set "
            "validation.beside to false"
        )
    )
    assert "Traceback" not in said(recipe)


def test_damaged_data_are_one_sentence(recipe: Path, capfd: pytest.CaptureFixture[str]):
    folder = recipe.parent / "photographs"
    folder.mkdir()
    picture = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    PIL.Image.fromarray(picture).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:2000])
    source = {"source": "photos", "folder": str(folder), "crop": 64}
    changes = (f"data.validation={json.dumps([source])}", "schedule.steps=100000")
    assert isp_train(words(recipe, "a", BESIDE, *changes)) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("isp-train: error: ")
    assert "b.png cannot be read" in error


def test_several_processes_do_without(recipe: Path):
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "--no-python", *COMMAND, *words(recipe, "a", BESIDE)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert "validation.beside is for one process, not for 2; start isp-train without torchrun" in done.stderr


def test_a_third_snapshot_waits():
    torch.manual_seed(3)
    module = make_module(make_network("efficientisp"), "srgb").eval()
    judge = Judge(Scenes(2, 64, scenes=2, seed=1))
    with Beside(judge, module, torch.device("cpu"), True) as beside:
        assert beside.pending is None
        assert beside.done() == []
        found, wanted, steps = [], [], [3, 5, 8, 13, 21]
        for step in steps:
            with torch.no_grad():
                for weights in module.parameters():
                    weights.add_(0.01)
            found += beside.give(step, module.state_dict())
            wanted.append(judge.measure(module, torch.device("cpu")))
            assert beside.pending == step
            assert steps.index(step) - len(found) < 2
        found += beside.rest()
        assert beside.pending is None
    assert [each.step for each in found] == steps
    assert [each.values for each in found] == wanted
    first, second, last, now = (
        next(iter(weights.values()))
        for weights in (found[0].weights, found[1].weights, found[-1].weights, module.state_dict())
    )
    assert torch.equal(last, now)
    assert not torch.equal(first, second), "they are copies"


def test_what_fails_otherwise_is_one_sentence():
    module = make_module(make_network("efficientisp"), "srgb").eval()
    with Beside(Judge(Scenes(2, 64, scenes=2, seed=1)), module, torch.device("cpu"), True) as beside:
        beside.give(1, {"other": torch.zeros(1)})
        with pytest.raises(
            UserError, match=r"validation beside training failed \(RuntimeError: .*set validation.beside"
        ):
            beside.rest()


def test_a_fault_leaves_the_checkpoint_that_waited(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights that become no numbers while the checkpoint of step 5 waits for its measurement."""
    from ispeed.train import fit

    take = fit._take_step

    def spoil(job: Any, batch: Any) -> Any:
        values = take(job, batch)
        if job.step == 7:
            torch.nn.init.constant_(next(job.core.parameters()), float("nan"))
        return values

    monkeypatch.setattr(fit, "_take_step", spoil)
    slow = ["data.validation.0.count=40", "data.validation.0.crop=128", "validation.every=5"]
    every = ["run.checkpoint_every=5", "run.keep_every=7", "run.log_every=50"]
    assert isp_train(words(recipe, "a", BESIDE, *slow, *every)) == 1
    assert state(recipe, "a")["training"]["step"] == 5


def test_a_process_that_cannot_start_is_told_so(recipe: Path):
    """As of a program that is read from standard input, which cannot be imported a second time."""
    code = f"from ispeed.train.cli import train\nraise SystemExit(train({words(recipe, 'a', BESIDE)!r}))\n"
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "ended with 1, as where the program that trains cannot be started a second time" in done.stderr
