"""What real cameras and their producers do that a well-behaved one does not; the real grab process, as in test_grab."""

from __future__ import annotations

import time

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
    time.sleep(0.3)  # meanwhile the camera fills the producer's own eight
    held = driver.take(0)
    driver.stop()
    assert driver.count(Word.SEEN) == 16
    assert driver.count(Word.STOPPED_GRAB) == 16 - len(held)
    assert driver.unaccounted() == 0
    driver.give(held)
    assert driver.close() == 0
