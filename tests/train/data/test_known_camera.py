"""Frames of cameras of which all is known: that they are what is said of them, measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ispeed.engines.inputs import CAMERA
from ispeed.train.curves import linear_from_srgb, smoothstep, srgb_from_linear
from ispeed.train.data.cfa import PHASES, planes, red_part
from ispeed.train.data.known_camera import KnownFrames, ScenePieces, Shot, draw_shot, looked, sensor_of, take
from ispeed.train.data.noise import SENSORS, draw_sensor
from ispeed.train.data.profile import CameraProfile, Look, between, read_profile
from ispeed.train.models.canonical import to_linear

SHIPPED = [read_profile(path) for path in sorted((Path(__file__).parents[3] / "configs/cameras").glob("*.yaml"))]
MATRIX = [[1.62, -0.48, -0.14], [-0.22, 1.46, -0.24], [0.02, -0.52, 1.50]]
LIMITS: dict[str, Any] = {
    "exposure_us": (10.0, 1000.0),
    "iso": (100.0, 6400.0),
    "f_number": (2.0, 16.0),
    "focal_length_mm": (10.0, 90.0),
}
MIDDLE: dict[str, Any] = {name: math.sqrt(low * high) for name, (low, high) in LIMITS.items()}


def camera(**values: Any) -> CameraProfile:
    return CameraProfile(name="made", **{**LIMITS, **values})


def shot(**values: Any) -> Shot:
    return Shot(**{**MIDDLE, "gains": (1.8, 1.0, 1.5), "light": 1.0, "centre": (0.5, 0.5), **values})


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def even(*colour: float, size: tuple[int, int] = (8, 8)) -> Tensor:
    """A photograph, or light, of one colour: float32 [3, H, W]."""
    return torch.tensor(colour)[:, None, None].repeat(1, *size) if len(colour) == 3 else torch.full((3, *size), *colour)


def ramps(height: int = 20, width: int = 28) -> Tensor:
    """Light that rises evenly, of colours that all cameras here can take."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    return torch.stack([0.3 + 0.1 * x + 0.05 * y, 0.25 + 0.1 * y, 0.4 - 0.1 * x])


# ---- the frame ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfa", PHASES)
@pytest.mark.parametrize("light", [1.0, 0.6])
def test_without_noise_and_look_the_known_steps_give_the_light(cfa: str, light: float):
    profile, given = camera(cfa=cfa, colour_matrix=MATRIX), shot(light=light)
    sample = take(srgb_from_linear(ramps()), profile, given, None)
    linear = to_linear(*(sample[name][None] for name in ("planes", "gains", "matrix")))[0]
    wanted = red_part(light * ramps(), cfa)
    inside = (..., slice(2, -2), slice(2, -2))  # beside borders, where ramps are reflected
    torch.testing.assert_close(linear[inside], wanted[inside], atol=1e-5, rtol=0)
    torch.testing.assert_close(sample["target"], srgb_from_linear(wanted), atol=1e-5, rtol=0)
    assert torch.equal(planes(sample["mosaic"][None], cfa)[0], sample["planes"])


def test_a_sample_says_how_it_was_taken():
    profile, given = camera(base_iso=200.0, colour_matrix=MATRIX), shot(iso=800.0, exposure_us=55.0)
    sample = take(even(0.5), profile, given, chance(), "GBRG")
    told = dict(zip(CAMERA, sample["camera"].tolist(), strict=True))
    wanted = {name: getattr(given, name) for name in LIMITS} | {"gain_db": 20 * math.log10(4)}
    assert told == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(sample["gains"], torch.tensor(given.gains))
    torch.testing.assert_close(sample["matrix"], torch.tensor(MATRIX))
    assert sample["mosaic"].shape == (8, 8), "the array that is asked for, in place of the camera's"
    assert torch.equal(planes(sample["mosaic"][None], "GBRG")[0], sample["planes"])


@pytest.mark.parametrize(("iso", "light"), [(100.0, 0.0), (600.0, 0.0), (100.0, 0.2), (800.0, 0.2), (6400.0, 0.2)])
def test_noise_follows_iso(iso: float, light: float):
    """Variance per signal is one electron in what is white at this ISO; read noise grows with it."""
    profile = camera(full_well=15_000.0, read_noise=9.0, bits=12)
    photo = even(float(srgb_from_linear(torch.tensor(light))), size=(160, 160))
    sample = take(photo, profile, shot(iso=iso), chance(int(iso)))
    green = sample["planes"][1:3]
    electron = iso / 100 / 15_000
    wanted = electron * light + (9 * electron) ** 2 + 1 / 12 / 4095**2
    assert green.var().item() == pytest.approx(wanted, rel=0.08)
    assert green.mean().item() == pytest.approx(light, abs=5 * math.sqrt(wanted / green.numel()))
    codes = green * 4095
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def test_limits_are_white_and_as_far_below_black_as_the_camera_keeps():
    profile, taken = camera(black_level=0.01, bits=14), shot(iso=6400.0, gains=(0.5, 1.0, 0.6))
    dark = take(even(0.0, size=(40, 40)), profile, taken, chance())["planes"]
    assert dark.min().item() == pytest.approx(-0.01, abs=0.5 / profile.codes)
    bright = [take(even(1.0, size=(40, 40)), profile, taken, noise)["planes"] for noise in (chance(), None)]
    assert bright[0].max() == 1
    assert (bright[1] == 1).all(), "red and blue would be more"


