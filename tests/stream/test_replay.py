"""The real isp-stream with a recording in the place of the camera. How grab plays it: camera/test_replay_grab.py."""

from __future__ import annotations

import json
import os
import runpy
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from ispeed.engines import RawFormat, open_engine
from ispeed.engines.quality import develop_all
from ispeed.stream import Subscriber
from ispeed.stream.control import Control
from ispeed.stream.record import RAW_FRAME, write_recording

FORMAT = RawFormat(64, 48, "BayerGR10", 40, 1000)
MATRIX = [[1.5, -0.3, -0.2], [-0.2, 1.4, -0.2], [0.0, -0.6, 1.6]]
GAINS = [1.7, 1.0, 1.3]
FLAT_FIELD = {name: [[1.0, 1.5], [2.0, 1.25], [1.0, 1.75]] for name in ("R", "Gr", "Gb", "B")}
COUNT, MISSING = 40, 2


def samples(count: int, fmt: RawFormat = FORMAT) -> Any:
    """Frames of noise, as bytes [count, payload]."""
    rng = np.random.default_rng(9)
    wide = rng.integers(0, 1 << fmt.depth, (count, fmt.height, fmt.width), np.uint16)
    return (wide if fmt.depth > 8 else wide.astype(np.uint8)).reshape(count, fmt.width * fmt.height).view(np.uint8)


