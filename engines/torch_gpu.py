"""The core as a torch program on an NVIDIA GPU: for those without TensorRT, and the baseline that TensorRT must beat.

In fp16 the weights and the planes of the convolutions are channels-last, in which the tensor cores read them; each lane
replays one CUDA graph per batch size, because otherwise the time to start some hundred small kernels is what counts.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast
from zipfile import BadZipFile, is_zipfile

import numpy.typing as npt

from .bayer import RawFormat
from .cuda.device import Buffer, OutOfDeviceMemory, Stream
from .cuda.driver import gpu, unusable
from .cuda.engine import PipelineEngine
from .cuda.pipeline import LANES, Pipeline
from .engine import EngineInfo, Mode, SlotArray, WhiteBalance
from .errors import UserError
from .flat_field import FlatField, checked_mesh
from .white_balance import CoreInputs

try:
    import torch
except ImportError as error:
    raise UserError(f"torch programs need torch, which cannot be imported ({error}); run: pip install torch") from error

from torch.export.passes import move_to_device_pass

from .colour import core_finish
from .core import CoreInfo
from .cuda.torch_device import TorchBuffer, TorchDevice, TorchStream
from .graph import raw_shape
from .torch_graph import RawToSrgb

Precision = Literal["fp32", "fp16"]

MAX_BATCH = 4
"""Frames per call: what fills a GPU with small frames; large ones do so alone."""

PROGRAM_INFO = "ispeed.json"
"""The extra file of a torch program that holds its `CoreInfo` as JSON."""


class TorchEngine(PipelineEngine):
    """Develops with a torch program that isp-export wrote. See `Engine`.

    Attributes:
        info: See `EngineInfo`.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        core: tuple[torch.nn.Module, CoreInfo] | None = None,
        device: Literal["cuda", "cpu"] = "cuda",
        precision: Precision | None = None,
        mode: Mode = "throughput",
        capture: bool = True,
        white_balance: WhiteBalance = "auto",
        colour_matrix: npt.ArrayLike | None = None,
        tone: str = "srgb",
        defects: Sequence[tuple[int, int]] = (),
        flat_field: FlatField | None = None,
    ) -> None:
        """Load a program. See `open_engine` for the options that are not here.

        Args:
            path: The program (.pt2); None where `core` is given.
            core: A core as a module, with its metadata. Its weights are converted in place.
            device: "cpu" is meant for comparison: it is slow, and nothing overlaps.
            precision: None is fp16 on a GPU, fp32 on the processor.
            mode: Batches of one frame in "latency".
            capture: Run from CUDA graphs; False launches layer by layer, for comparison.
            white_balance, colour_matrix, tone, defects, flat_field: See `open_engine`.

        Raises:
            UserError: There is no GPU, the program is damaged, or an option is out of range.
        """
        if device == "cuda":
            _require_gpu(path)
        if core is None:
            if path is None:
                raise ValueError("a torch engine needs a path or a core")
            core = load_program(path, device)
        self._module, self._core = core
        inputs = self._core.inputs
        mesh = None if flat_field is None else checked_mesh(flat_field)
        super().__init__(CoreInputs(inputs, white_balance, colour_matrix, mesh))
        self._precision: Precision = precision or ("fp16" if device == "cuda" else "fp32")
        self._matrix, tone = core_finish(self._core.name, self._core.output, colour_matrix, tone, inputs)
        self._curve = self._core.output == "linear" and tone == "srgb"
        self._defects, self._flat_field = tuple(defects), flat_field
        self._device_kind = device
        self._capture = capture
        self.info = EngineInfo(
            name=self._core.name,
            backend="torch",
            precision=self._precision,
            inputs=self._core.inputs,
            weights_sha256=self._core.sha256 or None,
            max_batch=1 if mode == "latency" else MAX_BATCH,
            lanes=LANES,
        )

    def prepare(self, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray) -> None:
        """See `Engine.prepare`."""
        if raw_format.cfa == "MONO":
            raise UserError(f"{self.info.name} develops Bayer frames; use classic for {raw_format.pixel_format}")
        if not 1 <= batch <= self.info.max_batch:
            raise UserError(f"a batch of {batch} frames is out of range; use 1 to {self.info.max_batch}")
        self.close()
        device = self._device = TorchDevice(self._device_kind, capture=self._capture)
        try:
            graph = self._graph(raw_format, device)
            self._pipeline = Pipeline(
                device,
                self.info.name,
                raw_format,
                batch,
                (raw_ring, srgb_ring),
                self._inputs,
                len(self.info.inputs),
                lambda stream, raw, params, srgb: TorchProgram(graph, raw_format, stream, (raw, params, srgb), batch),
            )
        except BaseException:
            self.close()
            raise

    def _graph(self, raw_format: RawFormat, device: TorchDevice) -> RawToSrgb:
        graph = RawToSrgb(
            self._module,
            self._core,
            raw_format,
            precision=self._precision,
            colour_matrix=self._matrix,
            curve=self._curve,
            defects=self._defects,
            flat_field=self._flat_field,
        )
        try:
            return graph.to(device.device)
        except torch.OutOfMemoryError as error:
            free, total = device.memory()
            raise UserError(
                f"{self.info.name} does not fit into the GPU: {free >> 20} of {total >> 20} MiB are free; "
                "end other programs on the GPU"
            ) from error


