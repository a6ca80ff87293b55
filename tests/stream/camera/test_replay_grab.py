"""The real grab process with a recording in the place of the camera; the test plays main and develop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ispeed.engines import RawFormat
from ispeed.engines.errors import UserError
from ispeed.stream.frame import FLAG_DEVICE_CLOCK_IS_HOST, FLAG_EXPOSURE_FROM_CHUNK
from ispeed.stream.record import RAW_FRAME, write_recording
from ispeed.stream.ring import Word

FORMAT = RawFormat(32, 16, "BayerRG12p", 60, 4000)
MISSING = (8, 9, 21)  # ids that the recorded camera lost


class Recorded:
    """A recording of 60 frames with 1 ms between them, three ids missing, and what is in it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.ids = [number for number in range(3, 66) if number not in MISSING]
        self.bytes = np.random.default_rng(5).integers(0, 256, (len(self.ids), FORMAT.payload_size), np.uint8)
        self.rows = np.zeros(len(self.ids), RAW_FRAME)
        self.rows["frame_id"] = self.ids
        self.rows["device_timestamp"] = 7_000_000_000 + 1_000_000 * np.array(self.ids)
        self.rows["grabbed_ns"] = 9_000_000_000 + 1_000_000 * np.array(self.ids)
        self.rows["segment"] = 4
        self.rows["flags"] = FLAG_EXPOSURE_FROM_CHUNK | FLAG_DEVICE_CLOCK_IS_HOST
        self.rows["exposure_us"] = 100 + np.arange(len(self.ids))
        self.rows["gain_db"] = np.arange(len(self.ids)) % 3
        self.path = write_recording(
            path, FORMAT, self.bytes, raw_frames=self.rows, geometry={"fps": 1000.0}, serial="CAM7", **options
        )
        self.camera = f"file:{path}"


@pytest.fixture
def recorded(tmp_path) -> Recorded:
    return Recorded(tmp_path / "run.h5")


def hold_two(driver) -> list:
    """The first frames, where no more than two are granted at once."""
    driver.wait_for(lambda: driver.count(Word.GRANT_HEAD) == 2)
    return driver.take(0)


def all_of_it(driver, count: int) -> list:
    """Develops to the end of the recording, which is told once. Returns the records."""
    records = driver.develop(count)
    assert driver.event("ended", 10)["text"].endswith("has ended")
    assert driver.take(0) == []
    return records


def test_open_tells_the_geometry(driver, recorded):
    geometry = driver.spawn().open(camera=recorded.camera)
    expected = {
        "serial": "CAM7",
        "width": 32,
        "height": 16,
        "pixel_format": "BayerRG12p",
        "payload": FORMAT.payload_size,
        "fps": 1000.0,
        "black_level": 60.0,
        "white_level": 4000.0,
        "device_clock_is_host": False,
        "acquisition": "replay",
        "exposure_us": 100.0,
        "gain_db": 0.0,
    }
    assert {key: geometry[key] for key in expected} == expected
    assert driver.close() == 0


def test_frames_come_as_they_were_recorded_and_then_the_recording_has_ended(driver, recorded):
    pixels = []
    driver.spawn().open(camera=recorded.camera, replay_speed=0)
    driver.attach(FORMAT.payload_size, slots=8, depth=3)
    driver.consumer()
    driver.call("start", segment=2)
    records = driver.develop(60, lambda record: pixels.append(driver.ring.slot(record.slot).copy()))
    driver.event("ended", 10)
    assert [record.frame_id for record in records] == recorded.ids
    assert [record.device_timestamp for record in records] == recorded.rows["device_timestamp"].tolist()
    assert [record.exposure_us for record in records] == recorded.rows["exposure_us"].tolist()
    assert [record.gain_db for record in records] == recorded.rows["gain_db"].tolist()
    assert {(r.flags, r.segment, r.size) for r in records} == {(FLAG_EXPOSURE_FROM_CHUNK, 2, FORMAT.payload_size)}
    assert np.array_equal(pixels, recorded.bytes)
    assert driver.count(Word.CAMERA_GAP) == len(MISSING)
    assert driver.count(Word.NO_FREE_BUFFER) == driver.count(Word.SUPERSEDED) == driver.count(Word.INCOMPLETE) == 0
    assert driver.count(Word.SEEN) == 60
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.close() == 0


@pytest.mark.parametrize("policy", ["every", "block"])
def test_at_speed_0_no_frame_is_lost_however_slow_the_engine(driver, recorded, policy):
    driver.begin(slots=8, depth=2, policy=policy, config={"camera": recorded.camera, "replay_speed": 0})
    held = hold_two(driver)
    driver.wait_for(lambda: driver.count(Word.SEEN) == 8)  # every slot is out: the recording waits
    assert driver.owners() == {"GRANTED": 2, "WAITING": 6}
    driver.give(held)
    records = held + all_of_it(driver, 58)
    assert [record.frame_id for record in records] == recorded.ids
    assert driver.count(Word.NO_FREE_BUFFER) == driver.count(Word.SUPERSEDED) == 0
    assert driver.close() == 0


