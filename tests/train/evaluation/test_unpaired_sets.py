"""Frames whose pictures nobody knows: held against photographs of anything, and against the classic engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest

from ispeed.engines.errors import UserError
from ispeed.train.data.unpaired import colours_of
from ispeed.train.eval_cli import main
from ispeed.train.evaluation.developers import make_developer
from ispeed.train.evaluation.meters import make_meter
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.run import Evaluation, SetResult
from ispeed.train.evaluation.settings import EvalConfig
from ispeed.train.metrics import histograms_apart, lightness_ssim, mean_histogram

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def unpaired(tmp_path: Path) -> dict[str, Any]:
    """Three frames, photographs that are warmer than they are, and a grey one."""
    rng = np.random.default_rng(3)
    frames, photographs = tmp_path / "frames", tmp_path / "photographs"
    for folder in (frames, photographs):
        folder.mkdir()
    shade = np.add.outer(np.linspace(100, 500, 48), np.linspace(0, 400, 64))
    np.save(frames / "a.npy", (shade + rng.integers(0, 60, (3, 48, 64))).astype(np.uint16))
    (frames / "a.npy.yaml").write_text("format: BayerRG10\n")
    for number in range(4):
        picture = rng.integers(60, 200, (80, 90, 1)) * [1.0, 0.8, 0.6]
        PIL.Image.fromarray(picture.astype(np.uint8)).save(photographs / f"{number}.png")
    PIL.Image.new("L", (80, 90), 90).save(photographs / "grey.png")
    return {
        "name": "own",
        "kind": "unpaired",
        "data_set": "raws",
        "root": str(frames),
        "photographs": str(photographs),
        "white_balance": [1.2, 1.0, 1.4],
        "shown": 1,
    }


def measured(values: dict[str, Any], *engines: str, **how: Any) -> SetResult:
    settings = EvalConfig.model_validate({"sets": [values]}).sets[0]
    developers = [make_developer(spec) for spec in ("classic", *engines)]
    try:
        return Evaluation(developers, 1, **how).measure(settings)
    finally:
        for developer in developers:
            developer.close()


def test_colours_are_those_of_the_whole_set_and_structure_is_the_mean(unpaired: dict[str, Any]):
    kept: dict[str, list[np.ndarray]] = {}

    def keep(settings: Any, phase: str, label: str, frame: Any, picture: np.ndarray) -> None:
        assert frame.reference is None
        kept.setdefault(label, []).append(picture)

    result = measured(unpaired, "lwisp-xs", keep=keep)
    wanted = colours_of(Path(unpaired["photographs"])).mean
    assert [row.engine for row in result.rows] == ["classic", "lwisp-xs"]
    for row in result.rows:
        pictures = kept[row.engine]
        assert set(row.measures) == {"colours", "structure"}
        assert [frame["name"] for frame in row.frames] == ["a.npy 0", "a.npy 1", "a.npy 2"]
        assert row.measures["colours"] == pytest.approx(histograms_apart(mean_histogram(pictures), wanted))
        for frame, picture, classic in zip(row.frames, pictures, kept["classic"], strict=True):
            assert frame["colours"] == pytest.approx(histograms_apart(mean_histogram([picture]), wanted))
            assert frame["structure"] == pytest.approx(lightness_ssim(picture, classic))
        assert row.measures["structure"] == pytest.approx(np.mean([frame["structure"] for frame in row.frames]))
    assert result.rows[0].measures["structure"] == pytest.approx(1)
    assert (result.rows[1].measures["structure"] or 0) < 0.99
    assert not any("reference" in strip.crops for strip in result.strips)


def test_warmer_gains_bring_colours_nearer_to_warmer_photographs(unpaired: dict[str, Any]):
    cold, warm = (
        measured({**unpaired, "white_balance": gains}).rows[0].measures for gains in ([1, 1, 1.3], [1.5, 1, 0.6])
    )
    assert (warm["colours"] or 1) < (cold["colours"] or 1) - 0.1


def test_what_pictures_look_like_by_themselves_is_measured_too(unpaired: dict[str, Any]):
    def quality(picture: np.ndarray) -> float:
        return float(picture.mean())

    row = measured(unpaired, quality={"nima": quality}).rows[0]
    assert row.measures["nima"] == pytest.approx(np.mean([frame["nima"] for frame in row.frames]))


def test_pictures_that_belong_to_the_frames_do_not_count(unpaired: dict[str, Any], tmp_path: Path):
    for folder in ("raw", "rgb"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
    np.save(tmp_path / "pairs/raw/a.npy", np.load(tmp_path / "frames/a.npy")[0])
    (tmp_path / "pairs/raw/a.npy.yaml").write_text("format: BayerRG10\n")
    PIL.Image.new("RGB", (64, 48), (250, 0, 250)).save(tmp_path / "pairs/rgb/a.png")
    own = measured({**unpaired, "data_set": "folder", "root": tmp_path / "pairs"}).rows[0]
    assert own.frames[0]["colours"] == measured(unpaired).rows[0].frames[0]["colours"]


def test_the_page_and_the_results_say_what_was_compared(
    unpaired: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "out"
    arguments = ["cv2-ea", "classic-curve", "--on", str(write_config(unpaired)), "-o", str(folder), "--sheets"]
    assert main(arguments) == 0
    title = "own: unpaired, 3 frames, against 4 photographs of photographs (1 grey ones left out)"
    assert title in " ".join(capsys.readouterr().out.split())
    report = json.loads((folder / "results.json").read_text())["sets"][0]
    assert report["photographs"]["about"] == "4 photographs of photographs (1 grey ones left out)"
    assert len(report["photographs"]["manifest"]) == 64
    assert report["rows"][0]["mean"]["structure"] == pytest.approx(1)
    assert "skipped classic-curve" in report["skipped"][0]
    page = ElementTree.fromstring((folder / "index.html").read_text().removeprefix("<!DOCTYPE html>"))  # noqa: S314
    space = "{http://www.w3.org/1999/xhtml}"
    captions = [figure.findtext(f"{space}figcaption") for figure in page.iter(f"{space}figure")]
    assert captions == ["input", "classic", "cv2-ea"]
    assert {"colours", "structure"} <= {word.text for word in page.iter(f"{space}dt")}
    assert len(list((folder / "sheets").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"photographs": "{here}/none"}, "there is no folder .*none"),
        ({"photographs": "{here}/frames"}, "holds no photographs"),
        ({"photographs": "{here}/grey"}, "all 1 photographs of .*grey are grey; give some with colours"),
        ({"root": "{here}/photographs/none"}, "there is no folder"),
        ({"root": "{here}/empty"}, "holds no raw frames"),
    ],
)
def test_what_is_missing_is_told_in_one_sentence(
    unpaired: dict[str, Any], changes: dict[str, str], says: str, tmp_path: Path
):
    for name in ("grey", "empty"):
        (tmp_path / name).mkdir()
    PIL.Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / "grey/a.png")
    values = unpaired | {name: value.format(here=tmp_path) for name, value in changes.items()}
    with pytest.raises(UserError, match=says) as error:
        open_set(EvalConfig.model_validate({"sets": [values]}).sets[0], 1)
    assert "\n" not in str(error.value)


def test_frames_too_small_for_structure_are_noted(unpaired: dict[str, Any]):
    np.save(Path(unpaired["root"]) / "a.npy", np.full((6, 6), 400, np.uint16))
    row = measured(unpaired).rows[0]
    assert row.measures == {}
    assert row.notes[0].startswith("a.npy: ")


def test_a_meter_needs_the_photographs(unpaired: dict[str, Any]):
    with pytest.raises(ValueError, match="compared with photographs"):
        make_meter(EvalConfig.model_validate({"sets": [unpaired]}).sets[0])
