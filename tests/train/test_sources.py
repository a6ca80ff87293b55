"""Samples by seed, epoch and index, from rendered scenes and from pairs on disk."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydantic
import pytest
import torch

from ispeed.engines import UserError
from ispeed.train.data.rendering import classic_target
from ispeed.train.data.scenes import Scenes
from ispeed.train.feed import Feed
from ispeed.train.sources import AnySource, open_sources

ADAPTER = pydantic.TypeAdapter(AnySource)


def source(**values: Any) -> Any:
    return ADAPTER.validate_python(values)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six grey frames with their pictures, as a plain folder of pairs."""
    rng = np.random.default_rng(1)
    for name in ("raw", "rgb"):
        (tmp_path / name).mkdir()
    for number in range(6):
        mosaic = rng.integers(0, 1024, (64, 64)).astype(np.uint16)
        PIL.Image.fromarray(mosaic).save(tmp_path / f"raw/{number}.png")
        PIL.Image.fromarray((mosaic >> 2).astype(np.uint8)).convert("RGB").save(tmp_path / f"rgb/{number}.png")
    return tmp_path


def pairs(folder: Path, **values: Any) -> Any:
    given = {"source": "pairs", "data_set": "folder", "root": folder, "options": {"keys": "format=BayerRG10"}}
    return source(**{**given, "crop": 16, **values})


def photos(folder: Path, **values: Any) -> Any:
    return source(**{"source": "photos", "folder": folder / "rgb", "crop": 16, **values})


def test_scenes_follow_from_seed_epoch_and_index():
    one, other = Scenes(8, 64, scenes=2, seed=5), Scenes(8, 64, scenes=2, seed=5)
    first, again = one[3], other[3]
    assert same(first, again)
    assert first["planes"].shape == (4, 32, 32)
    assert first["gains"].shape == (3,)
    assert first["target"].shape == (3, 64, 64)
    assert all(tensor.dtype == torch.float32 for tensor in first.values())
    assert not same(first, one[4])
    assert not same(first, Scenes(8, 64, scenes=2, seed=6)[3])
    one.set_epoch(1)
    assert not same(first, one[3])
    one.set_epoch(0)
    assert same(first, one[3])
    with pytest.raises(IndexError):
        one[8]


def test_workers_draw_the_same_scenes():
    def drawn(workers: int) -> list[dict[str, torch.Tensor]]:
        samples = Scenes(4, 32, scenes=2, seed=5)
        assert samples[0]["planes"].shape == (4, 16, 16)  # rendered, with an engine that cannot be sent
        return list(islice(Feed(samples, 2, seed=1, workers=workers).batches(1), 2))

    assert all(same(one, other) for one, other in zip(drawn(0), drawn(1), strict=True))


def test_validation_is_the_same_for_every_seed_and_nothing_of_it_is_trained_on():
    scenes = source(source="scenes", count=4, crop=32, scenes=2)
    held_out = [open_sources([scenes], seed, held_out=True) for seed in (1, 2)]
    assert same(held_out[0].samples[0], held_out[1].samples[0])
    assert held_out[0].manifest == held_out[1].manifest
    trained = [open_sources([scenes], seed, held_out=False) for seed in (1, 2)]
    assert not same(trained[0].samples[0], trained[1].samples[0])
    assert not same(trained[0].samples[0], held_out[0].samples[0])


def test_several_sources_are_one():
    both = open_sources([source(source="scenes", count=n, crop=32, scenes=1) for n in (3, 5)], 1, held_out=False)
    assert len(both.samples) == 8
    kept = [both.samples[index] for index in range(8)]
    assert all(not same(kept[0], each) for each in kept[1:]), "equal sources differ in what they draw"
    for index in (-1, 8):
        with pytest.raises(IndexError):
            both.samples[index]
    both.samples.set_epoch(1)
    assert not any(same(kept[index], both.samples[index]) for index in (0, 7))


# ---- what only some sources have ---------------------------------------------------------------------------


