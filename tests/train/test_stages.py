"""Recipes of several stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from ispeed.engines import UserError
from ispeed.train.checkpoint import load_checkpoint
from ispeed.train.cli import train
from ispeed.train.config import TrainConfig, read_recipe
from ispeed.train.stages import AlignStage, describe_settings, read_stages

SCENES = {"source": "scenes", "count": 8, "crop": 32, "scenes": 1}
FIRST = {"schedule": {"steps": 6, "warmup": 1}, "seed": 5}
SECOND = {"model": {"weights": "$run/first/last.pt"}, "schedule": {"steps": 4, "warmup": 1}}
SHARED = {
    "model": {"name": "lwisp-xs"},
    "data": {"train": [SCENES], "validation": [SCENES | {"count": 2}], "batch": 2, "licence": "Apache-2.0"},
    "device": "cpu",
    "threads": 1,
    "optim": {"lr": 1.0e-3, "weight_decay": 0.1},
    "run": {"checkpoint_every": 2, "log_every": 2},
}


def written(folder: Path, **values: object) -> Path:
    path = folder / "both.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def both(folder: Path, **values: object) -> Path:
    return written(folder, **{**SHARED, "stages": {"first": FIRST, "second": SECOND}, **values})


def test_a_stage_begins_with_the_best_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    second = SECOND | {"model": {"weights": "$run/first/best.pt"}}
    place = ["--set", f"run.folder={tmp_path}"]
    assert train([str(both(tmp_path, stages={"first": FIRST, "second": second})), *place]) == 2
    assert "stages.second: model.weights: the stage first chooses no best.pt: set its" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()
    first = FIRST | {"validation": {"every": 2, "choose": "psnr"}}
    assert train([str(both(tmp_path, stages={"first": first, "second": second})), *place]) == 0
    lines = (tmp_path / "both/second/metrics.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in (tmp_path / "both/first/metrics.jsonl").read_text().splitlines()]
    best = max(line["psnr_db"] for line in measured if "psnr_db" in line)
    assert json.loads(lines[0])["psnr_db"] == best
    assert f"{tmp_path}/both/first/best.pt: step " in capsys.readouterr().out


def test_without_stages_a_recipe_is_one(tmp_path: Path):
    path = written(tmp_path, **SHARED)
    (stage,) = read_stages(path)
    assert (stage.name, stage.config, stage.folder) == ("", read_recipe(path), Path("runs/both"))


def test_a_stage_has_its_own_settings_over_those_of_all(tmp_path: Path):
    first, second = read_stages(both(tmp_path), ["stages.second.optim.lr=0.5", "run.folder=else"])
    assert isinstance(first.config, TrainConfig)
    assert isinstance(second.config, TrainConfig)
    assert [first.name, second.name] == ["first", "second"]
    assert [first.config.seed, second.config.seed] == [5, 1]
    assert [first.config.optim.lr, second.config.optim.lr] == [1e-3, 0.5]
    assert second.config.optim.weight_decay == 0.1
    assert [each.config.run.log_every for each in (first, second)] == [2, 2]  # pyright: ignore[reportAttributeAccessIssue]
    assert [first.folder, second.folder] == [Path("else/both/first"), Path("else/both/second")]
    assert second.config.model.weights == Path("else/both/first/last.pt")
    assert second.config.run.folder / second.config.run.name == second.folder


def test_losses_and_options_of_a_stage_are_its_own(tmp_path: Path):
    shared = SHARED | {"loss": {"l1": 1.0}, "model": {"name": "mapper", "options": {"seen": 64}}}
    own = {"loss": {"mse": 2.0}, "model": {"options": {"repeats": 3}}}
    stages = read_stages(written(tmp_path, **shared, stages={"first": {}, "second": own}))
    assert [each.config.loss for each in stages] == [{"l1": 1.0}, {"mse": 2.0}]  # pyright: ignore[reportAttributeAccessIssue]
    assert [each.config.model.options for each in stages] == [{"seen": 64}, {"repeats": 3}]  # pyright: ignore[reportAttributeAccessIssue]
    assert [each.config.model.name for each in stages] == ["mapper", "mapper"]  # pyright: ignore[reportAttributeAccessIssue]


def test_variables_stand_for_texts(tmp_path: Path):
    photos = {"source": "photos", "folder": "$data/train", "crop": 64}
    path = written(
        tmp_path, **(SHARED | {"data": {"train": [photos], "validation": [photos]}, "variables": {"data": "a"}})
    )
    (stage,) = read_stages(path, ["loss={charbonnier: 1}"])
    assert stage.config.data.train[0].folder == Path("a/train")  # pyright: ignore[reportAttributeAccessIssue]
    (stage,) = read_stages(path, variables=["data=/b c"])
    assert stage.config.data.train[0].folder == Path("/b c/train")  # pyright: ignore[reportAttributeAccessIssue]


def test_variables_may_be_numbers_and_name_the_run(tmp_path: Path):
    second = SECOND | {"loss": {"mse": "$weight", "l1": 1.0}, "model": {"weights": "$first"}}
    path = both(
        tmp_path, variables={"weight": 10, "first": "$run/first/last.pt"}, stages={"first": FIRST, "second": second}
    )
    for changes, told, weight in (([], [], 10), (["variables.weight=0.5"], [], 0.5), ([], ["weight=2"], 2)):
        config = read_stages(path, changes, told)[1].config
        assert isinstance(config, TrainConfig)
        assert config.loss == {"mse": weight, "l1": 1.0}
        assert config.model.weights == Path("runs/both/first/last.pt")
    with pytest.raises(UserError, match="the variable weight is a number, not 'much'"):
        read_stages(path, variables=["weight=much"])
    with pytest.raises(UserError, match="the variable weight is a number, not 'much'"):
        read_stages(path, ["variables.weight=much"])
    assert read_stages(path, ["variables.first=2024"])[1].config.model.weights == Path("2024")  # pyright: ignore[reportAttributeAccessIssue]


def test_what_later_stages_take_is_looked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """But not what the stages before them make."""
    monkeypatch.chdir(tmp_path)
    photos = [{"source": "photos", "folder": "none", "crop": 64}]
    second = SECOND | {"data": {"train": photos}, "model": {"weights": "gone.pt"}}
    align = {"align": {"data_set": "rhid", "root": "$run/first", "mapper": "lost.pt"}}
    path = both(tmp_path, stages={"first": FIRST, "second": second, "pairs": align})
    assert train([str(path)]) == 2
    said = capsys.readouterr().err
    assert said == (
        "isp-train: error: stages.second: model.weights: there is no gone.pt; stages.second: data.train.0.folder: "
        "there is no none; stages.pairs: mapper: there is no lost.pt: make it first (the comment of the recipe says "
        "how), or name another\n"
    )
    assert not Path("runs").exists()


def test_a_variable_may_be_null(tmp_path: Path):
    second = SECOND | {"model": {"weights": "$core"}}
    path = both(tmp_path, variables={"core": None}, stages={"first": FIRST, "second": second})
    weights = [
        read_stages(path, changes)[1].config.model.weights  # pyright: ignore[reportAttributeAccessIssue]
        for changes in ([], ["variables.core=a.onnx"], ["variables.core=null"])
    ]
    assert weights == [None, Path("a.onnx"), None]


def test_a_stage_may_align(tmp_path: Path):
    align = {"align": {"data_set": "rhid", "root": "$pairs", "mapper": "$run/first/last.pt", "least_valid": 0.5}}
    path = both(tmp_path, variables={"pairs": "data"}, stages={"first": FIRST, "pairs": align})
    stage = read_stages(path)[1]
    assert isinstance(stage.config, AlignStage)
    assert (stage.config.root, stage.config.least_valid) == (Path("data"), 0.5)
    assert stage.config.mapper == Path("runs/both/first/last.pt")
    assert stage.folder == Path("runs/both/pairs")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stages": {}}, "under its name"),
        ({"stages": ["first"]}, "under its name"),
        ({"stages": {"a": {"modle": 1}, "b": {"seed": -1}}}, "stages.a: unknown setting 'modle'.*stages.b: seed: "),
        ({"stages": {"a/b": FIRST}}, "stages.a/b: run.name"),
        ({"stages": {"..": {"align": {"root": "x"}}}}, "run.name"),
        ({"stages": {"a": {"align": {}}}}, "stages.a: align.root"),
        ({"stages": {"a": {"align": {"root": "x"}, "model": {}}}}, "stages.a: unknown setting 'model'"),
        ({"stages": {"a": SECOND | {"model": {"weights": "$ran/x"}}}}, "names no variable of the recipe; it has run"),
        ({"stages": {"a": SECOND | {"model": {"weights": "5$"}}}}, r"\$\$ for the sign"),
        ({"variables": {"x": [1]}}, "variables.x"),
        ({"variables": 7}, "variables"),
        ({"run": 7}, "run"),
    ],
)
def test_wrong_ones_are_one_sentence(tmp_path: Path, values: dict[str, object], said: str):
    with pytest.raises(UserError, match=said) as error:
        read_stages(both(tmp_path, **values))
    assert "\n" not in str(error.value)


def test_a_variable_that_a_recipe_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match=r"sets no variable of .*, and it has none"):
        read_stages(both(tmp_path), variables=["data=x"])
    with pytest.raises(UserError, match=r"has no variable piars; it has pairs"):
        read_stages(both(tmp_path, variables={"pairs": "x"}), ["variables.piars=x"])
    with pytest.raises(UserError, match="it has pairs"):
        read_stages(both(tmp_path, variables={"pairs": "x"}), variables=["data=x"])
    assert train([str(both(tmp_path)), "--data", "x"]) == 2
    assert "'data=x' sets no variable" in capsys.readouterr().err


def test_settings_of_stages_are_listed():
    lines = describe_settings()
    assert any(line.startswith("optim.lr: ") for line in lines)
    assert any(line.startswith("stages.NAME.align.root: ") for line in lines)


def test_an_option_that_a_network_does_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = both(tmp_path, stages={"first": FIRST | {"model": {"options": {"repeats": 3}}}})
    assert train([str(path), "--set", f"run.folder={tmp_path}"]) == 2
    assert capsys.readouterr().err == "isp-train: error: model.options: lwisp-xs does not take all of repeats\n"


class TestRun:
    def weights(self, folder: Path) -> torch.Tensor:
        network = load_checkpoint(folder / "runs/both/second/last.pt").network
        return torch.cat([weights.flatten() for weights in network.parameters()])

    def test_one_after_the_other_and_gone_on_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.chdir(tmp_path)
        recipe = str(both(tmp_path))
        assert train([recipe]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in said] == ["runs/both/first/last.pt", "runs/both/second/last.pt"]
        whole = self.weights(tmp_path)

        assert train([recipe]) == 2
        assert "runs/both/first holds a run" in capsys.readouterr().err
        assert train([recipe, "--resume"]) == 0
        assert torch.equal(self.weights(tmp_path), whole)

        (tmp_path / "runs/both/second/last.pt").unlink()  # killed between the two
        (tmp_path / "runs/both/second/metrics.jsonl").unlink()
        assert train([recipe, "--resume"]) == 0
        assert torch.equal(self.weights(tmp_path), whole)
        steps = [
            json.loads(line)["step"] for line in (tmp_path / "runs/both/second/metrics.jsonl").read_text().splitlines()
        ]
        assert steps[-1] == 4

    def test_a_gain_that_is_missed_ends_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        first = FIRST | {"validation": {"improve_db": 90}}
        assert train([str(both(tmp_path, stages={"first": first, "second": SECOND}))]) == 1
        assert not (tmp_path / "runs/both/second").exists()
