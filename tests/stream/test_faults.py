"""What goes wrong at the worst moment: stages that die together or hang, a saver that fails, a user in a hurry."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import ISP_STREAM


@pytest.mark.parametrize("order", [("grab", "develop"), ("develop", "grab")])
def test_grab_and_develop_killed_together(isp_stream, order):
    run = isp_stream()
    pids = run.until("started")["pids"]
    run.published(100)
    os.kill(pids["develop"], signal.SIGSTOP)  # so that frames wait in both
    time.sleep(0.1)
    for stage in order:
        os.kill(pids[stage], signal.SIGKILL)
    run.until("outage")
    run.published(150)
    run.signal()
    ledger = run.finish()
    assert ledger["lost"]["stage_died"] > 0
    assert len(ledger["segments"]) == 2


def test_a_number_of_frames_stays_exact_when_grab_dies_with_waiting_frames(isp_stream):
    run = isp_stream("--frames", "500")
    pids = run.until("started")["pids"]
    run.published(50)
    os.kill(pids["develop"], signal.SIGSTOP)
    time.sleep(0.15)
    os.kill(pids["grab"], signal.SIGKILL)
    time.sleep(0.05)
    os.kill(pids["develop"], signal.SIGCONT)
    assert run.finish()["published"] == 500


def test_a_develop_process_that_dies_again_and_again_ends_the_run(isp_stream):
    run = isp_stream()
    pid = run.until("started")["pids"]["develop"]
    run.published(10)
    main = run.process.pid
    deadline = time.monotonic() + 60
    while run.process.poll() is None and time.monotonic() < deadline:
        pid = _stage_pid(main, "develop")
        if pid:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    run.finish(code=1)
    assert "gave up" in run.errors()


def _stage_pid(main, name, but=None):
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    for child in children:
        try:
            if child != str(but) and f"ispeed.stream.{name}".encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        except OSError:
            continue
    return None


def test_a_saver_that_dies_is_told_and_capture_goes_on(isp_stream, tmp_path):
    run = isp_stream("--save", str(tmp_path / "out"))
    run.until("started")
    run.published(50)
    os.kill(_stage_pid(run.process.pid, "save"), signal.SIGKILL)
    assert "saving ended" in run.until("saver_failed")["text"]
    before = run.published()["account"]["published"]
    run.published(before + 100)
    run.signal()
    run.finish(code=1)


def test_a_folder_that_goes_away_is_told(isp_stream, tmp_path):
    run = isp_stream("--save", str(tmp_path / "out"))
    run.until("started")
    run.published(50)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    (tmp_path / "out").write_text("a file stands in its place")
    assert str(tmp_path / "out") in run.until("saver_failed")["text"]
    run.signal()
    run.finish(code=1)


def test_a_saver_has_the_first_frame_although_another_subscriber_was_there_before(isp_stream, tmp_path, runtime_dir):
    script = "import sys; from ispeed.stream import Subscriber\nfor f in Subscriber(sys.argv[1]): pass"
    endpoint = f"ipc://{runtime_dir}/both"
    other = subprocess.Popen([sys.executable, "-c", script, endpoint])
    try:
        time.sleep(0.5)
        isp_stream("--publish", endpoint, "--frames", "20", "--save", str(tmp_path / "out"), fps=50).finish()
    finally:
        other.kill()
        other.wait()
    assert len(list((tmp_path / "out").glob("*.png"))) == 20


def test_a_trace_that_cannot_be_written_leaves_no_shared_memory(runtime_dir):
    name = f"test-faults-{os.getpid()}"
    command = [*ISP_STREAM, "--trace", "/dev/full", "--shm-name", name, "--frames", "5", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"isp-stream: error: the trace /dev/full could not be written: .*\n", done.stderr)
    assert not Path("/dev/shm", name).exists()


def test_shared_memory_of_another_program_is_left_alone(isp_stream_fails):
    path = Path("/dev/shm", f"other-{os.getpid()}")
    path.write_bytes(b"not a ring")
    try:
        assert "belongs to another program" in isp_stream_fails("--shm-name", path.name)
        assert path.read_bytes() == b"not a ring"
    finally:
        path.unlink()


def test_named_shared_memory_of_a_killed_run_is_taken_over(isp_stream):
    name = f"test-faults-{os.getpid()}"
    run = isp_stream("--shm-name", name)
    run.published(5)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert Path("/dev/shm", name).exists()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # its stages follow it within milliseconds
        again = isp_stream("--shm-name", name, "--frames", "5")
        try:
            assert again.finish()["published"] == 5
            break
        except AssertionError:
            time.sleep(0.2)
    assert not Path("/dev/shm", name).exists()


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_ctrl_c_while_starting(isp_stream, delay, monkeypatch):
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        monkeypatch.delenv(name)  # it catches SIGTERM itself, long before our first line
    run = isp_stream()
    while not _catches_sigterm(run.process.pid):  # before that, Ctrl-C is the interpreter's own to handle
        time.sleep(0.002)
    time.sleep(delay)
    run.signal()
    assert run.process.wait(20) == 0
    assert run.errors() == ""
    sockets = [path for path in Path(os.environ["XDG_RUNTIME_DIR"], "ispeed").glob("*") if path.suffix != ".lock"]
    assert not sockets


def _catches_sigterm(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status).group(1), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_thousands_of_defect_pixels_reach_the_engine(isp_stream, tmp_path):
    lines = [f"  - [{x}, {y}]" for y in range(0, 120, 2) for x in range(0, 160, 2)]
    (tmp_path / "cam.yaml").write_text("defects:\n" + "\n".join(lines) + "\n")
    assert isp_stream("--config", str(tmp_path / "cam.yaml"), "--frames", "10").finish()["published"] == 10


@pytest.mark.parametrize("stage", ["grab", "develop"])
def test_a_stage_that_hangs_is_killed_and_started_again(isp_stream, stage):
    run = isp_stream("--stage-timeout-ms", "1500")
    pids = run.until("started")["pids"]
    run.published(100)
    os.kill(pids[stage], signal.SIGSTOP)
    assert run.until("stage_hung")["stage"] == stage
    assert "SIGKILL" in run.until("stage_died", stage=stage)["text"]
    run.published(run.messages[-1].get("account", {}).get("published", 300) + 50)
    run.signal()
    run.finish()
