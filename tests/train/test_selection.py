"""Checkpoints that stay: of every so many steps, and the best by fidelity or by likeness; a run that stopped has the
same ones in the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from ispeed.engines.core import read_core
from ispeed.engines.errors import UserError
from ispeed.train import fit
from ispeed.train.checkpoint import load_checkpoint
from ispeed.train.cli import export
from ispeed.train.config import TrainConfig
from ispeed.train.fit import Outcome, train
from ispeed.train.models import make_module, make_network
from ispeed.train.selection import Best


def recipe(folder: Path, name: str = "a", **changes: Any) -> dict[str, Any]:
    source = {"source": "scenes", "crop": 64, "count": 16, "scenes": 2}
    values: dict[str, Any] = {
        "model": {"name": "efficientisp"},
        "data": {"train": [source], "validation": [{**source, "count": 2}], "batch": 2},
        "loss": {"charbonnier": 1.0},
        "optim": {"name": "adam", "lr": 5e-3},
        "schedule": {"steps": 24, "warmup": 1},
        "ema": {"decay": 0.5},
        "device": "cpu",
        "threads": 1,
        "validation": {"every": 4, "choose": "psnr"},
        "run": {"name": name, "folder": str(folder), "log_every": 5, "checkpoint_every": 10, "keep_every": 6},
    }
    changes["validation"] = {**values["validation"], **changes.get("validation", {})}
    return {**values, **changes}


def run(values: dict[str, Any], *, resume: bool = False) -> Outcome:
    return train(TrainConfig.model_validate(values), resume=resume)


def measured(folder: Path, name: str) -> dict[int, float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def same_weights(one: Path, other: Path) -> bool:
    states = [load_checkpoint(path).network.state_dict() for path in (one, other)]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def stop_before(step: int, patch: pytest.MonkeyPatch) -> None:
    """The run ends at once, as if killed, when it would take that step."""
    take = fit._take_step

    def taken(job: Any, batch: Any) -> Any:
        if job.step == step:
            raise RuntimeError("killed")
        return take(job, batch)

    patch.setattr(fit, "_take_step", taken)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs with colours, two of them JPEG, and a grey one."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(3)
    for number in range(6):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        picture = PIL.Image.fromarray(small).resize((160 * (1 + number % 2), 120), PIL.Image.Resampling.BICUBIC)
        if number == 5:
            picture = picture.convert("L")
        picture.save(folder / f"{number}.{'jpg' if number in (1, 2) else 'png'}")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run(recipe(folder))
    return folder / "a"


def test_the_best_of_all_measurements_is_kept(whole: Path):
    scores = measured(whole, "psnr_db")
    assert list(scores) == [0, 4, 8, 12, 16, 20, 24]
    best = max(scores, key=lambda step: scores[step])
    assert best > 0, "it learns"
    kept = load_checkpoint(whole / "best.pt")
    assert kept.training is None
    assert kept.run.startswith(f"a: {best} of 24 steps, seed 1, chosen by {scores[best]:.2f} dB; ispeed ")
    assert (kept.model, kept.data) == ("efficientisp", "rendered scenes")


def test_checkpoints_of_every_so_many_steps_are_kept(whole: Path):
    names = sorted(path.name for path in whole.glob("step-*.pt"))
    assert names == ["step-000006.pt", "step-000012.pt", "step-000018.pt", "step-000024.pt"]
    assert load_checkpoint(whole / names[0]).training is None
    assert load_checkpoint(whole / names[0]).run.startswith("a: 6 of 24 steps, seed 1; ispeed ")
    assert same_weights(whole / names[-1], whole / "last.pt")
    assert not same_weights(whole / names[0], whole / names[1])
    assert (whole / names[0]).stat().st_size < (whole / "last.pt").stat().st_size / 3


def test_they_become_cores_and_begin_other_runs(whole: Path, tmp_path: Path):
    assert export([str(whole / "best.pt"), "-o", str(tmp_path / "best.onnx")]) == 0
    assert read_core(tmp_path / "best.onnx").info.model == "efficientisp"
    model = {"name": "efficientisp", "weights": str(whole / "best.pt")}
    run(recipe(tmp_path, "later", model=model, schedule={"steps": 2, "warmup": 1}))
    assert measured(tmp_path / "later", "psnr_db")[0] == max(measured(whole, "psnr_db").values())


def test_a_run_that_stopped_has_the_same_in_the_end(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It was killed after measurements, and after checkpoints that stay, that its last checkpoint does not know."""
    values = recipe(tmp_path)
    with monkeypatch.context() as patch:
        stop_before(19, patch)
        with pytest.raises(RuntimeError, match="killed"):
            run(values)
    folder = tmp_path / "a"
    training = load_checkpoint(folder / "last.pt").training
    assert training is not None
    assert (training["step"], training["best"]["step"]) == (10, 8)
    assert load_checkpoint(folder / "best.pt").run.startswith("a: 16 of 24 steps")
    with monkeypatch.context() as patch:
        stop_before(11, patch)
        with pytest.raises(RuntimeError, match="killed"):
            run(values, resume=True)
    assert load_checkpoint(folder / "best.pt").run.startswith("a: 8 of 24 steps"), "the one that last.pt knows"
    assert sorted(path.name for path in folder.glob("step-*.pt")) == ["step-000006.pt"]
    assert run(values, resume=True).steps == 24
    for name in ("best.pt", *(path.name for path in whole.glob("step-*.pt"))):
        assert same_weights(folder / name, whole / name)
        assert load_checkpoint(folder / name).run == load_checkpoint(whole / name).run
    assert measured(folder, "psnr_db") == measured(whole, "psnr_db")


