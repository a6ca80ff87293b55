"""Several cameras in one run: their settings, and real runs of two simulated ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ispeed.engines.errors import UserError
from ispeed.stream import Control, Subscriber, default_endpoint
from ispeed.stream.cameras import camera_indices, make_configs
from ispeed.stream.cli import parse
from ispeed.stream.config import read_yaml
from ispeed.stream.control import default_control


def test_flags_go_before_a_section_and_that_before_the_rest_of_the_file():
    in_file = {
        "fps": 100,
        "features": {"Gamma": 1.0, "Gain": 1},
        "cameras": {0: {"fps": 200, "gain_db": 3}, "SIM0002": {"features": {"Gain": 2}}},
    }
    first, second = make_configs(in_file, {"width": 64})
    assert (first.camera, first.fps, first.gain_db, first.width) == ("0", 200, 3, 64)
    assert (second.camera, second.fps, second.gain_db, second.width) == ("SIM0002", 100, None, 64)
    assert first.features == {"Gamma": 1.0, "Gain": 1}
    assert second.features == {"Gamma": 1.0, "Gain": 2}
    (only,) = make_configs(in_file, {"camera": ["0"], "fps": 300})
    assert (only.camera, only.fps, only.gain_db) == ("0", 300, 3)
    assert [config.camera for config in make_configs({}, {"camera": ["0", "1"]})] == ["0", "1"]
    assert [config.shm_name for config in make_configs({"shm_name": "x"}, {"camera": ["0", "1"]})] == ["x-0", "x-1"]


@pytest.mark.parametrize(
    ("in_file", "cameras", "sentence"),
    [
        ({"cameras": {0: {"publish": ["ipc:///x"]}}}, [], r"cameras\.0: publish holds for the whole run"),
        ({"cameras": {0: {"camera": "1"}}}, [], r"cameras\.0: camera holds for the whole run"),
        ({"cameras": [0, 1]}, [], "write one section for each camera"),
        ({"cameras": {0: 5}}, [], "write one section for each camera"),
        ({"cameras": {0: {"fsp": 5}}}, [], "unknown setting 'fsp'"),
        ({}, ["0", "0"], "camera 0 is asked for twice"),
        ({}, ["0", "SIM0001"], "camera SIM0001 is camera 0, which is asked for already"),
    ],
)
def test_cameras_that_cannot_be(in_file, cameras, sentence):
    with pytest.raises(UserError, match=sentence):
        camera_indices(make_configs(in_file, {"camera": cameras} if cameras else {}))


def test_a_serial_number_in_a_file_is_taken_as_it_stands_there(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("camera: 01234567\nfps: 0100\n")
    (config,) = make_configs(read_yaml(path), {})
    assert (config.camera, config.fps) == ("01234567", 64)  # the rest is YAML
    path.write_text(
        "cameras:\n  0017: &first {fps: 100}\n  1.10: *first\n"
        "  12:30:45: {}\n  2024-01-02: {}\n  0x10: {}\n  yes: {}\n  'q': {}\n"
    )
    cameras = [config.camera for config in make_configs(read_yaml(path), {})]
    assert cameras == ["0017", "1.10", "12:30:45", "2024-01-02", "0x10", "yes", "q"]


def test_serial_numbers_are_looked_up():
    configs, _ = parse(["--camera", "SIM0002", "--camera", "0"])
    assert camera_indices(configs) == [1, 0]


def test_a_serial_number_is_looked_up_as_it_will_be_chosen(other_producer):
    numbered = other_producer("1", "0001")
    configs = make_configs({"cti": [numbered, other_producer()]}, {"camera": ["0001", "SIM0002", "0"]})
    assert camera_indices(configs) == [1, 3, 0]  # of two producers that see it, the first


def test_two_cameras_on_topics_of_their_own_in_one_run(isp_stream, runtime_dir, tmp_path: Path):
    run = isp_stream(
        "--camera", "0", "--camera", "1", "--frames", "150", "--slots", "200", "--save", str(tmp_path), fps=100
    )
    run.until("started", camera=1)
    with (
        Subscriber(camera=1, mode="every", timeout_ms=20_000) as second,
        Subscriber(default_endpoint(0), camera=1, mode="every", timeout_ms=20_000) as same,
        Subscriber(mode="every", timeout_ms=20_000) as first,
    ):
        assert {frames.receive().camera for frames in (second, same)} == {1}
        assert first.receive().camera == 0
        assert first.info is not None
        assert second.info is not None
        assert (first.info.serial, second.info.serial) == ("SIM0001", "SIM0002")
        assert {first.receive().camera for _ in range(20)} == {0}
    for camera in (0, 1):
        ledger = run.until("final", camera=camera)["ledger"]
        assert ledger["balanced"]
        assert ledger["published"] == 150
        assert len(list((tmp_path / str(camera)).glob("*.png"))) == 150
    assert run.process.wait(30) == 0


def test_one_camera_that_goes_leaves_the_other_alone(isp_stream):
    run = isp_stream("--camera", "0", "--camera", "1", "--slots", "500", "--seconds", "6", fps=100)
    pids = {camera: run.until("started", camera=camera)["pids"] for camera in (0, 1)}
    run.until("status", camera=1)
    os.kill(pids[1]["grab"], signal.SIGKILL)
    run.until("outage", camera=1)
    ledgers = [run.until("final", camera=camera)["ledger"] for camera in (0, 1)]
    assert all(ledger["balanced"] for ledger in ledgers)
    assert [len(ledger["segments"]) for ledger in ledgers] == [1, 2]
    assert sum(ledgers[0]["lost"].values()) == 0
    assert run.process.wait(30) == 0


def test_one_develop_process_for_two_cameras(isp_stream, core_file):
    run = isp_stream("--camera", "0", "--camera", "1", "--share-engine", "--slots", "500", fps=50)
    pids = {camera: run.until("started", camera=camera)["pids"] for camera in (0, 1)}
    assert pids[0]["develop"] == pids[1]["develop"]
    assert pids[0]["grab"] != pids[1]["grab"]
    run.until("status", camera=1)
    with Control(default_control(0), camera=1, timeout_ms=60_000) as control:
        assert control.call("engine", engine=str(core_file))["engine"]["name"] == "tiny"
        assert run.until("engine", camera=1)["pids"]["develop"] == pids[0]["develop"]
        descriptors = Path(f"/proc/{pids[0]['develop']}/fd")
        before = len(list(descriptors.iterdir()))
        control.call("engine", white_balance=[2, 1, 1])
        while len(list(descriptors.iterdir())) > before:  # what the stage before had open is given back
            pass
        os.kill(pids[0]["develop"], signal.SIGKILL)
        ends = [run.until("stage_died") for _ in (0, 1)]
        assert {end["camera"] for end in ends} == {0, 1}  # each once
        assert all("the develop process ended by SIGKILL" in end["text"] for end in ends)
        engines: dict[int, str] = {}
        while engines != {0: "classic", 1: "tiny"}:
            status = run.until("status")
            if status["rates"]["publish"]:
                engines[status["camera"]] = status["engine"]
        control.call("stop")
    for camera in (0, 1):
        ledger = run.until("final", camera=camera)["ledger"]
        assert ledger["balanced"]
        assert len(ledger["segments"]) == 1
    assert run.process.wait(30) == 0


def test_one_camera_that_is_not_there_is_one_sentence(isp_stream_fails):
    assert isp_stream_fails("--camera", "0", "--camera", "9") == "no camera 9: there are 0 (SIM0001), 1 (SIM0002)"
