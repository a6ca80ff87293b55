"""Every quick recipe as a user runs it, on scenes that the project makes: it gains what it states, and what comes of
the first of them runs in `isp-stream`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from ispeed.train.config import TrainConfig
from ispeed.train.stages import read_stages

pytestmark = pytest.mark.alone

CONFIGS = Path(__file__).parents[2] / "configs/train"
QUICK = sorted(path.stem for path in CONFIGS.glob("*-quick.yaml"))
STOPPED = "hdrisp-quick"
"""The one that is stopped in the middle of its levels, and goes on."""

# Two run at a time, and threads that wait for each other's cores help nobody; nor does it to trace each of their lines.
_TRACED = "COVERAGE_PROCESS"
_ENV = {name: value for name, value in os.environ.items() if not name.startswith(_TRACED)} | {"OMP_NUM_THREADS": "1"}
LIMIT_S = 500
"""Two minutes on an idle machine of two cores; this one may have other things to do."""


class Runs:
    """One folder for all the runs, because some recipes take another's network as their teacher. Two run at a time."""

    def __init__(self, folder: Path, workers: Executor) -> None:
        self.folder = folder
        (folder / "configs").symlink_to(CONFIGS.parent)  # as in the project's folder, where recipes are run
        self._said = {name: workers.submit(self._train, name) for name in sorted(QUICK, key=_teacher_of)}

    def of(self, name: str) -> str:
        """What isp-train says of a recipe."""
        return self._said[name].result()

    def call(self, entry: str, *words: str) -> str:
        code = f"from ispeed.train.entry import {entry}; raise SystemExit({entry}())"
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=self.folder, env=_ENV)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _train(self, name: str) -> str:
        if teacher := _teacher_of(name):  # which was begun before
            self.of(teacher)
        recipe = str(CONFIGS / f"{name}.yaml")
        if name != STOPPED:
            return self.call("train", recipe)
        self._stop_in(recipe, self.folder / "runs" / name / "level2")
        return self.call("train", recipe, "--resume")

    def _stop_in(self, recipe: str, stage: Path) -> None:
        """Train until a stage is under way."""
        command = [sys.executable, "-c", "from ispeed.train.entry import train; raise SystemExit(train())", recipe]
        with subprocess.Popen(
            command, cwd=self.folder, env=_ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            until = time.monotonic() + LIMIT_S
            metrics = stage / "metrics.jsonl"
            while run.poll() is None and not (metrics.exists() and '"loss"' in metrics.read_text()):
                assert time.monotonic() < until
                time.sleep(0.1)
            run.terminate()
        assert (stage / "last.pt").exists(), "a run that is stopped leaves a checkpoint"


def _trained(name: str) -> list[tuple[TrainConfig, Path]]:
    """What a recipe trains, and the folders of that."""
    stages = read_stages(CONFIGS / f"{name}.yaml")
    return [(stage.config, stage.folder) for stage in stages if isinstance(stage.config, TrainConfig)]


def _teacher_of(name: str) -> str:
    distill = _trained(name)[0][0].distill
    return distill.teacher.parts[1] if distill else ""  # runs/NAME/...


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with ThreadPoolExecutor(2) as workers:
        yield Runs(tmp_path_factory.mktemp("quick"), workers)


@pytest.mark.timeout(3 * LIMIT_S)
@pytest.mark.parametrize("name", QUICK)
def test_it_gains_what_it_states(name: str, runs: Runs):
    said = runs.of(name)  # exit code 0: the gain was reached
    for config, folder in _trained(name):
        assert f"{folder}/last.pt" in said
        lines = [json.loads(line) for line in (runs.folder / folder / "metrics.jsonl").read_text().splitlines()]
        scores = [line["psnr_db"] for line in lines if "psnr_db" in line]
        stated = config.validation.improve_db
        assert stated
        assert scores[-1] - scores[0] >= stated


@pytest.mark.timeout(3 * LIMIT_S)
def test_its_network_streams(runs: Runs, runtime_dir: Path):
    runs.of("lwisp-quick")
    runs.call("export", "runs/lwisp-quick/last.pt", "-o", "lwisp.onnx")
    command = [sys.executable, "-m", "ispeed.stream", "--camera", "0", "--engine", "lwisp.onnx", "--frames", "5"]
    command += ["--fps", "10", "--width", "320", "--height", "256", "--save", "out", "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(runs.folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=runs.folder, env=environment)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(event for event in events if event["event"] == "started")["engine"]["name"] == "lwisp"
    assert len(list((runs.folder / "out").glob("*.png"))) == 5