def test_what_another_run_left_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It was killed before its first checkpoint, so any recipe may begin anew."""
    with monkeypatch.context() as patch:
        stop_before(8, patch)
        with pytest.raises(RuntimeError, match="killed"):
            run(recipe(tmp_path))
    assert sorted(path.name for path in (tmp_path / "a").glob("*.pt")) == ["best.pt", "step-000006.pt"]
    other = recipe(tmp_path, seed=2, schedule={"steps": 2, "warmup": 1}, validation={"choose": None})
    run({**other, "run": {**other["run"], "keep_every": None}})
    assert sorted(path.name for path in (tmp_path / "a").glob("*.pt")) == ["last.pt"]


def test_the_best_is_written_again_where_it_is_gone(whole: Path, tmp_path: Path):
    done = run(recipe(tmp_path))
    (tmp_path / "a/best.pt").write_bytes(b"cut off")
    assert run(recipe(tmp_path), resume=True) == done
    assert same_weights(tmp_path / "a/best.pt", whole / "best.pt")
    assert done.best.startswith("step ")


def test_of_equal_scores_the_earlier_stays_and_no_number_is_never_the_best():
    module = make_module(make_network("efficientisp"), "srgb")
    written: list[tuple[int, str]] = []
    best = Best("likeness", module, lambda network, step, told: written.append((step, told)))
    for step, score in enumerate((math.nan, 0.5, 0.5, math.nan, 0.25)):
        best.consider(step, {"likeness": score, "psnr_db": 9.0 + step}, module.state_dict())
        assert best.chosen == (step > 0)
    assert written == [(1, "chosen by likeness 0.5000")]
    assert Best("psnr", module, lambda *_: None).state() is None


# ---- likeness ----------------------------------------------------------------------------------------------


def liked(folder: Path, photographs: Path | None, name: str = "a", **changes: Any) -> dict[str, Any]:
    validation = {"choose": "likeness", "photographs": photographs and str(photographs)}
    return recipe(folder, name, validation=validation, **changes)


def test_the_best_by_likeness(photographs: Path, tmp_path: Path):
    done = run(liked(tmp_path, photographs))
    scores, structure, colours = (measured(tmp_path / "a", name) for name in ("likeness", "structure", "colours"))
    for step, score in scores.items():
        assert score == structure[step] * (1 - colours[step])
    best = max(scores, key=lambda step: scores[step])
    assert done.best == f"step {best}, likeness {scores[best]:.4f}"
    assert (
        f"{best} of 24 steps, seed 1, chosen by likeness {scores[best]:.4f};"
        in load_checkpoint(tmp_path / "a/best.pt").run
    )
    assert len(scores) == len(measured(tmp_path / "a", "psnr_db")) == 7


def test_other_photographs_are_not_gone_on_with(photographs: Path, tmp_path: Path):
    copied = tmp_path / "photographs"
    copied.mkdir()
    for path in sorted(photographs.iterdir()):
        (copied / path.name).write_bytes(path.read_bytes())
    values = liked(tmp_path, copied, schedule={"steps": 2, "warmup": 1})
    run(values)
    run(values, resume=True)
    (copied / "0.png").unlink()
    with pytest.raises(UserError, match="is not what the run began with"):
        run(values, resume=True)


def scenes(**values: Any) -> dict[str, Any]:
    return {"source": "scenes", "crop": 64, "count": 2, "scenes": 2, **values}


def frames(data_set: str, **values: Any) -> dict[str, Any]:
    return {"source": "pairs", "data_set": data_set, "root": "none", "crop": 64, **values}


def test_sources_of_classic_pictures_are_for_likeness(photographs: Path, tmp_path: Path):
    for source in (scenes(), frames("raws"), frames("folder", target="classic")):
        data = {"train": [scenes()], "validation": [source]}
        TrainConfig.model_validate(liked(tmp_path, photographs, data=data))


@pytest.mark.parametrize(
    ("validation", "sources", "changes", "says"),
    [
        ({"choose": "likeness"}, [scenes()], {}, "set validation.photographs to a folder"),
        (
            {"choose": "likeness"},
            [scenes()],
            {"adversary": {"colour": "c.pt", "weights": {"colour": 1}}},
            "sees rendered",
        ),
        (
            {"choose": "likeness", "photographs": "p"},
            [scenes(), frames("folder")],
            {},
            "target: classic or data_set: raws",
        ),
        (
            {"choose": "likeness", "photographs": "p"},
            [scenes()],
            {"model": {"name": "lwisp-s", "form": "clean"}},
            "not of the form clean",
        ),
        ({"choose": "psnr"}, [frames("raws")], {}, "says nothing of quality"),
        ({"choose": "ssim"}, [scenes()], {}, "psnr.*likeness"),
    ],
)
def test_what_cannot_be_chosen_by(
    tmp_path: Path, validation: dict[str, Any], sources: list[Any], changes: dict[str, Any], says: str
):
    values = recipe(tmp_path, data={"train": [scenes()], "validation": sources}, **changes)
    with pytest.raises(ValueError, match=says):
        TrainConfig.model_validate({**values, "validation": validation})


def test_an_adversary_has_photographs_for_likeness(photographs: Path, tmp_path: Path):
    adversary = {"colour": "c.pt", "weights": {"colour": 1}, "photographs": str(photographs)}
    config = TrainConfig.model_validate(liked(tmp_path, None, adversary=adversary))
    assert config.photographs == photographs


def test_pictures_too_small_for_likeness(photographs: Path, tmp_path: Path):
    source = scenes(crop=96)
    model = {"name": "hdrisp", "options": {"level": 4, "width": 2}}
    values = liked(tmp_path, photographs, model=model, data={"train": [source], "validation": [source], "batch": 2})
    with pytest.raises(UserError, match="likeness cannot be measured of the validation pictures"):
        run(values)
    assert not (tmp_path / "a").exists()


def test_a_run_from_before_goes_on(tmp_path: Path):
    """Its checkpoint knows nothing of these settings."""
    values = recipe(tmp_path, validation={"choose": None}, schedule={"steps": 12, "warmup": 1})
    run(values)
    kept = torch.load(tmp_path / "a/last.pt", weights_only=True)
    for key in ("choose", "photographs", "beside"):
        del kept["training"]["config"]["validation"][key]
    del kept["training"]["config"]["run"]["keep_every"], kept["training"]["best"]
    torch.save(kept, tmp_path / "a/last.pt")
    assert run(values, resume=True).steps == 12
    assert run({**values, "validation": {**values["validation"], "beside": True}}, resume=True).steps == 12