def rows(count: int, fps: float = 500) -> Any:
    """What is known of the frames; two ids are missing in the middle."""
    table = np.zeros(count, RAW_FRAME)
    table["frame_id"] = 100 + np.arange(count) + MISSING * (np.arange(count) >= count // 2)
    table["device_timestamp"] = table["grabbed_ns"] = (table["frame_id"] - 50) * 1e9 // fps
    table["segment"], table["gain_db"] = 1, 6
    table["exposure_us"] = 10 + np.arange(count)
    return table


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """40 frames at 500 fps with a white balance and a colour matrix."""
    calibration = {"white_balance": GAINS, "colour_matrix": MATRIX, "defects": [[3, 4]], "flat_field": FLAT_FIELD}
    about = {"geometry": {"fps": 500.0}, "serial": "CAM7", "calibration": calibration}
    return write_recording(tmp_path / "run.h5", FORMAT, samples(COUNT), raw_frames=rows(COUNT), **about)


def developed(raw: Any, gains: list[float] = GAINS, **options: Any) -> list[Any]:
    """The same frames, developed without a stream."""
    told = {"white_balance": tuple(gains), "colour_matrix": MATRIX, "defects": [(3, 4)], "flat_field": FLAT_FIELD}
    each = np.tile(np.float32(gains), (len(raw), 1))
    return develop_all(lambda: open_engine("classic", **told, **options), list(raw), FORMAT, each)


def test_frames_are_what_was_recorded_developed_with_the_recordings_calibration(isp_replay, recording):
    run = isp_replay(recording, "--loop", "--slots", "400")
    geometry = run.until("started")["geometry"]
    assert (geometry["serial"], geometry["fps"], geometry["acquisition"]) == ("CAM7", 500, "replay")
    expected, table = developed(samples(COUNT)), rows(COUNT)
    span, seen = COUNT + MISSING, set()
    with Subscriber(run.messages[-1]["endpoint"][0], mode="every", timeout_ms=20_000) as frames:
        while len(seen) < COUNT:
            frame = frames.receive()
            rounds, place = divmod(frame.header.frame_id - 100, span)
            index = int(np.flatnonzero(table["frame_id"] == 100 + place)[0])
            picture = frame.copy()
            assert np.array_equal(picture, expected[index]), index
            period = 2_000_000
            assert frame.header.device_timestamp == table["device_timestamp"][index] + rounds * span * period
            assert (frame.header.exposure_us, frame.header.gain_db) == (10 + index, 6)
            assert (frame.header.black_level, frame.header.white_level) == (40, 1000)
            assert (frame.header.flags & 8, round(frame.header.wb_r, 3)) == (0, 1.7)
            seen.add(index)
    run.signal()
    ledger = run.finish()
    assert ledger["missing"] == ledger["lost"]["camera_gap"] >= MISSING
    assert ledger["published"] == ledger["seen"] >= COUNT


def test_a_recording_ends_with_every_frame_published_and_saved(isp_replay, recording, tmp_path):
    # So many slots that the saver, which is slower than the pipeline, is not lapped.
    run = isp_replay(
        recording,
        *("--replay-speed", "0", "--slots", "64", "--save", str(tmp_path / "out")),
        *("--white-balance", "1", "1", "1"),
    )
    assert run.until("ended")["text"] == f"recording {recording} has ended"
    ledger = run.finish()
    assert (ledger["seen"], ledger["missing"], ledger["published"]) == (COUNT, MISSING, COUNT)
    assert ledger["lost"]["camera_gap"] == MISSING
    assert ledger["segments"][0]["ended_by"] == f"recording {recording} has ended"
    files = sorted((tmp_path / "out").glob("*.png"))
    assert len(files) == COUNT
    for file, picture in zip(files, developed(samples(COUNT), [1, 1, 1]), strict=True):  # options go before the file
        assert np.array_equal(np.asarray(Image.open(file)), picture)


def test_a_slow_engine_loses_frames_of_a_paced_recording_by_policy(isp_replay, tmp_path):
    big = RawFormat(1600, 1200, "BayerRG8")
    file = write_recording(tmp_path / "big.h5", big, samples(6, big), fps=5000)
    run = isp_replay(file, "--policy", "block", "--threads", "1", "--slots", "8", "--loop", "--frames", "60")
    ledger = run.finish()
    assert ledger["published"] == 60
    assert ledger["lost"]["no_free_buffer"] > 0
    assert ledger["lost"]["superseded"] == ledger["lost"]["camera_gap"] == 0


def test_ctrl_c_drains_and_a_killed_grab_process_goes_on_where_it_was(isp_replay, tmp_path):
    fmt = RawFormat(64, 48, "BayerRG8")
    np.save(tmp_path / "a.npy", samples(5000, fmt).reshape(5000, 48, 64))
    run = isp_replay(f"{tmp_path / 'a.npy'}?format=BayerRG8&exposure_us=77", "--fps", "250", "--slots", "400")
    started = run.until("started")
    with Subscriber(started["endpoint"][0], mode="every", timeout_ms=20_000) as frames:
        while frames.receive().header.frame_id < 50:
            pass
        os.kill(started["pids"]["grab"], signal.SIGKILL)
        run.until("outage")
        header = frames.receive().header
        while header.segment == 1:
            header = frames.receive().header
        assert 50 < header.frame_id < 4999
        assert header.exposure_us == 77
    with Control() as control:
        assert control.call("set", feature="AcquisitionFrameRate", value=20)["value"] == 20
    run.signal()
    ledger = run.finish()
    assert len(ledger["segments"]) == 2
    # Frame after frame, without one twice or left out: what the killed process held is counted.
    assert ledger["seen"] == ledger["published"] + ledger["lost"]["stage_died"]
    assert ledger["missing"] == ledger["lost"]["stopped"] == 0


def test_a_recording_that_was_not_written_to_its_end_is_played_as_far_as_it_goes(isp_replay, tmp_path):
    table = rows(COUNT)
    table["grabbed_ns"][30:] = 0  # not written yet
    file = write_recording(tmp_path / "killed.h5", FORMAT, samples(COUNT), raw_frames=table, complete=False)
    run = isp_replay(file, "--replay-speed", "0")
    text = f"recording {file} was not written to its end: the 30 frames that are whole are played"
    assert run.until("warning")["text"] == text
    assert run.finish()["published"] == 30


def test_snap_takes_raw_frames_of_a_recording(isp_replay, recording, tmp_path):
    run = isp_replay(recording, "--snap", str(tmp_path / "s.npy"), "--frames", "5")
    run.until("snapped")
    assert np.array_equal(np.load(tmp_path / "s.npy").reshape(5, -1).view(np.uint8), samples(COUNT)[:5])


def test_a_file_that_does_not_say_how_its_filters_lie_is_told(isp_replay, isp_stream_fails, tmp_path):
    write_cine = runpy.run_path(str(Path(__file__).parent / "footage" / "makers.py"))["write_cine"]
    pictures = np.random.default_rng(1).integers(0, 4096, (3, 48, 64)).astype(np.uint16)
    file = write_cine(tmp_path / "a.cine", pictures, cfa=1)
    assert isp_stream_fails("--camera", f"file:{file}").endswith("say it by --cfa RG, GR, GB or BG")
    run = isp_replay(file, "--cfa", "GR", "--replay-speed", "0")
    assert run.until("started")["geometry"]["pixel_format"] == "BayerGR12"
    assert run.finish()["published"] == 3
    said = isp_stream_fails("--cfa", "GR")
    assert said == "--cfa is for recordings, and camera 0 is none: choose its --pixel-format"


def test_a_calibration_of_another_place_on_the_sensor_is_refused(isp_stream_fails, recording, tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text("measured: {width: 64, height: 48, offset_x: 8, offset_y: 0}\n")
    with h5py.File(recording, "r+") as file:
        geometry = json.loads(file.attrs["geometry"]) | {"offset_x": 8, "offset_y": 2}
        file.attrs["geometry"] = np.bytes_(json.dumps(geometry))
    asked = ("--camera", f"file:{recording}", "--config", str(path))
    said = isp_stream_fails(*asked)
    assert "at 8, 0 on the sensor, whose defects and flat field are elsewhere in those at 8, 2" in said


def test_what_cannot_be_played_is_one_sentence(isp_stream_fails, recording):
    asked = ("--camera", f"file:{recording}")
    assert "cannot change Width from 64 to 32" in isp_stream_fails(*asked, "--width", "32")
    with h5py.File(recording, "r+") as file:
        file.attrs["calibration"] = '{"white_balance": [1, 1, 1]}'
    assert "'calibration' has a variable length" in isp_stream_fails(*asked)
    with h5py.File(recording, "r+") as file:
        file.attrs["calibration"] = np.bytes_('{"white_balance": [1, -1, 1e999]}')
    assert f"the calibration in {recording} does not hold: white_balance" in isp_stream_fails(*asked)
