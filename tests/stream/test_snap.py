"""`isp-stream --snap`: raw frames as the camera sent them, and back into the simulated camera."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from ispeed.engines import RawFormat
from ispeed.engines.raw_files import load_raw
from ispeed.stream.camera.scenes import load_scene

from .conftest import ISP_STREAM

SMALL = ("--width", "64", "--height", "48", "--fps", "200")


def snap(*arguments, code=0):
    done = subprocess.run([*ISP_STREAM, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("pixel_format", "acquisition"),
    [
        ("BayerRG8", "zero-copy"),
        ("BayerGR10p", "zero-copy"),
        ("BayerBG12p", "copy"),
        ("BayerRG16", "zero-copy"),
        ("Mono8", "zero-copy"),
    ],
)
def test_what_was_snapped_is_played_and_snapped_again_exactly(runtime_dir, folder, pixel_format, acquisition):
    unpacked = pixel_format.rstrip("p")
    depth = RawFormat(64, 48, pixel_format).depth
    frames = np.random.default_rng(3).integers(0, 1 << depth, (3, 48, 64)).astype(np.uint16)
    frames[0, 0, 0] = (1 << depth) - 1
    np.save(folder / "random.npy", frames)
    scene = f"{folder / 'random.npy'}?format={unpacked}&black=5&white={(1 << depth) - 2}"
    first = str(folder / "first.npy")
    same = ("--acquisition", acquisition, "--frames", "3", "--fps", "200")
    snap("--snap", first, "--scene", scene, "--pixel-format", pixel_format, *same)
    array = np.load(first)
    assert (array.dtype, array.shape) == (np.uint16, (3, 48, 64))
    assert np.array_equal(array, frames)
    loaded = load_scene(first)
    assert (loaded.pixel_format, loaded.black_level, loaded.white_level) == (unpacked, 5, (1 << depth) - 2)
    snap("--snap", str(folder / "again.npy"), "--scene", first, *same)
    assert np.array_equal(np.load(folder / "again.npy"), frames)


def test_sixteen_consecutive_frames_and_their_meaning_unless_told(runtime_dir, folder):
    path = folder / "target.npy"
    camera = ("--exposure-us", "250", "--gain-db", "20", "--base-iso", "50", "--f-number", "2.8")
    done = snap("--snap", str(path), "--json", "--pixel-format", "BayerRG12p", *camera, *SMALL)
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert (report["frames"], report["missing"], report["format"]) == (16, 0, "BayerRG12")
    array = np.load(path)
    assert array.shape == (16, 48, 64)
    assert array.max() > 255
    assert yaml.safe_load((folder / "target.npy.yaml").read_text()) == {
        "width": 64,
        "height": 48,
        "format": "BayerRG12",
        "black": 64,
        "white": 4095,
        "offset_x": 0,
        "offset_y": 0,
        "exposure_us": 250,
        "gain_db": 20,
        "iso": 500,
        "f_number": 2.8,
    }
    frames = load_raw(str(path))
    assert frames.camera.tolist() == [[250, 20]] * 16
    np.testing.assert_array_equal(frames.optics, np.array([[500, 2.8, np.nan]] * 16, np.float32))
    assert {file.name for file in folder.iterdir()} == {"target.npy", "target.npy.yaml"}


def test_frames_that_differ_in_exposure_tell_each_its_own(runtime_dir, folder):
    path = str(folder / "a.npy")
    snap("--snap", path, "--frames", "12", "--set", "ExposureTime=20", "--set", "ExposureAuto=Continuous", *SMALL)
    camera = load_raw(path).camera
    assert camera.shape == (12, 2)
    assert len(set(camera[:, 0].tolist())) > 1
    assert len(set(camera[:, 1].tolist())) == 1


def test_more_frames_than_the_default_ring_holds_are_still_consecutive(runtime_dir, folder):
    size = ("--width", "64", "--height", "48", "--fps", "1000", "--exposure-us", "100")
    done = snap("--snap", str(folder / "a.npy"), "--frames", "300", "--json", *size)
    assert json.loads(done.stdout)["missing"] == 0
    assert len(np.load(folder / "a.npy")) == 300


def test_a_sentence_says_how_to_play_them(runtime_dir, folder):
    path = str(folder / "a.npy")
    assert path in snap("--snap", path, "--frames", "2", *SMALL).stdout
    assert snap("--snap", path, "--frames", "2", "--quiet", *SMALL).stdout == ""  # and overwrites


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--snap", "/nowhere/a.npy"], ["/nowhere"]),
        (["--snap", "a.raw"], ["a.raw", ".npy"]),
        (["--snap", f"{'a' * 300}.npy", *SMALL], ["file name too long"]),
        (["--snap", "/tmp/a.npy", "--save", "/tmp/pictures"], ["--save"]),
        (["--snap", "/tmp/a.npy", "--frames", "5000"], ["--frames", "4096"]),
        (["--snap", "/tmp/a.npy", "--frames", "4096", "--width", "8192", "--height", "8192"], ["--frames", "memory"]),
        (["--snap", "/tmp/a.npy", "--camera", "7"], ["camera", "7", "SIM0001"]),
        (["--snap", "/tmp/a.npy", "--width", "1281"], ["Width", "1281"]),
    ],
)
def test_wrong_input(isp_stream_fails, arguments, parts):
    sentence = isp_stream_fails(*arguments)
    for part in parts:
        assert part in sentence
    assert not os.path.exists("/tmp/a.npy")


def test_a_full_disk_leaves_nothing(isp_stream_fails, folder):
    (folder / "a.npy.yaml").mkdir()  # stands in the way of the second file
    (folder / "a.npy.yaml" / "x").touch()
    assert str(folder / "a.npy") in isp_stream_fails("--snap", str(folder / "a.npy"), "--frames", "2", *SMALL)
    assert [file.name for file in folder.iterdir()] == ["a.npy.yaml"]


def test_a_camera_that_sends_nothing_ends_it_when_time_is_up(runtime_dir, folder):
    done = snap("--snap", str(folder / "a.npy"), "--trigger", "--seconds", "0.5", *SMALL, code=1)
    assert done.stderr == "isp-stream: not all frames came within 0.5 s; nothing was saved\n"
    assert list(folder.iterdir()) == []


def test_a_camera_that_vanishes_ends_it(runtime_dir, folder):
    lost = ("--set", "SimVanishAt=5", "--set", "SimVanish=5000", "--timeout-ms", "300")
    done = snap("--snap", str(folder / "a.npy"), "--frames", "50", *lost, *SMALL, code=1)
    assert "camera lost" in done.stderr
    assert list(folder.iterdir()) == []


def test_ctrl_c_ends_it(runtime_dir, folder):
    command = [*ISP_STREAM, "--snap", str(folder / "a.npy"), "--trigger", *SMALL]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    deadline = time.monotonic() + 30
    while not children.read_text():  # which are started once signals are minded
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=20)[1] == "isp-stream: stopped; nothing was saved\n"
    assert run.returncode == 1
    assert list(folder.iterdir()) == []


def test_misplaced_pictures_are_not_snapped_without_a_copy(runtime_dir, folder):
    odd = ("--set", "SimImageOffset=64", "--set", "SimRowPadding=8", *SMALL)
    done = snap("--snap", str(folder / "a.npy"), "--frames", "2", *odd, code=1)
    assert "choose --acquisition copy" in done.stderr
    assert not (folder / "a.npy").exists()
    snap("--snap", str(folder / "a.npy"), "--frames", "2", "--acquisition", "copy", *odd)
    assert np.load(folder / "a.npy").shape == (2, 48, 64)
