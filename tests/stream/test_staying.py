"""Staying up: cameras that reboot or fall silent, engines that raise, taken endpoints, stages stuck or idle."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.stream import Control, ControlError, Subscriber
from ispeed.stream.notify import Notifier
from ispeed.stream.recovery import _same_frames

from .conftest import Run
from .test_faults import _stage_pid


def until_idle(control, stages):
    """Asks until the status says that these stages are idle."""
    while True:
        told = control.call("status")["cameras"][0].get("status", {}).get("stages", {})
        if all(told.get(stage, {}).get("state") == "idle" for stage in stages):
            return told


# -- the camera -------------------------------------------------------------------------------------------------------


def test_a_camera_that_reboots_gets_its_settings_again(isp_stream):
    run = isp_stream("--exposure-us", "300", "--at", "5:Gain=3", "--at", "10000000:Gain=1")
    assert run.until("changed")["feature"] == "Gain"
    with Control(timeout_ms=60_000) as control:
        control.call("set", feature="ExposureTime", value=250)
        control.call("set", feature="Gain", value=6)
        for colour, ratio in (("Red", 1.5), ("Blue", 2.5)):
            control.call("set", feature="BalanceRatioSelector", value=colour)
            control.call("set", feature="BalanceRatio", value=ratio)
        control.call("set", feature="SimVanish", value=300)  # and then it counts from 1 again, with settings of its own
        assert "camera SIM0001 is back" in run.until("outage")["text"]
        with Subscriber(mode="every", timeout_ms=60_000) as frames:
            frame = frames.receive()
            assert (frame.segment, frame.exposure_us, frame.gain_db) == (2, 250.0, 6.0)
        for colour, ratio in (("Red", 1.5), ("Blue", 2.5)):
            control.call("set", feature="BalanceRatioSelector", value=colour)
            assert control.call("features", names=["BalanceRatio"])["features"][0]["value"] == ratio
        control.call("stop")
    ledger = run.finish()
    assert len(ledger["segments"]) == 2  # the fault is no setting: it was not made again
    assert ledger["segments"][0]["ended_by"].startswith("camera lost")


def test_a_camera_is_opened_again_by_its_serial_number_though_that_is_the_index_of_another(isp_stream, other_producer):
    run = isp_stream("--cti", str(other_producer("1", "0")), "--camera", "0")
    assert run.until("started")["geometry"]["serial"] == "1"
    run.published(20)
    with Control(timeout_ms=60_000) as control:
        control.call("set", feature="SimVanish", value=300)
        assert run.until("outage")["text"] == "camera 1 is back"
        assert control.call("features", names=["DeviceSerialNumber"])["features"][0]["value"] == "1"
        control.call("stop")
    assert len(run.finish()["segments"]) == 2


def test_a_camera_is_opened_again_through_the_producer_that_it_was_opened_with(isp_stream, other_producer):
    run = isp_stream("--cti", str(other_producer()), "--camera", "2")
    run.published(20)
    with Control(camera=2, timeout_ms=60_000) as control:
        control.call("set", feature="SimVanish", value=300)
        run.until("outage")
        assert control.call("features", names=["DeviceVersion"])["features"][0]["value"] == "1.0.0"
        control.call("stop")
    run.finish()


def test_a_camera_that_falls_silent_is_taken_up_again(isp_stream):
    run = isp_stream("--timeout-ms", "500")
    run.published(20)
    with Control(timeout_ms=60_000) as control:
        control.call("set", feature="SimStallMs", value=3_600_000)
        assert "silent" in run.until("camera_lost")["text"]
        run.until("outage")
        run.published(run.until("status")["account"]["published"] + 20)
        control.call("stop")
    assert [s["ended_by"].split(":")[0] for s in run.finish()["segments"]] == ["camera lost", "stopped"]


def test_a_grab_process_that_stood_still_does_not_take_the_camera_for_silent(isp_stream):
    run = isp_stream("--timeout-ms", "500", "--stage-timeout-ms", "30000", "--history", "0", fps=20)
    pid = run.until("started")["pids"]["grab"]
    run.published(20)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(pid, signal.SIGCONT)
    run.published(run.until("status")["account"]["published"] + 20)
    with Control() as control:
        control.call("stop")
    assert [s["ended_by"] for s in run.finish()["segments"]] == ["stopped"]


def picture(height: int, width: int) -> np.ndarray:
    return np.full((1, height, width), 100, np.uint16)


def test_a_camera_that_comes_back_with_other_frames_ends_its_run(runtime_dir, tmp_path):
    scene = tmp_path / "scene.npy"
    np.save(scene, picture(120, 160))
    run = Run("--fps", "200", "--scene", f"{scene}?format=BayerRG8")
    try:
        run.published(20)
        np.save(scene, picture(60, 80))
        with Control(timeout_ms=60_000) as control:
            control.call("set", feature="SimVanish", value=100)
        run.finish(code=1)
        assert "came back with other frames (80x60 BayerRG8, " in run.errors()
    finally:
        run.close()


def test_a_camera_that_comes_back_with_another_black_level_ends_its_run(isp_stream, tmp_path):
    scene, about = tmp_path / "scene.npy", tmp_path / "scene.npy.yaml"
    np.save(scene, picture(120, 160))
    about.write_text("format: BayerRG8\nblack: 4\n")
    run = isp_stream("--scene", str(scene))
    run.published(20)
    about.write_text("format: BayerRG8\nblack: 12\n")
    with Control(timeout_ms=60_000) as control:
        control.call("set", feature="SimVanish", value=100)
    run.finish(code=1)
    told = run.errors()
    assert "bytes, at 0,0, black 12, white 255, was 160x120 BayerRG8, " in told
    assert "at 0,0, black 4, white 255)" in told


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"offset_x": 8}, False),
        ({"offset_y": 2}, False),
        ({"white_level": 1023.0}, False),
        ({"black_level": 63.0}, False),
        ({"black_level": 64.2}, True),  # trimmed by the camera itself
        ({"pixel_format": "BayerGB12"}, False),
        ({"fps": 50.0, "exposure_us": 100.0}, True),
    ],
)
def test_which_frames_are_those_that_the_run_began_with(changed, same):
    began: dict[str, Any] = {"width": 64, "height": 48, "pixel_format": "BayerRG12", "payload": 6144, "fps": 100.0}
    began |= {"offset_x": 0, "offset_y": 0, "black_level": 64.0, "white_level": 4095.0, "exposure_us": 500.0}
    assert _same_frames(began, {**began, **changed}) == same


def test_what_the_run_rests_on_cannot_be_set_meanwhile(isp_stream):
    run = isp_stream()
    run.published(20)
    with Control(timeout_ms=60_000) as control:
        for feature in ("BlackLevel", "OffsetX", "Width", "PixelFormat"):
            with pytest.raises(ControlError, match=f"^{feature} cannot be set during a run, because frames"):
                control.call("set", feature=feature, value=8)
        assert control.call("features", names=["BlackLevel"])["features"][0]["value"] == 4
        control.call("stop")
    run.finish()


def test_a_camera_that_cannot_take_its_settings_again_is_waited_for(isp_stream, tmp_path):
    scene = tmp_path / "scene.npy"
    np.save(scene, picture(120, 160))
    run = isp_stream("--scene", f"{scene}?format=BayerRG8")
    run.published(20)
    np.save(scene, picture(60, 80))
    with Control(timeout_ms=60_000) as control:
        control.call("set", feature="SimVanish", value=100)
        assert "SIM0001: Width 160 is not possible: 16 to 80" in run.until("waiting")["text"]
        np.save(scene, picture(120, 160))
        run.until("outage")
        control.call("stop")
    assert len(run.finish()["segments"]) == 2


def test_of_two_cameras_one_goes_and_comes_and_the_other_loses_nothing(isp_stream):
    run = isp_stream("--camera", "0", "--camera", "1", "--slots", "500", fps=100)
    run.until("status", camera=1)
    with Control(timeout_ms=60_000) as first, Control(camera=1, timeout_ms=60_000) as second:
        second.endpoint, second.camera = first.endpoint, 1
        second.call("set", feature="SimVanish", value=500)
        run.until("camera_lost", camera=1)
        assert first.call("set", feature="ExposureTime", value=200)["value"] == 200.0
        run.until("outage", camera=1)
        run.until("status", camera=1)
        first.call("stop")
    ledgers = [run.until("final", camera=camera)["ledger"] for camera in (0, 1)]
    assert all(ledger["balanced"] for ledger in ledgers)
    assert [len(ledger["segments"]) for ledger in ledgers] == [1, 2]
    assert sum(ledgers[0]["lost"].values()) == 0
    assert run.process.wait(30) == 0


def test_of_two_cameras_one_gives_up_and_the_other_goes_on(isp_stream):
    run = isp_stream("--camera", "0", "--camera", "1", "--slots", "500", fps=100)
    keep = run.until("started", camera=0)["pids"]["develop"]
    run.until("status", camera=1)
    over = threading.Event()

    def kill_the_other() -> None:
        while not over.wait(0.02):
            pid = _stage_pid(run.process.pid, "develop", keep)
            if pid:
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_the_other)
    killer.start()
    try:
        assert "gave up: this camera's run has ended" in run.until("fault", camera=1)["text"]
    finally:
        over.set()
        killer.join()
    last = run.until("status", camera=1)
    assert (last["state"], last["stages"], last["bottleneck"]) == ("over", {}, "")
    before = run.until("status", camera=0)["account"]["published"]
    while run.until("status", camera=0)["account"]["published"] < before + 50:
        pass
    run.signal()
    ledgers = [run.until("final", camera=camera)["ledger"] for camera in (0, 1)]
    assert all(ledger["balanced"] for ledger in ledgers)
    assert sum(ledgers[0]["lost"].values()) == 0
    assert run.process.wait(30) == 1


# -- the engine -------------------------------------------------------------------------------------------------------

_FAILING = """
import os, sys
if "ispeed.stream.develop" in sys.orig_argv:
    from pathlib import Path
    from ispeed.engines.classic import ClassicEngine
    flag, develop = Path(os.environ["FAIL"]), ClassicEngine.develop

    def fails(self, *batch):
        if flag.exists():
            if flag.read_text() == "once":
                flag.unlink()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return develop(self, *batch)

    ClassicEngine.develop = fails
