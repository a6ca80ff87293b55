"""Dark frames, flat fields and grey cards, with what is known to be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from ispeed.engines import RawFormat
from ispeed.stream.calibrate.outliers import local_level, outliers
from ispeed.stream.cli import parse

SIZE = 200, 264
LEVELS = {"Gr": 64.0, "R": 66.0, "B": 61.0, "Gb": 65.0}  # of the sites of GRBG, in reading order
HOT, DARK, NOISY = (17, 30), (100, 101), (40, 8)


def dark(frames: int = 16, noise: float = 1.5, glow: float = 6.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    height, width = SIZE
    level = np.tile(np.array(list(LEVELS.values())).reshape(2, 2), (height // 2, width // 2))
    level = level + glow * np.linspace(0, 1, width) ** 2  # as an amplifier at the edge gives
    level += rng.normal(0, 0.8, level.shape)
    samples = level + rng.normal(0, noise, (frames, *SIZE))
    samples[:, HOT[1], HOT[0]] += 30
    samples[:, DARK[1], DARK[0]] -= 25
    samples[:, NOISY[1], NOISY[0]] += np.where(np.arange(frames) % 2, 60, -60)
    return np.rint(samples).clip(0, 4095).astype(np.uint16)


def flat(frames: int = 8, exposure: float = 2000) -> np.ndarray:
    rng = np.random.default_rng(4)
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in SIZE), indexing="ij")
    light = exposure * (1 - 0.2 * (x**2 + y**2))
    light[1::2, 0::2] *= 0.5  # blue
    light[DARK[1], DARK[0]] *= 0.3
    light[60, 62] *= 1.4
    samples = 64 + light + rng.normal(0, 1, (frames, *SIZE)) * np.sqrt(light)
    return np.rint(samples).clip(0, 4095).astype(np.uint16)


def test_a_dark_frame_says_black_noise_and_defects(save, isp_calibrate, tmp_path: Path):
    done = isp_calibrate("dark", save("dark.npy", dark()), "-o", "cam.yaml", "--serial", "X1")
    values = yaml.safe_load((tmp_path / "cam.yaml").read_text())
    assert [tuple(place) for place in values["defects"]] == [NOISY, HOT, DARK]
    measured = values["measured"]
    assert (measured["width"], measured["height"], measured["serial"]) == (264, 200, "X1")
    glow = 2.0  # its mean
    assert values["black_level"] == pytest.approx(64 + glow, abs=0.1)
    assert measured["dark"]["black_level"] == pytest.approx({k: v + glow for k, v in LEVELS.items()}, abs=0.1)
    assert measured["dark"]["read_noise"] == pytest.approx(np.hypot(1.5, 12**-0.5), abs=0.03)
    assert measured["dark"]["fixed_pattern"] == pytest.approx(0.8, abs=0.1)
    assert "defect pixels    3: (40, 8), (17, 30), (100, 101)" in done.stdout
    (config,), _ = parse(["--config", str(tmp_path / "cam.yaml")])
    assert config.defects == [NOISY, HOT, DARK]


def test_a_flat_field_adds_to_the_defects(save, isp_calibrate, tmp_path: Path):
    frames = dark()
    isp_calibrate("dark", save("a.npy", frames[:8]), save("b.npy", frames[8:]))
    done = isp_calibrate("flat", save("flat.npy", flat()))
    assert "defect pixels    2: (62, 60), (100, 101)" in done.stdout
    assert done.stdout.splitlines()[-1] == "camera.yaml: defects (4 altogether), flat_field"
    values = yaml.safe_load((tmp_path / "camera.yaml").read_text())
    assert [tuple(place) for place in values["defects"]] == [NOISY, HOT, (62, 60), DARK]
    for share in values["measured"]["flat"]["darkest_corner"].values():
        assert share == pytest.approx(0.62, abs=0.05)
    assert values["black_level"] == pytest.approx(66, abs=0.1)
    assert set(values["measured"]) >= {"dark", "flat"}


def test_a_grey_card_says_the_gains_but_for_its_defects(save, isp_calibrate, tmp_path: Path):
    card = np.full((64, 96), 64 + 1000, np.uint16)
    card[:, :40] = 3000  # what is beside it
    card[0::2, 1::2] = 64 + 500  # red
    card[1::2, 0::2] = 64 + 800
    card[11, 61] = 4000
    (tmp_path / "camera.yaml").write_text("defects: [[61, 11]]\nblack_level: 64\n")
    path = save("card.npy", card, black=0)
    done = isp_calibrate("grey", path, "--area", "44", "4", "40", "50")
    assert "white balance    2.000 1.000 1.250" in done.stdout
    values = yaml.safe_load((tmp_path / "camera.yaml").read_text())
    assert (values["white_balance"], values["black_level"]) == ([2.0, 1.0, 1.25], 64)
    assert values["measured"]["grey"]["area"] == [44, 4, 40, 50]


def test_cut_off_black_is_said(save, isp_calibrate):
    samples = np.random.default_rng(5).normal(0, 2, (6, *SIZE)).clip(0).astype(np.uint16)
    assert "raise the camera's BlackLevel" in isp_calibrate("dark", save("dark.npy", samples)).stdout


def test_dark_is_dark_of_what_the_frames_can_hold(save, isp_calibrate):
    bright = np.random.default_rng(8).normal(9000, 2, (4, *SIZE)).astype(np.uint16)  # of 14 bits in 16
    path = save("bright.npy", bright, "BayerGR16", white=16383)
    assert "are not dark, at 9000 DN" in isp_calibrate("dark", path, fails=True).stderr


def test_what_was_measured_with_another_black_level_is_said(save, isp_calibrate, tmp_path: Path):
    path = save("flat.npy", flat(), black=0)
    said = "note: nothing says what the black level is, and 0 is taken: run isp-calibrate dark, then this again"
    assert isp_calibrate("flat", path).stdout.splitlines()[0] == said
    done = isp_calibrate("dark", save("dark.npy", dark(), black=0))
    assert done.stdout.splitlines()[-1] == "note: measured with another black level, so measure again: flat"
    assert "note" not in isp_calibrate("flat", path).stdout
    assert "note" not in isp_calibrate("dark", tmp_path / "dark.npy").stdout
    measured = yaml.safe_load((tmp_path / "camera.yaml").read_text())["measured"]
    assert measured["flat"]["black_level"] == pytest.approx(66, abs=0.1)


def test_defects_and_flat_field_are_of_one_place_on_the_sensor(save, isp_calibrate, isp_stream_fails, tmp_path: Path):
    at = "offset_x: 32\noffset_y: 8\n"
    isp_calibrate("dark", save("dark.npy", dark(), more=at))
    path = tmp_path / "camera.yaml"
    measured = yaml.safe_load(path.read_text())["measured"]
    assert (measured["offset_x"], measured["offset_y"]) == (32, 8)
    elsewhere = save("flat.npy", flat(), more="offset_x: 0\noffset_y: 8\n")
    assert "at 32, 8 on the sensor" in isp_calibrate("flat", elsewhere, fails=True).stderr
    assert "one place on the sensor" in isp_calibrate("flat", elsewhere, save("b.npy", flat()), fails=True).stderr
    isp_calibrate("flat", save("flat.npy", flat()))  # frames that do not tell are taken
    frames = ("--pixel-format", "BayerGR12", "--width", "264", "--height", "200")
    assert "at 32, 8 on the sensor" in isp_stream_fails("--config", str(path), *frames)


def test_levels_follow_shading_and_not_defects():
    y, x = np.meshgrid(np.linspace(0, 1, 90), np.linspace(0, 1, 70), indexing="ij")
    shading = 100 + 20 * x - 30 * y**2
    spoilt = shading.copy()
    spoilt[40:43, 20:23] = 1e4
    np.testing.assert_allclose(local_level(spoilt), shading, atol=3)
    assert outliers(np.kron(spoilt - shading, np.ones((2, 2))), 50, "") == [
        (x, y) for y in range(80, 86) for x in range(40, 46)
    ]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["dark", "dark.npy"], ["2 frames are too few", "4 or more"]),
        (["dark", "dark.npy", "dark.npy", "small.npy"], ["small.npy", "one size"]),
        (["dark", "light.npy"], ["not dark", "cap"]),
        (["dark", "speckled.npy"], ["more than defects are", "cap on"]),
        (["dark", "light.npy", "-o", "sized.yaml"], ["sized.yaml", "of 64x48 pixels", "264x200"]),
        (["flat", "dark.npy", "dark.npy"], ["too dark"]),
        (["flat", "burnt.npy"], ["clipped"]),
        (["flat", "speckled.npy"], ["white wall"]),
        (["flat", "none.npy"], ["there is no file none.npy"]),
        (["grey", "dark.npy"], ["too dark", "more light"]),
        (["grey", "burnt.npy"], ["100% of the area are clipped"]),
        (["grey", "light.npy", "--area", "250", "0", "64", "64"], ["not all in the frame of 264x200"]),
        (["grey", "light.npy", "--area", "0", "0", "4", "4"], ["smaller than 8x8"]),
        (["grey", "colours.npy"], ["several colours"]),
    ],
)
def test_wrong_input(save, isp_calibrate, tmp_path: Path, arguments, parts):
    rng = np.random.default_rng(6)
    save("dark.npy", dark(2))
    save("small.npy", np.zeros((8, 8), np.uint16))
    save("light.npy", flat())
    save("burnt.npy", np.full((4, *SIZE), 4095, np.uint16))
    speckled = np.full((4, *SIZE), 400, np.uint16)
    speckled[:, rng.random(SIZE) < 0.05] = 900
    save("speckled.npy", speckled)
    colours = flat()
    colours[:, 0::2, 1 : SIZE[1] // 2 : 2] //= 4
    save("colours.npy", colours)
    (tmp_path / "sized.yaml").write_text("measured: {width: 64, height: 48}\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    sentence = isp_calibrate(*arguments, fails=True).stderr
    for part in parts:
        assert part in sentence
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_isp_stream_refuses_other_frames_than_were_measured(save, isp_calibrate, isp_stream_fails, tmp_path: Path):
    isp_calibrate("dark", save("dark.npy", dark()))
    path = str(tmp_path / "camera.yaml")
    other_depth = isp_stream_fails("--config", path, "--pixel-format", "BayerGR8", "--width", "264", "--height", "200")
    assert "of BayerGR12" in other_depth
    other_size = isp_stream_fails("--config", path, "--pixel-format", "BayerRG12", "--width", "64", "--height", "48")
    assert "of 264x200 pixels" in other_size


def test_formats_of_one_depth_are_like_each_other():
    (config,), _ = parse([])
    assert config.measured is None
    from ispeed.stream.config import Measured

    Measured(pixel_format="BayerRG12").require_like(RawFormat(64, 48, "BayerGR12p"), "any")
