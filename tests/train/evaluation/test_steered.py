"""Sets of known cameras, in both directions, and what is measured on them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from ispeed.train.checkpoint import Checkpoint, save_checkpoint
from ispeed.train.eval_cli import main
from ispeed.train.evaluation.frames import to_tensor
from ispeed.train.evaluation.inverse import Canonical, Told, measured_back
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.settings import CamerasSet
from ispeed.train.metrics import psnr
from ispeed.train.models import BothISPs, make_network
from ispeed.train.models.canonical import to_linear

MATRIX = [[1.6, -0.4, -0.2], [-0.2, 1.5, -0.3], [0.0, -0.5, 1.5]]
LOOK = {"brighten": [3.0, 1.0], "saturation": [1.2, 0.7]}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    y, x = np.mgrid[:120, :130]
    picture = np.stack([127 + 100 * np.sin(0.05 * y * k + 0.09 * x) for k in (1, 2, 3)], -1).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    PIL.Image.fromarray(picture).save(tmp_path / "photos/a.png")
    camera = {"name": "small", "cfa": "GRBG", "colour_matrix": MATRIX, "bits": 14, "look": LOOK}
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(camera))
    found = {"camera": str(tmp_path / "camera.yaml"), "folder": str(tmp_path / "photos"), "crop": 96}
    return {"name": "small", "kind": "cameras", **found}


def saved(path: Path, form: str) -> Path:
    torch.manual_seed(3)
    options = {"form": form, "width": 4, "ranges": "high_speed"}
    network = make_network("paramisp", **options)
    for part in [network.back, network.forth] if isinstance(network, BothISPs) else [network]:
        torch.nn.init.normal_(part.told.mix[-1].weight, 0.0, 0.3)  # so that what it is told shows
    save_checkpoint(path, Checkpoint(network, "paramisp", options, run="none", data="chance", licence="CC0"))
    return path


def test_frames_come_with_all_that_is_known(settings: dict[str, Any]):
    frames = open_set(CamerasSet(**settings), seed=1)
    (frame,) = frames.frames("RGGB")
    assert frames.matrix is not None
    np.testing.assert_allclose(frames.matrix, MATRIX)
    assert len(frame.camera) == 5
    assert all(value > 0 for name, value in zip("egift", frame.camera, strict=True) if name != "g")
    assert frame.samples is not None
    assert tuple(frame.samples.shape) == (4, 48, 48)
    assert frame.reference is not None
    assert frame.reference.shape == (96, 96, 3)
    (untold,) = open_set(CamerasSet(**settings, untold=True), seed=1).frames("RGGB")
    assert untold.camera == (0.0,) * 5
    np.testing.assert_array_equal(untold.raw, frame.raw)


def test_a_way_back_that_is_exact_measures_as_such(settings: dict[str, Any]):
    """A picture that was made by undoing nothing but the canonical steps comes back but for its 8 bits."""
    (frame,) = open_set(CamerasSet(**settings), seed=1).frames("RGGB")
    told = Told(torch.from_numpy(frame.gains)[None], torch.tensor([MATRIX]), torch.tensor([frame.camera]))

    class Linear(Canonical):
        def planes(self, picture: torch.Tensor, told: Told) -> torch.Tensor:
            return frame.samples[None].clamp(0.0, 1.0) + 0.01  # pyright: ignore[reportOptionalSubscript]

    found = measured_back(Linear(), frame, np.array(MATRIX, np.float32))
    assert found["raw_psnr"] == pytest.approx(40.0, abs=0.01)
    assert found["cycle_psnr"] == pytest.approx(40.0, abs=0.05)
    found = measured_back(Canonical(), frame, np.array(MATRIX, np.float32))
    own = Canonical().planes(to_tensor(frame.reference), told)  # pyright: ignore[reportArgumentType]
    assert found["raw_psnr"] == pytest.approx(psnr(own, frame.samples[None].clamp(0, 1)))  # pyright: ignore
    assert found["cycle_psnr"] is not None
    assert found["cycle_psnr"] > 35, "of 8 bits, for what no colour of sRGB is clipped"
    assert to_linear(frame.samples[None], told.gains, told.matrix).shape == (1, 3, 96, 96)  # pyright: ignore


def test_both_directions_in_tables(settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sets = [settings, settings | {"name": "untold", "untold": True}, settings | {"name": "back", "kind": "inverse"}]
    config = tmp_path / "eval.yaml"
    config.write_text(yaml.safe_dump({"sets": sets}))
    inverse, both = saved(tmp_path / "inverse.pt", "inverse"), saved(tmp_path / "both.pt", "cycle")
    words = ["canonical", str(inverse), str(both), "--on", str(config), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    result = json.loads((tmp_path / "out/results.json").read_text())
    rows = {each["name"]: {row["engine"]: row["mean"] for row in each["rows"]} for each in result["sets"]}
    assert set(rows["small"]) == {"classic", "canonical", str(both)}
    assert rows["small"]["classic"] == rows["untold"]["classic"]
    assert rows["small"][str(both)]["psnr"] != rows["untold"][str(both)]["psnr"], "it is told the parameters"
    assert set(rows["back"]) == {"canonical", str(inverse), str(both)}
    assert set(rows["back"][str(inverse)]) == {"raw_psnr"}
    assert set(rows["back"][str(both)]) == {"raw_psnr", "cycle_psnr"}
    said = capsys.readouterr().out
    assert "raw PSNR dB" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"camera": "/nowhere.yaml"}, r"cannot read the config /nowhere\.yaml"),
        ({"crop": 98}, "crop"),
        ({"folder": "/nowhere"}, "there is no folder /nowhere"),
    ],
)
def test_wrong_sets_are_one_sentence(
    change: dict[str, Any], says: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "eval.yaml"
    config.write_text(yaml.safe_dump({"sets": [settings | change]}))
    assert main(["classic", "--on", str(config), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(says, said)
