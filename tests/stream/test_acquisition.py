"""What an acquisition decides when it opens a camera; how it moves frames is in camera/test_grab.py."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path

import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.acquisition import Acquisition
from ispeed.stream.camera.discovery import Discovery
from ispeed.stream.camera.gentl import (
    BUFFER_INFO_FRAMEID,
    BUFFER_INFO_IS_INCOMPLETE,
    BUFFER_INFO_SIZE_FILLED,
    GC_ERR_NOT_AVAILABLE,
    DataStream,
    FrameInfos,
)
from ispeed.stream.camera.sources import NOTHING
from ispeed.stream.config import make_config
from ispeed.stream.frame import FrameRecord
from ispeed.stream.hold import HoldOptions
from ispeed.stream.queues import GrantQueue, ReturnQueue
from ispeed.stream.ring import Ring, Word


@pytest.fixture
def acquire(runtime_dir, monkeypatch):
    """Opens cameras; closes them in the end."""
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    opened: list[Acquisition] = []

    def start(**settings) -> Acquisition:
        opened.append(Acquisition(make_config(settings), wake))
        return opened[-1]

    yield start
    for acquisition in opened:
        acquisition.close()
    os.close(wake)


@pytest.fixture
def frames(acquire):
    """Runs an acquisition for some frames and returns their records."""

    def run(acquisition: Acquisition, count: int, counted: Word = Word.RETURN_TAIL) -> list[FrameRecord]:
        ring = Ring.create("raw", 128, acquisition.geometry.payload, stream_id=1)
        fds = [os.dup(ring.fd), os.eventfd(0), os.eventfd(0)]
        grants, returns = GrantQueue(ring), ReturnQueue(ring)
        acquisition.attach(fds, HoldOptions("every", depth=4), timeout_ms=1000)
        acquisition.consumer(epoch=1)
        acquisition.start(segment=1)
        got: list[FrameRecord] = []
        deadline = time.monotonic() + 10
        while ring.words[counted] < count:
            assert time.monotonic() < deadline
            records = grants.peek(4)
            grants.take(len(records))
            for record in records:
                returns.put(record.slot, epoch=1)
            os.eventfd_write(fds[2], 1)
            got += records
            time.sleep(0.002)
        acquisition.stop(drain=False)
        del grants, returns
        ring.close()
        return got

    return run


@pytest.fixture
def refusing(monkeypatch):
    """Producers that take no memory of ours; none of those at hand refuses it."""
    monkeypatch.setattr(DataStream, "accepts_foreign_memory", lambda self, size: False)


def test_a_producer_that_refuses_our_memory_is_copied_from_with_a_warning(acquire, refusing):
    acquisition = acquire()
    assert acquisition.geometry.acquisition == "copy"
    assert "frames are copied" in acquisition.warnings[0]


def test_zero_copy_that_was_asked_for_is_not_given_up_silently(acquire, refusing):
    with pytest.raises(UserError, match="takes no memory of ours: choose --acquisition copy"):
        acquire(acquisition="zero-copy")
    acquire(acquisition="copy")  # the failed attempt let go of the camera


def test_copy_that_was_asked_for_tries_nothing_else(acquire):
    acquisition = acquire(acquisition="copy")
    assert (acquisition.geometry.acquisition, acquisition.warnings) == ("copy", [])


def test_a_scene_is_for_the_simulated_camera(acquire):
    genicam = pytest.importorskip("genicam")
    viky = Path(genicam.__file__).with_name("viky.cti")
    with pytest.raises(
        UserError, match=r"scene is for the simulated camera, and 0 is a Machine Vision Games Ltd\. Viky"
    ):
        acquire(cti=[viky], scene="target")


def test_a_trigger_set_by_feature_name_makes_the_rate_unknown(acquire):
    assert acquire(features={"TriggerMode": "On"}).geometry.fps == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (64, 32, 60, 4000)), ({"width": 32, "height": 16, "black_level": 0}, (32, 16, 0, 4000))],
)
def test_a_file_brings_size_format_and_levels_unless_they_are_given(acquire, tmp_path, given, expected):
    (tmp_path / "x.raw").write_bytes(bytes(2 * 64 * 32))
    scene = f"{tmp_path / 'x.raw'}?width=64&height=32&format=BayerBG12&black=60&white=4000"
    geometry = acquire(scene=scene, **given).geometry
    assert geometry.pixel_format == "BayerBG12"
    assert (geometry.width, geometry.height, geometry.black_level, geometry.white_level) == expected


@pytest.mark.parametrize(
    ("at", "parts"),
    [
        (["5:NoSuchFeature=1"], ["at 5 frames", "SIM0001", "NoSuchFeature"]),
        (["5:ExposureTim=1"], ["did you mean ExposureTime?"]),
        (["5:Width=64"], ["Width", "cannot be set", "only be read"]),  # as soon as it streams
        (["5:BlackLevel=5"], ["at 5 frames", "BlackLevel cannot be set during a run"]),  # the camera takes it
        (["5:ExposureTime=1e12"], ["ExposureTime", "1 to 1e+06 us"]),
        (["5:ExposureAuto=Sometimes"], ["ExposureAuto", "Continuous"]),
        (["5:DeviceTemperature=3"], ["DeviceTemperature", "cannot be set"]),
        (["5:ExposureTime=200", "9:Gain=99"], ["at 9 frames", "Gain", "0 to 24 dB"]),
        (["9:Gain=1", "5:PixelFormat=BayerRG8"], ["at 5 frames", "PixelFormat"]),
    ],
)
def test_changes_that_cannot_be_made_are_refused_before_the_first_frame(acquire, at, parts):
    with pytest.raises(UserError) as caught:
        acquire(at=at)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changes_that_can_be_made_leave_the_camera_as_it_was(acquire):
    acquisition = acquire(width=64, at=["5:TriggerSoftware=true", "7:ExposureAuto=Continuous", "9:ExposureTime=1e12"])
    assert acquisition.set("Width", 128) == 128  # not locked
    assert acquisition.set("ExposureAuto", "Off") == "Off"


def test_an_incomplete_copy_ends_no_drain(acquire):
    acquisition = acquire(**SMALL, acquisition="copy", trigger=True, features={"TriggerSource": "Software"})
    source, stopping = acquisition._source, threading.Event()
    wait, stop = source.wait, source.stop

    def wait_until_stopping(timeout_ms: int) -> int:
        return wait(timeout_ms) if stopping.wait(0.01) else NOTHING

    def stop_and_tell(gone: bool) -> None:
        stop(gone)
        stopping.set()

    source.wait, source.stop = wait_until_stopping, stop_and_tell
    ring = Ring.create("raw", 16, acquisition.geometry.payload, stream_id=1)
    acquisition.attach([os.dup(ring.fd), os.eventfd(0), os.eventfd(0)], HoldOptions("every", depth=4), timeout_ms=1000)
    acquisition.start(segment=1)
    for incomplete in (0, 1, 0, 1, 0):
        acquisition.set("SimIncompleteCount", incomplete)
        before = source.undelivered()
        acquisition.trigger()
        deadline = time.monotonic() + 10
        while source.undelivered() == before:
            assert time.monotonic() < deadline
            time.sleep(0.002)
    acquisition.stop(drain=False)
    assert (ring.words[Word.SEEN], ring.words[Word.INCOMPLETE], ring.words[Word.STOPPED_GRAB]) == (5, 2, 3)
    assert (ring.words[Word.CAMERA_GAP], ring.words[Word.LAST_FRAME_ID]) == (0, 5)
    ring.close()


SMALL = {"width": 64, "height": 48, "pixel_format": "BayerRG8", "fps": 300}


def test_a_producer_without_stacked_infos_is_asked_one_by_one(acquire, frames):
    acquisition = acquire(**SMALL)
    stream = acquisition._source._stream
    stream.infos = FrameInfos(stream.library, stream.handle, stacked=False)
    records = frames(acquisition, 20)
    assert [record.frame_id for record in records] == list(range(1, len(records) + 1))
    assert all(0 < record.grabbed_ns - record.device_timestamp < 1_000_000_000 for record in records)
    assert stream.infos.told == (True,) * 5


@pytest.mark.parametrize("stacked", [True, False])
def test_frames_are_numbered_here_where_the_producer_has_no_frame_ids_or_sizes(acquire, frames, stacked):
    acquisition = acquire(**SMALL, features={"SimFrameIdStart": 1000})
    stream = acquisition._source._stream
    unknown = 999  # no BUFFER_INFO that any producer knows
    stream.infos = FrameInfos(stream.library, stream.handle, (unknown, 3, 7, unknown, 29), stacked)
    records = frames(acquisition, 20)
    assert stream.infos.told == (False, True, True, False, True)
    assert [record.frame_id for record in records] == list(range(1, len(records) + 1))
    assert {record.size for record in records} == {acquisition.geometry.payload}


class ForgetfulLibrary:
    """A producer that knows neither the id nor the size of a frame of which it has not all."""

    def __init__(self) -> None:
        self.incomplete = True

    def DSGetBufferInfo(self, stream, buffer, command, kind_at, value_at, size_at):  # noqa: N802 (GenTL's name)
        if self.incomplete and command in (BUFFER_INFO_FRAMEID, BUFFER_INFO_SIZE_FILLED):
            return GC_ERR_NOT_AVAILABLE
        value = self.incomplete if command == BUFFER_INFO_IS_INCOMPLETE else buffer
        ctypes.c_uint64.from_address(value_at).value = value
        return 0


def test_what_a_producer_tells_is_decided_by_a_complete_buffer():
    library = ForgetfulLibrary()
    infos = FrameInfos(library, 1, stacked=False)  # type: ignore[arg-type]
    infos.ask(7)
    assert infos.told is None
    library.incomplete = False
    infos.ask(8)
    assert infos.told == (True,) * 5
    assert infos.values.tolist() == [8, 8, 0, 8, 8]


def test_a_buffer_too_short_for_the_picture_is_incomplete_whatever_the_producer_says(acquire, frames):
    acquisition = acquire(**SMALL)
    acquisition._source.least = acquisition.geometry.payload + 1
    assert frames(acquisition, 5, Word.INCOMPLETE) == []


@pytest.mark.parametrize("path", ["zero-copy", "copy"])
def test_a_silent_camera_is_told_to_stop_and_one_that_is_gone_is_not(acquire, path):
    acquisition = acquire(**SMALL, acquisition=path)
    ring = Ring.create("raw", 16, acquisition.geometry.payload, stream_id=1)
    acquisition.attach([os.dup(ring.fd), os.eventfd(0), os.eventfd(0)], HoldOptions("every", depth=4), timeout_ms=200)

    def lose(why: str, **fault: int) -> None:
        acquisition.start(segment=1)
        for name, value in fault.items():
            acquisition.set(name, value)
        deadline = time.monotonic() + 10
        while not acquisition.lost:
            assert time.monotonic() < deadline
            acquisition.check_alive()
            time.sleep(0.02)
        assert why in acquisition.lost
        acquisition.stop(drain=False)

    lose("silent for", SimStallMs=3_600_000)
    assert acquisition._features.read("TLParamsLocked") == 0
    assert acquisition.set("Width", 128) == 128  # refused while the camera acquires
    acquisition.set("Width", 64)
    asked: list[str] = []
    setting = acquisition._features.set_if_there
    acquisition._features.set_if_there = lambda name, value: asked.append(name) or setting(name, value)
    lose("does not answer", SimVanish=1)
    assert "AcquisitionStop" not in asked
    ring.close()


def test_a_camera_that_was_left_acquiring_is_stopped_before_it_is_set_up(acquire):
    with Discovery() as discovery:
        camera = discovery.open("SIM0001")
    camera.node_map.SimKeepsAcquiring.value = True
    camera.node_map.TLParamsLocked.value = 1
    camera.node_map.AcquisitionStart.execute()
    camera.close()
    acquisition = acquire(**SMALL)
    assert (acquisition.geometry.width, acquisition.geometry.height) == (64, 48)
    acquisition.set("SimKeepsAcquiring", False)
