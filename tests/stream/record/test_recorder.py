"""The recorder: what is recorded, how it ends, and that every frame is accounted for. See also `test_triggered.py`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from recorded_rings import PERIOD_NS, srgb_frame
from recorder_rig import Rig, recordings, require_raw

from ispeed.engines.errors import UserError
from ispeed.stream.frame import line_flags
from ispeed.stream.record import open_recording
from ispeed.stream.record.dng import DngWriter
from ispeed.stream.record.hdf import HdfWriter
from ispeed.stream.record.mp4 import Mp4Writer


def test_seconds_before_and_after_a_trigger(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.2, post_trigger_s=0.1)
    assert run.recorder.state == "armed"
    run.come(100)
    assert not recordings(run)
    run.recorder.trigger("key")  # now, one period after frame 99
    run.come(5)
    assert run.recorder.state == "recording"
    run.come(8)
    assert run.recorder.state == "armed"
    ended = run.ended()
    assert ended["reason"] == "its end has come"
    assert ended["frames"] == ended["wanted"] == {"raw": 31}  # both ends belong to it
    assert ended["lapped"] == ended["missing"] == {"raw": 0}
    assert ended["ids"] == {"raw": [81, 111]}
    with open_recording(ended["file"]) as recording:
        require_raw(recording, 80, 31)
        assert recording.complete
        assert recording.texts["reason"] == "key"
        assert recording.geometry["serial"] == "TEST1"
        assert recording.calibration["estimated_white_balance"] == [2.0, 1.0, 1.5]
        assert recording.events["kind"].tolist() == [b"trigger", b"end"]
        row = recording.raw_frames[0]
        assert (row["exposure_us"], row["gain_db"], row["segment"]) == (250.0, 6.0, 1)
        assert row["realtime_offset_ns"] == 1_700_000_000_000_000_000


def test_the_first_trigger_comes_before_there_is_so_much(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.2, post_trigger_s=0.1)
    run.come(3)
    run.recorder.trigger("key")
    run.come(20)
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 0, 14)


def test_ids_that_never_came_are_counted_as_missing(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=0.1)
    run.come(45)
    run.rings.lose(3)
    run.come(10)
    run.recorder.trigger("key")
    run.come(20)
    assert run.ended()["missing"] == {"raw": 0}
    run.recorder.trigger("key")
    run.come(5)
    run.rings.lose(2)
    run.come(15)
    assert run.ended()["missing"] == {"raw": 2}
    assert run.ended()["wanted"] == run.ended()["frames"] == {"raw": 21}


def test_frames_that_come_faster_than_they_are_written_end_it_cleanly(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=2)
    run.come(50)
    run.recorder.trigger("key")
    run.come(10)
    run.rings.come(60)  # while the disk stands still
    run.turn()
    ended = run.ended()
    assert ended["failed"]
    assert "too slow" in ended["reason"]
    assert ended["frames"]["raw"] + ended["lapped"]["raw"] == ended["wanted"]["raw"] == 80
    assert run.recorder.state == "armed"
    with open_recording(ended["file"]) as recording:
        assert recording.complete
        require_raw(recording, 40, ended["frames"]["raw"])
        assert recording.events["kind"].tolist() == [b"trigger", b"lapped"]
    run.recorder.trigger("again")
    run.come(205)
    assert run.ended()["lapped"] == {"raw": 0}


def test_a_pre_trigger_that_the_ring_no_longer_has_begins_later(rig: Callable[..., Rig]) -> None:
    run = rig(slots=20, pre_trigger_s=0.3, post_trigger_s=0.1)
    run.come(100)
    run.recorder.trigger("key")
    run.come(20)
    ended = run.ended()
    assert ended["wanted"] == ended["frames"]
    assert ended["lapped"] == {"raw": 0}
    assert (ended["failed"], ended["reason"]) == (False, "its end has come")
    first = ended["ids"]["raw"][0] - 1
    assert first > 70
    assert ended["short_s"] == round((first - 70) * PERIOD_NS * 1e-9, 3)
    with open_recording(ended["file"]) as recording:
        require_raw(recording, first, ended["frames"]["raw"])
        assert recording.raw_frames["frame_id"][-1] == 111
        assert recording.events["text"].tolist() == [
            b"key",
            f"its first {ended['short_s']:g} s were not in the ring any more: it begins later".encode(),
            b"its end has come",
        ]


def test_a_pre_trigger_that_nobody_can_count_any_more_is_told(rig: Callable[..., Rig]) -> None:
    """As when the camera has become faster than at the start."""
    run = rig(slots=16, pre_trigger_s=0.3, post_trigger_s=0.1)
    run.come(100)
    run.recorder.trigger("key")
    assert run.told[-1]["short_s"] == 0.15  # frames 70 to 84
    run.come(20)
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 86, 25)  # one more had to make room meanwhile
        assert recording.events["text"].tolist()[:2] == [
            b"key",
            b"its first 0.16 s were not in the ring any more: it begins later",
        ]
    assert (run.ended()["lapped"], run.ended()["short_s"]) == ({"raw": 0}, 0.16)


def test_frames_that_went_with_a_grab_process_leave_a_hole_and_no_end(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=0.1)
    run.come(50)
    run.recorder.trigger("key")
    run.rings.come(4)
    run.rings.spoil(52)
    run.come(20)
    ended = run.ended()
    assert (ended["frames"], ended["lapped"], ended["missing"]) == ({"raw": 20}, {"raw": 1}, {"raw": 1})
    assert not ended["failed"]


def test_start_records_from_the_first_frame_until_it_is_as_long_as_it_may_be(rig: Callable[..., Rig]) -> None:
    run = rig(record_seconds=0.3)
    assert run.recorder.state == "recording"
    run.wait(5)  # the camera takes its time
    run.come(50)
    assert run.recorder.state == "idle"
    assert run.ended()["reason"] == "record_seconds are over"
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 0, 31)


def test_start_records_until_the_stream_ends(rig: Callable[..., Rig]) -> None:
    run = rig()
    run.come(30)
    run.rings.come(3)  # not yet looked at
    run.recorder.close()
    assert run.ended()["reason"] == "the stream ended"
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 0, 33)


def test_started_and_stopped_by_hand(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1)
    run.come(50)
    with pytest.raises(UserError, match="nothing is being recorded"):
        run.recorder.stop("page")
    run.recorder.start("page")
    run.come(200)
    assert run.recorder.describe()["frames"] == {"raw": 210}
    run.recorder.stop("page")
    run.clock.now_ns += 1
    run.come(5)
    assert run.ended()["reason"] == "page"
    assert run.recorder.state == "armed"
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 40, 210)


def test_a_camera_that_falls_silent_does_not_keep_a_recording_open(rig: Callable[..., Rig]) -> None:
    run = rig(pre_trigger_s=0.1, post_trigger_s=0.5)
    run.come(50)
    run.recorder.trigger("key")
    run.come(5)
    run.wait(0.4)
    assert run.recorder.state == "recording"
    run.wait(0.3)
    assert run.recorder.state == "armed"
    assert run.ended()["frames"] == {"raw": 15}


def test_both_kinds(rig: Callable[..., Rig]) -> None:
    run = rig(record_what="both", pre_trigger_s=0.1, post_trigger_s=0.1)
    run.come(50)
    run.recorder.trigger("key")
    for _ in range(20):  # the engine is some frames behind
        run.rings.come()
        run.turn()
    assert run.recorder.state == "recording"
    run.rings.develop()
    run.turn()
    assert run.ended()["frames"] == run.ended()["wanted"] == {"raw": 21, "srgb": 21}
    with open_recording(run.ended()["file"]) as recording:
        require_raw(recording, 40, 21)
        assert recording.srgb_frames["sequence"].tolist() == list(range(40, 61))
        assert recording.srgb_frames["published_ns"][0] == recording.srgb_frames["grabbed_ns"][0] + 2000
        assert recording.srgb_frames["wb_r"][0] == 2
        for i in range(21):
            assert np.array_equal(recording.read_srgb(i), srgb_frame(40 + i))


def test_srgb_frames_that_are_lapped_end_it(rig: Callable[..., Rig]) -> None:
    run = rig(record_what="srgb", pre_trigger_s=0.1, post_trigger_s=5)
    run.come(50)
    run.recorder.trigger("key")
    run.come(5)
    run.rings.come(60)
    run.rings.develop()
    run.turn()
    ended = run.ended()
    assert ended["failed"]
    assert ended["frames"]["srgb"] + ended["lapped"]["srgb"] == ended["wanted"]["srgb"] == 75
    with open_recording(ended["file"]) as recording:
        assert recording.srgb_frames["sequence"].tolist() == list(range(40, 40 + recording.srgb_count))


def test_a_first_srgb_frame_that_is_gone_does_not_shorten_it(rig: Callable[..., Rig]) -> None:
    run = rig(record_what="srgb", pre_trigger_s=0.1, post_trigger_s=0.2, record_seconds=1)
    run.come(50)
    run.recorder.trigger("key")
    run.rings.srgb.generations[40 % run.rings.srgb.slots] += 1
    run.come(30)
    ended = run.ended()
    assert (ended["reason"], ended["frames"], ended["lapped"]) == ("its end has come", {"srgb": 30}, {"srgb": 0})
    assert ended["short_s"] == 0.01


def test_first_frames_of_the_run_that_are_gone_count_as_lapped(rig: Callable[..., Rig]) -> None:
    """A recording from the first frame on has no time that it could be short of."""
    run = rig()
    run.rings.come(60)
    run.turn()
    run.recorder.close()
    ended = run.ended()
    assert (ended["wanted"], ended["lapped"]["raw"]) == ({"raw": 60}, 60 - ended["frames"]["raw"])
    assert ended["lapped"]["raw"] >= 20
    assert "short_s" not in ended


def test_a_full_disk_ends_the_recording_and_nothing_else(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the disk is full is played; `test_hdf.py` has a real one."""
    run = rig(pre_trigger_s=0.1, post_trigger_s=1)
    room = HdfWriter.room

    def no_more(writer: HdfWriter, kind: str) -> int:
        if writer.counts[kind] >= 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return min(room(writer, kind), 30 - writer.counts[kind])

    monkeypatch.setattr(HdfWriter, "room", no_more)
    run.come(50)
    run.recorder.trigger("key")
    run.come(50)
    ended = run.ended()
    assert ended["failed"]
    assert ended["reason"] == f"{run.folder} cannot be written (no space left on device)"
    assert ended["frames"] == {"raw": 30}
    assert ended["wanted"]["raw"] == 30 + ended["lapped"]["raw"]
    assert run.recorder.state == "armed"
    with open_recording(ended["file"]) as recording:
        require_raw(recording, 40, 30)
        assert recording.complete


