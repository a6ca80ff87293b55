"""Frames of every kind of set: what is in them is what engines are given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from ispeed.engines import RawFormat, UserError, pack, unpack
from ispeed.engines.classic import ClassicEngine
from ispeed.engines.reference import classic_reference
from ispeed.engines.slots import Slots
from ispeed.train.data.cfa import PHASES
from ispeed.train.data.folder import write_frame, write_picture
from ispeed.train.data.noise import SENSORS, gain_db
from ispeed.train.data.sensor import FULL_WELL
from ispeed.train.evaluation.frames import engine_gains
from ispeed.train.evaluation.opening import evenly, open_set
from ispeed.train.evaluation.settings import read_config
from ispeed.train.metrics import psnr


def opened(path: Path, seed: int = 1):
    return open_set(read_config(path).sets[0], seed)


def test_a_frame_without_noise_holds_its_reference(write_config):
    """In 16 bits, developed in plain NumPy from the gains and the matrix that it comes with."""
    made = opened(write_config({"name": "a", "kind": "scenes", "noise": "none", "crop": 64, "limit": 1}))
    frame = next(made.frames("RGGB"))
    fmt = frame.raw_format
    assert (fmt.pixel_format, fmt.width, fmt.height) == ("BayerRG16", 64, 64)
    light = (unpack(frame.raw, fmt).astype(float) - fmt.black_level) / (fmt.white_level - fmt.black_level)
    display = frame.reference / 255
    linear = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    seen = linear @ np.linalg.inv(made.matrix).T / frame.gains
    dull = (seen < 0.85).all(2)  # highlights are another matter: how bright they were is not known
    for place, colour in enumerate(fmt.cfa):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        wanted = np.clip(seen[..., "RGB".index(colour)], 0, None)[at]
        assert np.abs(light[at] - wanted)[dull[at]].max() < 0.005


def test_frames_are_the_same_every_time_and_others_with_another_seed(write_config):
    path = write_config({"name": "a", "kind": "scenes", "crop": 64, "limit": 2})
    first, again, other = (list(opened(path, seed).frames("GRBG")) for seed in (1, 1, 2))
    for one, same, another in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.raw, same.raw)
        assert (one.raw != another.raw).any()
    assert (first[0].raw != first[1].raw).any()


def test_phases_differ_in_the_mosaic_alone(write_config):
    made = opened(write_config({"name": "a", "kind": "scenes", "crop": 96, "limit": 1, "cfa": "all", "noise": "none"}))
    assert made.phases == PHASES
    frames = [next(made.frames(phase)) for phase in made.phases]
    assert [frame.raw_format.cfa for frame in frames] == list(PHASES)
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame.reference, frames[0].reference)
        np.testing.assert_array_equal(frame.gains, frames[0].gains)
    shown = [classic_reference(f.raw, f.raw_format, tuple(map(float, f.gains)), made.matrix) for f in frames]
    scores = [psnr(picture / 255, frames[0].reference / 255) for picture in shown]
    assert max(scores) - min(scores) < 0.5


def test_photographs_are_cut_in_the_middle_and_chosen_evenly(write_config, tmp_path):
    for number in range(5):
        picture = np.full((80, 100, 3), 40 * number, np.uint8)
        picture[24:56, 34:66] = 200
        PIL.Image.fromarray(picture).save(tmp_path / f"{number}.png")
    values = {"name": "a", "kind": "photos", "folder": str(tmp_path), "noise": "none", "crop": 32, "limit": 2}
    frames = list(opened(write_config(values)).frames("RGGB"))
    assert [frame.name for frame in frames] == ["1.png", "3.png"]
    assert all((frame.reference == 200).all() for frame in frames)
    with pytest.raises(UserError, match="leaves no room for a crop of 96"):
        list(opened(write_config({**values, "crop": 96})).frames("RGGB"))


def test_evenly():
    assert evenly("abcdef", None) == list("abcdef")
    assert evenly("abcdef", 9) == list("abcdef")
    assert evenly("abcdef", 3) == list("bdf")
    assert evenly("abcdef", 1) == ["d"]


@pytest.mark.parametrize("pixel_format", ["BayerGB8", "BayerRG12", "BayerBG10p"])
def test_the_gains_of_a_frame_are_those_that_an_engine_finds(pixel_format: str):
    fmt = RawFormat(96, 64, pixel_format, 5)
    samples = np.random.default_rng(3).integers(20, 200, (64, 96))
    raw, srgb = Slots(1, fmt.payload_size), Slots(1, 96 * 64 * 3)
    raw.slot(0)[:] = pack(samples, fmt)
    engine = ClassicEngine(threads=1)
    engine.prepare(fmt, 1, raw, srgb)
    ticket = engine.develop([0], [0], np.full((1, 3), np.nan, np.float32))
    np.testing.assert_array_equal(engine_gains(pack(samples, fmt), fmt), ticket.white_balance[0])
    engine.close()


@pytest.mark.parametrize("kind", ["scenes", "edge", "flicker"])
def test_frames_that_are_made_come_with_the_gain_of_their_noise(write_config, kind: str):
    """As samples of training do: the variance of shot noise is that of a camera of so many electrons at that gain."""
    size = {"scenes": {"crop": 64}, "edge": {"size": 64}, "flicker": {"crop": 64}}[kind]
    values = {"name": "a", "kind": kind, "noise": "rhid", **size}
    frame = next(opened(write_config(values)).frames("RGGB"))
    low, high = gain_db(torch.tensor(SENSORS["rhid"].shot)).tolist()
    assert frame.camera[0] == 0, "an exposure in microseconds is not known"
    assert low <= frame.camera[1] <= high
    other = next(opened(write_config({**values, "options": {"full_well": FULL_WELL / 2}})).frames("RGGB"))
    assert other.camera[1] == pytest.approx(frame.camera[1] - 20 * np.log10(2), abs=1e-3)
    assert next(opened(write_config({**values, "noise": "none"})).frames("RGGB")).camera == (0, 0, 0, 0, 0)


def test_pairs_come_with_what_is_told_of_the_camera_and_else_what_is_set(write_config, tmp_path: Path):
    for name in ("a", "b"):
        write_frame(tmp_path / f"raw/{name}.png", np.full((32, 32), 500, np.uint16), RawFormat(32, 32, "BayerRG12"))
        write_picture(tmp_path / f"rgb/{name}.png", np.zeros((32, 32, 3), np.uint8))
    with (tmp_path / "raw/b.png.yaml").open("a") as sidecar:
        sidecar.write("gain_db: 6.5\niso: 200\n")
    values = {"name": "a", "kind": "pairs", "data_set": "folder", "root": str(tmp_path)}
    cameras = [frame.camera for frame in opened(write_config(values)).frames("")]
    assert cameras == [(0, 0, 0, 0, 0), (0, 6.5, 200, 0, 0)]
    cameras = [frame.camera for frame in opened(write_config({**values, "gain_db": 12, "exposure_us": 80})).frames("")]
    assert cameras == [(80, 12, 0, 0, 0), (80, 6.5, 200, 0, 0)]


def test_a_chart_is_balanced_by_its_greys(write_config, tmp_path):
    """Patches of one colour each, under a light that makes greys yellow; the black level is no whole number of DN."""
    rng, black = np.random.default_rng(4), 12.5
    light = rng.uniform(0.1, 0.6, (4, 6, 3))
    light[3] = np.linspace(0.6, 0.1, 6)[:, None]
    seen = light.repeat(20, 0).repeat(20, 1) * (0.8, 1.0, 0.5)
    mosaic = np.empty((80, 120))
    for place, colour in enumerate("GRBG"):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        mosaic[at] = seen[..., "RGB".index(colour)][at]
    PIL.Image.fromarray(np.rint(black + mosaic * (255 - black)).astype(np.uint8)).save(tmp_path / "chart.png")
    squares = [(20 * column, 20 * row) for row in range(4) for column in range(6)]
    patches = [
        {"index": k + 1, "polygon_xy": [[x + 4, y + 4], [x + 15, y + 4], [x + 15, y + 15], [x + 4, y + 15]]}
        for k, (x, y) in enumerate(squares)
    ]
    (tmp_path / "charts.json").write_text(json.dumps({"chart.png": {"patches": patches}}))
    values = {
        "name": "a",
        "kind": "chart",
        "charts": str(tmp_path / "charts.json"),
        "format": "BayerGR8",
        "black": black,
    }
    frame = next(opened(write_config(values)).frames(""))
    assert frame.raw_format.black_level == black
    np.testing.assert_allclose(frame.gains, [1 / 0.8, 1, 2], rtol=0.03)
    given = next(opened(write_config({**values, "white_balance": [1.5, 1, 2], "gain_db": 3.5})).frames(""))
    np.testing.assert_array_equal(given.gains, np.array([1.5, 1, 2], np.float32))
    assert (frame.camera, given.camera) == ((0, 0, 0, 0, 0), (0, 3.5, 0, 0, 0))


def test_a_still_scene_differs_in_noise_alone(write_config):
    made = opened(write_config({"name": "a", "kind": "flicker", "crop": 64, "frames": 4}))
    frames = list(made.frames("RGGB"))
    assert len(frames) == 4
    assert len(list(made.frames("RGGB", 2))) == 2
    for frame in frames[1:]:
        assert (frame.raw != frames[0].raw).mean() > 0.2
        np.testing.assert_array_equal(frame.reference, frames[0].reference)
        np.testing.assert_array_equal(frame.gains, frames[0].gains)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "photos", "folder": "/nowhere"}, "there is no folder /nowhere"),
        ({"kind": "pairs", "data_set": "rhid", "root": "/nowhere"}, "/nowhere"),
        ({"kind": "pairs", "data_set": "films", "root": "/nowhere"}, "no data set 'films'"),
        ({"kind": "chart", "charts": "/nowhere.json", "format": "BayerRG8"}, "cannot read the charts /nowhere.json"),
        ({"kind": "flicker", "photo": "/nowhere.png"}, "/nowhere.png cannot be read"),
    ],
)
def test_missing_data_are_one_sentence(write_config, values: dict, says: str):
    with pytest.raises(UserError, match=says) as caught:
        list(opened(write_config({"name": "a", **values})).frames("RGGB"))
    assert "\n" not in str(caught.value)
