"""Pairs that are made: a data set as of two cameras, with the truth beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pydantic import ValidationError

from ispeed.engines import UserError
from ispeed.train.cli import train
from ispeed.train.data.folder import PairFolder
from ispeed.train.data.made_pairs import RECORD, MadePairs, make_pairs
from ispeed.train.metrics import psnr
from ispeed.train.stages import read_stages

SMALL = {"count": 2, "edge": 96, "options": {"exposure": [0.5, 0.5]}}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def photographs(folder: Path, **sizes: tuple[int, int]) -> Path:
    folder.mkdir()
    for name, size in sizes.items():
        picture = np.random.default_rng(1).integers(0, 255, (*size, 3), np.uint8)
        PIL.Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def test_scenes_give_pairs_with_their_truth(tmp_path: Path):
    assert make_pairs(MadePairs(**SMALL), tmp_path / "pairs") == 2
    seen, true = (PairFolder(tmp_path / "pairs", rgb=rgb) for rgb in ("rgb", "truth"))
    for one, other in zip(seen.files(), true.files(), strict=True):
        pair, truth = seen.load(one), true.load(other)
        assert pair.samples.shape == pair.target.shape[:2] == (96, 96)
        assert pair.raw_format.cfa == "RGGB"
        assert pair.gains is not None
        flow = np.load(tmp_path / "pairs" / "flow" / f"{one.name}.npy")
        assert np.hypot(flow[..., 0], flow[..., 1]).max() <= 8.01
        assert (psnr(pair.target, truth.target, 255) < 60) == (flow.any())
    record = json.loads((tmp_path / "pairs" / RECORD).read_text())
    assert MadePairs(**record["settings"]) == MadePairs(**SMALL)


def test_they_follow_from_the_settings_and_look_seed_is_that_of_the_camera_alone(tmp_path: Path):
    for name, changes in {"a": {}, "b": {}, "seed": {"seed": 2}, "look": {"look_seed": 2}}.items():
        make_pairs(MadePairs(**SMALL | changes), tmp_path / name)
    a, b, seed, look = (contents(tmp_path / name) for name in ("a", "b", "seed", "look"))
    assert a == b
    assert a.keys() == seed.keys() == look.keys()
    changed = {name.split("/")[0] for name in a if a[name] != look[name]}
    assert changed == {"rgb", "truth", RECORD}
    assert {"raw", "rgb", "truth", "flow"} <= {name.split("/")[0] for name in a if a[name] != seed[name]}


def test_photographs_that_are_too_small_are_left_out(tmp_path: Path):
    folder = photographs(tmp_path / "photos", large=(128, 140), small=(127, 200), wide=(130, 128))
    settings = MadePairs(photographs=folder, edge=96, cfa="GBRG")
    assert make_pairs(settings, tmp_path / "pairs") == 2
    reader = PairFolder(tmp_path / "pairs")
    assert [file.name for file in reader.files()] == ["large", "wide"]
    assert reader.load(reader.files()[0]).raw_format.cfa == "GBRG"
    with pytest.raises(UserError, match="holds no photograph of 160x160: choose a smaller edge"):
        make_pairs(settings.model_copy(update={"edge": 128}), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"largest": (0, 20)}, "a range within 0 to 14 pixels"),
        ({"noise": "loud"}, "noise is 'loud'"),
        ({"options": {"exposure": "much"}}, "exposure is 'much'"),
        ({"cfa": "RGB"}, "filter array"),
        ({"photographs": Path("nowhere")}, "there is no folder nowhere"),
    ],
)
def test_wrong_settings(changes: dict[str, object], words: str, tmp_path: Path):
    with pytest.raises(UserError, match=words):
        make_pairs(MadePairs(**SMALL | changes), tmp_path / "pairs")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValidationError, match="say how many scenes"):
        MadePairs(edge=96)


def test_a_recipe_makes_them_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "made.yaml"
    path.write_text("stages: {pairs: {pairs: {count: 1, edge: 96}}}\n")
    words = [str(path), "--set", f"run.folder={tmp_path}"]
    assert isinstance(read_stages(path)[0].config, MadePairs)
    assert train(words) == 0
    assert capsys.readouterr().out == f"{tmp_path}/made/pairs: 1 pairs made\n"
    before = contents(tmp_path / "made")
    assert train([*words, "--resume"]) == 0
    assert contents(tmp_path / "made") == before
    assert train(words) == 2
    assert "holds results already" in capsys.readouterr().err
    assert train([*words, "--resume", "--set", "stages.pairs.pairs.seed=2"]) == 2
    assert "was made with other settings (seed was 1, is 2); set run.name to another name" in capsys.readouterr().err
    assert contents(tmp_path / "made") == before
