"""CUDA graphs by calls to the driver, because PyCUDA has no stream capture."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable

from .driver import CudaError, Driver

_log = logging.getLogger(__name__)
# Other threads (the waiter, another engine) may go on calling CUDA while this one captures.
_THREAD_LOCAL = 1


class CapturedGraph:
    """Work that was captured on a stream. Every address in it is frozen."""

    def __init__(self, cuda: Driver, handle: int, work: Callable[[], None]) -> None:
        """Capture what `work` puts on the stream.

        Raises:
            CudaError: Something in it cannot be captured. The stream can be used as before.
        """
        self._cuda, self._stream = cuda, ctypes.c_void_p(handle)
        self._exec = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        cuda.call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            work()
        except Exception:
            # Ended in any case: a stream that is left capturing refuses everything else.
            try:
                cuda.call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
                cuda.call("cuGraphDestroy", graph)
            except CudaError:
                pass  # says again that the capture failed
            raise
        cuda.call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            cuda.call("cuGraphInstantiateWithFlags", ctypes.byref(self._exec), graph, ctypes.c_uint64(0))
        finally:
            cuda.call("cuGraphDestroy", graph)

    def launch(self) -> None:
        """See `Graph.launch`."""
        self._cuda.call("cuGraphLaunch", self._exec, self._stream)

    def free(self) -> None:
        """See `Graph.free`; harmless when called twice."""
        if self._exec.value:
            executable, self._exec = self._exec, ctypes.c_void_p()
            self._cuda.call("cuGraphExecDestroy", executable)


def try_capture(cuda: Driver, handle: int, work: Callable[[], None]) -> CapturedGraph | None:
    """A graph of what `work` puts on the stream, or None, with a line in the log, where that cannot be captured."""
    try:
        return CapturedGraph(cuda, handle, work)
    except Exception as error:  # what a runtime raises inside a capture is its own affair; without a graph it works
        _log.warning("the network cannot be captured in a CUDA graph (%s): it is enqueued layer by layer", error)
        return None
