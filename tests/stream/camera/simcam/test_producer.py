"""The simulated camera as a GenTL producer: what it exports, who may open it, its features and its buffers."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from genicam import genapi, gentl

from ispeed.engines.errors import UserError
from ispeed.stream.camera import simcam

_NAMES = """
GCCloseLib GCGetInfo GCGetLastError GCGetNumPortURLs GCGetPortInfo GCGetPortURL GCGetPortURLInfo GCInitLib GCReadPort
GCReadPortStacked GCRegisterEvent GCUnregisterEvent GCWritePort GCWritePortStacked
TLClose TLGetInfo TLGetInterfaceID TLGetInterfaceInfo TLGetNumInterfaces TLOpen TLOpenInterface TLUpdateInterfaceList
IFClose IFGetDeviceID IFGetDeviceInfo IFGetInfo IFGetNumDevices IFGetParentTL IFOpenDevice IFUpdateDeviceList
DevClose DevGetDataStreamID DevGetInfo DevGetNumDataStreams DevGetParentIF DevGetPort DevOpenDataStream
DSAllocAndAnnounceBuffer DSAnnounceBuffer DSAnnounceCompositeBuffer DSClose DSFlushQueue DSGetBufferChunkData
DSGetBufferID DSGetBufferInfo DSGetBufferPartInfo DSGetBufferSegmentInfo DSGetFlowInfo DSGetInfo DSGetNumBufferParts
DSGetNumBufferSegments DSGetNumFlows DSGetParentDev DSQueueBuffer DSRevokeBuffer DSStartAcquisition DSStopAcquisition
EventFlush EventGetData EventGetDataInfo EventGetInfo EventKill
"""
EXPORTS = _NAMES.split()
LATER = "DSAnnounceCompositeBuffer DSGetNumFlows DSGetFlowInfo DSGetNumBufferSegments DSGetBufferSegmentInfo"
NOT_IMPLEMENTED, INVALID_HANDLE, INVALID_PARAMETER = -1003, -1006, -1009

HOLD_CAMERA = """
import sys
from harvesters.core import Harvester
h = Harvester()
h.add_file(sys.argv[1])
h.update()
camera = h.create({"serial_number": "SIM0001"})
print("open", flush=True)
sys.stdin.read()
camera.destroy()
h.reset()
"""


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(simcam.producer_path()))


def test_exports_all_that_the_binding_resolves() -> None:
    library = _library()
    assert len(EXPORTS) == 62
    assert [name for name in EXPORTS if not hasattr(library, name)] == []


@pytest.mark.parametrize("name", sorted(set(EXPORTS) - {"GCInitLib", "GCCloseLib"}))
def test_null_handles_are_refused(name: str, harvester: Any) -> None:
    result = getattr(_library(), name)(*8 * [None])
    if name in (*LATER.split(), "DSGetBufferPartInfo"):  # GenTL 1.6, and payloads of several parts
        assert result == NOT_IMPLEMENTED
    else:
        assert result in (INVALID_HANDLE, INVALID_PARAMETER)


def test_foreign_pointers_are_no_handles(harvester: Any) -> None:
    foreign = ctypes.create_string_buffer(4096)
    size = ctypes.c_size_t(64)
    for name in ("DSQueueBuffer", "GCReadPort", "EventKill", "DevClose", "TLClose", "IFClose"):
        assert getattr(_library(), name)(foreign, foreign, foreign, ctypes.byref(size)) == INVALID_HANDLE


def test_last_error_says_what_was_wrong(harvester: Any) -> None:
    library = _library()
    library.TLClose(None)
    code, text, size = ctypes.c_int32(), ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    assert library.GCGetLastError(ctypes.byref(code), text, ctypes.byref(size)) == 0
    assert code.value == INVALID_HANDLE
    assert b"not the handle of an open module" in text.value


def test_two_cameras_are_found(harvester: Any) -> None:
    found = [(d.vendor, d.model, d.serial_number, d.access_status) for d in harvester.device_info_list]
    assert found == [("ispeed", "SimCam", serial, 1) for serial in simcam.SERIAL_NUMBERS]


def test_one_process_may_open_both(open_rig: Callable[..., Any]) -> None:
    rigs = [open_rig(serial) for serial in simcam.SERIAL_NUMBERS]
    for rig in rigs:
        rig.start()
    assert [rig.features.DeviceSerialNumber.value for rig in rigs] == list(simcam.SERIAL_NUMBERS)
    assert [frame.frame_id for rig in rigs for frame in rig.frames(2)] == [1, 2, 1, 2]


def test_a_camera_is_busy_while_another_process_lives(harvester: Any) -> None:
    command = [sys.executable, "-c", HOLD_CAMERA, str(simcam.producer_path())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        harvester.update()
        assert [d.access_status for d in harvester.device_info_list] == [4, 1]
        with pytest.raises(gentl.ResourceInUseException):
            harvester.create({"serial_number": "SIM0001"})
        holder.kill()
        holder.wait()
    harvester.update()
    assert [d.access_status for d in harvester.device_info_list] == [1, 1]
    harvester.create({"serial_number": "SIM0001"}).destroy()


def test_lock_files_are_private(rig: Any, runtime_dir: Path) -> None:
    assert [(path.name, path.stat().st_mode & 0o777) for path in runtime_dir.iterdir() if "SIM0001" in path.name] == [
        (f"ispeed-simcam-{os.geteuid()}-SIM0001.lock", 0o600)
    ]


def test_a_missing_producer_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(simcam, "_PRODUCER", "absent.cti")
    with pytest.raises(UserError, match="no C compiler was found: install gcc and reinstall ispeed"):
        simcam.producer_path()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_compiles_without_warnings(tmp_path: Path) -> None:
    folder = Path(simcam.__file__).parent
    sources = sorted(path.name for path in folder.glob("*.c"))
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared"]
    output = str(tmp_path / "simcam.cti")
    done = subprocess.run(["gcc", *flags, "-o", output, *sources, "-lm", "-lpthread"], cwd=folder, check=False)
    assert done.returncode == 0


# ---- features -------------------------------------------------------------------------------------------------


def test_every_feature_can_be_read(rig: Any) -> None:
    names = [name for name in dir(rig.features) if name[0].isupper()]
    readable = [name for name in names if getattr(rig.features, name).get_access_mode() >= genapi.EAccessMode.RO]
    values = {name: getattr(rig.features, name).to_string() for name in readable if name != "Root"}
    assert values["SimScene"] == "Target"
    assert values["PixelFormat"] == "BayerRG8"
    assert {"ExposureTime", "Gain", "BlackLevel", "BalanceRatio", "DeviceTemperature", "PayloadSize"} < set(values)


def test_region_of_interest_is_limited_by_the_sensor(rig: Any) -> None:
    f = rig.features
    assert (f.Width.min, f.Width.max, f.Width.inc, f.Height.inc, f.OffsetX.max) == (16, 8192, 4, 2, 8192 - 256)
    rig.set(OffsetX=8192 - 256, OffsetY=100)
    assert (f.Width.max, f.Height.max, f.OffsetX.max) == (256, 8092, 8192 - 256)


def test_the_camera_itself_refuses_what_the_description_would(rig: Any) -> None:
    # Past GenApi, as a consumer with a mind of its own would do it: Width is at 0x1000, WidthMax at 0x1020.
    lib, port = rig.lib, ctypes.c_void_p()
    device = ctypes.c_void_p(int(rig.acquirer.device.module._handle))
    assert lib.DevGetPort(device, ctypes.byref(port)) == 0

    def write(address: int, value: int) -> int:
        number, size = ctypes.c_int64(value), ctypes.c_size_t(8)
        return lib.GCWritePort(port, ctypes.c_uint64(address), ctypes.byref(number), ctypes.byref(size))

    assert [write(0x1000, value) for value in (18, 8, 8196, 512)] == [-1019, -1019, -1019, 0]
    assert (write(0x1020, 512), write(0x1004, 1)) == (-1005, -1015)
    rig.start()
    assert write(0x1000, 256) == -1005


def test_black_level_is_in_codes_of_the_pixel_format(rig: Any) -> None:
    levels = {}
    for name in ("BayerRG8", "BayerRG10", "BayerRG12", "BayerRG16"):
        rig.set(PixelFormat=name)
        levels[name] = rig.features.BlackLevel.value
    assert levels == {"BayerRG8": 4, "BayerRG10": 16, "BayerRG12": 64, "BayerRG16": 1024}
    rig.set(BlackLevel=2048.0, PixelFormat="BayerRG12")
    assert rig.features.BlackLevel.value == 128


def test_time_stamps_are_the_monotonic_clock(rig: Any) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    rig.features.TimestampLatch.execute()
    latched, now = rig.features.TimestampLatchValue.value, rig.features.Timestamp.value
    rig.start()
    frames = rig.frames(3)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    stamps = [frame.timestamp for frame in frames]
    assert before <= latched <= now <= stamps[0] < stamps[1] < stamps[2] <= after
    assert stamps == [frame.timestamp_ns for frame in frames]


# ---- buffers and events -----------------------------------------------------------------------------------------


def test_a_thousand_buffers_are_filled_in_place(open_rig: Callable[..., Any]) -> None:
    rig = open_rig(buffers=1024, Width=16, Height=16)
    rig.start()
    assert rig.stream.num_announced == 1024
    assert len({frame.payload.tobytes() for frame in rig.frames(3)}) == 3


def test_frames_without_a_buffer_are_underruns(open_rig: Callable[..., Any]) -> None:
    rig = open_rig(buffers=2)
    rig.start()
    kept = [rig.frame(requeue=False), rig.frame(requeue=False)]
    assert rig.poll(100) is None
    lost = rig.stream.num_underrun
    assert lost > 5
    rig.lib.DSFlushQueue(rig._stream, 2)  # ALL_TO_INPUT
    assert rig.frame().frame_id > kept[1].frame_id + lost
    assert rig.stream.num_delivered == 3


def test_queued_buffers_cannot_be_revoked_or_queued_twice(rig: Any) -> None:
    rig.start()
    rig.features.AcquisitionStop.execute()
    handle = ctypes.c_void_p(next(iter(rig._memory)))
    assert rig.lib.DSQueueBuffer(rig._stream, handle) == -1004
    assert rig.lib.DSRevokeBuffer(rig._stream, handle, None, None) == -1022


def test_one_kill_ends_one_wait(rig: Any) -> None:
    data, size = (ctypes.c_uint64 * 2)(), ctypes.c_size_t(16)
    rig.lib.EventKill(rig.event)
    wait = [rig.event, ctypes.addressof(data), ctypes.addressof(size)]
    assert rig.lib.EventGetData(*wait, 2000) == -1012
    assert rig.lib.EventGetData(*wait, 0) == -1011


def test_a_stream_can_be_closed_and_opened_again(harvester: Any, open_rig: Callable[..., Any]) -> None:
    first = open_rig()
    first.start()
    first.frames(2)
    first.close()
    second = open_rig()
    second.start()
    assert [frame.frame_id for frame in second.frames(2)] == [1, 2]


def test_harvesters_fetches_pictures_and_chunks(rig: Any) -> None:
    rig.set(ChunkModeActive=True, PixelFormat="BayerRG12p", Gain=6.0)
    rig.acquirer.start()
    for number in (1, 2):
        with rig.acquirer.fetch(timeout=3) as buffer:
            component = buffer.payload.components[0]
            assert (component.width, component.height, component.data_format) == (256, 128, "BayerRG12p")
            f = rig.features
            assert (f.ChunkFrameID.value, f.ChunkExposureTime.value, f.ChunkGain.value) == (number, 500.0, 6.0)
    rig.acquirer.stop()


def test_a_late_camera_does_not_burst(runtime_dir: Path) -> None:
    script = HOLD_CAMERA.replace(
        'print("open", flush=True)',
        "camera.remote_device.node_map.AcquisitionFrameRate.value = 200.0\n"
        "camera.num_buffers = 200\n"
        "camera.start()\n"
        'print("open", flush=True)',
    ).replace(
        "camera.destroy()",
        "stamps = []\n"
        "ids = []\n"
        "while True:\n"
        "    raw = camera.try_fetch(timeout=0.001, is_raw=True)\n"
        "    if raw is None:\n"
        "        break\n"
        "    stamps.append(raw.timestamp_ns)\n"
        "    ids.append(raw.frame_id)\n"
        "late = camera.remote_device.node_map.SimLateFrames.value\n"
        "print(ids == list(range(1, len(ids) + 1)), late, *stamps)\n"
        "camera.destroy()",
    )
    command = [sys.executable, "-c", script, str(simcam.producer_path())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        child.send_signal(signal.SIGCONT)
        resumed = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        time.sleep(0.1)
        output, _ = child.communicate("")
    in_order, late, *stamps = output.split()
    assert in_order == "True"
    assert int(late) >= 50
    assert sum(resumed <= int(stamp) < resumed + 20_000_000 for stamp in stamps) <= 6