def whole_batch(sources: list[Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """The samples of the sources, and all of them in one batch."""
    samples = open_sources(sources, 1, held_out=False).samples
    return samples, next(Feed(samples, len(samples), seed=1).batches(0))


@pytest.mark.parametrize("masked_first", [True, False])
def test_samples_without_a_mask_count_everywhere_beside_those_with_one(folder: Path, masked_first: bool):
    rng = np.random.default_rng(2)
    (folder / "mask").mkdir()
    for number in range(6):
        PIL.Image.fromarray(rng.integers(0, 255, (64, 64)).astype(np.uint8)).save(folder / f"mask/{number}.png")
    sources = [
        pairs(folder, crop=32),
        source(source="scenes", count=3, crop=32, scenes=1),
        source(source="photos", folder=folder / "rgb", crop=32, downscale=1),
    ]
    samples, batch = whole_batch(sources[:: 1 if masked_first else -1])
    own = [samples[index] for index in range(15)]
    assert sum("mask" in each for each in own) == 6
    places = [
        next(k for k, each in enumerate(own) if torch.equal(each["planes"], planes)) for planes in batch["planes"]
    ]
    assert sorted(places) == list(range(15))
    for place, mask in zip(places, batch["mask"], strict=True):
        assert torch.equal(mask, own[place].get("mask", torch.ones(1, 32, 32)))


def test_there_is_no_mask_where_no_sample_has_one(folder: Path):
    _, batch = whole_batch([pairs(folder, crop=32), source(source="scenes", count=3, crop=32, scenes=1)])
    assert batch.keys() == {"planes", "gains", "target", "matrix", "camera"}
    assert batch["target"].shape == (9, 3, 32, 32)


@pytest.mark.parametrize("order", [1, -1])
def test_what_only_some_samples_have_is_not_left_out_silently(folder: Path, order: int):
    sources = [pictures(folder=folder / "rgb"), source(source="scenes", count=2, crop=32, scenes=1)]
    with pytest.raises(UserError, match="some samples have camera, gains, input, planes and others") as caught:
        whole_batch(sources[::order])
    assert "\n" not in str(caught.value)


# ---- pairs and photographs ---------------------------------------------------------------------------------


def test_pairs_are_held_out_by_scene(folder: Path):
    half = pairs(folder, hold_out=0.5)
    trained, held_out = (open_sources([half], 1, held_out=held) for held in (False, True))
    assert len(trained.samples) == len(held_out.samples) == 3
    assert "3 pairs of folder" in trained.about
    sample = trained.samples[0]
    assert sample["planes"].shape == (4, 8, 8)
    assert sample["target"].shape == (3, 16, 16)


def test_pairs_of_a_list(folder: Path, tmp_path: Path):
    names = tmp_path / "names.txt"
    names.write_text("1\n4\n")
    assert len(open_sources([pairs(folder, listed=names)], 1, held_out=False).samples) == 2


def test_photographs_are_held_out_and_changes_told(folder: Path):
    photos = source(source="photos", folder=folder / "rgb", crop=16, hold_out=0.34, options={"exposure": [0.5, 0.5]})
    trained, held_out = (open_sources([photos], 1, held_out=held) for held in (False, True))
    assert (len(trained.samples), len(held_out.samples)) == (4, 2)
    assert trained.about == "4 photographs of rgb, as raw frames with noise of rhid"
    sample = trained.samples[0]
    assert (sample["planes"].shape, sample["target"].shape) == ((4, 8, 8), (3, 16, 16))
    for path in (folder / "rgb").iterdir():
        path.write_bytes(path.read_bytes() + b"x")
    assert open_sources([photos], 1, held_out=False).manifest != trained.manifest


def pictures(**values: Any) -> Any:
    return source(**{"source": "pictures", "task": "denoise", "crop": 32, **values})


def test_pictures_are_photographs_with_noise(folder: Path):
    half = pictures(folder=folder / "rgb", hold_out=0.34, repeats=2)
    trained, held_out = (open_sources([half], 1, held_out=held) for held in (False, True))
    assert (len(trained.samples), len(held_out.samples)) == (8, 4)
    assert trained.about == "4 photographs of rgb, with noise of camera"
    sample = trained.samples[0]
    assert (sample["input"].shape, sample["target"].shape) == ((3, 32, 32), (3, 32, 32))
    dark = open_sources([pictures(task="enhance", folder=folder / "rgb", crop=None)], 1, held_out=True)
    assert dark.about == "6 photographs of rgb, with noise of camera in little light"
    whole = dark.samples[0]
    assert whole["input"].shape == (3, 64, 64)
    assert whole["input"].mean() < 0.6 * whole["target"].mean()
    for path in (folder / "rgb").iterdir():
        path.write_bytes(path.read_bytes() + b"x")
    assert open_sources([half], 1, held_out=False).manifest != trained.manifest


def test_pictures_need_no_data():
    rendered = [pictures(scenes=2, repeats=3, options={"shot": [shot, shot]}) for shot in (1e-4, 1e-2)]
    clear, noisy = (open_sources([each], 1, held_out=False) for each in rendered)
    assert clear.about == "rendered scenes, with noise of camera"
    assert len(clear.samples) == 6
    assert clear.manifest != noisy.manifest
    errors = [(opened.samples[0]["input"] - opened.samples[0]["target"]).std() for opened in (clear, noisy)]
    assert errors[0] < errors[1]
    assert torch.equal(clear.samples[0]["target"], noisy.samples[0]["target"])


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"task": "sharpen"}, "'denoise' or 'enhance'"),
        ({"crop": None}, "a scene has no more than 352 pixels"),
        ({"crop": 360}, "a scene has no more than 352 pixels"),
        ({"hold_out": 0.5}, "name their folder"),
        ({"folder": "x", "hold_out": 0.5, "listed": "y"}, "both choose"),
    ],
)
def test_pictures_that_cannot_be(values: dict[str, Any], problem: str):
    with pytest.raises(pydantic.ValidationError, match=problem):
        pictures(**values)


