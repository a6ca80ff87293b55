"""Checkpoints come back as they went, and what is none is refused in a sentence."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ispeed.engines import UserError
from ispeed.engines.core import read_core, write_core
from ispeed.engines.zoo import zoo_path
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.export import export_checkpoint
from ispeed.train.models import VARIANTS, make_lwisp

Make = Callable[..., Path]


def changed(path: Path, **values: Any) -> Path:
    torch.save(torch.load(path, weights_only=True) | values, path)
    return path


def test_round_trip(tmp_path: Path):
    network = make_lwisp("lwisp-s", sup=True)
    path = tmp_path / "new folder" / "x.pt"
    save_checkpoint(path, Checkpoint(network, "lwisp-s", {"sup": True}, "a run", "some data", "CC0", output="linear"))
    loaded = load_checkpoint(path)
    assert (loaded.model, loaded.options) == ("lwisp-s", {"sup": True})
    assert (loaded.run, loaded.data, loaded.licence, loaded.output) == ("a run", "some data", "CC0", "linear")
    assert not loaded.network.training
    planes = torch.rand(1, 4, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.network(planes), network(planes))
    assert [p.name for p in path.parent.iterdir()] == ["x.pt"]


def test_missing(tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*No such file"):
        load_checkpoint(tmp_path / "x.pt")


def test_folder_for_a_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*directory"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.2, 0.5, 0.99])
def test_truncated(make_checkpoint: Make, part: float):
    path = make_checkpoint()
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(UserError, match=r"cut off or damaged|no checkpoint of ispeed"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"not a checkpoint\n", bytes(5000), b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(99)])
def test_some_other_file(tmp_path: Path, content: bytes):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_checkpoint(path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code in a checkpoint was run",))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_file_is_not_run(tmp_path: Path, save: Callable[[Any, Path], Any]):
    path = tmp_path / "x.pt"
    save({"model": Harmful()}, path)
    with pytest.raises(UserError, match=r"no checkpoint of ispeed|cut off or damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [[1, 2], {"state_dict": {}}, {"model": "lwisp"}])
def test_checkpoint_of_somebody_else(tmp_path: Path, value: Any):
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(UserError, match="no checkpoint of ispeed"):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"model": "lwisp-xxl"}, "cannot make: there is no 'lwisp-xxl'"),
        ({"options": {"depth": 3}}, "cannot make: .*depth"),
        ({"options": {"sup": True}}, "cannot make: .*second upsampling"),
        ({"model": "lwisp"}, "do not fit lwisp"),
        ({"weights": {}}, "do not fit lwisp-xs"),
        ({"weights": {"c0.1.weight": 3}}, "do not fit lwisp-xs"),
        ({"licence": None}, "no checkpoint of ispeed"),
    ],
)
def test_wrong_content(make_checkpoint: Make, values: dict[str, Any], problem: str):
    with pytest.raises(UserError, match=problem):
        load_checkpoint(changed(make_checkpoint(), **values))


def test_wrong_shape(make_checkpoint: Make):
    path = make_checkpoint()
    weights = torch.load(path, weights_only=True)["weights"]
    with pytest.raises(UserError, match="do not fit lwisp-xs"):
        load_checkpoint(changed(path, weights=weights | {"c0.1.bias": torch.zeros(17)}))


def test_ctrl_c_in_the_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(value: Any, file: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "x.pt", Checkpoint(make_lwisp("lwisp-xs"), "lwisp-xs"))
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "x.pt", Checkpoint(make_lwisp("lwisp-xs"), "lwisp-xs"))


@pytest.mark.parametrize(("model", "options"), [("lwisp-xs", {}), ("lwisp-s", {}), ("lwisp-s", {"sup": True})])
def test_a_core_is_trained_on_from(tmp_path: Path, model: str, options: dict[str, Any]):
    torch.manual_seed(1)
    made = Checkpoint(make_lwisp(model, **options), model, options, "a run", "some data", "CC0", output="linear")
    export_checkpoint(made, tmp_path / "x.onnx")
    loaded = load_checkpoint(tmp_path / "x.onnx")
    assert (loaded.model, loaded.options, loaded.output) == (model, options, "linear")
    assert (loaded.run, loaded.data, loaded.licence, loaded.training) == ("a run", "some data", "CC0", None)
    planes = torch.rand(1, 4, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.network(planes), made.network(planes))


@pytest.mark.parametrize("name", list(VARIANTS))
def test_what_ships_is_trained_on_from(name: str):
    loaded = load_checkpoint(zoo_path(name))
    assert (loaded.model, loaded.output) == (name, "linear")


def test_a_core_in_int8_is_not(tmp_path: Path):
    core = read_core(zoo_path("lwisp-xs"))
    write_core(tmp_path / "x.onnx", core.model, replace(core.info, precision="int8"))
    with pytest.raises(UserError, match="a core in int8, which cannot be trained on from; give one in fp32"):
        load_checkpoint(tmp_path / "x.onnx")
