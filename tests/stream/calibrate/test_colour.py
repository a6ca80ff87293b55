"""White balance and colour matrix from a chart, on the command line, and in the pictures of the classic engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import yaml

from ispeed.engines import RawFormat, pack
from ispeed.engines.chart import chart_score, read_charts
from ispeed.engines.quality import classic_pictures
from ispeed.engines.raw_files import load_raw
from ispeed.stream.cli import parse

FMT = RawFormat(512, 432, "BayerGR12", 64)
BY_HAND = ["110", "90", "420", "120", "400", "340", "95", "300"]


@pytest.fixture
def frame(chart: SimpleNamespace, save: Callable[..., str]) -> str:
    return save("chart.npy", chart.mosaic(chart.light(), FMT))


def test_what_the_camera_does_is_undone(chart: SimpleNamespace, frame: str, isp_calibrate, tmp_path: Path):
    done = isp_calibrate("colour", frame, "-o", "cam.yaml", "--picture", "check.png", "--serial", "X1")
    assert done.stdout.splitlines()[-1] == "cam.yaml: white_balance, colour_matrix"
    (config,), _ = parse(["--config", str(tmp_path / "cam.yaml")])
    assert config.white_balance is not None
    np.testing.assert_allclose(config.white_balance, 1 / chart.light_colour, rtol=0.01)
    np.testing.assert_allclose(config.colour_matrix, np.linalg.inv(chart.camera), atol=0.03)
    np.testing.assert_allclose(np.sum(config.colour_matrix or 0, axis=1), 1, atol=2e-4)
    assert config.measured is not None
    assert (config.measured.serial, config.measured.pixel_format) == ("X1", "BayerGR12")
    assert config.measured.colour is not None
    assert config.measured.colour["ciede2000_after"]["mean"] < 1 < config.measured.colour["ciede2000_before"]["mean"]
    with PIL.Image.open(tmp_path / "check.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > 2 * 300


def test_the_file_keeps_what_else_is_in_it(frame: str, isp_calibrate, tmp_path: Path):
    path = tmp_path / "camera.yaml"
    path.write_text("fps: 100\nwhite_balance: [1, 1, 1]\nmeasured: {dark: {frames: 3}}\n")
    isp_calibrate("colour", frame, "--corners", *BY_HAND, "--black", "63.5")
    values = yaml.safe_load(path.read_text())
    assert (values["fps"], values["black_level"]) == (100, 63.5)
    assert values["white_balance"][0] > 1.5
    assert values["measured"]["dark"] == {"frames": 3}
    assert values["measured"]["colour"]["files"] == ["chart.npy"]


def test_clipped_patches_are_left_out(chart: SimpleNamespace, save, isp_calibrate, tmp_path: Path):
    path = save("bright.npy", chart.mosaic(chart.light(), FMT, exposure=1.2))
    assert "clipped, left out" in isp_calibrate("colour", path).stdout
    matrix = yaml.safe_load((tmp_path / "camera.yaml").read_text())["colour_matrix"]
    np.testing.assert_allclose(matrix, np.linalg.inv(chart.camera), atol=0.04)


def test_haze_is_said_and_left_out_on_request(chart: SimpleNamespace, save, isp_calibrate, tmp_path: Path):
    path = save("hazy.npy", chart.mosaic(chart.light() + 0.06, FMT, exposure=0.8))
    assert "as haze or flare does" in isp_calibrate("colour", path, "-o", "a.yaml").stdout
    assert "without haze     mean 0." in isp_calibrate("colour", path, "-o", "b.yaml", "--haze").stdout
    matrix = yaml.safe_load((tmp_path / "b.yaml").read_text())["colour_matrix"]
    np.testing.assert_allclose(matrix, np.linalg.inv(chart.camera), atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["none.npy"], ["there is no file none.npy"]),
        (["chart.npy", "-o", "none/camera.yaml"], ["there is no folder none"]),
        (["chart.npy", "-o", "."], ["it is a folder"]),
        (["chart.npy", "-o", "bad.yaml"], ["bad.yaml", "unknown setting 'camra'"]),
        (["chart.npy", "-o", "other.yaml"], ["other.yaml", "of BayerRG8", "BayerGR12"]),
        (["chart.npy", "-o", "other.yaml", "--serial", "B"], ["of camera A, and this is B"]),
        (["chart.npy", "--format", "BayerRG99"], ["BayerRG99"]),
        (["chart.npy", "--width", "100"], ["width of 512, but 100 was said"]),
        (["chart.npy", "--black", "5000"], ["black level 5000"]),
        (["chart.npy", "--picture", "check.jpg"], ["check.jpg end in .png"]),
        (["chart.npy", "--picture", "none/check.png"], ["none/check.png"]),
        (["chart.npy", "--charts", "none.json"], ["cannot read the charts none.json"]),
        (["chart.npy", "--charts", "charts.json"], ["charts.json does not say where the chart is"]),
        (["chart.npy", "--corners", *"12345678"], ["no corners of a chart"]),
        (["chart.npy", "--corners", *BY_HAND[:-1], "2000"], ["reaches out of the picture"]),
        (["wall.npy"], ["no chart of 24 patches was found", "--corners"]),
        (["dark.npy", "--corners", *BY_HAND], ["too dark"]),
        (["burnt.npy", "--corners", *BY_HAND], ["patches are clipped", "less exposure"]),
        (["colour.png", "--format", "BayerGR8"], ["mode RGB", "mosaic"]),
        (["colour.npy"], ["three colours", "mosaic"]),
        (["mono.npy"], ["Mono8", "no colour filters"]),
    ],
)
def test_wrong_input(chart: SimpleNamespace, frame: str, save, isp_calibrate, tmp_path: Path, arguments, parts):
    (tmp_path / "bad.yaml").write_text("camra: 0\n")
    (tmp_path / "other.yaml").write_text("measured: {pixel_format: BayerRG8, serial: A}\n")
    (tmp_path / "charts.json").write_text("{}")
    save("wall.npy", chart.mosaic(np.full((432, 512, 3), 0.4), FMT))
    save("dark.npy", chart.mosaic(0.01 * chart.light(), FMT))
    save("burnt.npy", chart.mosaic(8 * chart.light(), FMT))
    save("mono.npy", np.full((8, 8), 99, np.uint8), "Mono8", 0, 255)
    save("colour.npy", np.full((8, 8, 3), 99, np.uint16))
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "colour.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    sentence = isp_calibrate("colour", *arguments, fails=True).stderr
    for part in parts:
        assert part in sentence
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_isp_stream_refuses_another_camera(frame: str, isp_calibrate, isp_stream_fails, tmp_path: Path):
    isp_calibrate("colour", frame, "-o", "cam.yaml", "--serial", "X1")
    path = str(tmp_path / "cam.yaml")
    assert "of camera X1, and this is SIM0001" in isp_stream_fails("--config", path, "--pixel-format", "BayerGR12")


def test_isp_stream_takes_it_beside_a_config(isp_stream, frame: str, isp_calibrate, tmp_path: Path):
    isp_calibrate("colour", frame, "-o", "cam.yaml", "--serial", "SIM0001")
    (tmp_path / "mine.yaml").write_text("frames: 5\npixel_format: BayerGR12\n")
    run = isp_stream("--config", str(tmp_path / "cam.yaml"), "--config", str(tmp_path / "mine.yaml"))
    assert run.finish()["published"] == 5


def test_a_real_chart(data_dir: Path, isp_calibrate, tmp_path: Path):
    name = "raw/infinite_isp/Indoor1.png"
    corners = read_charts(data_dir / "charts.json")[name]
    for where in ([], ["--charts", data_dir / "charts.json"]):
        isp_calibrate("colour", data_dir / name, "--format", "BayerGR8", "--black", "12.5", "-o", "cam.yaml", *where)
        values = yaml.safe_load((tmp_path / "cam.yaml").read_text())
        loaded = load_raw(f"{data_dir / name}?format=BayerGR8")
        fmt = RawFormat(loaded.raw_format.width, loaded.raw_format.height, "BayerGR8", 12.5)
        gains = np.array([values["white_balance"]], np.float32)
        before, after = (
            chart_score(classic_pictures([pack(loaded.samples[0], fmt)], fmt, gains, matrix)[0], corners).mean
            for matrix in (None, np.array(values["colour_matrix"], np.float32))
        )
        assert after < 3.5
        assert before > 8
        assert values["measured"]["colour"]["ciede2000_after"]["mean"] == pytest.approx(after, abs=0.05)
        assert json.dumps(values["measured"])  # plain values
