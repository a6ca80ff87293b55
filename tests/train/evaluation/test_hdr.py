"""Sets of HDR scenes, the curve that they are measured against, and stills in changing light."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ispeed.engines import UserError, unpack
from ispeed.train.data.tonemap import tone_mapped
from ispeed.train.eval_cli import main
from ispeed.train.evaluation.curve import FITTED, best_curve
from ispeed.train.evaluation.developers import BehindDeveloper, Skipped, make_developer
from ispeed.train.evaluation.frames import Frame, Picture
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.run import Evaluation
from ispeed.train.evaluation.settings import AnySet, EvalConfig, read_config
from ispeed.train.metrics import tmqi
from ispeed.train.metrics.histogram import histogram_distance

pytestmark = pytest.mark.usefixtures("cache")

HDR = {"name": "a", "kind": "hdr", "crop": 64, "limit": 2}
LIT = {"name": "a", "kind": "flicker", "crop": 32, "frames": 16, "light_period": 8, "light_stops": 2}


def a_set(values: dict[str, Any]) -> AnySet:
    return EvalConfig.model_validate({"sets": [values]}).sets[0]


def measured(values: dict[str, Any], *engines: str, keep: Any = lambda *picture: None, quick: bool = False):
    developers = [make_developer(spec) for spec in ("classic", *engines)]
    try:
        return Evaluation(developers, 1, keep=keep, quick=quick).measure(a_set(values))
    finally:
        for developer in developers:
            developer.close()


def levels(frame: Frame) -> np.ndarray:
    fmt = frame.raw_format
    return (unpack(frame.raw, fmt).astype(float) - fmt.black_level) / (fmt.white_level - fmt.black_level)


# ---- scenes ----------------------------------------------------------------------------------------------------


def test_a_frame_holds_a_part_of_the_light_and_its_reference_all():
    told = {"operator": "reinhard", "tone": {"intensity": 1.0}, "noise": "none", "options": {"anchor": "scene"}}
    made = open_set(a_set({**HDR, **told}), 1)
    for frame in made.frames("RGGB"):
        assert frame.radiance is not None
        assert frame.radiance.shape == frame.reference.shape == (64, 64, 3)
        wanted = 255 * tone_mapped(frame.radiance, "reinhard", intensity=1.0)
        assert np.abs(frame.reference - wanted).max() <= 0.51
        found = levels(frame)
        assert 0 < (found >= 1).mean() < 0.2, "some of it is clipped"
        assert np.abs(found * 1023 - np.rint(found * 1023)).max() < 0.05, "converted in 10 bits"
    assert made.matrix is not None


def test_frames_are_the_same_every_time_and_in_all_phases_of_one_scene():
    made = open_set(a_set({**HDR, "cfa": "all"}), 1)
    first, again = (list(open_set(a_set({**HDR, "cfa": "all"}), 1).frames("GRBG")) for _ in range(2))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.raw, same.raw)
    assert (first[0].raw != first[1].raw).any()
    for phase in made.phases:
        frame = next(made.frames(phase))
        np.testing.assert_array_equal(frame.radiance, first[0].radiance)
        np.testing.assert_array_equal(frame.reference, first[0].reference)
    other = next(open_set(a_set(HDR), 2).frames("RGGB"))
    assert (other.reference != first[0].reference).any()


def test_photographs_are_scenes(tmp_path: Path):
    y, x = np.mgrid[:80, :90]
    for number in range(3):
        picture = np.stack([127 + 100 * np.sin(0.05 * y * k + 0.3 * x + number) for k in (1, 2, 3)], -1)
        PIL.Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{number}.png")
    plain = {"options": {"extend": False, "anchor": "scene"}, "operator": "none", "noise": "none"}
    made = open_set(a_set({**HDR, **plain, "folder": str(tmp_path), "limit": 1}), 1)
    (frame,) = made.frames("RGGB")
    assert frame.name == "1.png"
    photo = np.asarray(PIL.Image.open(tmp_path / "1.png"))[8:72, 13:77]
    np.testing.assert_allclose(frame.reference, photo, atol=1)


def test_what_is_measured_is_what_the_metrics_say():
    kept = {}

    def keep(settings: AnySet, phase: str, label: str, frame: Frame, picture: Picture) -> None:
        kept[label, frame.name] = picture, frame

    result = measured({**HDR, "crop": 162, "limit": 1}, keep=keep)
    (row,) = result.rows
    picture, frame = kept["classic", "scene 0"]
    found = tmqi(frame.radiance, picture)
    assert row.measures["tmqi"] == pytest.approx(found.quality)
    assert row.measures["tmqi_fidelity"] == pytest.approx(found.fidelity)
    assert row.measures["tmqi_naturalness"] == pytest.approx(found.naturalness)
    assert row.measures["histogram"] == pytest.approx(histogram_distance(picture, frame.reference))
    small = measured({**HDR, "limit": 1}).rows[0]
    assert "tmqi" not in small.measures, "which has five scales"
    assert 0 < small.measures["histogram"] < 1
    assert small.notes == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"operator": "gamma"}, "operator"),
        ({"tone": {"gamma": 2}}, "no option 'gamma'"),
        ({"options": {"bits": 1}}, "bits is 1"),
        ({"options": {"exposure": [1, 2]}}, "no option 'exposure'"),
        ({"options": {"colours": "cameras"}}, "one colour matrix"),
        ({"noise": "loud"}, "noise is 'loud'"),
    ],
)
def test_wrong_settings_are_one_sentence(write_config, change: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says) as caught:
        read_config(write_config({**HDR, **change}))
    assert "\n" not in str(caught.value)


# ---- the curve -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_curve_is_the_best_monotone_one(seed: int):
    """By the max-min formula of isotonic regression."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(256)
    codes = np.sort(rng.choice(256, rng.integers(1, 12), replace=False))
    counts[codes] = rng.integers(1, 9, len(codes))
    sums = counts * rng.integers(0, 256, 256)
    curve = best_curve(sums, counts)
    size = len(codes)
    for place, code in enumerate(codes):
        means = [
            [sums[codes[a : b + 1]].sum() / counts[codes[a : b + 1]].sum() for b in range(place, size)]
            for a in range(place + 1)
        ]
        assert curve[code] == pytest.approx(max(map(min, means)), abs=0.5 + 1e-6)
    assert (np.diff(curve.astype(int)) >= 0).all()


