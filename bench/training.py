"""`isp-bench train`: does training wait for its samples? Runs of isp-train, and the same on one batch, in turn."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .helper import HelperProcess
from .machine import describe, in_words
from .rate import write_report

MODELS = ("lwisp", "lwisp-s", "lwisp-xs")

WAIT_LIMIT = 0.1
"""Share of the time that training may wait for samples."""

PARTS = 6
"""Lines of the log of a run; the first is not measured."""

RECIPE = """\
data:
  train: [{source: scenes, count: 2048, crop: 128, scenes: 16}]
  validation: [{source: scenes, count: 1, crop: 128, scenes: 1}]
  batch: 16
  workers: 1
loss: {charbonnier: 1.0, gradient: 0.5}
precision: bf16
"""
"""The recipe where none is named: it needs no data. Its scenes are few, so that all are rendered in the first part."""


def run_train(
    recipe: Path | None, changes: Sequence[str], models: Sequence[str], steps: int, repeats: int, out: Path | None
) -> int:
    """Measures, prints a table, writes JSON, and returns 0; 1 where a model waits for a tenth of the time or more.

    Args:
        recipe: As for isp-train; None takes `RECIPE`.
        changes: As of isp-train's --set.
        models: Which networks are trained; none takes `MODELS`.
        steps: Of each run.
        repeats: Rounds over all models.
        out: File for the figures.

    Raises:
        UserError: The recipe, its data or the number of steps is not usable, or torch is not installed.
    """
    machine = describe()
    print(f"machine    {in_words(machine)}")
    with tempfile.TemporaryDirectory(prefix="ispeed-") as name:
        folder = Path(name)
        configs = make_configs(recipe, changes, models, steps, folder)
        batch, workers = (next(iter(configs.values()))["data"][name] for name in ("batch", "workers"))
        print(f"recipe     {recipe or 'rendered scenes'}, batches of {batch}, {workers} workers;", end="")
        print(f" {steps} steps, the first {steps // PARTS} not measured, {repeats} rounds", flush=True)
        results = [_Result(model, config) for model, config in configs.items()]
        for number in range(repeats):
            for result in results:
                result.measure(folder, number)
    _print(results)
    waiting = [f"{result.model} waits" for result in results if result.wait >= WAIT_LIMIT]
    report = {
        "target": {"data_wait_below": WAIT_LIMIT},
        "machine": machine,
        "recipe": recipe.name if recipe else "rendered scenes",
        "set": list(changes),
        "steps": steps,
        "repeats": repeats,
        "models": [result.to_json() for result in results],
    }
    return report_training(report, waiting, out)


def report_training(report: dict[str, Any], missed: list[str], out: Path | None) -> int:
    """Write what was measured, and say whether the target was reached. Returns the exit code."""
    write_report({"command": "train", "ok": not missed, "missed_target": missed, **report}, out)
    print("target     " + ("reached" if not missed else "MISSED: " + "; ".join(missed)))
    return 1 if missed else 0


def make_configs(
    recipe: Path | None, changes: Sequence[str], models: Sequence[str], steps: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """The recipe of each model, as JSON values, short, and with what its runs leave in the folder.

    Raises:
        UserError: As `run_train`.
    """
    if steps < PARTS:
        raise UserError(f"--steps {steps} is too few to measure anything: give {PARTS} or more")
    if recipe is None:
        recipe = folder / "scenes.yaml"
        recipe.write_text(RECIPE)
    return {model: _config(recipe, changes, model, steps, folder) for model in models or MODELS}


def train_once(config: dict[str, Any], name: str, folder: Path, *, one_batch: bool) -> dict[str, Any]:
    """A run in a process of its own, named so; what `train_run.measure` returns. Raises UserError as the run does."""
    job = folder / "job.json"
    run = config["run"] | {"name": name}
    job.write_text(json.dumps({"config": config | {"run": run}, "fixed": one_batch}))
    with HelperProcess("train_run", str(job)) as process:
        answer = process.read()
        process.wait()
    if "refused" in answer:
        raise UserError(answer["refused"])
    return answer


def about_runs(first: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What of a report tells how runs were made: the answer of one of them and its recipe."""
    return {
        "device": first["device"],
        "threads": first["threads"],
        **{name: config["data"][name] for name in ("batch", "workers")},
        "precision": config["precision"],
    }


def _config(recipe: Path, changes: Sequence[str], model: str, steps: int, folder: Path) -> dict[str, Any]:
    """The recipe as JSON values, short, and with its folder among ours."""
    try:
        import lightning_fabric  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise UserError("training needs packages of its own; run: pip install 'ispeed[train]'") from error
    from ..train.config import TrainConfig, read_values
    from ..train.stages import read_stages

    if read_values(recipe, changes).get("stages") is not None:
        trained = [stage.name for stage in read_stages(recipe, changes) if isinstance(stage.config, TrainConfig)]
        raise UserError(
            f"{recipe} has stages, and isp-bench train measures one training: write the settings of "
            f"{' or '.join(trained) or 'a stage that trains'}, with what holds for all, into a recipe of its own"
        )
    short = {
        "model.name": model,
        "schedule.steps": steps,
        "schedule.warmup": steps - 1,
        "validation.every": steps,
        "run.folder": json.dumps(str(folder)),
        "run.log_every": steps // PARTS,
        "run.checkpoint_every": steps,
        "run.tensorboard": "false",
    }
    (stage,) = read_stages(recipe, [*changes, *(f"{name}={value}" for name, value in short.items())])
    return stage.config.model_dump(mode="json")


class _Result:
    """What the runs of one model gave, on the recipe's data ("fed") and on one batch ("alone")."""

    def __init__(self, model: str, config: dict[str, Any]) -> None:
        self.model = model
        self.runs: dict[str, list[dict[str, Any]]] = {"alone": [], "fed": []}
        self._config = config

    def measure(self, folder: Path, number: int) -> None:
        """A run of either kind."""
        for kind, runs in self.runs.items():
            name = f"{self.model}-{kind}-{number}"
            runs.append(train_once(self._config, name, folder, one_batch=kind == "alone"))

    def rate(self, kind: str) -> float:
        """Median samples per second."""
        return self._median(kind, "samples_per_s")

    @property
    def wait(self) -> float:
        """Median share of the time in which training waited for samples."""
        return self._median("fed", "data_wait")

    def _median(self, kind: str, key: str) -> float:
        return statistics.median(part[key] for run in self.runs[kind] for part in run["parts"])

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            **about_runs(self.runs["fed"][0], self._config),
            "samples_per_s": self.rate("fed"),
            "samples_per_s_alone": self.rate("alone"),
            "ratio": round(self.rate("fed") / self.rate("alone"), 4),
            "data_wait": self.wait,
            "runs": {kind: [run["parts"] for run in runs] for kind, runs in self.runs.items()},
        }


def _print(results: Sequence[_Result]) -> None:
    print(f"\n{'model':10s} {'device':24s} {'samples/s':>10s} {'on one batch':>13s} {'ratio':>6s} {'waiting':>8s}")
    for result in results:
        row = result.to_json()
        print(f"{row['model']:10s} {row['device']:24s} {row['samples_per_s']:10.1f}", end="")
        print(f" {row['samples_per_s_alone']:13.1f} {row['ratio']:6.2f} {row['data_wait']:8.1%}")
    print()
