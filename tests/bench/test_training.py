"""`isp-bench train`, a few steps of the smallest network: real runs, on samples and on one batch."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from ispeed.bench import cli, loss_cost
from ispeed.bench.loss_cost import COST_LIMIT
from ispeed.bench.train_run import OneBatch
from ispeed.bench.training import PARTS, WAIT_LIMIT
from ispeed.train.data.scenes import Scenes

SETTINGS = (
    "data.train=[{source: scenes, count: 24, crop: 32, scenes: 1}]",
    "data.validation=[{source: scenes, count: 1, crop: 32, scenes: 1}]",
    "data.batch=2",
    "device=cpu",
    "threads=1",
)
TINY = ["--model", "lwisp-xs", "--steps", "12", "--repeat", "1", *(word for s in SETTINGS for word in ("--set", s))]

NAMED = """
variables: {numbers: fp32}
data: {train: [{source: scenes}], validation: [{source: scenes}]}
schedule: {warmup: 500}
precision: $numbers
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_model_is_measured_beside_itself_on_one_batch(
    workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "train.json"
    code = cli.run(["train", *TINY, "--set", f"data.workers={workers}", "--out", str(out)])
    shown = capfd.readouterr()
    report = json.loads(out.read_text())
    assert shown.err == ""
    assert code == (not report["ok"])
    (row,) = report["models"]
    assert (row["model"], row["device"], row["threads"], row["workers"]) == ("lwisp-xs", "processor", 1, workers)
    for kind, name in (("fed", "samples_per_s"), ("alone", "samples_per_s_alone")):
        (parts,) = row["runs"][kind]
        assert len(parts) == PARTS - 1
        assert row[name] == statistics.median(part["samples_per_s"] for part in parts) > 0
    assert row["data_wait"] == statistics.median(part["data_wait"] for part in row["runs"]["fed"][0])
    assert report["ok"] == (row["data_wait"] < WAIT_LIMIT)
    assert ("reached" in shown.out) == report["ok"]
    assert "lwisp-xs" in shown.out


def test_a_recipe_may_be_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    recipe, out = tmp_path / "mine.yaml", tmp_path / "train.json"
    recipe.write_text(NAMED)
    cli.run(["train", str(recipe), *TINY, "--out", str(out)])
    report = json.loads(out.read_text())
    assert (report["recipe"], report["set"]) == ("mine.yaml", list(SETTINGS))
    assert report["models"][0]["precision"] == "fp32", "by its variable"
    assert "mine.yaml, batches of 2" in capfd.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "train.json"]


def test_a_recipe_may_have_variables(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(NAMED)
    assert cli.run(["train", str(recipe), *TINY, "--set", "variables.numbers=fp8"]) == 2
    assert "precision: input should be 'auto', 'fp32', 'bf16' or 'fp16' (got 'fp8')" in capfd.readouterr().err


def test_of_a_recipe_with_stages_one_can_be_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    recipe = tmp_path / "mine.yaml"
    scenes = "{source: scenes, count: 24, crop: 32, scenes: 1}"
    recipe.write_text(
        f"data: {{train: [{scenes}], validation: [{scenes}]}}\n"
        "stages: {mapper: {model: {name: mapper}}, align: {align: {root: pairs}}, isp: {model: {name: lwisp-xs}}}\n"
    )
    assert cli.run(["train", str(recipe), *TINY]) == 2
    error = capfd.readouterr().err
    assert error.startswith("isp-bench: error: ")
    assert f"{recipe} has stages" in error
    assert "write the settings of mapper or isp, with what holds for all, into a recipe of its own" in error
    assert error.count("\n") == 1


LOSSES = "loss: {l1: 1, histogram: {weight: 0.25, edge: 16, bins: 8}}"


def test_a_loss_is_measured_by_steps_with_it_and_without_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    recipe, out = tmp_path / "mine.yaml", tmp_path / "train.json"
    recipe.write_text(NAMED + LOSSES)
    code = cli.run(["train", str(recipe), *TINY, "--without", "histogram", "--out", str(out)])
    shown = capfd.readouterr()
    report = json.loads(out.read_text())
    assert shown.err == ""
    assert code == (not report["ok"])
    assert (report["recipe"], report["without"], report["repeats"]) == ("mine.yaml", "histogram", 1)
    (row,) = report["models"]
    assert (row["model"], row["batch"], row["threads"]) == ("lwisp-xs", 2, 1)
    rates = {}
    for kind in ("with", "without"):
        (parts,) = row["runs"][kind]
        assert len(parts) == PARTS - 1
        rates[kind] = statistics.median(part["samples_per_s"] for part in parts)
    assert row["cost"]["least"] == row["cost"]["median"] == row["cost"]["most"]
    assert row["cost"]["median"] == pytest.approx(rates["without"] / rates["with"] - 1)
    assert row["step_ms"] == pytest.approx(2000 / rates["with"])
    assert row["step_ms_without"] == pytest.approx(2000 / rates["without"])
    assert report["ok"] == (row["cost"]["median"] < COST_LIMIT)
    assert ("reached" in shown.out) == report["ok"]
    assert "with histogram and without it" in shown.out


def test_the_loss_is_left_out_of_every_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe, out, given = tmp_path / "mine.yaml", tmp_path / "train.json", []
    recipe.write_text(NAMED + LOSSES)
    rates = iter((4.0, 8.0, 8.0, 5.0, 4.0, 6.0))

    def train_once(config: dict[str, Any], name: str, folder: Path, *, one_batch: bool) -> dict[str, Any]:
        given.append((name, list(config["loss"]), one_batch))
        return {"device": "none", "threads": 1, "parts": [{"samples_per_s": next(rates)}]}

    monkeypatch.setattr(loss_cost, "train_once", train_once)
    asked = ["--repeat", "3", "--without", "histogram", "--out", str(out)]
    assert cli.run(["train", str(recipe), *TINY, *asked]) == 1
    kinds = {"with": ["l1", "histogram"], "without": ["l1"]}
    order = (("with", 0), ("without", 0), ("without", 1), ("with", 1), ("with", 2), ("without", 2))
    assert given == [(f"lwisp-xs-{kind}-{number}", kinds[kind], True) for kind, number in order]
    report = json.loads(out.read_text())
    assert report["models"][0]["cost"] == pytest.approx({"median": 0.6, "least": 0.5, "most": 1.0})
    assert report["missed_target"] == ["lwisp-xs takes 60.0% longer"]


def test_one_batch_is_the_first_of_the_data():
    samples = Scenes(8, 32, scenes=1)
    drawn = list(itertools.islice(OneBatch(samples, 2, 1, workers=3).batches(5), 3))
    assert all(batch is drawn[0] for batch in drawn)
    assert any(torch.equal(drawn[0]["planes"][0], samples[index]["planes"]) for index in range(8))


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["nosuch.yaml"], "nosuch.yaml"),
        (["--model", "lwisp-xl"], "there is no such network"),
        (["--steps", "5"], "--steps 5 is too few"),
        (["--set", "data.train=[{source: photos, folder: /nonexistent, crop: 32}]"], "there is no folder /nonexistent"),
        (["--set", "optim.speed=1"], "optim.speed"),
        (["--without", "histogram"], "no loss 'histogram' to leave out; --without takes one of charbonnier, gradient"),
        (["--set", "loss={l1: 1}", "--without", "l1"], "l1 is the recipe's only loss"),
    ],
)
def test_a_wrong_input_is_one_sentence(argv: list[str], sentence: str, capfd: pytest.CaptureFixture[str]):
    assert cli.run(["train", *TINY, *argv]) == 2
    error = capfd.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
