"""The recorder: what is recorded around a trigger, how it ends, and that every frame is accounted for."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_rings import FORMAT, GEOMETRY, PERIOD_NS, Clock, Rings, raw_frame, srgb_frame

from ispeed.engines.errors import UserError
from ispeed.stream.config import make_config
from ispeed.stream.frame import line_flags
from ispeed.stream.record import Recording, open_recording
from ispeed.stream.record.feed import RawFeed, SrgbFeed
from ispeed.stream.record.hdf import Contents, HdfWriter
from ispeed.stream.record.plan import make_plan
from ispeed.stream.record.recorder import Recorder
from ispeed.stream.record.triggers import BrightnessJump, LineEdge

RATE = 1e9 / PERIOD_NS


class Rig:
    """A recorder on rings that the test fills."""

    def __init__(self, clock: Clock, folder: Path, slots: int, **settings: Any) -> None:
        self.clock, self.folder = clock, folder
        self.rings = Rings(clock, slots)
        config = make_config({"record": folder, **settings})
        plan = make_plan(config)
        assert plan is not None
        self.told: list[dict[str, Any]] = []
        srgb = SrgbFeed(self.rings.srgb, self.rings.raw.words, FORMAT.width * FORMAT.height * 3)
        conditions: list[Any] = [LineEdge(config.record_line)] if "line" in plan.on else []
        if "brightness" in plan.on:
            conditions.append(BrightnessJump(self.rings.raw, FORMAT, config.brightness_jump))
        self.recorder = Recorder(
            plan,
            [RawFeed(self.rings.raw, FORMAT.payload_size, slots - 4), srgb],
            FORMAT,
            Contents(
                FORMAT if "raw" in plan.kinds else None,
                (FORMAT.width, FORMAT.height) if "srgb" in plan.kinds else None,
                {"serial": "TEST1"},
                {"geometry": GEOMETRY, "calibration": {"white_balance": None}},
            ),
            conditions,
            fps=RATE,
            record_fps=config.record_fps,
            in_flight=lambda: self.rings.in_flight,
            gains=srgb.gains,
            tell=self.told.append,
        )
        self.recorder.begin()

    def come(self, count: int, **how: Any) -> None:
        """Frames come one by one, and the recorder keeps up."""
        for _ in range(count):
            self.rings.come(**how)
            self.rings.develop()
            self.turn()

    def turn(self) -> None:
        """The recorder does what is to be done."""
        while self.recorder.turn() == 0.0:
            pass

    def wait(self, seconds: float = 0.2) -> None:
        """No frame comes for a while."""
        self.clock.sleep(seconds)
        self.turn()

    def ended(self) -> dict[str, Any]:
        """What was told of the recording that has ended last."""
        return [message for message in self.told if message["change"] == "ended"][-1]

    def close(self) -> None:
        del self.recorder
        gc.collect()
        self.rings.close()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    """Makes a recorder. The clock is played: the test turns it."""
    clock = Clock()
    for module in ("recorder", "take"):
        monkeypatch.setattr(f"ispeed.stream.record.{module}.time", clock)
    rigs: list[Rig] = []

    def make(slots: int = 40, **settings: Any) -> Rig:
        rigs.append(Rig(clock, tmp_path / "recordings", slots, **settings))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


def require_raw(recording: Recording, first: int, count: int, levels: Callable[[int], float] = lambda n: 0.3) -> None:
    """The recording has raw frames [first, first + count), and every byte of them is right."""
    assert recording.raw_frames["device_timestamp"].tolist() == [5 * (n + 1) for n in range(first, first + count)]
    for i in range(count):
        assert np.array_equal(recording.read_raw(i), raw_frame(first + i, levels(first + i)))


def recordings(rig: Rig) -> list[Path]:
    """The files, oldest first."""
    return sorted(rig.folder.glob("*.h5"), key=lambda path: path.stat().st_mtime_ns)


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
    assert ended["wanted"]["raw"] == ended["frames"]["raw"] + ended["lapped"]["raw"]
    assert ended["lapped"]["raw"] > 0
    assert not ended["failed"]
    with open_recording(ended["file"]) as recording:
        require_raw(recording, ended["ids"]["raw"][0] - 1, ended["frames"]["raw"])
        assert recording.raw_frames["frame_id"][-1] == 111


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
            b"its first 0.15 s are not in the ring any more: it begins later",
        ]
    assert run.ended()["lapped"] == {"raw": 1}


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


def test_a_trigger_in_the_last_frames_keeps_nobody_waiting(rig: Callable[..., Rig]) -> None:
    run = rig(record_on=["line"], pre_trigger_s=0.1, post_trigger_s=100)
    run.come(50, flags=line_flags(0))
    run.come(1, flags=line_flags(1))
    run.come(1, flags=line_flags(0))
    run.rings.come(1, flags=line_flags(1))  # not yet looked at
    run.recorder.close()
    assert (run.ended()["reason"], run.ended()["failed"]) == ("the stream ended", False)
    assert run.ended()["frames"] == {"raw": 13}


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
    assert (ended["reason"], ended["frames"], ended["lapped"]) == ("its end has come", {"srgb": 30}, {"srgb": 1})


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


def test_what_the_disk_cannot_hold_is_refused(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_recording_without_a_frame_leaves_no_file(rig: Callable[..., Rig]) -> None:
    run = rig()
    assert len(recordings(run)) == 1
    run.recorder.close()
    assert run.ended()["frames"] == {"raw": 0}
    assert list(run.folder.iterdir()) == []