# ---- vignetting --------------------------------------------------------------------------------------------


def light_of(profile: CameraProfile, taken: Shot, size: int = 64) -> Tensor:
    """Green samples of white, [h, w] twice."""
    return take(even(1.0, size=(size, size)), profile, taken, None)["planes"][1:3]


def test_vignetting_is_none_in_the_middle_and_falls_with_the_aperture():
    profile, lost = camera(vignetting=0.4), {}
    for number in (2.0, 4.0, 16.0):
        given = light_of(profile, shot(f_number=number))
        assert given[:, 15:17, 15:17].min() > 1 - 1e-3
        lost[number] = 1 - given[:, [0, 0, -1, -1], [0, -1, 0, -1]].min().item()
        assert (given[0, 16, 16:].diff() <= 0).all()
        assert (given[0, 16, :16].diff() >= 0).all()
    assert lost[2.0] == pytest.approx(0.4, abs=0.02)
    assert lost[4.0] == pytest.approx(lost[2.0] / 4, rel=1e-3)
    assert lost[16.0] == pytest.approx(lost[2.0] / 64, rel=1e-3)
    assert torch.equal(light_of(camera(), shot(f_number=2.0)), torch.ones(2, 32, 32))


def test_a_piece_is_darker_the_farther_it_is_from_the_axis():
    profile = camera(vignetting=0.4)
    near, far, corner = (
        light_of(profile, shot(f_number=2.0, centre=at)).mean().item() for at in ((0.4, 0.6), (-1, 0.5), (-1.5, 2.5))
    )
    assert 1 > near > far > corner >= 1 - 0.4


# ---- the look ----------------------------------------------------------------------------------------------

EVERY = [profile for profile in SHIPPED for _ in range(5)]


@pytest.mark.parametrize("place", range(len(EVERY)))
def test_white_stays_white_black_black_and_more_light_is_brighter(place: int):
    profile = EVERY[place]
    taken = draw_shot(profile, chance(place))
    shown = torch.stack([looked(even(x), profile, taken)[:, 4, 4] for x in torch.linspace(0, 1, 40).tolist()])
    torch.testing.assert_close(shown[0], torch.zeros(3))
    torch.testing.assert_close(shown[-1], torch.ones(3))
    assert (shown.diff(dim=0) > 0).all()
    torch.testing.assert_close(shown[:, 0], shown[:, 1], msg="grey stays grey")


def luma(light: Tensor) -> Tensor:
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


class TestLook:
    LIGHT = 0.05 + 0.5 * torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(2))

    def shown(self, name: str, values: tuple[float, float], **taken: float) -> Tensor:
        return looked(self.LIGHT, camera(look=Look(**{name: values})), shot(**taken))

    def test_without_any_it_is_the_light(self):
        torch.testing.assert_close(looked(self.LIGHT, camera(), shot()), srgb_from_linear(self.LIGHT))

    @pytest.mark.parametrize(
        ("name", "values", "parameter"),
        [
            ("brighten", (3.0, 1.0), "exposure_us"),
            ("saturation", (1.2, 0.7), "iso"),
            ("sharpen", (0.8, 0.0), "f_number"),
            ("contrast", (0.0, 0.6), "focal_length_mm"),
        ],
    )
    def test_each_follows_one_parameter(self, name: str, values: tuple[float, float], parameter: str):
        middle = self.shown(name, values)
        for other, (low, high) in LIMITS.items():
            for value in (low, high):
                same = torch.equal(self.shown(name, values, **{other: value}), middle)
                assert same is (other != parameter), (other, value)
        amount = between(values, MIDDLE[parameter], LIMITS[parameter])
        torch.testing.assert_close(middle, self.shown(name, (amount, amount)))

    def test_short_exposures_are_brightened(self):
        short = linear_from_srgb(self.shown("brighten", (3.0, 1.0), exposure_us=10.0))
        torch.testing.assert_close(short, 3 * self.LIGHT / (1 + 2 * self.LIGHT), atol=1e-5, rtol=1e-4)
        long = self.shown("brighten", (3.0, 1.0), exposure_us=1000.0)
        torch.testing.assert_close(long, srgb_from_linear(self.LIGHT))

    def test_high_sensitivities_lose_colour_and_no_brightness(self):
        high = linear_from_srgb(self.shown("saturation", (1.0, 0.7), iso=6400.0))
        grey = luma(self.LIGHT)
        torch.testing.assert_close(luma(high), grey, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(high - grey, 0.7 * (self.LIGHT - grey), atol=1e-5, rtol=1e-4)

    def test_wide_apertures_are_sharpened(self):
        plain = srgb_from_linear(self.LIGHT)
        wide = self.shown("sharpen", (0.8, 0.0), f_number=2.0)
        for y, x in ((3, 4), (7, 9)):
            mean = plain[:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2))
            wanted = (plain[:, y, x] + 0.8 * (plain[:, y, x] - mean)).clamp(0, 1)
            torch.testing.assert_close(wide[:, y, x], wanted)
        torch.testing.assert_close(self.shown("sharpen", (0.8, 0.0), f_number=16.0), plain)
        flat = even(0.3)
        torch.testing.assert_close(looked(flat, camera(look=Look(sharpen=(2.0, 2.0))), shot()), srgb_from_linear(flat))

    def test_long_lenses_get_contrast(self):
        plain = srgb_from_linear(self.LIGHT)
        long = self.shown("contrast", (0.0, 0.6), focal_length_mm=90.0)
        torch.testing.assert_close(long, 0.4 * plain + 0.6 * smoothstep(plain))
        assert (long[plain < 0.5] <= plain[plain < 0.5]).all()
        torch.testing.assert_close(self.shown("contrast", (0.0, 0.6), focal_length_mm=10.0), plain)