class TorchProgram:
    """What a lane runs: the graph, between the lane's buffers."""

    def __init__(
        self,
        graph: RawToSrgb,
        fmt: RawFormat,
        stream: Stream,
        buffers: tuple[Buffer, Buffer | None, Buffer],
        batch: int,
    ) -> None:
        """Make views of the buffers: raw, params and sRGB."""
        raw, params, srgb = (None if buffer is None else cast(TorchBuffer, buffer).tensor for buffer in buffers)
        if raw is None or srgb is None:
            raise ValueError("a lane has a raw and an sRGB buffer")
        self._graph, self._stream = graph, cast(TorchStream, stream).stream
        self._raw = raw.view(batch, *raw_shape(fmt))
        self._srgb = srgb.view(batch, fmt.height, fmt.width, 3)
        self._params = None if params is None else params.view(torch.float32).view(batch, -1)

    @torch.inference_mode()
    def run(self, count: int) -> None:
        """See `Program.run`."""
        try:
            with torch.cuda.stream(self._stream):
                params = None if self._params is None else self._params[:count]
                self._srgb[:count].copy_(self._graph(self._raw[:count], params))
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory from error

    def close(self) -> None:
        """See `Program.close`. Views keep memory alive, so they go first."""
        del self._raw, self._srgb, self._params


def load_program(path: Path, device: str = "cpu") -> tuple[torch.nn.Module, CoreInfo]:
    """A torch program, brought to a device, and its metadata.

    Raises:
        UserError: The file is missing, cut off, damaged, or was not written by isp-export, or the GPU has no room.
    """
    extra = {PROGRAM_INFO: ""}
    try:
        if path.is_file() and not is_zipfile(path):  # torch would log a traceback
            raise BadZipFile("it is no zip file")
        program = torch.export.load(path, extra_files=extra)
        info = CoreInfo.from_json(json.loads(extra[PROGRAM_INFO]))
    except OSError as error:
        raise UserError(f"cannot read the program {path}: {error.strerror or error}") from error
    except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} is no torch program of isp-export, or is damaged or cut off ({_first_line(error)}); "
            "export or copy it again"
        ) from error
    try:
        return move_to_device_pass(program, device).module(), info
    except RuntimeError as error:
        raise UserError(unusable(error)) from error


def _require_gpu(path: Path | None) -> None:
    what = str(path) if path is not None else "a torch program"
    try:
        gpu()
    except UserError as error:
        raise UserError(f"{what} runs on an NVIDIA GPU, and {error}") from error
    if not torch.cuda.is_available():
        raise UserError(
            f"{what} runs on an NVIDIA GPU, and torch {torch.__version__} here is built without CUDA or for another "
            "driver; install the torch of https://pytorch.org for CUDA"
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