def test_the_curve_brings_the_classic_engine_closer():
    plain = {**HDR, "limit": FITTED, "noise": "none"}
    kept: dict[tuple[str, str], Picture] = {}

    def keep(settings: AnySet, phase: str, label: str, frame: Frame, picture: Picture) -> None:
        kept[label, frame.name] = picture

    developers = [make_developer(spec) for spec in ("classic", "classic-curve")]
    result = Evaluation(developers, 1, keep=keep).measure(a_set(plain))
    classic, curve = (row.measures["psnr"] for row in result.rows)
    assert curve > classic + 0.3
    told = developers[1].facts()["curves"]["a"]
    assert told["frames"] == FITTED
    assert told["seed"] != 1, "of other frames than those that are measured"
    for (label, name), picture in kept.items():
        if label == "classic":
            np.testing.assert_array_equal(kept["classic-curve", name], np.array(told["codes"], np.uint8)[picture])


def test_a_curve_goes_where_pictures_are_scored_and_more_may_follow_it():
    result = measured({"name": "a", "kind": "edge", "size": 64, "frames": 1}, "classic-curve")
    assert "classic-curve" not in [row.engine for row in result.rows]
    assert "a curve is fitted where pictures are scored" in result.skipped[0]
    result = measured({**HDR, "limit": 1}, "classic-curve", "classic-curve+nlm:5,5", quick=True)
    assert [row.engine for row in result.rows] == ["classic", "classic-curve", "classic-curve+nlm:5,5"]
    with pytest.raises(Skipped):
        make_developer("classic-curve").prepare(next(open_set(a_set(HDR), 1).frames("RGGB")), None)


