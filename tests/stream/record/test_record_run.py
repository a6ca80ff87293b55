"""Recording as a user does it: real isp-stream processes with the simulated camera."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.stream import Control, ControlError
from ispeed.stream.record import open_recording

SIZE = ("--width", "160", "--height", "120", "--pixel-format", "BayerRG12p")


def stamp(raw: np.ndarray) -> int:
    """The number that the simulated camera burns into the first row of a BayerRG12p frame of 160 pixels."""
    row = raw[: 128 * 3 // 2].reshape(-1, 3).astype(np.uint16)
    first = row[:, 0] | (row[:, 1] & 0x0F) << 8
    cells = first.reshape(32, 2)[:, 0] > 2048  # two pairs of pixels a cell
    return int("".join("1" if cell else "0" for cell in cells), 2)


def require_whole(file: str | Path, *, first: int | None = None) -> int:
    """Every id from the first to the last is in the file, and each frame is that of its id. Returns how many."""
    with open_recording(file) as recording:
        assert recording.complete
        ids = recording.raw_frames["frame_id"].tolist()
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert first is None or ids[0] == first
        assert [stamp(recording.read_raw(i)) for i in range(len(ids))] == ids
        return len(ids)


def test_a_recording_from_the_first_frame_to_the_end(isp_stream: Callable[..., Any], tmp_path: Path) -> None:
    run = isp_stream("--record", str(tmp_path / "out"), "--frames", "200", *SIZE, fps=200)
    ended = run.until("recording", change="ended")
    ledger = run.finish()
    assert ended["frames"] == ended["wanted"]
    assert require_whole(ended["file"], first=1) == ended["frames"]["raw"] >= ledger["published"] == 200
    with open_recording(ended["file"]) as recording:
        assert recording.settings["fps"] == 200
        assert recording.geometry["model"] == "SimCam"
        assert recording.texts["serial"] == "SIM0001"
        assert recording.raw_frames["exposure_us"][0] == 500


def test_of_a_triggered_camera_the_ring_holds_what_comes_at_the_rate_that_the_user_says(
    isp_stream: Callable[..., Any], tmp_path: Path
) -> None:
    out = ("--record", str(tmp_path / "out"), "--pre-trigger-s", "15", "--post-trigger-s", "0")
    run = isp_stream("--trigger", *out, *SIZE, fps=500)
    started = run.until("started")
    assert (started["geometry"]["fps"], started["slots"]) == (0, 50)
    with Control(timeout_ms=60_000) as control:
        for _ in range(40):
            control.call("trigger")
        run.published(40)
        control.call("record", action="trigger")
        ended = run.until("recording", change="ended")
        control.call("stop")
    assert require_whole(ended["file"], first=1) == 40
    run.finish()


class Terminal:
    """isp-stream in a terminal of its own, on which keys can be pressed."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "ispeed.stream", "--json", "--fps", "200", *SIZE, *arguments]
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        os.close(theirs)

    def press_enter(self) -> None:
        """Presses it."""
        os.write(self._ours, b"\n")

    def until(self, event: str, **wanted: Any) -> dict[str, Any]:
        """The next message of that event, and with those values."""
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            if message["event"] == event and all(message.get(name) == value for name, value in wanted.items()):
                return message
        raise AssertionError(f"isp-stream ended without {event!r}")

    def close(self) -> None:
        """Ends it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        os.close(self._ours)


@pytest.fixture
def terminal(runtime_dir: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts isp-stream in a terminal."""
    made: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        made.append(Terminal(*arguments))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_triggers_of_every_kind(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    options = ["--pre-trigger-s", "0.3", "--post-trigger-s", "0.1", "--record-what", "both", "--record-line", "3"]
    options += ["--slots", "200"]  # whoever stands still for a moment loses none
    run = terminal("--record", str(tmp_path), "--record-on", "key", "--record-on", "line", *options)
    while run.until("status")["account"]["published"] < 70:
        pass
    files = {}
    with Control() as control:
        for reason in ("part 1", "part 2", "key", "line"):
            if reason == "key":
                run.press_enter()
            elif reason == "line":
                control.call("set", feature="SimLineStatus", value=8)
            else:
                assert control.call("record", action="trigger", reason=reason)["state"] == "recording"
            ended = run.until("recording", change="ended")
            files[reason] = ended["file"]
            assert ended["frames"] == ended["wanted"]
            assert ended["frames"]["raw"] == ended["frames"]["srgb"] >= 30
        with pytest.raises(ControlError, match="nothing is being recorded"):
            control.call("record", action="stop")
        assert control.call("status")["cameras"][0]["status"]["record"] == {"state": "armed"}
        control.call("stop")
    assert run.until("final")["ledger"]["balanced"]
    for reason, file in files.items():
        require_whole(file)
        with open_recording(file) as recording:
            assert recording.srgb_frames["frame_id"].tolist() == recording.raw_frames["frame_id"].tolist()
            assert recording.read_srgb(0).shape == (120, 160, 3)
            assert recording.texts["reason"] == reason
            high = (recording.raw_frames["flags"] >> 16) & 8 != 0
            if reason == "line":
                at = int(np.searchsorted(recording.raw_frames["grabbed_ns"], recording.events["time_ns"][0]))
                assert high[at:].all()
                assert not high[:at].any()


def test_neither_a_lost_camera_nor_a_killed_record_process_costs_frames(
    isp_stream: Callable[..., Any], tmp_path: Path
) -> None:
    lost = ("--set", "SimVanishAt=400", "--set", "SimVanish=300")
    run = isp_stream("--record", str(tmp_path), *lost, "--slots", "400", *SIZE, fps=200)
    started = run.until("started")
    run.until("outage")
    with Control() as control:
        control.call("set", feature="SimVanishAt", value=0)  # once is enough
    status = run.published()
    while status["record"].get("frames", {"raw": 0})["raw"] < 420:
        status = run.until("status")
    os.kill(started["pids"]["record"], signal.SIGKILL)
    assert run.until("stage_died")["stage"] == "record"
    second = run.until("recording", change="recording")["file"]
    while not run.until("status")["record"].get("frames", {"raw": 0})["raw"]:
        pass
    run.signal()
    assert run.until("recording", change="ended")["file"] == second
    ledger = run.finish(code=1)  # of a recording that was not to end
    assert sum(ledger["lost"].values()) == 0
    first = next(path for path in tmp_path.glob("*.h5") if str(path) != second)
    with open_recording(first) as recording:
        assert not recording.complete
        segments, ids = recording.raw_frames["segment"], recording.raw_frames["frame_id"]
        assert set(segments.tolist()) == {1, 2}
        assert ids[segments == 1].tolist() == list(range(1, 400))
        assert ids[segments == 2].tolist() == list(range(1, np.count_nonzero(segments == 2) + 1))
        assert [stamp(recording.read_raw(i)) for i in range(recording.raw_count)] == ids.tolist()
    with open_recording(second) as recording:
        assert recording.complete
        assert recording.raw_count > 0


def test_a_record_process_that_does_not_answer_holds_nobody_up(isp_stream: Callable[..., Any], tmp_path: Path) -> None:
    """It stands still, as one whose disk is stuck; what it was asked meanwhile is refused, and not done later."""
    run = isp_stream("--record", str(tmp_path), "--post-trigger-s", "0.1", *SIZE, fps=200)
    started = run.until("started")
    said: list[str] = []

    def trigger() -> None:
        with Control(timeout_ms=120_000) as control, pytest.raises(ControlError) as refused:
            control.call("record", action="trigger", reason="late")
        said.append(str(refused.value))

    os.kill(started["pids"]["record"], signal.SIGSTOP)
    asker = threading.Thread(target=trigger)
    asker.start()
    with Control(timeout_ms=120_000) as control:
        for exposure_us in (100, 200, 300):
            control.call("set", feature="ExposureTime", value=exposure_us)
        assert said == []  # it has 10 s
        asker.join()
        assert said == ["the record process did not answer within 10 s: its disk may be stuck"]
        os.kill(started["pids"]["record"], signal.SIGCONT)
        assert control.call("record", action="trigger", reason="in time")["state"] == "recording"
        ended = run.until("recording", change="ended")
        control.call("stop")
    run.finish()
    assert list(tmp_path.glob("*.h5")) == [Path(ended["file"])]
    with open_recording(ended["file"]) as recording:
        assert recording.texts["reason"] == "in time"


_ON_A_SMALL_DISK = """
import json, os, subprocess, sys
command = [sys.executable, "-m", "ispeed.stream", "--json", "--fps", "200", "--frames", "700", *{size!r}]
done = subprocess.run([*command, "--record", sys.argv[1]], capture_output=True, text=True)
messages = [json.loads(line) for line in done.stdout.splitlines()]
ended = next(message for message in messages if message.get("change") == "ended")
from ispeed.stream.record import open_recording
with open_recording(ended["file"]) as recording:
    ids, complete = recording.raw_frames["frame_id"].tolist(), recording.complete
print(json.dumps([done.returncode, done.stderr, ended, messages[-1]["ledger"], ids, complete]))
"""


@pytest.mark.usefixtures("runtime_dir")
def test_a_full_disk_ends_the_recording_and_the_stream_goes_on(small_disk: Callable[[str, int], str]) -> None:
    said = small_disk(_ON_A_SMALL_DISK.format(size=SIZE), 24 << 20)
    code, errors, ended, ledger, ids, complete = json.loads(said)
    assert code == 1
    assert "cannot be written (no space left on device)" in errors
    assert ended["failed"]
    assert ended["wanted"]["raw"] == ended["frames"]["raw"] + ended["lapped"]["raw"]
    assert ids == list(range(1, ended["frames"]["raw"] + 1))
    assert len(ids) > 250
    assert complete
    assert ledger["balanced"]
    assert ledger["published"] == 700


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pre-trigger-s", "3000", "--fps", "1000"], "of memory"),
        (["--pre-trigger-s", "1", "--trigger"], "tells no frame rate"),
        (["--post-trigger-s", "80000", "--fps", "1000", *SIZE], "MiB free"),
        (["--post-trigger-s", "80000", "--fps", "1000", "--trigger", *SIZE], "MiB free"),
        (["--snap", "a.npy"], "leave out --record"),
    ],
)
def test_what_cannot_be_recorded_is_refused_at_the_start(
    isp_stream_fails: Callable[..., str], tmp_path: Path, options: list[str], said: str
) -> None:
    assert said in isp_stream_fails("--record", str(tmp_path / "out"), *options)
    assert not any((tmp_path / "out").glob("*"))
