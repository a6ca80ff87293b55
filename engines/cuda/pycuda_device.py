"""A GPU through PyCUDA, in the primary context, which TensorRT uses too."""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import UserError
from .device import Buffer, Bytes, Event, OutOfDeviceMemory
from .driver import CudaError, driver, gpu, unusable
from .graph import CapturedGraph, try_capture
from .memory import lock_pages, unlock_pages

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream


class _Buffer:
    def __init__(self, allocation: Any) -> None:
        self._allocation = allocation
        self.address = int(allocation)

    def free(self) -> None:
        self._allocation.free()


class _Stream:
    """A PyCUDA stream. Its copies let other Python threads run."""

    def __init__(self, cuda: Any) -> None:
        self._cuda, self._stream = cuda, cuda.Stream(_NON_BLOCKING)
        self.handle: int = self._stream.handle

    def upload(self, target: Buffer, offset: int, source: Bytes) -> None:
        self._cuda.memcpy_htod_async(target.address + offset, source, self._stream)

    def download(self, source: Buffer, offset: int, target: Bytes) -> None:
        self._cuda.memcpy_dtoh_async(target, source.address + offset, self._stream)

    def record(self, event: Event) -> None:
        event.record(self._stream)  # pyright: ignore[reportAttributeAccessIssue]

    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> CapturedGraph | None:
        return try_capture(driver(), self.handle, work)


class PycudaDevice:
    """The first GPU, see `Device`.

    The thread that opens it also closes it, because PyCUDA frees nothing from another one.
    """

    def __init__(self) -> None:
        """Take up the primary context and make it current.

        Raises:
            UserError: There is no GPU, or no PyCUDA.
        """
        gpu()
        try:
            import pycuda.driver as cuda  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                f"plans run through PyCUDA, which cannot be imported ({error}); run: pip install 'ispeed[tensorrt]'"
            ) from error
        self._cuda: Any = cuda
        try:
            cuda.init()
            self._context: Any = cuda.Device(0).retain_primary_context()
            self.enter()
        except cuda.Error as error:  # a context itself takes some hundred MiB, and a GPU may be one process's alone
            raise UserError(unusable(error)) from error
        # PyCUDA aborts a process that ends with a context still current.
        atexit.register(self._close_late)

    def enter(self) -> None:
        """See `Device.enter`."""
        self._context.push()

    def leave(self) -> None:
        """See `Device.leave`."""
        self._cuda.Context.pop()

    def lock(self, memory: Bytes) -> bool:
        """See `Device.lock`."""
        return lock_pages(memory)

    def unlock(self, memory: Bytes) -> None:
        """See `Device.unlock`."""
        unlock_pages(memory)

    def host_buffer(self, size: int) -> Bytes:
        """See `Device.host_buffer`."""
        buffer = self._cuda.pagelocked_empty(size, np.uint8)
        buffer[:] = 0
        return buffer

    def buffer(self, size: int) -> _Buffer:
        """See `Device.buffer`."""
        try:
            allocation = self._cuda.mem_alloc(size)
        except self._cuda.MemoryError as error:
            raise OutOfDeviceMemory(size) from error
        self._cuda.memset_d8(int(allocation), 0, size)
        self._cuda.Context.synchronize()  # the streams here do not wait for the default stream, which does that
        return _Buffer(allocation)

    def stream(self) -> _Stream:
        """See `Device.stream`."""
        return _Stream(self._cuda)

    def event(self) -> Any:
        """See `Device.event`. It has no time, and who waits for it sleeps."""
        flags = self._cuda.event_flags
        return self._cuda.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)

    def memory(self) -> tuple[int, int]:
        """See `Device.memory`."""
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def close(self) -> None:
        """See `Device.close`; harmless when called twice."""
        if self._context is None:
            return
        atexit.unregister(self._close_late)
        context, self._context = self._context, None
        self._cuda.Context.pop()
        context.detach()
        # To detach, PyCUDA makes a primary context current again and leaves it so.
        with suppress(CudaError):
            driver().call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _close_late(self) -> None:
        with suppress(Exception):  # nobody is left to tell
            self.close()
