"""`isp-bench train --without LOSS`: what does a loss cost? Steps of isp-train on one batch with it and without it, in
turn."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .machine import describe, in_words
from .training import PARTS, about_runs, make_configs, report_training, train_once

COST_LIMIT = 0.15
"""By how much of its time a loss may make a step longer."""


def run_loss_cost(
    recipe: Path | None,
    changes: Sequence[str],
    models: Sequence[str],
    steps: int,
    repeats: int,
    loss: str,
    out: Path | None,
) -> int:
    """Measures, prints a table, writes JSON, and returns 0; 1 where the loss makes steps of a model too long.

    Args:
        recipe, changes, models, steps, repeats, out: As of `training.run_train`.
        loss: Name of one of the recipe's losses; not the only one.

    Raises:
        UserError: As `training.run_train`, or the recipe has no such loss or no other.
    """
    machine = describe()
    print(f"machine    {in_words(machine)}")
    with tempfile.TemporaryDirectory(prefix="ispeed-") as name:
        folder = Path(name)
        configs = make_configs(recipe, changes, models, steps, folder)
        results = [_Cost(model, config, loss) for model, config in configs.items()]
        batch = next(iter(configs.values()))["data"]["batch"]
        print(f"recipe     {recipe or 'rendered scenes'}, one batch of {batch}; with {loss} and without it;", end="")
        print(f" {steps} steps, the first {steps // PARTS} not measured, {repeats} rounds", flush=True)
        for number in range(repeats):
            for result in results:
                result.measure(folder, number)
    _print(results)
    dear = [f"{result.model} takes {result.cost:.1%} longer" for result in results if result.cost >= COST_LIMIT]
    report = {
        "target": {"cost_below": COST_LIMIT},
        "machine": machine,
        "recipe": recipe.name if recipe else "rendered scenes",
        "set": list(changes),
        "without": loss,
        "steps": steps,
        "repeats": repeats,
        "models": [result.to_json() for result in results],
    }
    return report_training(report, dear, out)


class _Cost:
    """What the runs of one model gave, with all losses ("with") and with all but one ("without")."""

    def __init__(self, model: str, config: dict[str, Any], loss: str) -> None:
        others = {name: asked for name, asked in config["loss"].items() if name != loss}
        if len(others) == len(config["loss"]):
            raise UserError(f"the recipe has no loss {loss!r} to leave out; --without takes one of {', '.join(others)}")
        if not others:
            raise UserError(f"{loss} is the recipe's only loss, and none is no training; add another one with --set")
        self.model = model
        self.runs: dict[str, list[dict[str, Any]]] = {"with": [], "without": []}
        self._configs = {"with": config, "without": config | {"loss": others}}

    def measure(self, folder: Path, number: int) -> None:
        """A run of either kind; which comes first changes from round to round, as machines grow slower and faster."""
        for kind in sorted(self.runs, reverse=number % 2 == 1):
            name = f"{self.model}-{kind}-{number}"
            self.runs[kind].append(train_once(self._configs[kind], name, folder, one_batch=True))

    @property
    def costs(self) -> list[float]:
        """By how much of its time a step is longer with the loss, in each round."""
        rates = {kind: [_rate(run) for run in runs] for kind, runs in self.runs.items()}
        return [without / rate - 1 for rate, without in zip(rates["with"], rates["without"], strict=True)]

    @property
    def cost(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.costs)

    def step_ms(self, kind: str) -> float:
        """Median time of a step in milliseconds."""
        batch = self._configs[kind]["data"]["batch"]
        return 1000 * batch / statistics.median(_rate(run) for run in self.runs[kind])

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            **about_runs(self.runs["with"][0], self._configs["with"]),
            "step_ms": self.step_ms("with"),
            "step_ms_without": self.step_ms("without"),
            "cost": {"median": self.cost, "least": min(self.costs), "most": max(self.costs)},
            "runs": {kind: [run["parts"] for run in runs] for kind, runs in self.runs.items()},
        }


def _rate(run: dict[str, Any]) -> float:
    """Median samples per second."""
    return statistics.median(part["samples_per_s"] for part in run["parts"])


def _print(results: Sequence[_Cost]) -> None:
    print(f"\n{'model':10s} {'device':24s} {'ms/step':>10s} {'without':>10s} {'cost':>8s} {'least':>8s} {'most':>8s}")
    for result in results:
        row = result.to_json()
        print(f"{row['model']:10s} {row['device']:24s} {row['step_ms']:10.1f} {row['step_ms_without']:10.1f}", end="")
        print("".join(f" {row['cost'][name]:8.1%}" for name in ("median", "least", "most")))
    print()