def test_an_unknown_option_of_pictures_is_named():
    with pytest.raises(UserError, match="no option 'haze'"):
        open_sources([pictures(options={"haze": 1})], 1, held_out=False)


# ---- cameras of which all is known -------------------------------------------------------------------------


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "made.yaml"
    path.write_text("name: made")
    return path


def cameras(*profiles: Path, **values: Any) -> Any:
    return source(**{"source": "cameras", "cameras": list(profiles), "crop": 16, **values})


def test_known_cameras_need_no_data(profile: Path):
    other = profile.with_name("other.yaml")
    other.write_text("name: other\nread_noise: 40")
    both = open_sources([cameras(profile, other, scenes=1, repeats=4)], 1, held_out=False)
    assert both.about == "rendered scenes, as frames of made, other"
    assert len(both.samples) == 4
    sample = both.samples[0]
    assert sample.keys() == {"planes", "gains", "target", "matrix", "camera"}
    assert (sample["planes"].shape, sample["target"].shape) == ((4, 8, 8), (3, 16, 16))
    assert (sample["camera"][[0, 2, 3, 4]] > 0).all()
    other.write_text("name: other\nread_noise: 41")
    changed = open_sources([cameras(profile, other, scenes=1, repeats=4)], 1, held_out=False)
    assert changed.manifest != both.manifest, "what a profile says counts, not its name"


