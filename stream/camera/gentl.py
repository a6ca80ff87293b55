"""The zero-copy data path: the producer fills our ring's slots, and we talk to it through ctypes.

Harvesters has loaded the producer and opened the stream; loading the same file again gives the same instance, so its
handles are good here. Every call releases the GIL. Buffers announced this way must never be touched through the
binding, which takes them for its own.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from .discovery import OpenCamera

GC_ERR_TIMEOUT = -1011
GC_ERR_ABORT = -1012
GC_ERR_NOT_AVAILABLE = -1014

STREAM_INFO_NUM_UNDERRUN = 2
STREAM_INFO_NUM_AWAIT_DELIVERY = 5
BUFFER_INFO_TIMESTAMP = 3
BUFFER_INFO_IS_INCOMPLETE = 7
BUFFER_INFO_SIZE_FILLED = 9
BUFFER_INFO_FRAMEID = 16
BUFFER_INFO_IMAGEOFFSET = 18
BUFFER_INFO_XPADDING = 14
BUFFER_INFO_DATA_LARGER_THAN_BUFFER = 29

ACQ_START_DEFAULT, ACQ_INFINITE = 0, 0xFFFFFFFFFFFFFFFF
ACQ_STOP_DEFAULT, ACQ_STOP_KILL = 0, 1
ACQ_QUEUE_ALL_DISCARD = 4

_POINTER = ctypes.c_void_p


class GenTLError(Exception):
    """A call to the producer failed. `code` is its GC_ERROR."""

    def __init__(self, call: str, code: int, text: str = "") -> None:
        super().__init__(f"{call} failed with {code}" + (f" ({text})" if text else ""))
        self.code = code


class _StackedInfo(ctypes.Structure):
    _pack_ = 1
    _fields_ = (
        ("command", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("buffer", _POINTER),
        ("size", ctypes.c_size_t),
        ("result", ctypes.c_int32),
    )


#: What is asked for each frame, in this order.
_FRAME_INFOS = (
    BUFFER_INFO_FRAMEID,
    BUFFER_INFO_TIMESTAMP,
    BUFFER_INFO_IS_INCOMPLETE,
    BUFFER_INFO_SIZE_FILLED,
    BUFFER_INFO_DATA_LARGER_THAN_BUFFER,
)

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "DSAnnounceBuffer": (_POINTER, _POINTER, ctypes.c_size_t, _POINTER, _POINTER),
    "DSRevokeBuffer": (_POINTER, _POINTER, _POINTER, _POINTER),
    "DSQueueBuffer": (_POINTER, _POINTER),
    "DSFlushQueue": (_POINTER, ctypes.c_int32),
    "DSStartAcquisition": (_POINTER, ctypes.c_int32, ctypes.c_uint64),
    "DSStopAcquisition": (_POINTER, ctypes.c_int32),
    "DSGetInfo": (_POINTER, ctypes.c_int32, _POINTER, _POINTER, _POINTER),
    "DSGetBufferInfo": (_POINTER, _POINTER, ctypes.c_int32, _POINTER, _POINTER, _POINTER),
    "DSGetBufferChunkData": (_POINTER, _POINTER, _POINTER, _POINTER),
    "EventGetData": (_POINTER, _POINTER, _POINTER, ctypes.c_uint64),
    "GCGetLastError": (_POINTER, _POINTER, _POINTER),
}


class FrameInfos:
    """What a producer tells about a delivered buffer: `values` after `ask`, in the order of `commands`.

    A value is 0 where the producer does not tell it; `told` says which it does, None before the first complete buffer:
    of an incomplete one it may not know all.
    """

    def __init__(
        self, library: ctypes.CDLL, stream: int, commands: tuple[int, ...] = _FRAME_INFOS, stacked: bool = True
    ) -> None:
        self.told: tuple[bool, ...] | None = None
        self._commands, self._stream = commands, stream
        self._stacked = getattr(library, "DSGetBufferInfoStacked", None) if stacked else None
        if self._stacked is not None:
            self._stacked.argtypes = [_POINTER, _POINTER, _POINTER, ctypes.c_size_t]
            self._stacked.restype = ctypes.c_int32
        self._incomplete = commands.index(BUFFER_INFO_IS_INCOMPLETE)
        self._single = library.DSGetBufferInfo
        self._memory = (ctypes.c_uint64 * len(commands))()
        self.values = memoryview(self._memory).cast("B").cast("Q")
        self._values_at = ctypes.addressof(self._memory)
        self._infos = (_StackedInfo * len(commands))()
        for index, command in enumerate(commands):
            self._infos[index].command = command
            self._infos[index].size = 8
            self._infos[index].buffer = self._values_at + 8 * index
        self._infos_at = ctypes.addressof(self._infos)
        self._type, self._size = ctypes.c_int32(), ctypes.c_size_t()
        self._type_at, self._size_at = ctypes.addressof(self._type), ctypes.addressof(self._size)

    def ask(self, buffer: int) -> None:
        """Fills `values` for a GenTL buffer: in one call where the producer has that, else one by one."""
        stacked = self._stacked
        if stacked is not None and stacked(self._stream, buffer, self._infos_at, len(self._commands)) == 0:
            if self.told is None and not self.values[self._incomplete]:
                self.told = tuple(info.result == 0 for info in self._infos)
            return
        codes = []
        for index, command in enumerate(self._commands):
            self._size.value = 8
            at = self._values_at + 8 * index
            codes.append(self._single(self._stream, buffer, command, self._type_at, at, self._size_at))
        if self.values[self._incomplete]:
            return
        self._stacked = None  # it is there and does not work: some producers export it as a stub
        if self.told is None:
            self.told = tuple(code == 0 for code in codes)


class DataStream:
    """One camera's GenTL data stream. `infos` holds what was asked about the newest buffer.

    Buffers are announced, queued and revoked by slot number. `queue` may be called from any thread; `wait` from one.
    """

    def __init__(self, camera: OpenCamera) -> None:
        self.library = camera.library
        for name, arguments in _SIGNATURES.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = list(arguments), ctypes.c_int32
        self.handle = camera.stream_handle
        self.infos = FrameInfos(self.library, self.handle)
        self._event = camera.event_handle
        self.buffers: list[int] = []  # GenTL handle of each slot
        self._slot_of: dict[int, int] = {}
        self._queue_buffer = self.library.DSQueueBuffer
        self._event_get_data = self.library.EventGetData
        self._get_info = self.library.DSGetBufferInfo
        self._data = (ctypes.c_uint64 * 2)()  # EVENT_NEW_BUFFER_DATA: handle, user pointer
        self._data_size = ctypes.c_size_t()
        self._data_at, self._data_size_at = ctypes.addressof(self._data), ctypes.addressof(self._data_size)

    def announce(self, address: int, size: int) -> None:
        """Makes `size` bytes at `address` known to the producer, as the next slot. Raises GenTLError."""
        handle = _POINTER()
        slot = len(self.buffers)
        self._check(
            "DSAnnounceBuffer",
            self.library.DSAnnounceBuffer(self.handle, address, size, slot, ctypes.addressof(handle)),
        )
        self.buffers.append(int(handle.value or 0))
        self._slot_of[self.buffers[-1]] = slot

    def revoke_all(self) -> None:
        """Takes all buffers back from the producer, as far as it gives them."""
        for handle in self.buffers:
            self.library.DSRevokeBuffer(self.handle, handle, None, None)
        self.buffers.clear()
        self._slot_of.clear()

    def accepts_foreign_memory(self, size: int) -> bool:
        """Whether the producer takes memory that it did not allocate: tried with one buffer of `size` bytes."""
        with mmap.mmap(-1, size) as memory:
            view = (ctypes.c_char * size).from_buffer(memory)
            try:
                self.announce(ctypes.addressof(view), size)
                self.queue(0)
                return True
            except GenTLError:
                return False
            finally:
                self.flush()
                self.revoke_all()
                del view

    def queue(self, slot: int) -> None:
        """Gives a slot to the producer to fill. Raises GenTLError."""
        code = self._queue_buffer(self.handle, self.buffers[slot])
        if code:
            self._check("DSQueueBuffer", code)

    def wait(self, timeout_ms: int) -> int:
        """The slot of the next delivered buffer, -1 after `timeout_ms` without one.

        Afterwards `infos.values` are its frame id, time stamp, incomplete flag, bytes filled and too-large flag. Raises
        GenTLError.
        """
        self._data_size.value = 16
        code = self._event_get_data(self._event, self._data_at, self._data_size_at, timeout_ms)
        if code:
            if code in (GC_ERR_TIMEOUT, GC_ERR_ABORT):
                return -1
            self._check("EventGetData", code)
        handle = self._data[0]
        self.infos.ask(handle)
        return self._slot_of[handle]

    def buffer_info(self, slot: int, command: int) -> int | None:
        """One BUFFER_INFO of a slot as a number; None where the producer does not tell."""
        value, kind, size = ctypes.c_uint64(), ctypes.c_int32(), ctypes.c_size_t(8)
        code = self._get_info(
            self.handle,
            self.buffers[slot],
            command,
            ctypes.addressof(kind),
            ctypes.addressof(value),
            ctypes.addressof(size),
        )
        return None if code else value.value

    def statistic(self, command: int) -> int | None:
        """One STREAM_INFO as a number; None where the producer does not count it."""
        value, kind, size = ctypes.c_uint64(), ctypes.c_int32(), ctypes.c_size_t(8)
        code = self.library.DSGetInfo(
            self.handle, command, ctypes.addressof(kind), ctypes.addressof(value), ctypes.addressof(size)
        )
        return None if code else value.value

    def start(self) -> None:
        """Starts the producer's side of the acquisition. Raises GenTLError."""
        self._check("DSStartAcquisition", self.library.DSStartAcquisition(self.handle, ACQ_START_DEFAULT, ACQ_INFINITE))

    def stop(self) -> None:
        """Stops the producer's side; buffers already filled can still be fetched. Raises GenTLError."""
        self._check("DSStopAcquisition", self.library.DSStopAcquisition(self.handle, ACQ_STOP_DEFAULT))

    def flush(self) -> None:
        """Takes every buffer out of the producer's queues, so that all may be queued anew or revoked."""
        self.library.DSFlushQueue(self.handle, ACQ_QUEUE_ALL_DISCARD)

    def _check(self, call: str, code: int) -> None:
        if code:
            text = ctypes.create_string_buffer(512)
            last, size = ctypes.c_int32(), ctypes.c_size_t(512)
            self.library.GCGetLastError(ctypes.addressof(last), ctypes.addressof(text), ctypes.addressof(size))
            raise GenTLError(call, code, " ".join(text.value.decode(errors="replace").split()))
