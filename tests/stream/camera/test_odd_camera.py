"""What real cameras and their producers do that a well-behaved one does not; the real grab process, as in test_grab."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ispeed.stream.ring import Word

BOTH_PATHS = pytest.mark.parametrize("acquisition", ["zero-copy", "copy"])


@BOTH_PATHS
@pytest.mark.parametrize("modulo", [1, 20])
def test_ids_that_stand_still_or_repeat_cost_no_frame(driver, acquisition, modulo):
    driver.begin(config={"acquisition": acquisition, "features": {"SimFrameIdModulo": modulo}, "fps": 400})
    records = driver.develop(100)
    records += driver.stop(drain=True)
    first = records[0].frame_id
    assert [record.frame_id for record in records] == list(range(first, first + len(records)))
    assert driver.count(Word.SEEN) == driver.count(Word.GRANT_HEAD) == len(records)
    assert driver.count(Word.LATE) == driver.count(Word.CAMERA_GAP) == 0
    assert "frame ids stand still or come again" in driver.event("warning", 10)["text"]
    driver.call("start", segment=2)
    driver.develop(60)
    assert [message for message in driver.channel.backlog if message.get("event") == "warning"] == []
    assert driver.close() == 0


@BOTH_PATHS
def test_incomplete_frames_that_lost_their_id_are_no_gaps(driver, acquisition):
    features = {"SimIncompleteEvery": 5, "SimIncompleteWithoutId": True, "SimFrameIdStart": 1000}
    driver.begin(config={"acquisition": acquisition, "features": features, "fps": 400})
    records = driver.develop(100)
    records += driver.stop(drain=True)
    assert driver.count(Word.CAMERA_GAP) == driver.count(Word.NO_FREE_BUFFER) == driver.count(Word.LATE) == 0
    assert driver.count(Word.INCOMPLETE) >= 20
    # the first frame is an incomplete one, and the last may be
    last = 1000 + driver.count(Word.SEEN) - 1
    assert last - records[-1].frame_id in (0, 1)
    assert [r.frame_id for r in records] == [i for i in range(1000, records[-1].frame_id + 1) if i % 5]
    assert driver.unaccounted() == 0
    assert driver.close() == 0


@BOTH_PATHS
def test_a_camera_whose_frames_are_all_incomplete_is_there_and_they_are_counted(driver, acquisition):
    config = {"acquisition": acquisition, "features": {"SimIncompleteEvery": 1}, "fps": 100}
    driver.begin(config=config, timeout_ms=300)
    driver.wait_for(lambda: driver.count(Word.INCOMPLETE) >= 100)
    driver.stop(drain=True)
    assert [message for message in driver.channel.backlog if message.get("event") == "camera_lost"] == []
    assert driver.count(Word.SEEN) == driver.count(Word.INCOMPLETE)
    assert driver.close() == 0


@BOTH_PATHS
def test_incomplete_frames_behind_the_last_whole_one_are_counted(driver, acquisition):
    trigger = {"TriggerSource": "Software"}
    driver.begin(config={"acquisition": acquisition, "trigger": True, "features": trigger})
    driver.call("trigger")
    driver.develop(1)
    driver.call("set", feature="SimIncompleteCount", value=3)
    for count in (2, 3, 4):
        driver.call("trigger")
        driver.wait_for(lambda count=count: driver.count(Word.SEEN) == count)
    driver.stop(drain=True)
    assert (driver.count(Word.SEEN), driver.count(Word.INCOMPLETE)) == (4, 3)
    assert driver.unaccounted() == 0
    assert driver.close() == 0


def test_copied_frames_that_found_no_slot_until_the_end_are_counted(driver):
    driver.begin(slots=8, policy="block", depth=2, config={"acquisition": "copy", "fps": 500})
    driver.wait_for(lambda: driver.count(Word.SEEN) == 8)
    time.sleep(0.5)  # meanwhile the camera fills the producer's own eight, or some of them on a busy machine
    held = driver.take(0)
    driver.stop()
    assert 8 < driver.count(Word.SEEN) <= 16
    assert driver.count(Word.STOPPED_GRAB) == driver.count(Word.SEEN) - len(held)
    assert driver.unaccounted() == 0
    driver.give(held)
    assert driver.close() == 0


@pytest.fixture
def mosaic(tmp_path):
    """(a scene of one frame in which every row is another, its samples)."""
    samples = np.random.default_rng(1).integers(0, 4096, (48, 64), np.uint16)
    np.save(tmp_path / "mosaic.npy", samples)
    return f"{tmp_path / 'mosaic.npy'}?format=BayerRG12&black=3&white=4000", samples


MISPLACED = pytest.mark.parametrize(("offset", "padding"), [(40, 0), (0, 8), (24, 3), (0, 0)])


@MISPLACED
@pytest.mark.parametrize("chunks", [True, False])
def test_copied_pictures_are_brought_to_their_place(driver, mosaic, offset, padding, chunks):
    scene, samples = mosaic
    whole = samples.astype("<u2").tobytes()

    def look(record):
        assert driver.ring.slot(record.slot)[: len(whole)].tobytes() == whole

    features = {"SimImageOffset": offset, "SimRowPadding": padding, "ChunkModeActive": chunks}
    driver.begin(config={"scene": scene, "acquisition": "copy", "features": features, "exposure_us": 250})
    records = driver.develop(20, look)
    assert {record.exposure_us for record in records} == {250}
    driver.stop()
    assert driver.count(Word.INCOMPLETE) == 0
    assert driver.close() == 0


@pytest.mark.parametrize(
    ("name", "told"), [("SimImageOffset", "begin 24 bytes into"), ("SimRowPadding", "have 24 bytes behind each row")]
)
def test_misplaced_pictures_without_a_copy_reach_nobody(driver, name, told):
    features = {name: 24, "SimIncompleteCount": 1}
    driver.begin(config={"acquisition": "zero-copy", "features": features})
    text = driver.event("unusable", 10)["text"]
    assert text.startswith("camera SIM0001: its pictures ")
    assert told in text
    assert "choose --acquisition copy" in text
    driver.wait_for(lambda: driver.count(Word.SEEN) > 50)  # more than there are slots: they go back
    assert driver.take(0) == []
    driver.stop(drain=True)
    assert driver.count(Word.INCOMPLETE) == 1
    assert driver.count(Word.STOPPED_GRAB) == driver.count(Word.SEEN) - 1
    assert driver.unaccounted() == driver.count(Word.GRANT_HEAD) == 0
    assert driver.close() == 0


def test_a_run_with_misplaced_pictures_ends_with_one_sentence(isp_stream):
    run = isp_stream("--set", "SimRowPadding=8", "--acquisition", "zero-copy")
    ledger = run.finish(code=1)
    assert ledger["published"] == 0
    assert ledger["lost"]["stopped"] == ledger["seen"]
    told = [message["text"] for message in run.messages if message["event"] == "fault"]
    assert len(told) == 1
    assert "choose --acquisition copy" in told[0]