def test_photographs_as_frames_of_known_cameras(profile: Path, folder: Path):
    half = cameras(profile, folder=folder / "rgb", hold_out=0.34, repeats=2, downscale=1)
    trained, held_out = (open_sources([half], 1, held_out=held) for held in (False, True))
    assert (len(trained.samples), len(held_out.samples)) == (8, 4)
    assert trained.about == "4 photographs of rgb, as frames of made"
    assert same(trained.samples[3], open_sources([half], 1, held_out=False).samples[3])
    whole = open_sources([cameras(profile, folder=folder / "rgb", crop=None, downscale=1)], 1, held_out=True)
    assert whole.samples[0]["target"].shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"cameras": []}, "at least 1 item"),
        ({"options": {"noise": 1}}, "options are of no use here"),
        ({"crop": None}, "a scene has no more than 352 pixels"),
        ({"hold_out": 0.5}, "name their folder"),
    ],
)
def test_known_cameras_that_cannot_be(profile: Path, values: dict[str, Any], problem: str):
    with pytest.raises(pydantic.ValidationError, match=problem):
        cameras(profile, **values)


def test_a_wrong_profile_is_named(profile: Path):
    profile.write_text("name: made\niso: [0, 1]")
    with pytest.raises(UserError, match=r"made\.yaml: iso\.0: input should be greater than 0"):
        open_sources([cameras(profile)], 1, held_out=False)


def test_the_manifest_tells_changed_files(folder: Path):
    def manifest(**values: Any) -> str:
        return open_sources([pairs(folder, **values)], 1, held_out=False).manifest

    before = manifest()
    assert manifest() == before
    assert manifest(crop=32) != before
    (folder / "raw/0.png").write_bytes((folder / "raw/0.png").read_bytes() + b"x")
    assert manifest() != before


def test_sources_tell_whether_their_targets_are_classic(folder: Path):
    assert not pairs(folder).classic
    assert pairs(folder, target="classic").classic
    assert pairs(folder, data_set="raws", options={}).classic
    assert not photos(folder, calibrated=False).classic
    assert photos(folder, target="classic").classic
    assert not source(source="scenes").classic


@pytest.mark.parametrize("made", [pairs, photos])
def test_settings_that_came_later_leave_fingerprints_as_they_were(folder: Path, made: Any):
    told = made(folder).model_dump(mode="json", exclude={"target", "calibrated"})
    before = hashlib.sha256(repr((told, (1, "files"))).encode()).hexdigest()
    assert made(folder).fingerprint(1, "files") == before
    assert made(folder, target="classic").fingerprint(1, "files") != before
    assert photos(folder, calibrated=False).fingerprint(1) != photos(folder).fingerprint(1)


def test_photographs_may_be_unknown_and_so_may_the_colours_of_the_camera(folder: Path):
    """The frames are the same; the classic picture is that of the matrix that comes with them."""
    options = {"colours": "simulated"}

    def sample(**values: Any) -> dict[str, torch.Tensor]:
        return open_sources([photos(folder, options=options, **values)], 1, held_out=False).samples[3]

    plain, uncalibrated = sample(), sample(calibrated=False)
    classic, neither = sample(target="classic"), sample(target="classic", calibrated=False)
    for each in (uncalibrated, classic, neither):
        assert all(torch.equal(each[name], plain[name]) for name in ("planes", "gains", "camera"))
    assert torch.equal(uncalibrated["target"], plain["target"])
    assert torch.equal(classic["matrix"], plain["matrix"])
    for each in (uncalibrated, neither):
        assert torch.equal(each["matrix"], torch.eye(3))
    for each in (classic, neither):
        wanted = classic_target(each["planes"], each["gains"], each["matrix"])
        assert torch.equal(each["target"], wanted)
    assert not torch.equal(classic["target"], neither["target"])
    about = open_sources([photos(folder, target="classic", calibrated=False)], 1, held_out=True).about
    assert about.endswith("with noise of rhid of a camera of unknown colours, with pictures of the classic engine")


def test_classic_targets_change_with_the_epoch(folder: Path):
    samples = open_sources([photos(folder, target="classic")], 1, held_out=False).samples
    first = samples[0]
    samples.set_epoch(1)
    assert not torch.equal(samples[0]["target"], first["target"])
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_data_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match="there is no folder"):
        open_sources([pairs(tmp_path / "none")], 1, held_out=False)
    with pytest.raises(UserError, match="choose one of zrr"):
        open_sources([pairs(tmp_path, data_set="films")], 1, held_out=False)
