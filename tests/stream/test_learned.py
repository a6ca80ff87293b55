"""Learned engines on the processor, in the whole pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ispeed.engines.zoo.catalogue import names

pytest.importorskip("openvino")

GAINS = (1.5, 1.0, 2.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled models go to a folder of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def scene(tmp_path: Path) -> tuple[str, np.ndarray]:
    """Five different frames for the simulated camera, and their samples."""
    frames = np.random.default_rng(8).integers(16, 256, (5, 60, 80), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    np.save(tmp_path / "frames.npy", frames)
    return f"{tmp_path / 'frames.npy'}?format=BayerRG8&black=16&white=255", frames


def expected(frame: np.ndarray) -> np.ndarray:
    """What the core of `core_file` shows of a BayerRG8 frame."""
    planes = (frame.astype(np.float64) - 16) / 239
    red, green = planes[0::2, 0::2], (planes[0::2, 1::2] + planes[1::2, 0::2]) / 2
    colours = np.stack([red, green, planes[1::2, 1::2]], axis=-1) * GAINS
    return np.clip(colours, 0, 1).repeat(2, 0).repeat(2, 1) * 255


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_every_frame_is_developed_in_order_and_right(isp_stream, core_file, scene, tmp_path, mode):
    options = ("--engine-mode", mode, "--white-balance", *map(str, GAINS), "--frames", "40", "--slots", "64")
    run = isp_stream("--engine", str(core_file), "--scene", scene[0], *options, "--save", str(tmp_path / "out"), fps=50)
    engine = run.until("started")["engine"]
    assert (engine["name"], engine["backend"]) == ("tiny", "openvino")
    ledger = run.finish()
    assert ledger["published"] == 40
    assert not any(count for reason, count in ledger["lost"].items() if reason != "stopped")  # those behind the last
    files = sorted((tmp_path / "out").glob("*.png"))
    assert [file.name for file in files] == [f"{n:08d}.png" for n in range(1, 41)]
    for n, file in enumerate(files):
        picture = np.asarray(Image.open(file)).astype(np.float64)
        assert np.abs(picture - expected(scene[1][n % 5])).max() < 3  # bfloat16 has eight bits


@pytest.mark.parametrize("policy", ["every", "latest"])
def test_develop_killed_with_lanes_in_flight(isp_stream, core_file, policy):
    run = isp_stream("--engine", str(core_file), "--policy", policy, size="640x480", fps=400)
    pids = run.until("started")["pids"]
    run.published(50)
    os.kill(pids["develop"], signal.SIGSTOP)  # with a full queue, and whatever is in flight
    time.sleep(0.1)
    os.kill(pids["develop"], signal.SIGKILL)
    assert run.until("stage_died")["stage"] == "develop"
    before = run.published()["account"]["published"]
    run.published(before + 50)
    run.signal()
    ledger = run.finish()
    assert ledger["lost"]["stage_died"] > 0
    assert len(ledger["segments"]) == 1


def test_an_engine_that_is_gone_when_develop_comes_back_ends_the_run(isp_stream, core_file):
    run = isp_stream("--engine", str(core_file))
    pids = run.until("started")["pids"]
    run.published(20)
    core_file.unlink()
    os.kill(pids["develop"], signal.SIGKILL)
    assert f"{core_file} does not exist" in run.until("fault")["text"]
    assert run.finish(code=1)["lost"]["stopped"] > 0  # no bad input: it had begun


def test_a_small_ring_does_not_stop_an_engine_with_lanes(isp_stream, core_file):
    ledger = isp_stream("--engine", str(core_file), "--slots", "8", "--frames", "200").finish()
    assert ledger["published"] == 200


def test_a_signal_drains_what_is_in_flight(isp_stream, core_file):
    run = isp_stream("--engine", str(core_file), fps=100)
    run.published(50)
    run.signal()
    ledger = run.finish()
    assert ledger["lost"]["stopped"] == 0
    assert ledger["seen"] == ledger["published"] + sum(ledger["lost"].values())


@pytest.mark.parametrize("name", ["lwisp-xs", "lwisp"])
def test_the_models_that_ship(isp_stream, tmp_path, name):
    if name not in names():
        pytest.skip(f"this checkout has no {name} in its zoo")
    out = tmp_path / "out"
    run = isp_stream("--engine", name, "--frames", "30", "--save", str(out), size="320x240", fps=20)
    assert run.until("started")["engine"]["name"] == name
    assert run.finish()["published"] == 30
    pictures = [np.asarray(Image.open(file)) for file in sorted(out.glob("*.png"))]
    assert len(pictures) == 30
    assert {picture.shape for picture in pictures} == {(240, 320, 3)}
    assert all(picture.std() > 10 for picture in pictures)


def test_a_camera_that_is_faster_than_the_engine_is_told_once(isp_stream):
    if "lwisp" not in names():
        pytest.skip("this checkout has no lwisp in its zoo")
    run = isp_stream("--engine", "lwisp", size="640x480", fps=400)
    sentence = run.until("engine_behind")["text"]
    for part in ("lwisp develops", "the camera sends", "--fps", "lwisp-xs", "--policy latest"):
        assert part in sentence
    for _ in range(3):
        run.until("status")
    run.signal()
    run.finish()
    assert [message["event"] for message in run.messages].count("engine_behind") == 1
    assert run.errors().count("\n") == 1


def test_the_classic_engine_loads_nothing_of_the_learned_ones(isp_stream):
    run = isp_stream("--engine", "classic")
    pids = run.until("started")["pids"]
    run.published(5)
    for stage in ("main", "develop"):
        maps = Path(f"/proc/{pids[stage]}/maps").read_text()
        assert "numpy" in maps
        assert not [name for name in ("openvino", "onnx", "torch", "tensorrt") if name in maps]
    run.signal()
    run.finish()


def test_other_programs_still_load_numpy_and_zmq_only():
    code = "import sys, ispeed.stream; ispeed.stream.Subscriber; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.split())
    assert {"numpy", "zmq"} <= modules
    assert not modules & {"onnx", "openvino", "onnxruntime", "torch", "pydantic", "numba", "harvesters", "yaml"}