def test_a_limit_leaves_the_rest_of_the_file_alone(driver, recorded):
    driver.begin(limit=20, config={"camera": recorded.camera, "replay_speed": 0})
    assert len(driver.develop(20)) == 20
    driver.stop(drain=True)
    assert driver.count(Word.SEEN) == 20
    assert driver.count(Word.STOPPED_GRAB) == 0
    assert driver.close() == 0


def test_a_frame_that_finds_no_slot_when_it_is_due_is_lost_and_so_are_the_last_ones(driver, recorded):
    driver.begin(slots=8, depth=2, policy="block", config={"camera": recorded.camera})
    held = hold_two(driver)  # and nothing is given back: all after the eighth are lost
    driver.wait_for(lambda: driver.count(Word.NO_FREE_BUFFER) > 0)
    assert driver.count(Word.NO_FREE_BUFFER) == 52
    assert driver.count(Word.CAMERA_GAP) == len(MISSING)
    assert driver.count(Word.SEEN) == 8
    driver.give(held)
    assert [record.frame_id for record in held + all_of_it(driver, 6)] == recorded.ids[:8]
    assert driver.close() == 0


@pytest.mark.parametrize(("policy", "superseded"), [("every", True), ("latest", True), ("block", False)])
def test_policies_hold_for_a_recording_that_is_paced(driver, recorded, policy, superseded):
    driver.begin(slots=16, depth=2, policy=policy, config={"camera": recorded.camera, "fps": 5000})
    held = hold_two(driver)
    lost = (Word.SUPERSEDED, Word.NO_FREE_BUFFER)
    driver.wait_for(lambda: sum(map(driver.count, lost)) + len(held) + driver.count(Word.WAITING) == 60)
    assert (driver.count(Word.SUPERSEDED) > 20) == superseded
    driver.give(held)
    records = held + driver.develop(60 - len(held) - sum(map(driver.count, lost)))
    driver.event("ended", 10)
    if policy == "latest":
        assert records[-1].frame_id == recorded.ids[-1]
    seen, missing = driver.count(Word.SEEN), driver.count(Word.CAMERA_GAP) + driver.count(Word.NO_FREE_BUFFER)
    assert seen + missing == recorded.ids[-1] - recorded.ids[0] + 1
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_a_loop_goes_on_with_rising_ids_and_stamps(driver, recorded):
    pixels = []
    driver.spawn().open(camera=recorded.camera, loop=True, replay_speed=0)
    driver.attach(FORMAT.payload_size)
    driver.consumer()
    driver.call("start", segment=1)
    records = driver.develop(150, lambda record: pixels.append(driver.ring.slot(record.slot).copy()))[:150]
    ids = [record.frame_id for record in records]
    assert ids[:60] == recorded.ids
    assert ids[60:120] == [number + 63 for number in recorded.ids]
    stamps = np.array([record.device_timestamp for record in records])
    assert (np.diff(stamps) == 1_000_000 * np.diff(ids)).all()
    assert all(np.array_equal(pixels[n], recorded.bytes[n % 60]) for n in range(150))
    assert driver.count(Word.CAMERA_GAP) >= 2 * len(MISSING)  # those of frames that are seen and wait, as well
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_a_new_grab_process_goes_on_after_the_last_frame_that_was_seen(driver, recorded):
    driver.begin(slots=16, depth=4, config={"camera": recorded.camera, "replay_speed": 0})
    driver.wait_for(lambda: driver.count(Word.SEEN) == 16 and driver.count(Word.GRANT_HEAD) == 4)
    records = driver.take(0)
    driver.process.kill()
    assert driver.ended() == -signal.SIGKILL
    driver.spawn().open(camera=recorded.camera, replay_speed=0)
    driver.attach(FORMAT.payload_size, depth=4)
    driver.call("consumer", epoch=driver.epoch)
    driver.call("start", segment=2)
    driver.give(records)
    rest = all_of_it(driver, 60 - 16)
    assert [record.frame_id for record in rest] == recorded.ids[16:]
    assert driver.close() == 0


def test_a_pause_in_the_recording_is_no_lost_camera(driver, tmp_path):
    recorded = Recorded(tmp_path / "pause.h5")
    rows = recorded.rows[:4].copy()
    rows["device_timestamp"][2:] += 600_000_000
    path = write_recording(tmp_path / "pause.h5", FORMAT, recorded.bytes[:4], raw_frames=rows)
    driver.begin(timeout_ms=100, config={"camera": f"file:{path}"})
    assert len(all_of_it(driver, 4)) == 4
    assert driver.channel.backlog == []
    assert driver.close() == 0


