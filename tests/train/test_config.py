"""Recipes: what is accepted, what is refused, and that every problem is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from ispeed.engines import UserError
from ispeed.train.config import TrainConfig, describe_settings, differences, read_recipe
from ispeed.train.sources import SOURCES, AnySource
from ispeed.train.stages import read_stages

RECIPES = sorted((Path(__file__).parents[2] / "configs/train").glob("*.yaml"))
SMALL: dict[str, Any] = {"data": {"train": [{"source": "scenes"}], "validation": [{"source": "scenes"}]}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_named_like_their_file(path: Path):
    stages = read_stages(path)
    trained = [stage.config for stage in stages if isinstance(stage.config, TrainConfig)]
    assert stages[0].folder.parts[1] == path.stem
    for config in trained:
        assert TrainConfig.model_validate(config.model_dump(mode="json")) == config
    assert trained[-1].validation.improve_db is not None, "a recipe states what it gains"


def test_shipped_experiments_are_valid():
    for path in (RECIPES[0].parents[1] / "experiments").glob("*.yaml"):
        stages = read_stages(path)
        assert len(stages) > 1
        assert stages[0].folder.parts[1] == f"{path.stem}-experiment"


def test_every_recipe_has_a_quick_variant():
    names = {path.stem for path in RECIPES}
    assert {"lwisp", "lwisp-quick"} <= names
    assert {f"{name}-quick" for name in names if not name.endswith("-quick")} <= names


def test_every_problem_is_told_at_once(recipe: Path):
    changes = [
        "model.name=lwisp-xxl",
        "optim.lr=-1",
        "optim.momentum=0.9",
        "data.train.0.crop=33",
        "data.validation.0.source=films",
        "schedule.steps=10",
        "precision=int8",
        "colour=3",
    ]
    with pytest.raises(UserError) as caught:
        read_recipe(recipe, changes)
    text = str(caught.value)
    for part in ("lwisp-xxl", "optim.lr", "unknown setting 'optim.momentum'", "crop", "films", "precision", "'colour'"):
        assert part in text
    assert "schedule" in text
    assert "\n" not in text


def test_changes_reach_every_depth(recipe: Path):
    changes = ["optim.lr=1e-4", "data.train.0.crop=192", "model.sup=true", "loss.l1=2", "clip=null", "run.name=other"]
    config = read_recipe(recipe, changes)
    assert config.optim.lr == 1e-4
    assert config.data.train[0].crop == 192
    assert config.model.sup
    assert config.loss == {"l1": 2}
    assert config.clip is None
    assert config.run.name == "other"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("optim.lr", "needs NAME=VALUE"),
        ("=3", "needs NAME=VALUE"),
        ("data.train.1.crop=64", "'1' is no place in a list of 1"),
        ("data.train.first.crop=64", "'first' is no place"),
        ("data.train.9={}", "'9' is no place"),
        ("data.train.0.source.name=x", "is a value"),
        ("data.train.0.source.name.deep=x", "is a value"),
        ("optim.lr=[1", "no value in YAML"),
        ("seed=2024-13-45", "no value in YAML"),
        ("data.train=&a [*a]", "no value in YAML"),
    ],
)
def test_changes_that_go_nowhere(recipe: Path, change: str, problem: str):
    with pytest.raises(UserError, match=problem):
        read_recipe(recipe, [change])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("schedule={steps: 10, warmup: 10}", "warmup"),
        ("data.train=[]", "at least 1 item"),
        ("loss={}", "at least 1 item"),
        ("run.name=../x", "run.name"),
        ("seed=-1", "seed"),
        ("optim.betas=[0.9, 1]", "betas"),
        ("data.train=[{source: pairs, data_set: rhid, root: x, listed: y, hold_out: 0.1}]", "both choose"),
        ("data.train.0.crop=72", "lwisp takes crops in multiples of 32, 64 at least, not 72"),
        ("data.train=[{source: scenes, crop: 64}, {source: scenes, crop: 96}]", "differ in crop"),
        ("model.parts.forward=x.pt", "parts are of a network of the form cycle, not of raw; give weights instead"),
        ("model.parts.middle=x.pt", "model.parts"),
        ("frames_weight=-1", "frames_weight"),
        ("data.train=[{source: cameras}]", "cameras"),
    ],
)
def test_values_that_cannot_be(recipe: Path, change: str, problem: str):
    with pytest.raises(UserError, match=problem):
        read_recipe(recipe, [change])


@pytest.mark.parametrize("form", ["inverse", "cycle"])
def test_what_is_only_of_some_forms(recipe: Path, form: str):
    model = f"model={{name: paramisp, form: {form}}}"
    assert read_recipe(recipe, [model, "data.train.0.crop=40"]).model.form == form
    for change, problem in (
        ("distill={teacher: x.pt}", f"a network of the form {form} has no teacher; leave distill out"),
        ("data.train=[{source: pictures, task: denoise}]", f"of the form {form} takes sources of raw frames"),
    ):
        with pytest.raises(UserError, match=problem):
            read_recipe(recipe, [model, change])


def test_what_may_change_when_a_run_goes_on(recipe: Path):
    before = read_recipe(recipe).model_dump(mode="json")
    later = ["run.checkpoint_every=7", "data.workers=3", "device=cpu", "threads=1"]
    assert differences(before, read_recipe(recipe, later).model_dump(mode="json")) == []
    other = read_recipe(recipe, ["optim.lr=1e-3", "data.train.0.crop=64"]).model_dump(mode="json")
    found = differences(before, other)
    assert len(found) == 2
    assert any(line == "optim.lr was 0.0005, is 0.001" for line in found)


def test_every_setting_has_its_help():
    assert set(get_args(get_args(AnySource)[0])) == set(SOURCES)
    lines = describe_settings()
    names = [line.partition(":")[0] for line in lines]
    assert {"model.name", "optim.lr", "schedule.steps", "run.folder", "clip"} <= set(names)
    assert any(name == "data.train.N (photos) noise" for name in names)
    assert all(len(line.partition(": ")[2].partition(" (")[0]) > 5 for line in lines)
