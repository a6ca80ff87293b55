"""Photographs to light and back, filter arrays, exposure, highlights, blur, and what is drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ispeed.engines.bayer import RawFormat, pack
from ispeed.engines.errors import UserError
from ispeed.engines.graph_reference import planes_reference
from ispeed.engines.reference import classic_reference, srgb_curve
from ispeed.train.curves import (
    TONES,
    inverse_smoothstep,
    light_of_codes,
    linear_from_srgb,
    smoothstep,
    srgb_from_linear,
)
from ispeed.train.data import cfa as arrays
from ispeed.train.data.cameras import COLOURS, draw_matrices
from ispeed.train.data.noise import SENSORS
from ispeed.train.data.optics import SIZE, blur, defocus_kernel, draw_kernels, motion_kernel
from ispeed.train.data.unprocess import (
    Unprocessing,
    draw,
    expose,
    exposed,
    from_camera,
    make_unprocessing,
    to_camera,
    unprocess,
)

SITES = {"RGGB": (0, 0), "GRBG": (0, 1), "GBRG": (1, 0), "BGGR": (1, 1)}
"""Row and column of the first red sample."""


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(count: int, edge: int = 32, seed: int = 3, brightest: float = 0.9) -> Tensor:
    """Smooth colours of little saturation, that every camera sees with positive samples."""
    coarse = torch.rand(count, 3, 5, 5, generator=chance(seed))
    grey = coarse.mean(1, keepdim=True)
    small = grey + 0.3 * (coarse - grey)
    photos = torch.nn.functional.interpolate(small, (edge, edge), mode="bilinear", align_corners=True)
    return 0.05 + photos * (brightest - 0.05)


# ---- curves and colours ------------------------------------------------------------------------------------


def test_srgb_curve_is_the_engines():
    light = torch.linspace(0, 1, 1001, dtype=torch.float64)
    np.testing.assert_allclose(srgb_from_linear(light), srgb_curve(light.numpy()), atol=1e-12)
    assert srgb_from_linear(torch.tensor([-0.5, 2.0])).tolist() == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("tone", list(TONES))
def test_tones_are_undone(tone: str):
    shown = torch.linspace(0, 1, 256, dtype=torch.float64)
    np.testing.assert_allclose(TONES[tone].show(TONES[tone].invert(shown)), shown, atol=1e-7)


@pytest.mark.parametrize("tone", list(TONES))
def test_codes_are_looked_up(tone: str):
    codes = torch.arange(256, dtype=torch.uint8).reshape(2, 128)
    assert torch.equal(light_of_codes(codes, tone), TONES[tone].invert(codes / 255))


def test_contrast_darkens_shadows_and_keeps_the_middle():
    assert smoothstep(torch.tensor([0.0, 0.25, 0.5, 1.0])).tolist() == [0.0, 0.15625, 0.5, 1.0]
    assert inverse_smoothstep(torch.tensor([0.15625])).item() == pytest.approx(0.25)


@pytest.mark.parametrize("colours", list(COLOURS))
def test_cameras_keep_grey_and_lie_between_the_known(colours: str):
    matrices = draw_matrices(colours, 200, chance())
    np.testing.assert_allclose(matrices.sum(-1), 1, atol=1e-6)
    known = COLOURS[colours].float()
    assert (matrices >= known.amin(0) - 1e-6).all()
    assert (matrices <= known.amax(0) + 1e-6).all()
    assert (torch.linalg.det(matrices) > 0.05).all()
    assert (matrices.std(0).max() > 0.02) == (len(known) > 1)


# ---- there and back ----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    tone=st.sampled_from(list(TONES)),
    colours=st.sampled_from(list(COLOURS)),
    low=st.floats(0.2, 1.0),
    bright=st.booleans(),
)
def test_the_ideal_way_back_gives_the_photograph(seed: int, tone: str, colours: str, low: float, bright: bool):
    photos = photographs(4, 16, seed % 97)
    options = make_unprocessing("none", exposure=(low, 1.0), tone=tone, colours=colours, keep_brightness=bright)
    drawn = draw(options, 4, chance(seed))
    light, target = exposed(photos, drawn, options)
    back = from_camera(to_camera(light, drawn), drawn, options)
    np.testing.assert_allclose(back, target, atol=2e-4)
    if bright:
        assert target is photos


def test_at_full_exposure_the_target_is_the_photograph_to_the_bit():
    photos = torch.rand(2, 3, 16, 16, generator=chance())
    frames = unprocess(photos, make_unprocessing("none"), chance())
    assert torch.equal(frames.target, photos)


def test_the_target_follows_the_exposure():
    photos = photographs(1)
    frames = unprocess(photos, make_unprocessing("none", exposure=(0.25, 0.25)), chance())
    np.testing.assert_allclose(linear_from_srgb(frames.target), linear_from_srgb(photos) / 4, atol=1e-5)
    doubled = unprocess(photos, make_unprocessing("none", exposure=(2, 2)), chance())
    np.testing.assert_allclose(linear_from_srgb(doubled.target), (2 * linear_from_srgb(photos)).clamp(max=1), atol=1e-5)
    kept = unprocess(photos, make_unprocessing("none", exposure=(0.25, 0.25), keep_brightness=True), chance())
    assert torch.equal(kept.target, photos)
    np.testing.assert_array_equal(kept.mosaic, frames.mosaic)


def test_highlights_stay_white_and_come_back_brighter_at_most():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 8, 64).contiguous()
    options = make_unprocessing("none", exposure=(0.3, 0.3))
    drawn = draw(options, 1, chance(1))
    light, target = exposed(ramp, drawn, options)
    assert light[..., -1].max() == pytest.approx(1, abs=1e-6)
    camera = to_camera(light, drawn)
    assert camera[..., -1].min() == pytest.approx(1, abs=1e-5), "white is burnt out in every colour"
    assert (camera.diff(dim=-1) >= -1e-6).all(), "brighter stays brighter"
    back = from_camera(camera, drawn, options)
    assert (back >= target - 2e-4).all()
    dark = linear_from_srgb(ramp) < 0.9
    np.testing.assert_allclose(back[dark & (light < 0.9)], target[dark & (light < 0.9)], atol=2e-4)
    np.testing.assert_allclose(light[dark], 0.3 * linear_from_srgb(ramp)[dark], atol=1e-6)


@pytest.mark.parametrize("exposure", [(1.0, 1.0), (0.4, 0.4), (2.0, 2.0)])
@pytest.mark.parametrize("bright", [False, True])
def test_photographs_may_be_bytes(exposure: tuple[float, float], bright: bool):
    codes = torch.randint(256 if bright else 100, (2, 3, 16, 16), generator=chance()).to(torch.uint8)
    options = make_unprocessing("rhid", exposure=exposure)
    one, other = (unprocess(photos, options, chance(1)) for photos in (codes, codes / 255))
    assert torch.equal(one.target, other.target)
    assert torch.equal(one.mosaic, other.mosaic)


def test_highlights_elsewhere_change_nothing():
    """Without any, less is calculated."""
    drawn = draw(make_unprocessing("none", exposure=(0.5, 0.5)), 1, chance())
    dark = photographs(1, 32)
    lit = dark.clone()
    lit[..., :16] = 1
    for light in (dark, lit):
        assert (linear_from_srgb(light).mean(1).max() > 0.9) == (light is lit)
    ways = [exposed(photos, drawn, make_unprocessing("none")) for photos in (dark, lit)]
    np.testing.assert_allclose(ways[0][0][..., 16:], ways[1][0][..., 16:], rtol=1e-6)
    cameras = [to_camera(light, drawn) for light, _ in ways]
    np.testing.assert_allclose(cameras[0][..., 16:], cameras[1][..., 16:], rtol=1e-6)
    assert (ways[1][0][..., :16] > 0.99).all()


# ---- filter arrays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfa", arrays.PHASES)
def test_the_classic_engine_gives_a_patch_back_in_every_phase(cfa: str):
    shown = torch.tensor([0.6, 0.45, 0.3])
    photo = shown[None, :, None, None].expand(1, 3, 24, 32).contiguous()
    frames = unprocess(photo, make_unprocessing("none", exposure=(0.7, 0.7)), chance(5), cfa=cfa)
    name = {"RGGB": "RG", "GRBG": "GR", "GBRG": "GB", "BGGR": "BG"}[cfa]
    fmt = RawFormat(32, 24, f"Bayer{name}16", 4096)
    codes = torch.round(4096 + frames.mosaic[0] * (65535 - 4096)).numpy().astype(np.uint16)
    gains = tuple(frames.gains[0].tolist())
    picture = classic_reference(pack(codes, fmt), fmt, gains, frames.matrices[0].numpy())
    wanted = frames.target[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(picture - wanted).max() <= 1
    assert wanted.std((0, 1)).max() < 1e-3


@pytest.mark.parametrize("cfa", arrays.PHASES)
def test_planes_are_those_of_the_light(cfa: str):
    colours = torch.rand(2, 3, 12, 16, generator=chance())
    mosaic = arrays.mosaic(colours, cfa)
    red = SITES[cfa]
    assert torch.equal(mosaic[:, red[0] :: 2, red[1] :: 2], colours[:, 0, red[0] :: 2, red[1] :: 2])
    blue = 1 - red[0], 1 - red[1]
    assert torch.equal(mosaic[:, blue[0] :: 2, blue[1] :: 2], colours[:, 2, blue[0] :: 2, blue[1] :: 2])
    planes, part = arrays.planes(mosaic, cfa), arrays.red_part(colours, cfa)
    height, width = 12 - 2 * red[0], 16 - 2 * red[1]
    assert part.shape == (2, 3, height, width)
    assert planes.shape == (2, 4, height // 2, width // 2)
    for plane, (colour, y, x) in enumerate(((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))):
        assert torch.equal(planes[:, plane], part[:, colour, y::2, x::2])


@pytest.mark.parametrize("cfa", arrays.PHASES)
def test_planes_are_inside_the_engines(cfa: str):
    """The engines reflect where training crops: the rest is the same."""
    codes = np.random.default_rng(1).integers(0, 4096, (12, 16)).astype(np.uint16)
    name = {"RGGB": "RG", "GRBG": "GR", "GBRG": "GB", "BGGR": "BG"}[cfa]
    fmt = RawFormat(16, 12, f"Bayer{name}12")
    whole = planes_reference(pack(codes, fmt), fmt, 2)
    top, left = SITES[cfa]  # the engines' first cell holds the reflected row and column
    ours = arrays.planes(torch.from_numpy(codes / 4095.0)[None], cfa)[0]
    height, width = ours.shape[1:]
    np.testing.assert_allclose(ours, whole[:, top : top + height, left : left + width], atol=1e-12)


def test_unknown_phase_is_refused():
    with pytest.raises(UserError, match="RGBG"):
        unprocess(photographs(1), make_unprocessing("none"), chance(), cfa="RGBG")


# ---- blur --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kernel",
    [motion_kernel(9, 0.0), motion_kernel(10, 1.0), motion_kernel(1, 2.0), defocus_kernel(0.5), defocus_kernel(2.5)],
)
def test_blur_keeps_light_and_place(kernel: Tensor):
    assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
    place = torch.arange(SIZE) - SIZE // 2.0
    assert (kernel.sum(1) * place).sum().abs() < 1e-4
    assert (kernel.sum(0) * place).sum().abs() < 1e-4
    flat = torch.full((1, 3, 20, 20), 0.4)
    np.testing.assert_allclose(blur(flat, kernel[None]), flat, atol=1e-6)
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    edge = SIZE // 2
    window = blur(point, kernel[None])[0, 0, 15 - edge : 16 + edge, 15 - edge : 16 + edge]
    np.testing.assert_allclose(window, kernel.flip(0, 1), atol=1e-6)
    photos = torch.rand(1, 3, 24, 30, generator=chance())
    spread = torch.nn.functional.pad(photos, (edge, edge, edge, edge), mode="reflect")
    convolved = torch.nn.functional.conv2d(spread, kernel.expand(3, 1, SIZE, SIZE), groups=3)
    np.testing.assert_allclose(blur(photos, kernel[None]), convolved, atol=1e-6)


def test_motion_has_the_length_and_direction_asked_for():
    place = torch.arange(SIZE) - SIZE // 2.0
    along, across = motion_kernel(9, 0.0).sum(0), motion_kernel(9, 0.0).sum(1)
    assert (along * place**2).sum().sqrt().item() == pytest.approx(9 / 12**0.5, rel=0.05)
    assert (across * place**2).sum().item() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(motion_kernel(9, np.pi / 2), motion_kernel(9, 0.0).T, atol=1e-5)


def test_each_picture_has_its_own_blur_at_the_rates_asked_for():
    assert draw_kernels(0, 0, 1000, chance()) is None
    kernels = draw_kernels(0.1, 0.2, 2000, chance())
    assert kernels is not None
    sharp = kernels[:, SIZE // 2, SIZE // 2] == 1
    assert 1 - sharp.float().mean().item() == pytest.approx(0.3, abs=0.03)
    photos = photographs(3)
    mixed = torch.stack([kernels[sharp][0], kernels[~sharp][0], kernels[sharp][1]])
    blurred = blur(photos, mixed)
    np.testing.assert_allclose(blurred[[0, 2]], photos[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(blurred[1:2], blur(photos[1:2], mixed[1:2]), atol=1e-6)
    assert (blurred[1] - photos[1]).abs().max() > 1e-3


def test_blur_spares_the_target():
    noise = torch.rand(1, 3, 32, 32, generator=chance()) * 0.8
    sharp = unprocess(noise, make_unprocessing("none"), chance())
    moved = unprocess(noise, make_unprocessing("none", motion_rate=1.0), chance())
    assert torch.equal(moved.target, sharp.target)
    assert moved.mosaic.std() < 0.9 * sharp.mosaic.std()


# ---- what is drawn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", list(SENSORS))
def test_the_same_seed_gives_the_same_frames(noise: str):
    photos, options = photographs(3), make_unprocessing(noise, gain_error=0.1)
    first, again, other = (unprocess(photos, options, chance(seed)) for seed in (1, 1, 2))
    for one, same in ((first.mosaic, again.mosaic), (first.gains, again.gains), (first.target, again.target)):
        assert torch.equal(one, same)
    assert not torch.equal(first.mosaic, other.mosaic)
    assert not torch.equal(first.mosaic[0], first.mosaic[1])


@pytest.mark.parametrize("noise", list(SENSORS))
def test_samples_are_what_training_takes(noise: str):
    frames = unprocess(photographs(2, 36), make_unprocessing(noise), chance(), cfa="BGGR")
    samples = frames.samples()
    assert {name: tuple(values.shape) for name, values in samples.items()} == {
        "planes": (2, 4, 17, 17),
        "gains": (2, 3),
        "target": (2, 3, 34, 34),
        "matrix": (2, 3, 3),
        "camera": (2, 5),
    }
    assert {values.dtype for values in samples.values()} == {torch.float32}
    assert samples["planes"].max() <= 1
    assert samples["planes"].min() >= -SENSORS[noise].pedestal
    assert 0 <= samples["target"].min() <= samples["target"].max() <= 1
    assert (samples["gains"][:, 1] == 1).all()


def test_ranges_are_kept():
    options = make_unprocessing("camera", gain_error=0.0)
    drawn = draw(options, 500, chance())
    low, high = SENSORS["camera"].white_balance[0]
    assert drawn.white_balance[:, 0].min() >= low
    assert drawn.white_balance[:, 0].max() <= high
    assert torch.equal(drawn.gains, drawn.white_balance)
    assert drawn.exposure.min() >= options.light[0]
    assert drawn.exposure.max() <= options.light[1]
    assert drawn.exposure.log().mean().item() == pytest.approx(np.log(options.light).mean(), abs=0.06)


def test_gains_err_by_what_is_asked_for():
    drawn = draw(make_unprocessing("rhid", gain_error=0.2), 2000, chance())
    error = (drawn.gains / drawn.white_balance).log()
    assert error[:, [0, 2]].std().item() == pytest.approx(0.2, rel=0.06)
    assert (error[:, 1] == 0).all()


def test_other_noise_on_the_same_scene():
    photos, options = photographs(1), make_unprocessing("rhid")
    drawn = draw(options, 1, chance())
    first, second = (expose(photos, drawn, options, chance(seed)) for seed in (1, 2))
    assert torch.equal(first.target, second.target)
    assert torch.equal(first.gains, second.gains)
    assert not torch.equal(first.mosaic, second.mosaic)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"noise": "phone"}, "phone"),
        ({"colours": "cmyk"}, "cmyk"),
        ({"tone": "film"}, "film"),
        ({"contrast": 1}, "contrast"),
        ({"motion_rate": 0.7, "defocus_rate": 0.7}, "motion_rate"),
        ({"defocus_rate": -0.1}, "defocus_rate"),
        ({"gain_error": -1}, "gain_error"),
        ({"exposure": (0, 1)}, "exposure"),
        ({"exposure": (2, 1)}, "exposure"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], word: str):
    with pytest.raises(UserError, match=word):
        make_unprocessing(options.pop("noise", "rhid"), **options)


def test_blur_is_rare_unless_asked_for():
    assert make_unprocessing("rhid").motion_rate == pytest.approx(0.03)
    assert make_unprocessing("none").motion_rate == 0
    assert dataclasses.replace(make_unprocessing("rhid"), motion_rate=0.5).motion_rate == 0.5
    assert Unprocessing(SENSORS["rhid"]).light == SENSORS["rhid"].exposure


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"exposure": "abc"}, "exposure is 'abc': it is a range of two numbers"),
        ({"exposure": [1]}, r"exposure is \[1\]: it is a range of two numbers"),
        ({"exposure": [0.5, "x"]}, "it is a range of two numbers"),
        ({"colours": ["srgb"]}, r"colours is \['srgb'\]: it is a name"),
        ({"gain_error": "abc"}, "gain_error is 'abc': it is a number"),
        ({"motion_rate": float("nan")}, "motion_rate is nan: it is a number"),
        ({"defocus_rate": True}, "defocus_rate is True: it is a number"),
        ({"keep_brightness": 1}, "keep_brightness is 1: it is true or false"),
        ({"sensor": 3}, "unprocessing has no option 'sensor'"),
        ({"noise": "rhid"}, "unprocessing has no option 'noise'"),
    ],
)
def test_options_of_another_kind(options: dict, sentence: str):
    with pytest.raises(UserError, match=sentence) as caught:
        make_unprocessing("rhid", **options)
    assert "\n" not in str(caught.value)


def test_a_range_from_yaml_is_a_list():
    assert make_unprocessing("rhid", exposure=[0.1, 1]).light == (0.1, 1.0)
