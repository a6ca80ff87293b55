"""Frames of scenes whose range no exposure holds: what they hold, what their pictures show, what recipes may say."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import PIL.Image
import pydantic
import pytest
import torch
from torch import Tensor

from ispeed.engines.errors import UserError
from ispeed.engines.inputs import CAMERA
from ispeed.train.data.cfa import PHASES, planes, red_part
from ispeed.train.data.hdr_frames import HdrFrames, HdrSettings, SceneLight, hdr_frame, make_hdr
from ispeed.train.data.radiance import stops_of
from ispeed.train.data.tonemap import tone_mapped
from ispeed.train.models.canonical import to_linear
from ispeed.train.sources import AnySource, open_sources

STILL: dict[str, Any] = {"motion_rate": 0.0, "defocus_rate": 0.0}
PLAIN: dict[str, Any] = {**STILL, "extend": False, "bits": 16}


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def light(height: int = 32, width: int = 48, stops: float = 8.0) -> Tensor:
    """Light that rises by so many stops, smoothly, with colours that all cameras can take."""
    rise = torch.exp2(torch.linspace(-stops, 0, width) + 3).expand(height, width)
    return torch.stack([rise, 0.95 * rise, 0.9 * rise])


def ramps() -> Tensor:
    """Light that rises evenly from a quarter of white, float32 [3, 32, 48]."""
    y, x = torch.meshgrid(torch.arange(32) / 32, torch.arange(48) / 48, indexing="ij")
    return torch.stack([0.3 + 0.5 * x, 0.3 + 0.3 * y, 0.5 - 0.1 * x])


# ---- the frame ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfa", PHASES)
def test_without_noise_the_known_steps_give_the_light_that_is_not_white(cfa: str):
    settings = make_hdr("none", "none", **PLAIN, clipped=(0.0, 0.0))
    frame = hdr_frame(ramps(), settings, chance(), cfa=cfa)
    sample = frame.sample()
    assert frame.cfa == cfa
    assert frame.mosaic.shape == (32, 48)
    assert torch.equal(planes(frame.mosaic[None], cfa)[0], sample["planes"])
    linear = to_linear(*(sample[name][None] for name in ("planes", "gains", "matrix")))[0]
    wanted = red_part(frame.exposure * ramps(), cfa)
    inside = (..., slice(2, -2), slice(2, -2))  # beside borders, where ramps are reflected
    seen = (wanted[inside] < 0.9).all(0)  # white balance makes some of what is below white more than 1
    assert seen.float().mean() > 0.3
    torch.testing.assert_close(linear[inside][:, seen], wanted[inside][:, seen], atol=1e-3, rtol=0)
    torch.testing.assert_close(sample["target"], red_part(frame.target, cfa))


def test_highlights_are_white_in_the_frame_and_shown_in_the_picture():
    settings = make_hdr("none", "reinhard", **PLAIN, clipped=(0.25, 0.25))
    frame = hdr_frame(light(), settings, chance())
    assert torch.equal(frame.radiance, light())
    green = frame.sample()["planes"][1:3, 4]
    burnt = green >= 1
    assert 0.15 < burnt.float().mean() < 0.3
    row = frame.target[1, 8]
    assert (row.diff() > 0).all(), "more light is brighter, in what the frame shows as white, too"
    assert row[-1] - row[-10] > 0.05
    assert burnt[:, -4:].all()


def test_all_three_colours_are_clipped_where_light_is_far_above_white():
    """Each by itself: white balance then gives what is not grey, which networks have to mend."""
    frame = hdr_frame(light(stops=12), make_hdr("camera", **PLAIN, clipped=(0.5, 0.5)), chance())
    for plane in frame.sample()["planes"]:
        assert (plane[:, -2:] > 0.9).all()
    assert frame.mosaic.max() == 1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_as_much_is_white_as_was_asked_for(share: float):
    noise = torch.exp2(6 * torch.rand(1, 64, 64, generator=chance(3))).expand(3, 64, 64)
    settings = make_hdr("none", "none", **PLAIN, clipped=(share, share))
    frame = hdr_frame(noise, settings, chance())
    gains = frame.gains / frame.gains.min()
    brightest = int(gains.argmin())  # of a grey scene, the colour with the lowest gain is white first
    white = (frame.sample()["planes"][[0, 1, 3][brightest]] >= 1).float().mean()
    assert white == pytest.approx(share, abs=0.04)
    more = hdr_frame(noise, make_hdr("none", "none", **PLAIN, clipped=(share, share), exposure_stops=(1, 1)), chance())
    assert more.exposure == pytest.approx(2 * frame.exposure)


@pytest.mark.parametrize("anchor", ["frame", "scene"])
def test_the_picture_is_of_all_the_light_as_the_frame_or_the_scene_was_exposed(anchor: str):
    told: dict[str, Any] = {"extend": False, "anchor": anchor}
    frames = [
        hdr_frame(light(), make_hdr("rhid", "drago", {"bias": 0.7}, **told, exposure_stops=(k, k)), chance())
        for k in (-2, 0)
    ]
    assert frames[0].mosaic.mean() < 0.6 * frames[1].mosaic.mean()
    assert torch.equal(frames[0].target, frames[1].target) == (anchor == "scene")
    assert frames[0].exposure == pytest.approx(frames[1].exposure / 4)
    for frame in frames:
        seen = light() * (frame.exposure if anchor == "frame" else 1)
        wanted = tone_mapped(seen.permute(1, 2, 0).numpy(), "drago", bias=0.7)
        np.testing.assert_allclose(frame.target.permute(1, 2, 0).numpy(), wanted)
        assert torch.equal(frame.radiance, light())
    other = hdr_frame(light(), make_hdr("rhid", "drago", **told), chance())
    assert not torch.equal(other.target, frames[1].target)


@pytest.mark.parametrize(("noise", "bits"), [("none", 10), ("camera", 8), ("camera", 10)])
def test_frames_have_the_depth_that_was_asked_for(noise: str, bits: int):
    frame = hdr_frame(light(), make_hdr(noise, extend=False, bits=bits, clipped=(0.1, 0.1)), chance())
    codes = frame.mosaic * (2**bits - 1)
    torch.testing.assert_close(codes, codes.round(), atol=2e-3, rtol=0)
    assert len(frame.mosaic.unique()) > 2 ** (bits - 4), "and no less"


def test_noise_is_that_of_the_camera_and_the_gain_is_told():
    dark = torch.full((3, 64, 64), 0.01)
    dark[:, :4] = 1.0
    clean, noisy = (
        hdr_frame(dark, make_hdr(noise, **PLAIN, clipped=(0, 0)), chance()).mosaic[8:, 1::2]
        for noise in ("none", "rhid")
    )
    assert noisy[::2].std() > 5 * clean[::2].std()
    told = dict(zip(CAMERA, hdr_frame(dark, make_hdr("rhid"), chance()).camera.tolist(), strict=True))
    assert told.pop("gain_db") > 20
    assert not any(told.values())


@pytest.mark.parametrize("value", [0.0, 1.0, 500.0])
def test_even_scenes_are_sane(value: float):
    for operator in ("mertens", "reinhard", "drago", "local_laplacian"):
        settings = make_hdr("rhid", operator, extend=False, **STILL)
        frame = hdr_frame(torch.full((3, 16, 24), value), settings, chance())
        assert all(torch.isfinite(part).all() for part in frame if isinstance(part, Tensor))
        assert 0 <= frame.target.min() <= frame.target.max() <= 1
        assert (frame.mosaic.mean() < 0.1) == (value == 0)


def test_photographs_have_their_light_extended():
    photo = (torch.rand(3, 32, 32, generator=chance(4)) * 255).to(torch.uint8)
    plain = hdr_frame(photo, make_hdr("none", extend=False), chance())
    wide = hdr_frame(photo, make_hdr("none", lamp_rate=1.0, lamp_stops=[5.0, 5.0]), chance())
    assert plain.radiance.max() <= 1
    assert wide.radiance.max() > 20
    assert stops_of(wide.radiance) > stops_of(plain.radiance) + 2


# ---- samples -----------------------------------------------------------------------------------------------


class TestFrames:
    @staticmethod
    def frames(seed: int = 3, **options: Any) -> HdrFrames:
        return HdrFrames(SceneLight(5, 32, scenes=2, seed=seed), make_hdr("rhid", **options), seed=seed)

    def test_samples_are_as_sources_say(self):
        samples = self.frames()
        assert len(samples) == 5
        sample = samples[0]
        shapes = {name: tuple(values.shape) for name, values in sample.items()}
        assert shapes == {"planes": (4, 16, 16), "gains": (3,), "target": (3, 32, 32), "matrix": (3, 3), "camera": (5,)}
        assert all(values.dtype == torch.float32 for values in sample.values())
        assert 0 <= sample["target"].min() < sample["target"].max() <= 1
        assert -0.1 < sample["planes"].min() < sample["planes"].max() <= 1
        for index in (-1, 5):
            with pytest.raises(IndexError):
                samples[index]

    def test_they_follow_from_seed_epoch_and_index(self):
        one, other = self.frames(), self.frames()
        first = one[2]

        def same(sample: dict[str, Tensor]) -> bool:
            return all(torch.equal(first[name], sample[name]) for name in first)

        assert same(one[2])
        assert same(other[2])
        assert not same(one[3])
        one.set_epoch(1)
        assert not same(one[2])
        one.set_epoch(0)
        assert same(one[2])
        assert not same(self.frames(seed=4)[2])

    def test_what_lies_behind_a_sample_can_be_seen(self):
        samples = self.frames()
        frame = samples.frame(1)
        assert torch.equal(frame.sample()["planes"], samples[1]["planes"])
        assert torch.equal(samples.frame(1, "BGGR").radiance, frame.radiance)

    def test_scenes_are_light_that_goes_above_white(self):
        scenes = SceneLight(40, 32, scenes=6, seed=1)
        brightest = [scenes.photo(index)[0].max() for index in range(40)]
        assert max(brightest) > 1.5


# ---- recipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"haze": 1}, "have no option 'haze': their options are extend, bits, clipped"),
        ({"operator": "drago"}, "no option 'operator'"),
        ({"extend": 1}, "extend is 1: it is true or false"),
        ({"extend": False, "sparks": [1, 2]}, "no option 'sparks'"),
        ({"bits": 1.5, "clipped": [0.5, 0.1]}, "clipped is .* lower one first; bits is 1.5: it is a whole number"),
        ({"bits": 20}, "bits is 20: it is a whole number from 2 to 16"),
        ({"exposure_stops": 2}, "exposure_stops is 2: it is two numbers from -16 to 16"),
        ({"clipped": [0, 0.95]}, "clipped is"),
        ({"spark_rate": 2}, "spark_rate is 2: it is a share"),
        ({"gain_error": "x"}, "gain_error is 'x': it is a number"),
        ({"anchor": "sky"}, "anchor is 'sky': it is one of frame, scene"),
    ],
)
def test_options_that_cannot_be(values: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says) as error:
        make_hdr("rhid", **values)
    assert "\n" not in str(error.value)


def test_operators_are_checked_before_anything_is_drawn():
    camera = make_hdr("none").camera
    with pytest.raises(UserError, match="no tone mapping 'x'"):
        HdrSettings(camera, operator="x")
    with pytest.raises(UserError, match="stops of the tone mapping mertens is 99"):
        make_hdr("none", "mertens", {"stops": 99})
    with pytest.raises(UserError, match="noise is 'film'"):
        make_hdr("film")


def source(**values: Any) -> Any:
    return pydantic.TypeAdapter(AnySource).validate_python({"source": "hdr", "crop": 32, **values})


class TestSource:
    def test_no_data_is_needed(self):
        opened = open_sources([source(scenes=2, repeats=2, operator="drago", noise="camera")], 1, held_out=False)
        assert opened.about == "rendered scenes, as frames with noise of camera, pictures tone-mapped by drago"
        assert len(opened.samples) == 4
        assert opened.samples[0].keys() == {"planes", "gains", "target", "matrix", "camera"}
        other = open_sources([source(scenes=2, repeats=2, operator="reinhard", noise="camera")], 1, held_out=False)
        assert other.manifest != opened.manifest

    def test_photographs_are_held_out_and_changes_told(self, tmp_path: Any):
        rng = np.random.default_rng(1)
        for number in range(4):
            codes = rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)
            PIL.Image.fromarray(codes).save(tmp_path / f"{number}.png")
        half = source(folder=tmp_path, hold_out=0.5, repeats=3)
        trained, held = (open_sources([half], 1, held_out=held) for held in (False, True))
        assert (len(trained.samples), len(held.samples)) == (6, 6)
        assert trained.about.startswith(f"2 photographs of {tmp_path.name}, as frames with noise of rhid")
        assert trained.samples[0]["target"].shape == (3, 32, 32)
        assert open_sources([source(folder=tmp_path, crop=None)], 1, held_out=True).samples[0]["planes"].shape == (
            4,
            16,
            16,
        )
        (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes() + b"x")
        changed = [open_sources([half], 1, held_out=held).manifest for held in (False, True)]
        assert changed != [trained.manifest, held.manifest]

    def test_brackets(self, tmp_path: Any):
        rng = np.random.default_rng(1)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            scene = np.exp2(cv2.resize(rng.uniform(-7, 3, (5, 5, 3)).astype(np.float32), (64, 48)))
            for number in range(3):
                shown = tone_mapped(scene * 4.0 ** (1 - number), "none")
                PIL.Image.fromarray((shown * 255).round().astype(np.uint8)).save(tmp_path / name / f"{number}.png")
            (tmp_path / name / "exposures.txt").write_text("0.png 1/4\n1.png 1/16\n2.png 1/64\n")
        both = source(brackets=tmp_path, merge="robertson", repeats=2)
        opened = open_sources([both], 1, held_out=False)
        assert opened.about.startswith(f"2 scenes of {tmp_path.name}, as frames")
        assert len(opened.samples) == 4
        assert opened.samples[1]["target"].shape == (3, 32, 32)
        assert len(open_sources([source(brackets=tmp_path, hold_out=0.5)], 1, held_out=True).samples) == 1
        (tmp_path / "one/exposures.txt").unlink()
        assert open_sources([both], 1, held_out=False).manifest != opened.manifest
        with pytest.raises(UserError, match=r"one has no exposure time for 0\.png and 2 more"):
            open_sources([both], 1, held_out=False).samples[0]

    @pytest.mark.parametrize(
        ("values", "problems"),
        [
            ({"folder": "a", "brackets": "b"}, ["folder and brackets both"]),
            ({"crop": 360}, ["a scene has no more than 352 pixels"]),
            ({"hold_out": 0.5, "options": {"haze": 1}}, ["name their folder", "no option 'haze'"]),
            ({"brackets": "b", "options": {"sparks": [1, 2]}}, ["no option 'sparks'"]),
            ({"operator": "x", "merge": "y", "most_moved": 2}, ["'mertens'", "'debevec'", "less than or equal to 1"]),
            ({"tone": {"stops": 0}, "noise": "rhid"}, ["stops of the tone mapping mertens is 0"]),
            ({"noise": "film"}, ["noise is 'film'"]),
        ],
    )
    def test_settings_that_cannot_be(self, values: dict[str, Any], problems: list[str]):
        with pytest.raises(pydantic.ValidationError) as error:
            source(**values)
        assert all(problem in str(error.value) for problem in problems), str(error.value)
