"""Networks that take pictures: from a recipe to a file that any runtime runs, and to a better picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ispeed.engines import UserError
from ispeed.engines.core import CoreInfo, read_core
from ispeed.engines.torch_gpu import load_program
from ispeed.train import cli
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.config import read_recipe
from ispeed.train.export import PICTURE_INFO
from ispeed.train.filter import filter_picture, padded, picture_multiple
from ispeed.train.models import Form, make_lwisp

RECIPE = """
model: {{name: lwisp-s, form: rgb, residual: {residual}}}
data:
  train: [{{source: pictures, task: {task}, crop: 32, scenes: 2, repeats: 4}}]
  validation: [{{source: pictures, task: {task}, crop: 32, scenes: 2}}]
  batch: 2
  licence: Apache-2.0
schedule: {{steps: 8, warmup: 2}}
optim: {{lr: 2.0e-3}}
ema: {{decay: 0.5}}
device: cpu
threads: 1
validation: {{every: 8}}
"""


def checkpoint(form: Form = "rgb", *, residual: bool = True, path: Path | None = None) -> Checkpoint:
    torch.manual_seed(5)
    options = {"form": form, "residual": residual} if form == "rgb" else {"form": form}
    network = make_lwisp("lwisp-s", form=form, residual=residual and form == "rgb").eval()
    if residual and form == "rgb":  # else it changes nothing yet
        torch.nn.init.normal_(network.get_submodule("out.1").weight, 0, 0.05)
        torch.nn.init.constant_(network.get_submodule("out.1").bias, -0.1)
    made = Checkpoint(network, "lwisp-s", options, run="none", data="chance", licence="Apache-2.0")
    if path:
        save_checkpoint(path, made)
    return made


def exported(folder: Path, name: str) -> Path:
    checkpoint(path=folder / "filter.pt")
    assert cli.export([str(folder / "filter.pt"), "-o", str(folder / name)]) == 0
    return folder / name


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)


def run_onnx(path: Path, pictures: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["rgb"], {"picture": pictures})[0])


def as_input(codes: np.ndarray) -> np.ndarray:
    return (codes.transpose(2, 0, 1)[None] / 255).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (37, 50), (70, 33), (5, 40), (1, 1)])
def test_a_picture_of_any_size_is_what_onnx_runtime_makes_of_it(tmp_path: Path, height: int, width: int):
    seen = picture(height, width)
    shown = filter_picture(checkpoint(), seen)
    assert (shown.shape, shown.dtype) == (seen.shape, np.uint8)
    assert (shown != seen).any()
    given = run_onnx(exported(tmp_path, "filter.onnx"), as_input(padded(seen, 16)))[0, :, :height, :width]
    codes = np.rint(given.transpose(1, 2, 0) * 255)
    assert np.abs(codes - shown).max() <= 1


def test_a_file_takes_batches_and_gives_display_values(tmp_path: Path):
    path = exported(tmp_path, "filter.onnx")
    pictures = np.random.default_rng(1).random((3, 3, 48, 32), np.float32)
    shown = run_onnx(path, pictures)
    assert shown.shape == pictures.shape
    assert 0 <= shown.min() < shown.max() <= 1
    np.testing.assert_allclose(run_onnx(path, pictures[1:2])[0], shown[1], atol=1e-4)


def test_the_file_says_what_it_is_and_engines_refuse_it(tmp_path: Path):
    path = exported(tmp_path, "filter.onnx")
    model = onnx.load(path)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told.keys() == {"ispeed.picture", "ispeed.info"}
    assert told["ispeed.picture"] == "1"
    info = CoreInfo.from_json(json.loads(told["ispeed.info"]))
    assert (info.model, info.width, info.output, info.multiple, info.inputs) == ("lwisp-s", 8, "srgb", 16, ())
    assert (info.run, info.data, info.licence, len(info.sha256)) == ("none", "chance", "Apache-2.0", 64)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    with pytest.raises(UserError, match="filters pictures and develops no raw frames"):
        read_core(path)


def test_a_program_gives_the_same(tmp_path: Path):
    path, seen = exported(tmp_path, "filter.pt2"), picture(48, 64)
    files = {PICTURE_INFO: ""}
    program = torch.export.load(path, extra_files=files)
    assert json.loads(files[PICTURE_INFO])["multiple"] == 16
    with torch.inference_mode():
        shown = program.module()(torch.from_numpy(as_input(seen)))[0].permute(1, 2, 0) * 255
    assert np.abs(shown.round().numpy() - filter_picture(checkpoint(), seen)).max() <= 1
    with pytest.raises(UserError, match=r"is no torch program of isp-export"):
        load_program(path)


def test_a_teacher_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint("clean", path=tmp_path / "teacher.pt")
    assert cli.export([str(tmp_path / "teacher.pt")]) == 2
    assert "only helps to train others; export one of these" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["raw", "clean"])
def test_other_forms_take_no_pictures(form: Form):
    with pytest.raises(UserError, match=f"of the form {form} takes no pictures to make better"):
        filter_picture(checkpoint(form), picture(32, 32))


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_other_arrays_are_no_pictures(wrong: np.ndarray):
    with pytest.raises(ValueError, match="a picture is uint8"):
        filter_picture(checkpoint(), wrong)


def test_what_is_added_is_the_picture_mirrored():
    assert picture_multiple("lwisp") == picture_multiple("lwisp-s") == 16
    seen = picture(40, 33)
    whole = padded(seen, 16)
    assert whole.shape == (48, 48, 3)
    np.testing.assert_array_equal(whole[:40, :33], seen)
    np.testing.assert_array_equal(whole[40:, :33], seen[-2:-10:-1])
    np.testing.assert_array_equal(whole[:40, 33:], seen[:, -2:-17:-1])
    np.testing.assert_array_equal(padded(whole, 16), whole)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("model={name: lwisp-s}", "of the form raw takes sources of raw frames, not pictures"),
        ("data.train=[{source: scenes, crop: 32}]", "of the form rgb takes the source pictures, not scenes"),
    ],
)
def test_samples_of_the_other_kind_are_refused(tmp_path: Path, change: str, problem: str):
    (tmp_path / "a.yaml").write_text(RECIPE.format(task="denoise", residual="true"))
    with pytest.raises(UserError, match=problem):
        read_recipe(tmp_path / "a.yaml", [change])


@pytest.mark.parametrize(("task", "residual"), [("denoise", True), ("enhance", False)])
def test_from_recipe_to_picture(tmp_path: Path, task: str, residual: bool):
    recipe = tmp_path / f"{task}.yaml"
    recipe.write_text(RECIPE.format(task=task, residual=str(residual).lower()))
    assert cli.train([str(recipe), "--set", f"run.folder={tmp_path}"]) == 0
    trained = tmp_path / task / "last.pt"
    made = load_checkpoint(trained)
    assert made.options == ({"form": "rgb", "residual": True} if residual else {"form": "rgb"})
    assert made.data.startswith("rendered scenes, with noise of camera")
    assert cli.export([str(trained), "-o", str(tmp_path / "filter.onnx")]) == 0
    seen = picture(32, 32)
    given = run_onnx(tmp_path / "filter.onnx", as_input(seen))[0].transpose(1, 2, 0)
    assert np.abs(np.rint(given * 255) - filter_picture(made, seen)).max() <= 1