"""


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this file is, the classic engine raises what a GPU's driver does: a stand-in for a GPU that fails, which
    this machine has not. It does so in a real develop process, at the first frame ("once") or at every one."""
    (tmp_path / "sitecustomize.py").write_text(_FAILING)
    monkeypatch.setenv("FAIL", str(tmp_path / "fail"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path / "fail"


def test_an_engine_that_raises_is_started_again(isp_stream, failing):
    run = isp_stream("--engine", "classic")
    run.published(20)
    failing.write_text("once")
    died = run.until("stage_died")
    assert died["text"] == "the develop process ended with exit code 1; starting it again"
    run.published(run.until("status")["account"]["published"] + 20)
    run.signal()
    assert run.finish()["lost"]["engine_error"] > 0
    assert "the develop stage failed: RuntimeError: CUDA error" in run.errors()


def test_an_engine_that_always_raises_ends_the_run(isp_stream, failing):
    failing.write_text("always")
    run = isp_stream("--engine", "classic")
    run.finish(code=1)
    assert "the develop process died again and again without a frame: gave up" in run.errors()


def test_an_engine_that_is_changed_to_and_never_works_gives_way_to_the_one_before(isp_stream, failing, core_file):
    failing.write_text("always")
    run = isp_stream("--engine", str(core_file))
    run.published(20)
    with Control(timeout_ms=60_000) as control:
        assert control.call("engine", engine="classic")["engine"]["name"] == "classic"
        assert "back to the one before" in run.until("engine_back")["text"]
        assert run.until("engine")["text"] == "engine tiny"
        run.published(run.until("status")["account"]["published"] + 20)
        control.call("stop")
    assert run.finish()["lost"]["engine_error"] > 0


# -- endpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--publish", "--control"])
def test_a_port_or_path_that_is_taken_is_one_sentence(isp_stream_fails, runtime_dir, option):
    with socket.socket() as port, socket.socket(socket.AF_UNIX) as file:
        port.bind(("127.0.0.1", 0))
        port.listen()
        file.bind(str(runtime_dir / "taken"))
        file.listen()
        for endpoint in (f"tcp://127.0.0.1:{port.getsockname()[1]}", f"ipc://{runtime_dir}/taken"):
            sentence = isp_stream_fails(option, endpoint)
            assert f"endpoint {endpoint} is in use by another program" in sentence
            assert option in sentence
    left = [path for path in (runtime_dir / "ispeed").glob("*") if path.suffix != ".lock"]
    assert not left


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_systemd_unit_is_one(tmp_path):
    unit = Path(__file__).parents[2] / "docs" / "examples" / "ispeed.service"
    mine = tmp_path / "ispeed.service"
    mine.write_text(unit.read_text().replace("/opt/ispeed/bin/isp-stream", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(mine)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# -- stuck, idle, and the service manager -----------------------------------------------------------------------------


def test_a_stage_that_is_stuck_is_told_and_then_killed(isp_stream):
    run = isp_stream("--stage-timeout-ms", "6000")
    pid = run.until("started")["pids"]["develop"]
    assert run.published(20)["stages"]["develop"]["state"] in ("working", "idle")  # between two frames it is idle
    os.kill(pid, signal.SIGSTOP)
    states = []
    while "stuck" not in states:
        states.append(run.until("status")["stages"]["develop"]["state"])
    with Control() as control:
        (camera,) = control.call("status")["cameras"]
        assert camera["status"]["stages"]["develop"]["for_s"] >= 3
        assert run.until("stage_hung")["stage"] == "develop"
        run.published(run.until("status")["account"]["published"] + 20)
        control.call("stop")
    run.finish()
    assert set(states) <= {"working", "idle", "stuck"}


def test_stages_that_end_with_the_run_are_no_news(isp_stream):
    run = isp_stream()
    pid = run.until("started")["pids"]["develop"]
    run.published(20)
    os.kill(pid, signal.SIGSTOP)  # so that the end takes a while
    run.signal()
    status = run.until("status", state="over")
    assert (status["stages"], status["bottleneck"]) == ({}, "")
    run.signal()
    run.finish()


def test_a_camera_that_waits_for_its_trigger_is_idle_and_nothing_is_killed(isp_stream):
    run = isp_stream("--trigger", "--stage-timeout-ms", "500", "--timeout-ms", "500")
    run.until("started")
    with Control(timeout_ms=60_000) as control:
        told = until_idle(control, ("grab", "develop", "publish"))
        while told["develop"]["for_s"] < 2:
            told = until_idle(control, ("grab", "develop", "publish"))
        os.kill(run.process.pid, signal.SIGSTOP)  # nor for what the main process itself has slept through
        threading.Event().wait(1.2)
        os.kill(run.process.pid, signal.SIGCONT)
        until_idle(control, ("grab", "develop", "publish"))
        control.call("stop")
    assert len(run.finish()["segments"]) == 1
    assert run.errors() == ""


def test_a_saver_that_is_stuck_is_told(isp_stream, tmp_path):
    run = isp_stream("--save", str(tmp_path / "out"), fps=50)
    run.published(60)
    while run.until("status")["stages"]["saver"]["state"] != "working":  # it tells once a second how far it is
        pass
    saver = _stage_pid(run.process.pid, "save")
    assert saver
    os.kill(saver, signal.SIGSTOP)
    while run.until("status")["stages"]["saver"]["state"] != "stuck":
        pass
    os.kill(saver, signal.SIGCONT)
    while run.until("status")["stages"]["saver"]["state"] != "working":
        pass
    run.signal()
    run.finish()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield listener


def test_the_service_manager_is_told(manager, isp_stream):
    run = isp_stream()
    told = manager.recv(1000)
    while not told.startswith(b"READY"):
        assert told == b"WATCHDOG=1"
        told = manager.recv(1000)
    run.until("started")
    seen = set()
    while seen != {b"WATCHDOG", b"STATUS"}:
        name, value = manager.recv(1000).split(b"=", 1)
        seen.add(name)
        assert value.startswith(b"camera 0 ") if name == b"STATUS" else value == b"1"
    run.signal()
    while manager.recv(1000) != b"STOPPING=1":
        pass
    run.finish()


def test_without_a_service_manager_nothing_is_said():
    quiet = Notifier({})
    quiet.ready()
    quiet.alive()
    assert quiet.due_at == float("inf")
    quiet.close()


def test_a_watchdog_of_another_process_is_none_of_ours():
    name = f"@ispeed-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:])
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
        notifier.alive()
        notifier.status("a line\nand another")
        assert listener.recv(1000) == b"STATUS=a line and another"
        notifier.close()
        notifier.close()
