"""Pictures with noise and in little light: what a camera does to photographs, and samples of that."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ispeed.engines.errors import UserError
from ispeed.train.curves import linear_from_srgb
from ispeed.train.data.noise import SENSORS, SensorModel
from ispeed.train.data.photos import Photos
from ispeed.train.data.pictures import (
    PLAIN,
    TASKS,
    Degradation,
    Pictures,
    ScenePhotos,
    Task,
    degrade,
    input_db,
    make_degradation,
)
from ispeed.train.data.unprocess import draw
from ispeed.train.feed import make_loader
from ispeed.train.metrics import psnr


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int = 3, edge: int = 48) -> Tensor:
    """Colours of little saturation, that every camera sees with positive samples, none of them burnt out."""
    coarse = torch.rand(count, 3, 4, 4, generator=chance(3))
    grey = coarse.mean(1, keepdim=True)
    small = grey + 0.3 * (coarse - grey)
    return 0.1 + 0.8 * torch.nn.functional.interpolate(small, (edge, edge), mode="bicubic").clamp(0, 1)


def scenes(task: Task = "denoise", count: int = 6, seed: int = 5, **options: Any) -> Pictures:
    return Pictures(ScenePhotos(count, 32, scenes=2, seed=seed), make_degradation(task, **options), seed=seed)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- what becomes of a photograph --------------------------------------------------------------------------


def test_without_noise_and_filter_array_a_photograph_comes_back():
    photos = smooth()
    shown = degrade(photos, make_degradation("denoise", "none", mosaic=False), chance())
    assert (shown - photos).abs().max() < 1.01 / 255


def test_demosaicking_costs_what_is_fine():
    settings = make_degradation("denoise", "none")
    photos = smooth()
    assert psnr(degrade(photos, settings, chance()), photos) > 45
    lines = torch.full((1, 3, 48, 48), 0.2)
    lines[..., ::2] = 0.8
    assert psnr(degrade(lines, settings, chance()), lines) < 30


def test_little_light_is_shown_as_little():
    photos = smooth()
    given = make_degradation("enhance", "none", mosaic=False, exposure=[0.25, 0.25])
    dark = linear_from_srgb(degrade(photos, given, chance()))
    torch.testing.assert_close(dark, 0.25 * linear_from_srgb(photos), atol=0.004, rtol=0)
    white = torch.ones(1, 3, 16, 16)
    assert degrade(white, given, chance()).max() < 0.6, "white is dark as well"


def test_the_light_lies_in_the_range_of_the_task():
    photos = torch.full((200, 3, 8, 8), 0.7)
    for task, low, high in (("denoise", 1.0, 1.0), ("enhance", 0.02, 0.3)):
        shown = degrade(photos, make_degradation(task, "none", mosaic=False), chance())
        light = linear_from_srgb(shown).mean((1, 2, 3)) / linear_from_srgb(photos[0, 0, 0, 0])
        assert low - 0.01 < light.min() < low + 0.01
        assert high - 0.02 < light.max() < high + 0.02


def test_noise_has_the_variance_of_the_sensor_after_its_colours():
    sensor = SensorModel(shot=(0.002, 0.002), read=(1e-5, 1e-5), white_balance=((2.0, 2.0), (1.5, 1.5)))
    given = Degradation(replace(make_degradation("denoise").camera, sensor=sensor), mosaic=False)
    grey = torch.full((1, 3, 128, 128), 0.6)
    drawn = draw(given.camera, 1, chance(7))
    light = linear_from_srgb(grey)[0, :, 0, 0]
    signal = drawn.camera_from_srgb[0] @ light / drawn.white_balance[0]
    variance = torch.diag(drawn.white_balance[0] ** 2 * (0.002 * signal + 1e-5))
    back = torch.linalg.inv(drawn.camera_from_srgb[0])
    measured = torch.cov(linear_from_srgb(degrade(grey, given, chance(7))).flatten(2)[0])
    expected = back @ variance @ back.T
    torch.testing.assert_close(measured, expected, atol=0.06 * float(expected.max()), rtol=0)


@pytest.mark.parametrize("mosaic", [True, False])
def test_a_filter_array_makes_neighbours_err_alike(mosaic: bool):
    grey = torch.full((1, 3, 128, 128), 0.6)
    settings = make_degradation("denoise", "rhid", mosaic=mosaic, shot=[0.002, 0.002])
    errors = (degrade(grey, settings, chance(2)) - grey)[0]
    errors = errors - errors.mean((1, 2), keepdim=True)
    alike = (errors[:, :, :-1] * errors[:, :, 1:]).mean((1, 2)) / errors.square().mean((1, 2))
    assert bool((alike.abs() > 0.15).all()) if mosaic else bool((alike.abs() < 0.05).all())


def test_more_shot_noise_is_more_noise():
    photos = smooth()
    scores = [
        psnr(degrade(photos, make_degradation("denoise", shot=[shot, shot]), chance()), photos)
        for shot in (1e-4, 1e-3, 1e-2)
    ]
    assert scores[0] > scores[1] + 4 > scores[2] + 8


def test_read_noise_stays_on_the_line_of_its_camera():
    own, asked = SENSORS["camera"], make_degradation("denoise", shot=[1e-4, 2e-3]).camera.sensor
    assert asked.shot == (1e-4, 2e-3)

    def at(sensor: SensorModel, shot: float) -> float:
        return sensor.read[0] * (shot / (sensor.shot[0] * sensor.shot[1]) ** 0.5) ** sensor.read_slope

    for shot in (1e-4, 1e-3):
        assert at(asked, shot) == pytest.approx(at(own, shot))
    assert make_degradation("denoise", "rhid", shot=[1e-4, 2e-3]).camera.sensor.read == SENSORS["rhid"].read


def test_nothing_is_blurred_unless_asked_for():
    assert (PLAIN.motion_rate, make_degradation("denoise").camera.defocus_rate) == (0, 0)
    photos = torch.rand(1, 3, 48, 48, generator=chance())
    sharp, blurred = (
        degrade(photos, make_degradation("denoise", "none", mosaic=False, defocus_rate=rate), chance())
        for rate in (0.0, 1.0)
    )
    assert blurred.std() < 0.8 * sharp.std()


@settings(max_examples=30, deadline=None)
@given(
    task=st.sampled_from(TASKS),
    noise=st.sampled_from(list(SENSORS)),
    mosaic=st.booleans(),
    tone=st.sampled_from(["srgb", "contrast"]),
    exposure=st.floats(1e-3, 4),
    gain_error=st.floats(0, 0.5),
    seed=st.integers(0, 2**31),
)
def test_whatever_is_asked_for_a_picture_of_8_bits_comes_out(seed: int, task: Task, noise: str, **options: Any):
    options["exposure"] = [options["exposure"], 2 * options["exposure"]]
    photos = torch.rand(2, 3, 16, 24, generator=chance(seed))
    given = make_degradation(task, noise, **options)
    shown = degrade(photos, given, chance(seed))
    assert shown.shape == photos.shape
    assert shown.dtype == torch.float32
    assert 0 <= shown.min() <= shown.max() <= 1
    assert torch.equal((shown * 255).round() / 255, shown)
    assert torch.equal(degrade(photos, given, chance(seed)), shown)


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        (["sharpen"], {}, "task is 'sharpen': it is one of denoise, enhance"),
        (["denoise", "phone"], {}, "noise is 'phone'"),
        (["denoise"], {"haze": 1}, "no option 'haze'"),
        (["denoise"], {"mosaic": 2}, "mosaic is 2"),
        (["denoise"], {"shot": 0.1}, "shot is 0.1: it is a range of two numbers"),
        (["denoise"], {"shot": [0.1, 0.01]}, "shot is"),
        (["denoise"], {"shot": [0.1, 0.2, 0.3]}, "shot is"),
        (["denoise", "none"], {"shot": [0.001, 0.002]}, "'none', which has none"),
        (["enhance"], {"exposure": [0, 0.1]}, "exposure is"),
        (["enhance"], {"exposure": ["dark", "bright"]}, "exposure is"),
        (["enhance"], {"exposure": [0.1, float("inf")]}, "exposure is"),
    ],
)
def test_wrong_options_are_named(arguments: list[Any], options: dict[str, Any], problem: str):
    with pytest.raises(UserError, match=problem):
        make_degradation(*arguments, **options)


# ---- samples -----------------------------------------------------------------------------------------------


def test_samples_follow_from_seed_epoch_and_index():
    one, other = scenes(), scenes()
    first = one[3]
    assert {name: tuple(values.shape) for name, values in first.items()} == {
        "input": (3, 32, 32),
        "target": (3, 32, 32),
        "matrix": (3, 3),
    }
    assert {values.dtype for values in first.values()} == {torch.float32}
    assert torch.equal(first["matrix"], torch.eye(3))
    assert same(first, other[3])
    assert not same(first, one[4])
    assert not same(first, scenes(seed=6)[3])
    one.set_epoch(1)
    assert not torch.equal(first["target"], one[3]["target"])
    one.set_epoch(0)
    assert same(first, one[3])
    assert len(one) == 6
    with pytest.raises(IndexError):
        one[6]


def test_workers_draw_the_same_samples():
    samples = scenes(count=4)
    alone = [samples[index] for index in range(4)]
    drawn = list(make_loader(samples, [[0, 1], [2, 3]], workers=1))
    for place, name in itertools.product(range(4), alone[0]):
        assert torch.equal(drawn[place // 2][name][place % 2], alone[place][name])


def test_noise_falls_anew_on_the_same_photograph(tmp_path: Path):
    stored = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    PIL.Image.fromarray(stored).save(tmp_path / "a.png")
    samples = Pictures(Photos(tmp_path, PLAIN, crop=40, augment=False, repeats=2), make_degradation("denoise"))
    first, second = samples[0], samples[1]
    photograph = torch.from_numpy(stored).permute(2, 0, 1) / 255
    assert torch.equal(first["target"], photograph)
    assert torch.equal(second["target"], photograph)
    assert not torch.equal(first["input"], second["input"])
    samples.set_epoch(1)
    assert not torch.equal(samples[0]["input"], first["input"])


def test_scenes_are_shown_in_8_bits():
    photos = ScenePhotos(4, 64, scenes=2, seed=1)
    target = photos[0]["target"]
    assert target.shape == (3, 64, 64)
    assert torch.equal((target * 255).round() / 255, target)
    assert target.std() > 0.02
    with pytest.raises(IndexError):
        photos[4]


def test_what_a_network_has_to_beat():
    samples = scenes(count=3)
    expected = [psnr(samples[index]["input"], samples[index]["target"]) for index in range(3)]
    assert input_db(samples) == pytest.approx(sum(expected) / 3)
    assert input_db(scenes("enhance", count=3)) < input_db(samples) - 5
