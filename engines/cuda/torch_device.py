"""A device through torch alone: a GPU for those who have no PyCUDA, or, for tests, the processor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ..errors import UserError
from .device import Buffer, Bytes, Event, OutOfDeviceMemory
from .driver import gpu, unusable
from .memory import lock_pages, unlock_pages

_log = logging.getLogger(__name__)


class TorchBuffer:
    """Device memory as a tensor: uint8 [size]."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.address = tensor.data_ptr()

    def free(self) -> None:
        """See `Buffer.free`: back to torch's allocator."""
        self.tensor = torch.empty(0, dtype=torch.uint8)


class _Graph:
    def __init__(self, graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> None:
        self._graph, self._stream = graph, stream

    def launch(self) -> None:
        with torch.cuda.stream(self._stream):
            self._graph.replay()

    def free(self) -> None:
        self._graph.reset()


class TorchStream:
    """A CUDA stream of torch.

    Attributes:
        stream: That stream; None on the processor, where every call is done when it returns.
        handle: The CUstream.
    """

    def __init__(self, stream: torch.cuda.Stream | None, *, capture: bool = True) -> None:
        self.stream = stream
        self._capture = capture
        self.handle: int = 0 if stream is None else stream.cuda_stream
        self._pool: Any = None

    def upload(self, target: Buffer, offset: int, source: Bytes) -> None:
        """See `Stream.upload`."""
        with torch.cuda.stream(self.stream):
            _tensor(target)[offset : offset + source.size].copy_(torch.from_numpy(source), non_blocking=True)

    def download(self, source: Buffer, offset: int, target: Bytes) -> None:
        """See `Stream.download`."""
        with torch.cuda.stream(self.stream):
            torch.from_numpy(target).copy_(_tensor(source)[offset : offset + target.size], non_blocking=True)

    def record(self, event: Event) -> None:
        """See `Stream.record`."""
        if isinstance(event, torch.cuda.Event):
            event.record(self.stream)

    def synchronize(self) -> None:
        """See `Stream.synchronize`."""
        if self.stream is not None:
            self.stream.synchronize()

    def capture(self, work: Callable[[], None]) -> _Graph | None:
        """See `Stream.capture`. All graphs of a stream share memory, because no two of them run at once."""
        if self.stream is None or not self._capture:
            return None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"):
                work()
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory from error
        except RuntimeError as error:
            _log.warning("the network cannot be captured in a CUDA graph (%s): it is run layer by layer", error)
            return None
        self._pool = graph.pool()
        return _Graph(graph, self.stream)


class _Done:
    """An event on the processor, where nothing is ever waited for."""

    def synchronize(self) -> None:
        pass


class TorchDevice:
    """The first GPU, or the processor, see `Device`."""

    def __init__(self, kind: str = "cuda", *, capture: bool = True) -> None:
        """Take up "cuda" or "cpu"; without `capture` its streams make no graphs.

        Raises:
            UserError: There is no GPU that works.
        """
        self.device = torch.device(kind)
        self._capture = capture
        if kind == "cuda":
            gpu()
            try:
                self.enter()
            except RuntimeError as error:
                raise UserError(unusable(error)) from error

    def enter(self) -> None:
        """See `Device.enter`. The primary context becomes current by using it."""
        if self.device.type == "cuda":
            torch.cuda.set_device(0)
            torch.cuda.current_stream().synchronize()

    def leave(self) -> None:
        """See `Device.leave`."""

    def lock(self, memory: Bytes) -> bool:
        """See `Device.lock`. The processor has nothing to lock for."""
        return lock_pages(memory) if self.device.type == "cuda" else True

    def unlock(self, memory: Bytes) -> None:
        """See `Device.unlock`."""
        if self.device.type == "cuda":
            unlock_pages(memory)

    def host_buffer(self, size: int) -> Bytes:
        """See `Device.host_buffer`."""
        return torch.zeros(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda").numpy()

    def buffer(self, size: int) -> TorchBuffer:
        """See `Device.buffer`."""
        try:
            buffer = TorchBuffer(torch.zeros(size, dtype=torch.uint8, device=self.device))
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory(size) from error
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # the streams here do not wait for the default stream, which fills the buffer
        return buffer

    def stream(self) -> TorchStream:
        """See `Device.stream`. Torch's own streams never wait for the default stream."""
        return TorchStream(torch.cuda.Stream() if self.device.type == "cuda" else None, capture=self._capture)

    def event(self) -> Event:
        """See `Device.event`."""
        return torch.cuda.Event(blocking=True) if self.device.type == "cuda" else _Done()

    def memory(self) -> tuple[int, int]:
        """See `Device.memory`: zeros on the processor."""
        return torch.cuda.mem_get_info() if self.device.type == "cuda" else (0, 0)

    def close(self) -> None:
        """See `Device.close`. The context is torch's own; what its allocator keeps is given back."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _tensor(buffer: Buffer) -> torch.Tensor:
    if not isinstance(buffer, TorchBuffer):
        raise TypeError("a stream of torch copies between the host and torch's buffers")
    return buffer.tensor
