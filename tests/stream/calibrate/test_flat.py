"""The flat field: measured by the real isp-calibrate, applied by the real isp-stream, kept in its recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ispeed.engines import RawFormat, UserError, open_engine, pack
from ispeed.engines.flat_field import SITES, checked_mesh, gain_map
from ispeed.engines.quality import develop_all
from ispeed.stream.calibrate.cli import main as isp_calibrate_main
from ispeed.stream.calibrate.flat import fit_flat_field
from ispeed.stream.calibrate.frames import flattened
from ispeed.stream.cli import parse
from ispeed.stream.footage import open_footage
from ispeed.stream.offline.cli import parse as parse_develop

WIDTH, HEIGHT = 320, 240
FORMAT = RawFormat(WIDTH, HEIGHT, "BayerRG12", 64)
GAINS = (1.3, 1.0, 2.0)
LIGHT = {"R": 1800.0, "Gr": 2400.0, "Gb": 2400.0, "B": 1200.0}
BEFORE, AFTER = 0.1, 0.006
"""By how much parts of a picture of the wall differ from all of it: at least without a flat field, at most with it."""


def kept(name: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """[H, W], which part of the light comes through the lens at a site, to the fourth power of the cosine; red is
    darkened more, and blue about another centre."""
    width, height = size
    strength, centre = {"R": (0.75, 0.0), "B": (0.6, 0.15)}.get(name, (0.6, 0.0))
    x, y = (np.linspace(-1, 1, size) for size in (width, height))
    return (1 + strength * ((x[None] - centre) ** 2 / 2 + (y[:, None] - centre) ** 2 / 3) * 0.6) ** -2


def wall(count: int = 16) -> np.ndarray:
    """uint16 [count, H, W]: frames of a white wall, with the noise of a sensor and two dead pixels."""
    rng = np.random.default_rng(7)
    light = np.empty((HEIGHT, WIDTH))
    for place, name in enumerate(SITES):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        light[at] = (LIGHT[name] * kept(name))[at]
    light[31, 40] = light[120, 201] = 5
    samples = 64 + light + rng.normal(0, 1, (count, HEIGHT, WIDTH)) * np.sqrt(light)
    return np.rint(samples).clip(0, 4095).astype(np.uint16)


def uneven(pictures: list[np.ndarray], *, linear: bool = False) -> float:
    """By how much parts of the mean of pictures, sRGB or linear, differ from all of it at most, in linear light."""
    codes = np.mean(pictures, axis=0) / 255
    light = codes if linear else np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    parts = light.reshape(8, HEIGHT // 8, 10, WIDTH // 10, 3).mean((1, 3))
    return float(np.abs(parts / parts.mean((0, 1)) - 1).max())


def shown(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]


@pytest.fixture
def scene(save: Callable[..., str]) -> str:
    return save("wall.npy", wall(), fmt="BayerRG12")


@pytest.fixture
def calibration(scene: str, tmp_path: Path) -> Path:
    """What isp-calibrate flat makes of the wall."""
    path = tmp_path / "camera.yaml"
    assert isp_calibrate_main(["flat", scene, "-o", str(path)]) == 0
    return path


def test_the_shading_of_a_noisy_wall_is_found(isp_calibrate, scene: str, tmp_path: Path) -> None:
    done = isp_calibrate("flat", scene).stdout.splitlines()
    values = yaml.safe_load((tmp_path / "camera.yaml").read_text())
    (config,), _ = parse(["--config", str(tmp_path / "camera.yaml")])
    assert config.flat_field == values["flat_field"]
    mesh = checked_mesh(values["flat_field"])
    assert mesh.shape == (4, 13, 17)
    np.testing.assert_array_equal(mesh.min((1, 2)), 1)  # white balance stays in the brightest place
    gains = gain_map(mesh, FORMAT)
    for place, name in enumerate(SITES):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        even = (kept(name) * gains)[at]
        assert np.abs(even / even.mean() - 1).max() < 0.01, name  # in the very corner
        assert np.std(even / even.mean()) < 0.0015, name
    measured = values["measured"]
    assert (measured["width"], measured["height"]) == (WIDTH, HEIGHT)
    assert max(measured["flat"]["uneven_after"].values()) < 0.004
    assert done[0].startswith("darkest corner   R 54%, G 60%, B 52%")
    assert done[1].startswith(f"flat field       13x17 gains up to {mesh.max():.2f}; even after it within R 0.")
    assert done[-1] == "camera.yaml: defects (2 altogether), flat_field"


def test_the_pictures_of_a_stream_are_flat_and_its_recording_knows_why(
    isp_stream, calibration: Path, scene: str, tmp_path: Path
) -> None:
    camera = ("--scene", scene, "--pixel-format", "BayerRG12", "--frames", "16", "--black-level", "64")
    told = ("--config", str(calibration), "--white-balance", *map(str, GAINS), "--engine", "classic")
    where = ("--save", str(tmp_path / "live"), "--record", str(tmp_path / "record"))
    isp_stream(*camera, *told, *where, size=f"{WIDTH}x{HEIGHT}", fps=40).finish()
    assert uneven(shown(tmp_path / "live")) < AFTER
    (file,) = (tmp_path / "record").glob("*.h5")
    with open_footage(file) as footage:
        assert footage.calibration.flat_field == yaml.safe_load(calibration.read_text())["flat_field"]


def test_engines_make_it_flat_and_without_it_it_is_not(calibration: Path, core_file: Path) -> None:
    flat_field = yaml.safe_load(calibration.read_text())["flat_field"]
    frames = [pack(frame, FORMAT) for frame in wall(4)]
    for engine, options in (("classic", {"tone": "linear"}), (str(core_file), {"precision": "fp32"})):
        for told, low, high in ((None, BEFORE, 1), (flat_field, 0, AFTER)):
            opened = open_engine(engine, threads=1, white_balance=GAINS, flat_field=told, **options)
            pictures = develop_all(lambda opened=opened: opened, frames, FORMAT, np.float32([GAINS] * 4))
            assert low <= uneven(pictures, linear=True) < high


def test_a_grey_card_is_measured_behind_it(isp_calibrate, calibration: Path, scene: str) -> None:
    gains = []
    for area in ("120 90 80 60", "4 4 60 40"):
        done = isp_calibrate("grey", scene, "--area", *area.split())
        gains.append([float(word) for word in done.stdout.splitlines()[2].split()[2:]])
    np.testing.assert_allclose(gains, [gains[0]] * 2, rtol=0.005)
    assert gains[0] == pytest.approx([2400 / 1800, 1, 2], rel=0.01)


def test_samples_are_flattened_in_whole_numbers_up_to_white() -> None:
    flat = {name: [[1.0, 1.0], [2.0, 2.0]] for name in SITES}
    fmt = RawFormat(4, 4, "BayerRG12", 64, 4000)
    even = flattened(np.full((2, 4, 4), 1065, np.uint16), fmt, flat)
    assert even.dtype == np.uint16
    assert even[1].tolist() == [[1065] * 4, [1065] * 4, [2066] * 4, [2066] * 4]
    assert flattened(np.full((1, 4, 4), 3000, np.uint16), fmt, flat).max() == 4000


def test_small_frames_have_fewer_nodes_than_pixels() -> None:
    fmt = RawFormat(24, 16, "BayerRG8")
    fitted = fit_flat_field(np.full((16, 24), 0.5), np.ones((16, 24), bool), fmt)
    assert fitted.mesh.shape == (4, 2, 3)
    np.testing.assert_allclose(fitted.mesh, 1, atol=1e-4)


@pytest.mark.parametrize("size", [(128, 95), (135, 96), (131, 103)])
def test_planes_of_odd_frames_get_meshes_of_one_size(size: tuple[int, int]) -> None:
    width, height = size
    light = np.full((height, width), 0.5) * np.linspace(0.7, 1, width)
    fitted = fit_flat_field(light, np.ones((height, width), bool), RawFormat(width, height, "BayerRG12"))
    even = light * gain_map(fitted.mesh, RawFormat(width, height, "BayerRG12"))
    assert np.ptp(even) / even.mean() < 0.02


def test_a_corner_that_no_gain_makes_up_for_is_refused() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = 0.5 * np.exp(-3 * ((x - 160) ** 2 + (y - 120) ** 2) / 200**2)
    said = "R is in some place only [45]..% of what it is in the brightest one, and a flat field makes up for 6.2%"
    with pytest.raises(UserError, match=said):
        fit_flat_field(light, np.ones(light.shape, bool), FORMAT)


ROWS = "[[1, 1.5], [1.25, 1]]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "flat_field: the flat field is no mapping"),
        (f"{{R: {ROWS}, Gr: {ROWS}, B: {ROWS}}}", "no mesh for Gb"),
        (f"{{R: {ROWS}, Gr: {ROWS}, Gb: {ROWS}, B: {ROWS}, G: {ROWS}}}", "'G', which no colour site is called"),
        (f"{{R: {ROWS}, Gr: {ROWS}, Gb: {ROWS}, B: [[1, 1, 1], [1, 1, 1]]}}", "R has 2x2 gains and B 2x3"),
        (f"{{R: {ROWS}, Gr: {ROWS}, Gb: {ROWS}, B: [[1, .nan], [1, 1]]}}", "the gain nan in row 0, column 1"),
        (f"{{R: {ROWS}, Gr: {ROWS}, Gb: {ROWS}, B: [[1, 1], [20, 1]]}}", "the gain 20 in row 1, column 0"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "camera.yaml").write_text(f"flat_field: {text}\n")
    for command, more in ((parse, []), (parse_develop, ["x.h5", "-o", "y"])):
        with pytest.raises(UserError) as refused:
            command([*more, "--config", str(tmp_path / "camera.yaml")])
        assert said in str(refused.value)
        assert str(refused.value).count("flat_field:") == 1


def test_frames_of_another_size_are_refused(isp_stream_fails, calibration: Path) -> None:
    said = isp_stream_fails("--config", str(calibration), "--pixel-format", "BayerRG12", "--width", "64")
    assert "of 320x240 pixels, whose defects and flat field are elsewhere in 64x" in said
