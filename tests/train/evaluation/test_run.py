"""Figures: against the same computed apart from isp-eval, against `score_pairs`, and on what is known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ispeed.engines.reference import classic_reference
from ispeed.train.evaluation.crops import most_detailed
from ispeed.train.evaluation.developers import make_developer
from ispeed.train.evaluation.meters import means, spread
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.run import COLOUR_STRENGTHS, STRENGTHS, Evaluation, tune_nlm
from ispeed.train.evaluation.settings import EvalConfig, ScenesSet
from ispeed.train.metrics import FlickerMeter

pytestmark = pytest.mark.usefixtures("cache")


def measured(values: dict, *engines: str, keep=lambda *picture: None, quick: bool = False):
    settings = EvalConfig.model_validate({"sets": [{"name": "a", **values}]}).sets[0]
    developers = [make_developer(spec) for spec in ("classic", *engines)]
    try:
        return Evaluation(developers, 1, keep=keep, quick=quick).measure(settings)
    finally:
        for developer in developers:
            developer.close()


def test_scores_are_those_of_scikit_image():
    kept = {}

    def keep(settings, phase, label, frame, picture):
        kept[label, frame.name] = picture, frame.reference

    result = measured({"kind": "scenes", "crop": 64, "limit": 2}, "lwisp-xs", keep=keep)
    assert [row.engine for row in result.rows] == ["classic", "lwisp-xs"]
    for row in result.rows:
        assert len(row.frames) == 2
        for figures in row.frames:
            picture, reference = kept[row.engine, figures["name"]]
            assert figures["psnr"] == pytest.approx(peak_signal_noise_ratio(reference, picture), rel=1e-9)
            similarity = structural_similarity(reference / 255, picture / 255, channel_axis=-1, data_range=1.0)
            assert figures["ssim"] == pytest.approx(similarity, abs=1e-9)
        for name in ("psnr", "ssim", "noise_luma"):
            assert row.measures[name] == pytest.approx(np.mean([figures[name] for figures in row.frames]))


def test_pairs_are_scored_as_score_pairs_does(data_dir: Path, score_pairs, tmp_path: Path, capsys):
    pairs = data_dir / "paired" / "rhid"

    def keep(settings, phase, label, frame, picture):
        PIL.Image.fromarray(picture).save(tmp_path / f"{frame.name}.png")

    values = {"kind": "pairs", "data_set": "rhid", "root": pairs, "options": {"split": "val"}, "protocol": "colour"}
    result = measured(values, keep=keep)
    score_pairs.main(tmp_path, pairs / "val" / "rgb")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    mine = [[f["name"], f"{f['psnr']:.2f}", "dB", f"{f['ssim']:.4f}"] for f in result.rows[0].frames]
    total = result.rows[0].measures
    assert [*mine, ["mean", f"{total['psnr']:.2f}", "dB", f"{total['ssim']:.4f}"]] == printed


def test_the_flow_is_found_on_the_classic_picture_for_all():
    result = measured({"kind": "scenes", "crop": 64, "limit": 1, "protocol": "flow"}, "lwisp-xs")
    counted = [row.measures["counted"] for row in result.rows]
    assert counted[0] == counted[1]
    assert 0 < counted[0] <= 1


def test_four_phases_are_measured_and_compared():
    result = measured({"kind": "scenes", "crop": 96, "limit": 1, "cfa": "all", "shown": 1})
    phases, total = result.rows[:4], result.rows[4]
    assert [row.phase for row in result.rows] == ["RGGB", "GRBG", "GBRG", "BGGR", "all"]
    scores = [row.measures["psnr"] for row in phases]
    assert total.measures["psnr"] == pytest.approx(np.mean(scores))
    assert total.measures["psnr_spread"] == pytest.approx(max(scores) - min(scores))
    assert len(result.strips) == 1, "one phase is shown"


def test_an_edge_is_as_sharp_as_it_was_rendered():
    result = measured({"kind": "edge", "noise": "none", "size": 96, "frames": 1, "sigma": 1.2})
    by_label = {row.engine: row.measures for row in result.rows}
    assert by_label["reference"]["mtf50"] == pytest.approx(0.1874 / 1.2, rel=0.03)
    assert by_label["classic"]["mtf50"] == pytest.approx(by_label["reference"]["mtf50"], rel=0.15)
    assert set(by_label["classic"]) == {"mtf50", "mtf50_upright", "mtf50_level"}


def test_flicker_is_that_of_the_pictures_one_by_one():
    values = {"kind": "flicker", "crop": 64, "frames": 5}
    result = measured(values)
    made, meter = open_set(EvalConfig.model_validate({"sets": [{"name": "a", **values}]}).sets[0], 1), FlickerMeter()
    for frame in made.frames("RGGB"):
        meter.add(classic_reference(frame.raw, frame.raw_format, tuple(map(float, frame.gains)), made.matrix))
    wanted, row = meter.result(), result.rows[0].measures
    assert row["flicker_pixels"] == pytest.approx(wanted.pixels, rel=0.02)  # the reference rounds on its own
    assert row["flicker_edges"] == pytest.approx(wanted.edges, rel=0.05)
    still = measured({**values, "noise": "none"}).rows[0].measures
    assert still == {"flicker_colour": 0, "flicker_edges": 0, "flicker_pixels": 0}


def test_charts_are_measured(data_dir: Path):
    values = {"kind": "chart", "charts": data_dir / "charts.json", "format": "BayerGR8", "black": 12.5}
    row = measured(values, quick=True).rows[0]
    assert len(row.frames) == 2
    assert all(0 < figures["ciede2000"] < 30 for figures in row.frames)
    assert row.measures["ciede2000"] < row.measures["ciede2000_worst"]


def test_what_cannot_be_measured_is_told(tmp_path: Path):
    PIL.Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black.png")
    values = {"kind": "photos", "folder": tmp_path, "noise": "none", "crop": 64}
    row = measured(values).rows[0]
    assert row.measures["noise_luma"] is None
    assert "black.png: every block" in row.notes[0]


def test_the_colours_of_the_camera_may_be_unknown(tmp_path: Path):
    PIL.Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    values = {"name": "a", "kind": "photos", "folder": tmp_path, "crop": 64}
    told, untold = (
        open_set(EvalConfig.model_validate({"sets": [{**values, **more}]}).sets[0], 1)
        for more in ({}, {"calibrated": False})
    )
    assert told.matrix is not None
    assert untold.matrix is None
    frames = [next(each.frames("RGGB")) for each in (told, untold)]
    np.testing.assert_array_equal(frames[0].raw, frames[1].raw)
    np.testing.assert_array_equal(frames[0].reference, frames[1].reference)
    scores = [measured({**values, "calibrated": calibrated}).rows[0].measures["psnr"] for calibrated in (True, False)]
    assert scores[0] != scores[1]


def test_quick_takes_the_first_frames():
    whole, some = (measured({"kind": "scenes", "crop": 32, "limit": 4}, quick=quick) for quick in (False, True))
    assert [f["name"] for f in some.rows[0].frames] == ["scene 0", "scene 1"]
    assert some.rows[0].frames == whole.rows[0].frames[:2]


def test_the_best_strength_is_the_best_of_the_grid():
    settings = ScenesSet(name="a", kind="scenes", crop=64, limit=1)
    tuning = tune_nlm(settings, 1)
    assert len(tuning.grid) == len(STRENGTHS) * len(COLOUR_STRENGTHS)
    best = max(tuning.grid, key=lambda cell: cell["psnr"])
    assert tuning.name == f"classic+nlm:{best['h']:g},{best['h_color']:g}"
    frames = {"kind": "scenes", "crop": 64, "limit": 1}
    tuned = measured(frames, tuning.name).rows[1].measures["psnr"]
    assert tuned == pytest.approx(best["psnr"], rel=1e-9)


def test_the_classic_engine_comes_first():
    with pytest.raises(ValueError, match="classic engine comes first"):
        Evaluation([], 1)


def test_the_most_detailed_place():
    picture = np.full((200, 300, 3), 90, np.uint8)
    picture[120:160, 220:260] = np.random.default_rng(1).integers(0, 255, (40, 40, 3))
    top, left = most_detailed(picture, 64)
    assert top <= 120 <= 160 <= top + 64
    assert left <= 220 <= 260 <= left + 64
    assert most_detailed(picture[:40, :50], 64) == (0, 0)


def test_means_and_spreads():
    rows = [{"a": 1.0, "b": None}, {"a": 4.0, "b": 2.0}, {}]
    assert means(rows) == {"a": 2.5, "b": 2.0}
    assert spread(rows[:2], "a") == 3
    assert spread(rows, "a") is None
