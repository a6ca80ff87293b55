"""Model cores on the processor, through OpenVINO.

The grafted graph reads raw slots and writes sRGB slots in place. In throughput mode OpenVINO runs several frames at
once on a thread or a few each, in latency mode one frame on all threads. Matrix products are in bfloat16 where the
processor has instructions for it, else in float32; float16 would be emulated, and slow.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._openvino import openvino_core
from ._processor import Precision, ProcessorEngine, check_batch, frame_views
from .bayer import RawFormat, pack
from .cache import cache_folder
from .core import Core
from .engine import Engine, SlotArray
from .errors import UserError
from .lanes import Lanes, LaneTicket

_log = logging.getLogger(__name__)

_INTEGERS_APART = 1.5
"""Codes of 255 by which pictures in int8 may differ on average from those of the same numbers in floating point."""

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


def open_on_processor(core: Core | Path, **options: Any) -> Engine:
    """The engine for a core on this machine's processor: OpenVINO, or ONNX Runtime where there is no OpenVINO.

    options: keywords of `ProcessorEngine`.

    Raises:
        UserError: Neither is installed, or see `ProcessorEngine`.
    """
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        from .cpu_onnxruntime import OnnxRuntimeEngine, import_onnxruntime

        try:
            import_onnxruntime()
        except UserError:
            raise _no_openvino("this model") from error
        _log.warning("OpenVINO is not here (%s); ONNX Runtime is, and takes several times as long", error)
        return OnnxRuntimeEngine(core, **options)
    return CpuEngine(core, **options)


def _example(fmt: RawFormat) -> npt.NDArray[np.uint8]:
    """Bytes of a frame that rises from black to white, with some noise."""
    rise = np.linspace(fmt.black_level, fmt.white_level, fmt.width)
    noise = np.random.default_rng(0).normal(0, (fmt.white_level - fmt.black_level) / 16, (fmt.height, fmt.width))
    samples = np.clip(rise + noise, 0, fmt.white_level).astype(np.uint16)
    return pack(samples, fmt)


class CpuEngine(ProcessorEngine):
    """Develops through OpenVINO: in throughput mode with a lane for each stream that OpenVINO sets up, else with one.

    See `ProcessorEngine`.
    """

    _backend = "openvino"
    _flights: Lanes | None = None
    _lanes: Sequence[_Lane] = ()

    @property
    def completion_fd(self) -> int | None:
        """See `Engine.completion_fd`; there is none before `prepare`."""
        return None if self._flights is None else self._flights.completion_fd

    def prepare(self, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray) -> None:
        """See `Engine.prepare`. The raw ring must be writable, because OpenVINO refuses read-only memory.

        Compiling takes some tenths of a second once per machine, then half of that, from the cache folder.
        """
        self.close()
        graph = self._graft(raw_format, batch)
        compiled = self._compile(graph)
        if self.info.precision == "int8":
            compiled = self._checked_integers(compiled, graph, raw_format)
        raw, srgb = frame_views(raw_format, raw_ring, srgb_ring)
        try:
            tensors = [self._tensors(frames) for frames in (raw, srgb)]
            streams, columns = int(compiled.get_property("NUM_STREAMS")), len(self.info.inputs)
            self._lanes = [_Lane(self._openvino, compiled, tensors, columns) for _ in range(streams)]
            self._inputs.prepare(raw_format, raw_ring)
            self._warm_up(raw, srgb)
            self._flights = Lanes(self._lanes)
        except BaseException:
            self.close()
            raise
        self.info = replace(self.info, lanes=streams)

    def develop(
        self, raw_slots: Sequence[int], srgb_slots: Sequence[int], params: npt.NDArray[np.float32]
    ) -> LaneTicket:
        """See `Engine.develop`."""
        if self._flights is None:
            raise RuntimeError("the engine is not prepared")
        check_batch(raw_slots, srgb_slots)
        lane = self._flights.free_lane()
        self._inputs.fill(raw_slots, params, lane.params, lane.gains)
        return self._flights.submit(raw_slots, srgb_slots)

    def close(self) -> None:
        """See `Engine.close`; waits for what is in flight, then lets go of the views of the rings."""
        flights, self._flights = self._flights, None
        if flights is not None:
            flights.close()
        self._lanes = ()
        self._inputs.close()

    def _load_runtime(self) -> Precision:
        try:
            import openvino
        except ImportError as error:
            raise _no_openvino("this engine") from error
        self._openvino, self._runtime = openvino, openvino_core()
        # OpenVINO lists bf16 also where the processor only emulates it, but then does not choose it by itself.
        chosen = self._runtime.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
        return "bf16" if chosen == "bf16" else "fp32"

    def _compile(self, graph: bytes, *, integers: bool = True) -> Any:
        settings = {"PERFORMANCE_HINT": self._mode.upper(), "INFERENCE_PRECISION_HINT": _HINTS[self._precision]}
        # Otherwise every process binds its threads to the same first cores, whatever else is at work there.
        settings["ENABLE_CPU_PINNING"] = "NO"
        if self._threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(self._threads)
        if not integers:
            settings["LP_TRANSFORMS_MODE"] = "NO"
        elif (folder := _writable_cache()) is not None:
            settings["CACHE_DIR"] = str(folder)
        try:
            return self._runtime.compile_model(self._runtime.read_model(graph), "CPU", settings)
        except RuntimeError as error:
            raise self._refusal(self._openvino.__version__, _reason(error)) from error

    def _checked_integers(self, compiled: Any, graph: bytes, raw_format: RawFormat) -> Any:
        """A graph in int8 as it was compiled, or in floating point where this processor's integers come out wrong: with
        OpenVINO 2026.4 they do on an AMD EPYC of 2024, by 8 codes on average."""
        try:
            exact = self._compile(graph, integers=False)
        except UserError:  # a version that does not know the setting
            return compiled
        frame = _example(raw_format)
        pictures = [self._developed(each, frame) for each in (compiled, exact)]
        away = float(np.abs(pictures[0] - pictures[1]).mean())
        if away <= _INTEGERS_APART:
            return compiled
        _log.warning(
            "OpenVINO's integers are off by %.1f codes on this processor: %s runs in floating point, more slowly",
            *(away, self.info.name),
        )
        return exact

    def _developed(self, compiled: Any, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        """The picture of a frame, its gains 1."""
        given = {"raw": frame.reshape(compiled.input("raw").shape)}
        if self.info.inputs:
            given["params"] = np.ones((1, len(self.info.inputs)), np.float32)
        return compiled(given)["srgb"].astype(np.int16)

    def _tensors(self, frames: list[npt.NDArray[np.uint8]]) -> list[Any]:
        """OpenVINO's view of every slot, the memory itself."""
        return [self._openvino.Tensor(frame, shared_memory=True) for frame in frames]

    def _warm_up(self, raw: list[npt.NDArray[np.uint8]], srgb: list[npt.NDArray[np.uint8]]) -> None:
        """One frame on each lane, in memory of our own: the first run allocates."""
        own = [self._tensors([np.zeros_like(frames[0])]) for frames in (raw, srgb)]
        for lane in self._lanes:
            lane.run_on(own[0][0], own[1][0])


