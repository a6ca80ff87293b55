"""What triggers begin, prolong and end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from recorded_rings import PERIOD_NS
from recorder_rig import Rig, recordings, require_raw

from ispeed.stream.frame import line_flags
from ispeed.stream.record import open_recording


def test_a_trigger_meanwhile_prolongs_and_is_noted(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=0.1)
    run.come(50)
    run.recorder.trigger("key")
    run.come(6)
    run.recorder.trigger("control")
    run.come(20)
    assert len(recordings(run)) == 1
    assert run.ended()["frames"] == {"raw": 27}
    assert [message["change"] for message in run.told if message["change"] != "progress"] == [
        "recording",
        "trigger",
        "ended",
    ]
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 40, 27)
        assert recording.events["text"].tolist() == [b"key", b"control", b"its end has come"]


def test_triggers_in_a_row_each_have_their_own_past(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.2, post_trigger_s=0.05)
    run.come(100)
    for number in range(5):
        run.recorder.trigger(f"trigger {number}")
        run.come(10)
    files = recordings(run)
    assert len(files) == 5
    for number, file in enumerate(files):
        with open_recording(file) as recording:
            require_raw(recording, 80 + 10 * number, 26)


def test_a_trigger_that_is_told_late_counts_from_when_it_was(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=0.1)
    run.come(50)
    at_ns = run.clock.now_ns
    run.come(5)
    run.recorder.trigger("key", at_ns)
    run.come(20)
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 40, 21)


def test_of_two_triggers_the_earlier_one_may_be_told_later(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=0.1)
    run.come(50)
    at_ns = run.clock.now_ns
    run.rings.come(5)
    run.recorder.trigger("line")
    run.recorder.trigger("key", at_ns)  # nothing is written yet
    run.come(1)
    run.recorder.trigger("late", at_ns - 5 * PERIOD_NS)  # now it is
    run.come(20)
    assert len(recordings(run)) == 1
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 40, 26)
        assert recording.events["text"].tolist()[:3] == [b"line", b"key", b"late"]
    assert run.ended()["wanted"] == run.ended()["frames"]


def past_the_limit(run: Rig) -> None:
    """A second trigger, at frame 95, while the recording of the first still has frames to write, up to 90."""
    run.come(50)
    run.recorder.trigger("first")
    run.come(10)
    run.rings.come(35)  # while the disk stands still
    assert run.recorder.trigger("second")["state"] == "recording"
    run.rings.come(1)
    assert run.recorder.trigger("third")["state"] == "recording"


def test_a_trigger_when_a_recording_is_as_long_as_it_may_be_begins_the_next(rig: Callable[..., Rig]) -> None:
    run = rig(slots=80, pre_trigger_s=0.1, post_trigger_s=0.4, record_seconds=0.5)
    past_the_limit(run)
    run.come(60)
    (first, second), (one, other) = recordings(run), [told for told in run.told if told["change"] == "ended"]
    assert (one["reason"], other["reason"]) == ("record_seconds are over",) * 2
    assert one["frames"] == one["wanted"] == other["frames"] == other["wanted"] == {"raw": 51}
    with open_recording(first) as recording:
        require_raw(recording, 40, 51)
        assert recording.events["text"].tolist() == [b"first", b"record_seconds are over"]
    with open_recording(second) as recording:
        require_raw(recording, 85, 51)
        assert recording.texts["reason"] == "second"
        assert recording.events["text"].tolist()[:2] == [b"second", b"third"]


def test_triggers_that_wait_for_the_next_recording_may_be_for_the_one_after_it(rig: Callable[..., Rig]) -> None:
    run = rig(slots=160, pre_trigger_s=0.1, post_trigger_s=0.4, record_seconds=0.5)
    past_the_limit(run)  # up to frame 96
    run.rings.come(79)
    run.recorder.trigger("fourth")
    run.come(60)
    for file, first in zip(recordings(run), (40, 85, 165), strict=True):
        with open_recording(file) as recording:
            require_raw(recording, first, 51)


def test_an_earlier_trigger_for_which_a_recording_cannot_begin_earlier_has_one_of_its_own(
    rig: Callable[..., Rig],
) -> None:
    run = rig(slots=160, pre_trigger_s=0.1, post_trigger_s=0.4, record_seconds=0.5)
    run.come(50)
    at_ns = run.clock.now_ns
    run.rings.come(45)
    run.recorder.trigger("line")
    run.recorder.trigger("key", at_ns)  # 0.5 s from 0.1 s before it end before the other one
    run.come(60)
    run.recorder.trigger("line")
    run.come(1)
    run.recorder.trigger("late", at_ns + 50 * PERIOD_NS)  # the recording begins after it, and is being written
    run.come(60)
    for file, first in zip(recordings(run), (85, 40, 145, 90), strict=True):
        with open_recording(file) as recording:
            require_raw(recording, first, 51)


def test_a_recording_until_it_is_stopped_keeps_no_trigger_waiting(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=0.1)
    run.come(50)
    run.recorder.start("page")
    run.come(10)
    run.recorder.trigger("late", run.clock.now_ns - 30 * PERIOD_NS)
    run.come(20)
    run.recorder.stop("page")
    run.come(20)
    assert (run.recorder.state, len(recordings(run))) == ("armed", 1)


@pytest.mark.parametrize("close", [False, True])
def test_a_trigger_past_the_limit_is_stopped_too(rig: Callable[..., Rig], close: bool) -> None:
    run = rig(slots=80, pre_trigger_s=0.1, post_trigger_s=0.4, record_seconds=0.5)
    past_the_limit(run)
    run.clock.now_ns -= 1  # else the next frame belongs to it
    if close:
        run.recorder.close()
    else:
        run.recorder.stop("page")
        run.clock.now_ns += 1
        run.come(20)
    with open_recording(recordings(run)[1]) as recording:
        require_raw(recording, 85, 11)
    assert (run.recorder.state, len(recordings(run))) == ("armed", 2)


def test_a_trigger_in_the_last_frames_keeps_nobody_waiting(rig: Callable[..., Rig]) -> None:
    run = rig(record_on=["line"], pre_trigger_s=0.1, post_trigger_s=100)
    run.come(50, flags=line_flags(0))
    run.come(1, flags=line_flags(1))
    run.come(1, flags=line_flags(0))
    run.rings.come(1, flags=line_flags(1))  # not yet looked at
    run.recorder.close()
    assert (run.ended()["reason"], run.ended()["failed"]) == ("the stream ended", False)
    assert run.ended()["frames"] == {"raw": 13}


def test_a_rising_edge_on_a_line_triggers(rig: Callable[..., Rig]) -> None:
    run = rig(record_on=["line"], record_line=2, pre_trigger_s=0.05, post_trigger_s=0.05)
    high, low, other = line_flags(0b100), line_flags(0), line_flags(0b11)
    run.come(10, flags=high)  # from the beginning
    run.come(10, flags=low)
    run.come(10, flags=other)
    run.come(10)  # frames that do not tell
    assert run.recorder.state == "armed"
    run.come(20, flags=high)
    run.come(10, flags=low)
    assert len(recordings(run)) == 1
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 35, 11)
        assert recording.texts["reason"] == "line"
        assert recording.events["time_ns"][0] == recording.raw_frames["grabbed_ns"][5]


def test_a_jump_of_brightness_triggers_once(rig: Callable[..., Rig]) -> None:
    run = rig(record_on=["brightness"], brightness_jump=0.5, pre_trigger_s=0.05, post_trigger_s=0.05)
    run.come(50)
    run.come(20, level=0.35)  # not enough
    assert not recordings(run)
    run.come(1, level=0.9)  # a flash of one frame
    run.come(30)
    assert len(recordings(run)) == 1
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 65, 11, lambda n: 0.9 if n == 70 else 0.35 if n < 70 else 0.3)
    run.come(100, level=0.05)  # and dark
    assert len(recordings(run)) == 2
    assert run.ended()["ids"]["raw"][0] == 101 - 5 + 1


def test_a_frame_that_is_overwritten_before_it_was_looked_at_is_not_looked_at(rig: Callable[..., Rig]) -> None:
    run = rig(record_on=["brightness"], brightness_jump=0.5, pre_trigger_s=0.05, post_trigger_s=0.05)
    run.come(50)
    run.rings.come(37)  # while the disk stands still
    run.rings.come(8, level=0.9)  # the last of these lie where frames 50 to 54 were
    run.turn()
    run.come(30, level=0.9)
    with open_recording(run.ended()["file"]) as recording:
        assert recording.events["time_ns"][0] == recording.raw_frames["grabbed_ns"][5]
        require_raw(recording, 82, 11, lambda n: 0.9 if n >= 87 else 0.3)
