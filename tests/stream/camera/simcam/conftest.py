"""A small GenTL consumer for tests: Harvesters finds and controls the camera, ctypes moves the frames."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from genicam.gentl import IoException

from ispeed.engines.bayer import RawFormat, unpack
from ispeed.stream.camera.simcam import CHUNK_IDS, producer_path

SUCCESS, TIMEOUT = 0, -1011
_INFO = {"timestamp": 3, "incomplete": 7, "filled": 9, "frame_id": 16, "pfnc": 20, "timestamp_ns": 28}
_CHUNK_TYPES = {"ChunkExposureTime": "<f8", "ChunkGain": "<f8", "ChunkFrameID": "<u8", "ChunkLineStatusAll": "<u8"}


@dataclass
class Frame:
    """One delivered frame; `payload` is a copy of the bytes that were filled."""

    frame_id: int
    timestamp: int
    timestamp_ns: int
    incomplete: bool
    filled: int
    pfnc: int
    payload: npt.NDArray[np.uint8]
    chunks: dict[str, float]


class Rig:
    """An open camera. `features` is the node map, `acquirer` Harvesters' handle, `lib` the producer."""

    def __init__(self, harvester: Any, serial: str, buffers: int = 8) -> None:
        self.acquirer = harvester.create({"serial_number": serial})
        self.features = self.acquirer.remote_device.node_map
        self.stream = self.acquirer.data_streams[0].module
        self.lib = ctypes.CDLL(str(producer_path()))
        self.lib.EventGetData.argtypes = [*3 * [ctypes.c_void_p], ctypes.c_uint64]
        self._stream = ctypes.c_void_p(int(self.stream._handle))
        monitor = next(iter(self.acquirer._new_buffer_event_monitor_dict.values()))
        self.event = ctypes.c_void_p(int(monitor._get_handle()))
        self._count = buffers
        self._memory: dict[int, npt.NDArray[np.uint8]] = {}

    def set(self, **values: Any) -> None:
        """Writes features in the order given."""
        for name, value in values.items():
            getattr(self.features, name).value = value

    def start(self) -> None:
        """Announces and queues buffers if there are none, and starts both sides."""
        for _ in range(self._count - len(self._memory)):
            memory = np.zeros(self.features.PayloadSize.value, np.uint8)
            handle = ctypes.c_void_p()
            size = ctypes.c_size_t(memory.size)
            announced = self.lib.DSAnnounceBuffer(
                self._stream, ctypes.c_void_p(memory.ctypes.data), size, None, ctypes.byref(handle)
            )
            assert announced == SUCCESS
            assert self.lib.DSQueueBuffer(self._stream, handle) == SUCCESS
            self._memory[handle.value or 0] = memory
        assert self.lib.DSStartAcquisition(self._stream, 0, ctypes.c_uint64(2**64 - 1)) == SUCCESS
        self.features.AcquisitionStart.execute()

    def stop(self) -> None:
        """Stops both sides and takes the buffers back; a camera that has vanished cannot be told."""
        if not self.stream.is_grabbing():
            return
        with suppress(IoException):
            self.features.AcquisitionStop.execute()
        self.lib.DSStopAcquisition(self._stream, 0)
        self.lib.DSFlushQueue(self._stream, 4)
        for handle in self._memory:
            assert self.lib.DSRevokeBuffer(self._stream, ctypes.c_void_p(handle), None, None) == SUCCESS
        self._memory.clear()

    def close(self) -> None:
        """Stops and closes the camera; may be called again."""
        if self.acquirer.is_valid():
            self.stop()
            self.acquirer.destroy()

    def poll(self, timeout_ms: int = 3000, requeue: bool = True) -> Frame | None:
        """The next frame, None when there is none in time."""
        data, size = (ctypes.c_uint64 * 2)(), ctypes.c_size_t(16)
        result = self.lib.EventGetData(self.event, ctypes.addressof(data), ctypes.addressof(size), timeout_ms)
        if result == TIMEOUT:
            return None
        assert result == SUCCESS
        handle = ctypes.c_void_p(data[0])
        info = {name: self._ask(handle, command) for name, command in _INFO.items()}
        payload = self._memory[data[0]][: info["filled"]].copy()
        frame = Frame(**info, payload=payload, chunks=self._chunks(handle, payload))
        frame.incomplete = bool(frame.incomplete)
        if requeue:
            assert self.lib.DSQueueBuffer(self._stream, handle) == SUCCESS
        return frame

    def frame(self, requeue: bool = True) -> Frame:
        """The next frame."""
        frame = self.poll(requeue=requeue)
        assert frame is not None, "no frame came"
        return frame

    def frames(self, count: int) -> list[Frame]:
        return [self.frame() for _ in range(count)]

    def samples(self, frame: Frame) -> npt.NDArray[np.uint16]:
        """The picture of a frame, unpacked."""
        f = self.features
        return unpack(frame.payload, RawFormat(f.Width.value, f.Height.value, f.PixelFormat.value))

    def _ask(self, handle: ctypes.c_void_p, command: int) -> int:
        kind, value, size = ctypes.c_int32(), ctypes.c_uint64(), ctypes.c_size_t(8)
        result = self.lib.DSGetBufferInfo(
            self._stream, handle, command, ctypes.byref(kind), ctypes.byref(value), ctypes.byref(size)
        )
        assert result == SUCCESS
        return value.value

    def _chunks(self, handle: ctypes.c_void_p, payload: npt.NDArray[np.uint8]) -> dict[str, float]:
        entries, count = (ctypes.c_uint64 * 30)(), ctypes.c_size_t(10)
        if self.lib.DSGetBufferChunkData(self._stream, handle, entries, ctypes.byref(count)) != SUCCESS:
            return {}
        places = {entries[3 * i]: (entries[3 * i + 1], entries[3 * i + 2]) for i in range(count.value)}
        found = {}
        for name, dtype in _CHUNK_TYPES.items():
            if CHUNK_IDS[name] in places:
                offset, length = places[CHUNK_IDS[name]]
                found[name] = payload[offset : offset + length].view(dtype)[0].item()
        return found