# ---- changing light --------------------------------------------------------------------------------------------


def test_the_light_goes_up_and_down():
    made = open_set(a_set({**LIT, "noise": "none"}), 1)
    frames = list(made.frames("RGGB"))
    assert len(frames) == 16
    assert set(Counter(frame.scene for frame in frames).values()) == {4}
    brightness = {frame.light: float(levels(frame).mean()) for frame in frames}
    assert len(brightness) == 4
    ordered = [brightness[light] for light in sorted(brightness)]
    assert ordered == sorted(ordered)
    assert ordered[-1] > 2 * ordered[0], "two stops, but for what is clipped"
    noisy = [frame.raw for frame in open_set(a_set(LIT), 1).frames("RGGB")]
    assert (noisy[0] != noisy[3]).any(), "equal light, other noise"


def test_pictures_that_follow_the_light_do_not_flicker():
    still = measured({**LIT, "noise": "none"}).rows[0].measures
    assert (still["flicker_colour"], still["flicker_edges"], still["flicker_pixels"]) == (0, 0, 0)
    noisy = measured(LIT).rows[0]
    assert noisy.measures["flicker_pixels"] > 1
    assert noisy.measures["flicker_jump"] is not None
    assert len(noisy.frames) == 16
    assert len(measured(LIT, quick=True).rows[0].frames) == 8, "one cycle"


class Pumping(BehindDeveloper):
    """Makes every second picture a little brighter."""

    def __init__(self) -> None:
        super().__init__(make_developer("classic"), " that pumps")
        self._count = 0

    def develop(self, frame: Frame) -> Picture:
        self._count += 1
        picture = self._base.develop(frame)
        return np.clip(picture + 4.0 * (self._count // 3 % 2), 0, 255).astype(np.uint8)

    def facts(self) -> dict[str, Any]:
        return {}


def test_a_developer_that_pumps_flickers():
    rows = Evaluation([make_developer("classic"), Pumping()], 1).measure(a_set(LIT)).rows
    classic, pumping = (row.measures["flicker_colour"] for row in rows)
    assert pumping > classic + 1


def test_light_that_does_not_come_back_is_refused(write_config):
    with pytest.raises(UserError, match="no whole cycle of the light"):
        read_config(write_config({**LIT, "frames": 7}))


# ---- as a user sees it -----------------------------------------------------------------------------------------


def test_tables_page_and_results(write_config, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = write_config({**HDR, "name": "bright", "crop": 162, "limit": 1, "shown": 1}, {**LIT, "name": "lit"})
    words = ["classic-curve", "--on", str(config), "-o", str(tmp_path / "out")]
    assert main([*words, "--no-reference", "nima, musiq", "--iqa-weights", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for part in ("bright: hdr, 1 frame, protocol plain", "TMQI", "histogram", "jump", "not measured: nima: "):
        assert part in said
    report = json.loads((tmp_path / "out/results.json").read_text())
    assert set(report["no_reference"]["not_measured"]) == {"nima", "musiq"}
    assert len(report["engines"]["classic-curve"]["curves"]["bright"]["codes"]) == 256
    assert report["sets"][0]["rows"][1]["mean"]["tmqi"] is not None
    page = (tmp_path / "out/index.html").read_text()
    assert "not measured: musiq: " in page
    assert "how well the picture shows the range" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--no-reference", "beauty"], "there is no measure 'beauty'"),
        (["--no-reference", "nima", "--iqa-weights", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_wrong_options_are_one_sentence(write_config, words: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--on", str(write_config(HDR)), *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert says in captured.err
