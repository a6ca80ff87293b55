"""The faults that the simulated camera makes on request."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from genicam import gentl

from ispeed.stream.camera.simcam import producer_path

COUNT_CAMERAS = """
import sys
from harvesters.core import Harvester
h = Harvester()
h.add_file(sys.argv[1])
h.update()
print([d.serial_number for d in h.device_info_list])
h.reset()
"""


def test_skipped_frames_leave_a_gap(rig: Any) -> None:
    rig.set(TriggerMode="On")
    rig.start()
    ids = []
    for skip in (0, 3, 0):
        rig.set(SimSkipCount=skip)
        for _ in range(skip + 1):
            rig.features.TriggerSoftware.execute()
        ids.append(rig.frame().frame_id)
    assert ids == [1, 5, 6]
    assert rig.stream.num_underrun == 0


def test_every_nth_frame_is_skipped(rig: Any) -> None:
    rig.set(SimSkipEvery=4)
    rig.start()
    assert [frame.frame_id for frame in rig.frames(8)] == [1, 2, 3, 5, 6, 7, 9, 10]


def test_incomplete_frames_have_half_their_bytes(rig: Any) -> None:
    rig.set(SimIncompleteEvery=3, SimIncompleteCount=1, ChunkModeActive=True)
    rig.start()
    frames = rig.frames(6)
    whole = rig.features.PayloadSize.value
    assert [(frame.frame_id, frame.incomplete) for frame in frames] == [(i, i in (1, 3, 6)) for i in range(1, 7)]
    assert {(frame.incomplete, frame.filled) for frame in frames} == {(True, whole // 2), (False, whole)}
    assert [bool(frame.chunks) for frame in frames] == [not frame.incomplete for frame in frames]


def test_harvesters_passes_over_incomplete_frames(rig: Any) -> None:
    rig.set(SimIncompleteEvery=2, AcquisitionFrameRate=20.0)  # slow: no frame finds all buffers taken
    rig.acquirer.start()
    ids = []
    for _ in range(3):
        buffer = rig.acquirer.fetch(timeout=3, is_raw=True)
        ids.append(buffer.frame_id)
        buffer.parent.queue_buffer(buffer, False)
    rig.acquirer.stop()
    assert ids == [1, 3, 5]


def test_a_stall_delays_and_loses_nothing(rig: Any) -> None:
    rig.set(AcquisitionFrameRate=50.0)  # few enough for the eight buffers, whatever else is at work
    rig.start()
    rig.frames(3)
    stalled = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    rig.set(SimStallMs=200)
    frames = [frame for frame in rig.frames(10) if frame.timestamp > stalled]
    first = rig.frame() if not frames else frames[0]
    assert first.timestamp - stalled >= 150_000_000
    ids = [frame.frame_id for frame in frames]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert rig.features.SimStallMs.value == 0


def test_frame_ids_of_16_bits_skip_zero(rig: Any, read_number: Callable[..., int]) -> None:
    rig.set(SimFrameIdBits=16, SimFrameIdStart=65534, ChunkModeActive=True)
    rig.start()
    frames = rig.frames(5)
    assert [frame.frame_id for frame in frames] == [65534, 65535, 1, 2, 3]
    assert [frame.chunks["ChunkFrameID"] for frame in frames] == [65534, 65535, 1, 2, 3]
    numbers = [read_number(rig.samples(frame)) for frame in frames]  # the picture tells how often they wrapped
    assert numbers == list(range(65534, 65539))


@pytest.mark.parametrize(("modulo", "ids"), [(1, [0] * 5), (3, [1, 2, 0, 1, 2])])
def test_frame_ids_that_stand_still_or_repeat(rig: Any, modulo: int, ids: list[int]) -> None:
    rig.set(SimFrameIdModulo=modulo)
    rig.start()
    assert [frame.frame_id for frame in rig.frames(5)] == ids


def test_incomplete_frames_without_their_id(rig: Any) -> None:
    rig.set(SimIncompleteEvery=2, SimIncompleteWithoutId=True)
    rig.start()
    assert [(frame.frame_id, frame.incomplete) for frame in rig.frames(3)] == [(1, False), (0, True), (3, False)]


def test_an_image_that_begins_late_and_has_padded_rows(rig: Any, read_number: Callable[..., int]) -> None:
    rig.set(Width=64, Height=48, PixelFormat="BayerRG8", ChunkModeActive=True, SimImageOffset=40, SimRowPadding=8)
    rig.start()
    for number in (1, 2):
        frame = rig.frame()
        assert frame.filled == rig.features.PayloadSize.value > 40 + 48 * (64 + 8)
        assert frame.chunks["ChunkFrameID"] == number
        frame.payload = frame.payload[40 : 40 + 48 * 72].reshape(48, 72)[:, :64].reshape(-1)
        assert read_number(rig.samples(frame)) == number


def test_a_camera_that_acquires_on_is_found_so(harvester: Any, open_rig: Callable[..., Any]) -> None:
    rig = open_rig()
    rig.set(SimKeepsAcquiring=True)
    rig.start()
    rig.frame()
    rig.acquirer.destroy()  # without AcquisitionStop
    found = harvester.create({"serial_number": "SIM0001"})
    features = found.remote_device.node_map
    try:
        with pytest.raises(gentl.AccessDeniedException):
            features.Width.value = 64
    finally:
        features.AcquisitionStop.execute()
        features.SimKeepsAcquiring.value = False
        found.destroy()
    again = open_rig()
    again.start()
    assert again.frame().frame_id == 1


def test_frame_ids_begin_anew_with_each_acquisition(rig: Any) -> None:
    rig.set(SimFrameIdStart=7)
    for _ in range(2):
        rig.start()
        assert [frame.frame_id for frame in rig.frames(3)] == [7, 8, 9]
        rig.stop()


def test_a_vanished_camera_comes_back(harvester: Any, open_rig: Callable[..., Any]) -> None:
    rig = open_rig()
    rig.start()
    rig.frame()
    vanished = time.monotonic()
    rig.set(SimVanish=1500)
    while rig.poll(30):
        pass
    with pytest.raises(gentl.IoException):
        rig.features.Width.value  # noqa: B018
    command = [sys.executable, "-c", COUNT_CAMERAS, str(producer_path())]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert elsewhere == "['SIM0002']\n" or time.monotonic() - vanished > 1.5
    rig.close()
    harvester.update()
    assert len(harvester.device_info_list) == 1 or time.monotonic() - vanished > 1.5
    time.sleep(max(0.0, vanished + 1.6 - time.monotonic()))
    harvester.update()
    assert [d.serial_number for d in harvester.device_info_list] == ["SIM0001", "SIM0002"]
    again = open_rig()
    again.start()
    assert again.frame().frame_id == 1


def test_a_camera_that_came_back_must_be_opened_anew(rig: Any) -> None:
    rig.set(SimVanish=1)
    time.sleep(0.05)
    with pytest.raises(gentl.IoException):
        rig.features.Width.value  # noqa: B018


def test_one_that_vanished_for_good_stays_away(harvester: Any, open_rig: Callable[..., Any]) -> None:
    # In a process of its own: it stays away until that ends.
    script = COUNT_CAMERAS.replace(
        "print(",
        'c = h.create({"serial_number": "SIM0001"})\n'
        "c.remote_device.node_map.SimVanish.value = 0\n"
        "c.destroy()\n"
        "h.update()\n"
        "print(",
    )
    command = [sys.executable, "-c", script, str(producer_path())]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert there == "['SIM0002']\n"
    harvester.update()
    assert len(harvester.device_info_list) == 2