def test_what_cannot_be_read_is_an_incomplete_frame(driver, recorded):
    driver.spawn().open(camera=recorded.camera, replay_speed=0)
    driver.attach(FORMAT.payload_size, slots=64)
    driver.consumer()
    os.truncate(recorded.path, recorded.path.stat().st_size // 2)  # by another program, while it is open
    driver.call("start", segment=1)
    text = driver.event("warning", 10)["text"]
    assert "what cannot be read is played as incomplete frames" in text
    driver.wait_for(lambda: driver.count(Word.SEEN) == 60)
    incomplete = driver.count(Word.INCOMPLETE)
    assert incomplete > 20
    assert len(all_of_it(driver, 60 - incomplete)) == 60 - incomplete
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_only_the_rate_can_be_set(driver, recorded):
    driver.begin(config={"camera": recorded.camera, "loop": True, "replay_speed": 2})
    assert driver.call("set", feature="AcquisitionFrameRate", value=50)["value"] == 50
    assert driver.call("set", feature="Width", value=32)["value"] == 32
    with pytest.raises(UserError, match=r"cannot change Width from 32 to 64: only AcquisitionFrameRate can be set"):
        driver.call("set", feature="Width", value=64)
    with pytest.raises(UserError, match=r"run\.h5 cannot change Colour: only AcquisitionFrameRate can be set"):
        driver.call("set", feature="Colour", value=64)
    for rate in (0, "fast", float("nan")):
        with pytest.raises(UserError, match=r"AcquisitionFrameRate .* is not possible: 0\.001 to 1e"):
            driver.call("set", feature="AcquisitionFrameRate", value=rate)
    with pytest.raises(UserError, match="cannot change TriggerSoftware: only"):
        driver.call("trigger")
    assert len(driver.develop(5)) >= 5
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_settings_that_the_recording_has_anyway_are_no_fault_and_levels_can_be_given(driver, recorded):
    same = {"width": 32, "height": 16, "pixel_format": "BayerRG12p", "exposure_us": 100, "features": {"Gain": 0}}
    geometry = driver.spawn().open(camera=recorded.camera, black_level=10, white_level=3000, **same)
    assert (geometry["black_level"], geometry["white_level"]) == (10, 3000)
    assert driver.close() == 0


def test_what_cannot_be_is_one_sentence_and_the_process_can_be_asked_again(driver, recorded, tmp_path):
    driver.spawn()
    for settings, message in REFUSED:
        with pytest.raises(UserError, match=message):
            driver.open(**{"camera": recorded.camera, **settings})
    (tmp_path / "text.h5").write_text("no recording")
    (tmp_path / "short.h5").write_bytes(recorded.path.read_bytes()[:5000])
    none = np.zeros(2, RAW_FRAME)  # of a writer that was killed before it wrote the first
    write_recording(tmp_path / "empty.h5", FORMAT, recorded.bytes[:2], raw_frames=none, complete=False)
    write_recording(tmp_path / "srgb.h5", None, None, srgb=np.zeros((2, 8, 8, 3), np.uint8))
    for name, message in FILES.items():
        with pytest.raises(UserError, match=rf"{name} {message}"):
            driver.open(camera=f"file:{tmp_path / name}")
    assert driver.open(camera=recorded.camera)["serial"] == "CAM7"
    assert driver.close() == 0


FILES = {
    "text.h5": "is no recording",
    "short.h5": "cannot be read",
    "empty.h5": "holds no frames",
    "srgb.h5": "holds sRGB frames only",
}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"width": 64}, r"the recording .*run\.h5 cannot change Width from 32 to 64: only AcquisitionFrameRate can"),
    ({"pixel_format": "BayerRG8"}, "cannot change PixelFormat from BayerRG12p to BayerRG8: only"),
    ({"exposure_us": 7}, "cannot change ExposureTime from 100 to 7: only"),
    ({"features": {"Binning": 2}}, "cannot change Binning: only AcquisitionFrameRate can be set"),
    ({"at": ["5:Gain=3"]}, "at 5 frames: the recording .* cannot change Gain from 0 to 3"),
    ({"trigger": True}, "a recording waits for no trigger: leave out --trigger"),
    ({"scene": "target"}, "--scene is for the simulated camera, and file:.* is a recording"),
    ({"replay_speed": 0, "fps": 5}, "without a rate: leave out --fps"),
    ({"replay_speed": 0, "policy": "latest"}, "loses no frame, and --policy latest keeps only the newest"),
    ({"black_level": 4001}, "black level 4001 and white level 4000 do not fit"),
    ({"measured": {"serial": "CAM8"}}, "the calibration is of camera CAM8, and this is CAM7"),
    ({"camera": "file:/nowhere/run.h5"}, "there is no recording /nowhere/run.h5"),
]