@pytest.mark.parametrize(
    ("writer", "method", "settings"),
    [(DngWriter, "_write_file", {"record_format": "dng"}), (Mp4Writer, "_encode", {"record_format": "mp4"})],
)
def test_a_disk_that_fails_in_the_middle_of_a_batch(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, writer: Any, method: str, settings: dict[str, Any]
) -> None:
    """What was written of the batch counts, and has its ids. That the disk fails is played."""
    run = rig(pre_trigger_s=0.1, post_trigger_s=1, record_fps=0, **settings)
    kind, really, calls = ("srgb" if writer is Mp4Writer else "raw"), getattr(writer, method), []

    def fail(self: Any, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise OSError(errno.EIO, "Input/output error")
        really(self, *arguments)

    monkeypatch.setattr(writer, method, fail)
    run.come(50)
    run.recorder.trigger("key")
    run.come(1)
    ended = run.ended()
    assert (ended["failed"], ended["frames"], ended["ids"]) == (True, {kind: 4}, {kind: [41, 44]})
    assert ended["wanted"] == {kind: 4 + ended["lapped"][kind]} == {kind: 11}


def test_what_the_disk_cannot_hold_is_refused(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    four_gib = os.statvfs_result((4096, 4096, 1 << 22, 1 << 20, 1 << 20, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: four_gib)  # some disks here would hold it
    run = rig(record_on=["line"], pre_trigger_s=0.1, post_trigger_s=80_000)
    run.come(50, flags=line_flags(0))
    with pytest.raises(UserError, match=r"needs \d+ MiB, and .* has \d+ MiB free"):
        run.recorder.trigger("control")
    run.come(1, flags=line_flags(1))  # nobody is there to be answered
    assert run.told[-1]["change"] == "refused"
    assert run.told[-1]["state"] == "armed"
    assert list(run.folder.iterdir()) == []


def test_a_folder_that_is_gone_refuses_a_recording(rig: Callable[..., Rig]) -> None:
    run = rig(record_on=["line"], pre_trigger_s=0.1, post_trigger_s=0.2)
    run.come(50, flags=line_flags(0))
    run.folder.rmdir()
    with pytest.raises(UserError, match=r"recordings cannot be written \(no such file or directory\)"):
        run.recorder.trigger("control")
    run.come(1, flags=line_flags(1))
    assert (run.told[-1]["change"], run.told[-1]["state"]) == ("refused", "armed")
    run.folder.mkdir()
    run.recorder.trigger("control")
    run.come(30)
    assert run.ended()["frames"] == {"raw": 31}


def test_a_recording_without_a_frame_leaves_no_file(rig: Callable[..., Rig]) -> None:
    run = rig()
    assert len(recordings(run)) == 1
    run.recorder.close()
    assert run.ended()["frames"] == {"raw": 0}
    assert list(run.folder.iterdir()) == []