def test_no_frame_shows_exposure_or_lens_by_itself():
    """Only its noise tells the ISO, and its corners the aperture: a network has to be told."""
    profile = camera(look=Look(brighten=(3.0, 1.0), contrast=(0.0, 0.6)))
    taken = [shot(exposure_us=e, focal_length_mm=f) for e, f in ((10.0, 90.0), (1000.0, 10.0))]
    one, other = (take(srgb_from_linear(ramps()), profile, each, chance()) for each in taken)
    assert torch.equal(one["planes"], other["planes"])
    assert (one["target"] - other["target"]).abs().max() > 0.05


# ---- drawing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", SHIPPED, ids=lambda profile: profile.name)
def test_shots_are_within_the_ranges_and_spread_by_the_logarithm(profile: CameraProfile):
    generator = chance(5)
    shots = [draw_shot(profile, generator, whole=number % 2 == 0) for number in range(300)]
    for name in (*LIMITS, "light"):
        low, high = getattr(profile, name)
        values = torch.tensor([getattr(each, name) for each in shots], dtype=torch.float64)
        assert low * (1 - 1e-9) <= values.min() <= values.max() <= high * (1 + 1e-9)
        share = (values.log() - math.log(low)) / (math.log(high) - math.log(low))
        assert share.mean().item() == pytest.approx(0.5, abs=0.07)
        assert share.std().item() == pytest.approx(1 / math.sqrt(12), abs=0.03)
    for gains in (each.gains for each in shots):
        (red, most_red), (blue, most_blue) = profile.white_balance
        assert red <= gains[0] <= most_red
        assert blue <= gains[2] <= most_blue
        assert gains[1] == 1
    assert {each.centre for each in shots[::2]} == {(0.5, 0.5)}
    assert len({each.centre for each in shots[1::2]}) == 150
    firsts = [draw_shot(profile, chance(5)) for _ in range(2)]
    assert firsts[0] == firsts[1] == shots[0]


class TestFrames:
    @staticmethod
    def frames(seed: int = 3, **values: Any) -> KnownFrames:
        return KnownFrames(ScenePieces(12, 16, scenes=1, seed=seed), SHIPPED, seed=seed, **values)

    def test_samples_are_as_sources_say(self):
        samples = self.frames()
        assert len(samples) == 12
        sample = samples[0]
        shapes = {name: tuple(values.shape) for name, values in sample.items()}
        assert shapes == {"planes": (4, 8, 8), "gains": (3,), "target": (3, 16, 16), "matrix": (3, 3), "camera": (5,)}
        assert all(values.dtype == torch.float32 for values in sample.values())
        assert 0 <= sample["target"].min() < sample["target"].max() <= 1
        assert -0.1 < sample["planes"].min() < sample["planes"].max() <= 1
        assert sample["gains"][1] == 1
        matrices = {tuple(samples[index]["matrix"].flatten().tolist()) for index in range(12)}
        assert len(matrices) == len(SHIPPED), "all cameras have their turn"
        for index in (-1, 12):
            with pytest.raises(IndexError):
                samples[index]

    def test_they_follow_from_seed_epoch_and_index(self):
        one, other = self.frames(), self.frames()
        first = one[4]

        def same(sample: dict[str, Tensor]) -> bool:
            return all(torch.equal(first[name], sample[name]) for name in first)

        assert same(one[4])
        assert same(other[4])
        assert not same(one[5])
        one.set_epoch(1)
        assert not same(one[4])
        one.set_epoch(0)
        assert same(one[4])
        assert not same(self.frames(seed=4)[4])


def test_noise_of_a_camera_that_was_measured():
    """It is that of its preset, whatever the ISO says."""
    drawn = [sensor_of(camera(measured="rhid"), shot(iso=iso), chance(2)) for iso in (200.0, 6400.0)]
    own = draw_sensor(SENSORS["rhid"], 1, chance(2))
    assert all(torch.equal(a, b) for state in drawn for a, b in zip(state[:-1], own[:-1], strict=True))
    assert all(state.pedestal == own.pedestal for state in drawn)
