"""The real grab process with the simulated camera; the test plays main and develop."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.channel import ChannelClosed
from ispeed.stream.frame import FLAG_DEVICE_CLOCK_IS_HOST, FLAG_EXPOSURE_FROM_CHUNK, FLAG_GAIN_FROM_CHUNK
from ispeed.stream.ring import Word

BOTH_PATHS = pytest.mark.parametrize("acquisition", ["zero-copy", "copy"])


@pytest.fixture
def scene_file(tmp_path):
    """Five frames of constant grey, 10, 20, 30, 40, 50."""
    frames = np.repeat(np.arange(10, 60, 10, dtype=np.uint8), 16 * 16).reshape(5, 16, 16)
    np.save(tmp_path / "greys.npy", frames)
    return f"{tmp_path / 'greys.npy'}?format=BayerGB8&black=3&white=200"


def test_open_tells_the_geometry(driver):
    geometry = driver.spawn().open(camera="SIM0002", exposure_us=300, gain_db=6, offset_x=8, offset_y=4, fps=123)
    expected = {
        "camera": 1,
        "serial": "SIM0002",
        "vendor": "ispeed",
        "model": "SimCam",
        "width": 64,
        "height": 48,
        "offset_x": 8,
        "offset_y": 4,
        "pixel_format": "BayerRG8",
        "fps": 123.0,
        "exposure_us": 300.0,
        "gain_db": 6.0,
        "acquisition": "zero-copy",
        "device_clock_is_host": True,
        "black_level": 4.0,
        "white_level": 255.0,
    }
    assert {key: geometry[key] for key in expected} == expected
    assert geometry["payload"] > 64 * 48  # the chunks come after the picture
    assert geometry["min_buffers"] >= 1
    assert driver.close() == 0


@BOTH_PATHS
def test_frames_come_in_order_with_their_records_and_nothing_is_lost(driver, acquisition):
    driver.begin(slots=256, segment=7, config={"acquisition": acquisition, "exposure_us": 250, "gain_db": 3})
    records = driver.develop(100)[:100]
    assert [record.frame_id for record in records] == list(range(1, 101))
    assert [record.grant for record in records] == list(range(100))
    flags = FLAG_EXPOSURE_FROM_CHUNK | FLAG_GAIN_FROM_CHUNK | FLAG_DEVICE_CLOCK_IS_HOST
    assert {(r.segment, r.exposure_us, r.gain_db, r.flags) for r in records} == {(7, 250.0, 3.0, flags)}
    assert all(0 < record.grabbed_ns - record.device_timestamp < 1_000_000_000 for record in records)
    assert all(record.size >= 64 * 48 for record in records)
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.count(Word.CAMERA_GAP) == driver.count(Word.NO_FREE_BUFFER) == 0
    driver.wait_for(lambda: driver.owners() == {"FREE": 256})  # the last ones are taken back after the answer
    assert driver.close() == 0


@BOTH_PATHS
def test_slots_hold_the_bytes_of_their_frame(driver, scene_file, acquisition):
    greys = []

    def look(record):
        pixels = driver.ring.slot(record.slot)[: 16 * 16]
        assert driver.ring.generations[record.slot] % 2 == 0
        assert pixels.min() == pixels.max()
        greys.append(int(pixels[0]))

    geometry = driver.begin(slots=256, config={"scene": scene_file, "fps": 200, "acquisition": acquisition})
    assert (geometry["width"], geometry["height"], geometry["pixel_format"]) == (16, 16, "BayerGB8")
    assert (geometry["black_level"], geometry["white_level"]) == (3.0, 200.0)
    driver.develop(20, look)
    start = greys[0] // 10 - 1
    assert greys == [10 * ((start + i) % 5 + 1) for i in range(len(greys))]
    assert driver.close() == 0


@BOTH_PATHS
def test_skipped_and_incomplete_frames_are_counted_exactly(driver, acquisition):
    faults = {"SimSkipEvery": 7, "SimIncompleteEvery": 5}
    driver.begin(slots=256, config={"acquisition": acquisition, "features": faults, "fps": 400})
    records = driver.develop(100)
    records += driver.stop(drain=True)
    last = records[-1].frame_id
    skipped, incomplete = driver.count(Word.CAMERA_GAP), driver.count(Word.INCOMPLETE)
    assert skipped == pytest.approx(last / 7, abs=1)
    assert incomplete > 10
    # ids 1 to last, each exactly once; incomplete ones after the last whole frame are seen too, where they have an id
    tail = driver.count(Word.SEEN) + skipped - last
    assert 0 <= tail <= 1
    assert len(records) + skipped + incomplete == last + tail
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_16_bit_frame_ids_are_unwrapped(driver):
    driver.begin(slots=256, config={"features": {"SimFrameIdBits": 16, "SimFrameIdStart": 65500}, "fps": 500})
    records = driver.develop(100)[:100]
    assert [record.frame_id for record in records] == list(range(65500, 65600))
    assert driver.count(Word.CAMERA_GAP) == 0
    assert driver.close() == 0


@BOTH_PATHS
def test_block_blames_the_missing_buffers(driver, acquisition):
    # few of the camera's own buffers in copy mode too: it has at most as many as the ring
    driver.begin(slots=8, policy="block", depth=2, config={"acquisition": acquisition, "fps": 500})
    held = driver.take(1)
    driver.wait_for(lambda: driver.count(Word.SEEN) == 8)
    time.sleep(0.3)  # the camera goes on without buffers; that this is no lost camera is part of the test
    driver.give(held)
    driver.develop(20)
    assert driver.count(Word.NO_FREE_BUFFER) > 20
    assert driver.count(Word.CAMERA_GAP) == 0
    assert driver.count(Word.SUPERSEDED) == 0
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_a_blocked_camera_is_not_lost(driver):
    driver.begin(slots=8, policy="block", depth=2, timeout_ms=100)
    driver.wait_for(lambda: driver.count(Word.SEEN) == 8)
    time.sleep(0.6)
    driver.develop(10)
    assert all(message.get("event") != "camera_lost" for message in driver.channel.backlog)
    assert driver.close() == 0


def test_every_supersedes_the_oldest_and_keeps_the_reserve(driver):
    driver.begin(slots=16, depth=2, config={"fps": 20})  # four of the camera's own buffers are 200 ms then
    held = driver.take(1)
    driver.wait_for(lambda: driver.count(Word.SUPERSEDED) >= 20)
    assert driver.count(Word.QUEUED) in (3, 4)
    driver.give(held)
    records = driver.develop(5)
    assert records[-1].frame_id > 20
    assert driver.count(Word.CAMERA_GAP) == driver.count(Word.NO_FREE_BUFFER) == 0
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_latest_grants_the_newest(driver):
    driver.begin(slots=16, policy="latest", depth=1)
    held = driver.take(1)
    driver.wait_for(lambda: driver.count(Word.SEEN) >= 30)
    assert driver.count(Word.WAITING) == 1
    seen = driver.count(Word.LAST_FRAME_ID)
    driver.give(held)
    assert driver.develop(1)[0].frame_id >= seen
    driver.stop()
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_drain_grants_what_waits_and_plain_stop_counts_it(driver):
    driver.begin(slots=32, depth=1)
    held = driver.take(1)
    driver.wait_for(lambda: driver.count(Word.WAITING) >= 10)
    driver.give(held)
    records = held + driver.stop(drain=True)
    assert len(records) == driver.count(Word.SEEN)
    assert driver.count(Word.STOPPED_GRAB) == 0

    driver.call("start", segment=2)
    held = driver.take(1)
    assert (held[0].segment, held[0].frame_id) == (2, 1)
    driver.wait_for(lambda: driver.count(Word.WAITING) >= 10)
    driver.call("stop", drain=False)
    assert driver.count(Word.STOPPED_GRAB) >= 10
    assert driver.count(Word.WAITING) == 0
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_limit_grants_exactly_that_many(driver):
    driver.begin(limit=20)
    records = driver.develop(20)
    driver.wait_for(lambda: driver.count(Word.STOPPED_GRAB) >= 5)
    records += driver.stop(drain=True)
    assert len(records) == driver.count(Word.GRANT_HEAD) == 20
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_consumer_lost_takes_the_slots_back_and_a_new_consumer_goes_on(driver):
    driver.begin(slots=16, depth=4)
    driver.wait_for(lambda: driver.count(Word.WAITING) >= 2)
    dead = driver.take(1)
    assert driver.call("consumer_lost") == {"taken": 4, "call": driver.channel._last_call}
    assert "GRANTED" not in driver.owners()
    driver.give(dead)  # what the dead process returned in its last moment does no harm
    driver.consumer()
    records = driver.develop(30)
    assert records[0].frame_id > dead[-1].frame_id
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    driver.wait_for(lambda: driver.owners() == {"FREE": 16})  # the last ones are taken back after the answer
    assert driver.close() == 0


def test_a_new_grab_process_goes_on_after_kill_9(driver):
    geometry = driver.begin(slots=16, depth=4)
    driver.develop(10)
    held = driver.take(1)
    driver.wait_for(lambda: driver.count(Word.WAITING) >= 3)
    driver.process.kill()
    assert driver.ended() == -signal.SIGKILL
    waiting = driver.unaccounted()
    granted = driver.owners()["GRANTED"]
    assert waiting >= 3
    assert granted >= len(held)

    driver.spawn()
    assert driver.open() == geometry  # the dead process left no lock on the camera
    driver.attach(geometry["payload"], depth=4)
    assert driver.owners() == {"GRANTED": granted, "FREE": 16 - granted}
    driver.call("consumer", epoch=driver.epoch)
    driver.call("start", segment=2)
    driver.give(held)
    records = driver.develop(30)
    assert {record.segment for record in records[granted:]} == {2}
    driver.stop(drain=True)
    assert driver.unaccounted() == waiting
    driver.wait_for(lambda: driver.owners() == {"FREE": 16})  # the last ones are taken back after the answer
    assert driver.close() == 0


@BOTH_PATHS
def test_a_vanished_camera_is_reported_and_closes_cleanly(driver, acquisition):
    driver.begin(config={"acquisition": acquisition}, timeout_ms=1000)
    driver.develop(10)
    driver.call("set", feature="SimVanish", value=60_000)
    assert "does not answer" in driver.event("camera_lost", 10)["why"]
    driver.stop(drain=True)
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_a_silent_camera_is_lost(driver):
    driver.begin(timeout_ms=300)
    driver.develop(10)
    driver.call("set", feature="SimStallMs", value=60_000)
    assert driver.event("camera_lost", 10)["why"].startswith("silent for ")
    assert driver.close() == 0


def test_a_slow_camera_is_not_lost_between_two_frames(driver):
    driver.begin(config={"fps": 2}, timeout_ms=100)
    assert len(driver.develop(3)) >= 3
    driver.stop()
    assert driver.channel.backlog == []
    assert driver.close() == 0


def test_a_camera_that_came_back_can_be_opened_by_a_new_process(driver):
    geometry = driver.begin(timeout_ms=300)
    driver.develop(5)
    driver.call("set", feature="SimVanish", value=10)
    driver.event("camera_lost", 10)
    assert driver.close() == 0
    driver.spawn()
    driver.open()
    driver.attach(geometry["payload"], slots=32)
    driver.consumer()
    driver.call("start", segment=2)
    while driver.develop(1)[-1].segment != 2:  # what was granted before comes first
        pass
    assert driver.close() == 0


def test_with_a_trigger_silence_is_idle_and_a_vanished_camera_is_still_noticed(driver):
    geometry = driver.begin(config={"trigger": True, "features": {"TriggerSource": "Software"}}, timeout_ms=100)
    assert geometry["fps"] == 0
    assert driver.take(0.5) == []
    for number in range(1, 4):
        driver.call("trigger")
        (record,) = driver.develop(1)
        assert record.frame_id == number
    driver.call("set", feature="SimVanish", value=60_000)
    driver.event("camera_lost", 10)
    assert driver.close() == 0


@BOTH_PATHS
def test_a_setting_shows_in_the_frames_that_it_made(driver, acquisition):
    driver.begin(config={"exposure_us": 100, "acquisition": acquisition})
    assert driver.develop(5)[-1].exposure_us == 100
    assert driver.call("set", feature="ExposureTime", value=222)["value"] == 222
    records = driver.develop(60)
    assert records[-1].exposure_us == 222
    assert driver.close() == 0


@BOTH_PATHS
def test_nodes_may_be_set_while_chunks_are_read(driver, acquisition):
    driver.begin(config={"acquisition": acquisition, "fps": 500})
    for exposure_us in range(100, 300):  # two threads in the binding at once, which waited for each other for ever
        assert driver.call("set", feature="ExposureTime", value=exposure_us)["value"] == exposure_us
        driver.give(driver.take(0))
    assert driver.close() == 0


def test_without_chunks_exposure_is_the_nodes_and_not_marked_as_a_chunk(driver):
    driver.begin(config={"exposure_us": 100, "features": {"ChunkModeActive": False}})
    record = driver.develop(5)[-1]
    assert (record.exposure_us, record.flags) == (100, FLAG_DEVICE_CLOCK_IS_HOST)
    driver.call("set", feature="ExposureTime", value=333)
    assert driver.develop(60)[-1].exposure_us == 333
    assert driver.close() == 0


@BOTH_PATHS
def test_without_chunks_the_cameras_own_exposure_and_gain_are_followed(driver, acquisition):
    driver.begin(config={"acquisition": acquisition, "exposure_us": 10, "features": {"ChunkModeActive": False}})
    for automatic in ("ExposureAuto", "GainAuto"):
        driver.call("set", feature=automatic, value="Continuous")
    names = ["ExposureTime", "Gain"]
    deadline = time.monotonic() + 20
    while True:  # until the camera has found its exposure, and the frames say so
        record = driver.develop(20)[-1]
        values = [feature["value"] for feature in driver.call("features", names=names)["features"]]
        if record.exposure_us > 20 and [record.exposure_us, record.gain_db] == values:
            break
        assert time.monotonic() < deadline, (record, values)
    assert record.flags == FLAG_DEVICE_CLOCK_IS_HOST
    assert driver.close() == 0


def test_a_wrong_setting_while_running_is_answered_and_harms_nothing(driver):
    driver.begin()
    with pytest.raises(UserError, match="ExposureTime -5 is not possible"):
        driver.call("set", feature="ExposureTime", value=-5)
    with pytest.raises(UserError, match="Width cannot be set"):
        driver.call("set", feature="Width", value=32)
    with pytest.raises(UserError, match="knows no command 'jump'"):
        driver.call("jump")
    assert len(driver.develop(10)) >= 10
    assert driver.close() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"camera": "7"}, r"no camera 7: there are 0 \(SIM0001\), 1 \(SIM0002\)"),
        ({"width": 65}, r"camera SIM0001: Width 65 is not possible: 16 to \d+ in steps of 4"),
        ({"pixel_format": "BayerXX8"}, "pixel format 'BayerXX8' is not supported; choose one of "),
        ({"fps": 5e5}, "camera SIM0001: AcquisitionFrameRate 500000.0 is not possible: 0.1 to 100000 Hz"),
        ({"exposure_us": 5e7}, "camera SIM0001: ExposureTime 50000000.0 is not possible: 1 to "),
        ({"features": {"ExposureTim": 5}}, "has no feature ExposureTim; did you mean ExposureTime"),
        ({"features": {"DeviceTemperature": 5}}, "DeviceTemperature cannot be set, it can only be read"),
        ({"realtime": {"cpu": 4095}}, "realtime cpu 4095 cannot be used: this process may run on "),
        ({"black_level": 300}, "black level 300 and white level 255 do not fit BayerRG8"),
        ({"cti": ["/nowhere/x.cti"]}, "there is no GenTL producer /nowhere/x.cti"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_the_process_can_be_asked_again(driver, settings, message):
    driver.spawn()
    with pytest.raises(UserError, match=message):
        driver.open(**settings)
    assert driver.open()["serial"] == "SIM0001"
    assert driver.close() == 0


def test_a_camera_in_use_is_one_sentence(driver):
    driver.begin()
    driver.spawn()
    with pytest.raises(UserError, match="camera SIM0001 is in use by another process: end that one"):
        driver.open()
    assert driver.close() == 0


def test_a_missing_permission_for_fifo_is_a_warning(driver):
    driver.spawn()
    driver.open(realtime={"fifo": 10, "cpu": min(os.sched_getaffinity(0))})
    if os.sched_getscheduler(driver.process.pid) != os.SCHED_FIFO:
        assert "SCHED_FIFO 10 is not permitted" in driver.event("warning", 10)["text"]
    assert os.sched_getaffinity(driver.process.pid) == {min(os.sched_getaffinity(0))}
    assert driver.close() == 0


def test_it_ends_when_the_other_end_of_the_channel_is_closed(driver):
    driver.begin()
    driver.develop(5)
    driver.channel.close()
    assert driver.ended() == 0


def test_it_leaves_ctrl_c_and_terminate_to_its_parent(driver):
    driver.begin()
    driver.process.send_signal(signal.SIGINT)
    driver.process.send_signal(signal.SIGTERM)
    assert len(driver.develop(20)) >= 20
    assert driver.close() == 0


def test_commands_out_of_order_are_refused(driver):
    driver.spawn()
    with pytest.raises(UserError, match="no camera open"):
        driver.call("start", segment=1)
    driver.open()
    with pytest.raises(UserError, match="open already"):
        driver.open()
    assert driver.close() == 0
    with pytest.raises(ChannelClosed):
        driver.call("start", segment=1)