def frame_number(picture: npt.NDArray[Any]) -> int:
    """The number in the strip of a picture [height, width], raw or grey."""
    per_line = min(32, picture.shape[1] // 4)
    middle = (int(picture.min()) + int(picture.max())) / 2
    number = 0
    for cell in range(32):
        y, x = 4 * (cell // per_line), 4 * (cell % per_line)
        number = number << 1 | int(picture[y + 1 : y + 3, x + 1 : x + 3].mean() > middle)
    return number


@pytest.fixture
def harvester(runtime_dir: Path) -> Iterator[Any]:
    """A Harvester that has loaded the simulated cameras, with lock files of its own."""
    from harvesters.core import Harvester

    harvester = Harvester()
    harvester.add_file(str(producer_path()))
    harvester.update()
    yield harvester
    harvester.reset()


@pytest.fixture
def open_rig(harvester: Any) -> Iterator[Callable[..., Rig]]:
    """Opens a camera with features that make a test fast; stopped and closed at the end."""
    with ExitStack() as stack:

        def opened(serial: str = "SIM0001", buffers: int = 8, **features: Any) -> Rig:
            rig = Rig(harvester, serial, buffers)
            stack.callback(rig.close)
            rig.set(**{"Width": 256, "Height": 128, "AcquisitionFrameRate": 500.0, **features})
            return rig

        yield opened


@pytest.fixture
def rig(open_rig: Callable[..., Rig]) -> Rig:
    """SIM0001."""
    return open_rig()


@pytest.fixture
def read_number() -> Callable[[npt.NDArray[Any]], int]:
    """`frame_number`."""
    return frame_number
