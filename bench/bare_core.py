"""A core without head and tail on OpenVINO: what the grafted graph is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines._openvino import openvino_core
from ..engines.bayer import RawFormat
from ..engines.core import read_core
from ..engines.engine import EngineInfo, SlotArray
from ..engines.errors import UserError


class _Ticket:
    def __init__(self, request: Any) -> None:
        self._request = request
        self.white_balance = np.ones((1, 3), np.float32)
        self.done = False

    def wait(self) -> None:
        self._request.wait()


class BareCore:
    """Runs a core on planes that lie ready, as fast as it goes. Its pictures stay in its own memory: slots are only
    counted. Same contract as an engine, so that the same loop can time it."""

    completion_fd = None

    def __init__(self, path: Path, threads: int | None, mode: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UserError("OpenVINO is not installed; install it with: pip install openvino") from error
        self._core = read_core(path)
        self._openvino, self._threads, self._mode = openvino, threads, mode
        self._requests: list[Any] = []
        self._next = 0
        info = self._core.info
        self.info = EngineInfo(info.name, "openvino", "bare", weights_sha256=info.sha256)

    def prepare(self, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray) -> None:
        """Compile for the size of `raw_format`, which must be a multiple of the core's."""
        info = self._core.info
        if raw_format.width % info.multiple or raw_format.height % info.multiple:
            raise UserError(f"a bare core is timed at sizes divisible by {info.multiple}")
        shape = (1, 4, raw_format.height // 2, raw_format.width // 2)
        planes = np.random.default_rng(1).random(shape, np.float32)
        runtime = openvino_core()
        model = runtime.read_model(self._core.model.SerializeToString())
        model.reshape({"raw": shape, **({"params": [1, len(info.inputs)]} if info.inputs else {})})
        settings: dict[str, object] = {"PERFORMANCE_HINT": self._mode.upper(), "ENABLE_CPU_PINNING": "NO"}
        if self._threads:
            settings["INFERENCE_NUM_THREADS"] = self._threads
        compiled = runtime.compile_model(model, "CPU", settings)
        streams = int(compiled.get_property("NUM_STREAMS"))
        self.info = EngineInfo(info.name, "openvino", "bare", weights_sha256=info.sha256, lanes=streams)
        for _ in range(streams):
            request = compiled.create_infer_request()
            request.set_tensor("raw", self._openvino.Tensor(planes.copy()))
            if info.inputs:
                request.set_tensor("params", self._openvino.Tensor(np.ones((1, len(info.inputs)), np.float32)))
            self._requests.append(request)

    def develop(self, raw_slots: Sequence[int], srgb_slots: Sequence[int], params: npt.NDArray[np.float32]) -> _Ticket:
        """Start the next request."""
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        request.start_async()
        return _Ticket(request)

    def resume(self, white_balance: tuple[float, float, float]) -> None:
        """Nothing to go on from."""

    def close(self) -> None:
        """Let go of the requests."""
        self._requests = []