class _Lane:
    """One frame in flight: an inference request and its inputs beside the pixels.

    Attributes:
        params: float32 [1, K].
        gains: float32 [1, 3].
    """

    def __init__(self, openvino: Any, compiled: Any, tensors: list[list[Any]], columns: int) -> None:
        # A request does not keep the memory of its tensors alive, so they are kept here.
        self._raw, self._srgb = tensors
        self._request = compiled.create_infer_request()
        self._input, self._output = compiled.input("raw"), compiled.output("srgb")
        self.params, self.gains = np.zeros((1, columns), np.float32), np.ones((1, 3), np.float32)
        if columns:
            self._request.set_tensor("params", openvino.Tensor(self.params, shared_memory=True))

    def enqueue(self, raw_slots: Sequence[int], srgb_slots: Sequence[int]) -> None:
        """Start on a frame."""
        self._start(self._raw[raw_slots[0]], self._srgb[srgb_slots[0]])

    def finish(self) -> None:
        """Wait until it is done. Raises what went wrong."""
        self._request.wait()

    drain = finish

    def run_on(self, raw: Any, srgb: Any) -> None:
        """Develop these tensors, and wait."""
        self._start(raw, srgb)
        self._request.wait()

    def _start(self, raw: Any, srgb: Any) -> None:
        self._request.set_tensor(self._input, raw)
        self._request.set_tensor(self._output, srgb)
        self._request.start_async()


def _reason(error: RuntimeError) -> str:
    """The line that says most of OpenVINO's many: the last of its list of reasons, or the last of all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ([line.removeprefix("-- ") for line in lines if line.startswith("-- ")] or lines)[-1]


def _no_openvino(what: str) -> UserError:
    return UserError(
        f"{what} needs OpenVINO; run: pip install openvino (where it has no wheel: pip install 'ispeed[onnxruntime]')"
    )


def _writable_cache() -> Path | None:
    """Where compiled models are kept; None if that cannot be written."""
    folder = cache_folder("openvino")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
