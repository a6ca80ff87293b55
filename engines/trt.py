"""TensorRT plans on an NVIDIA GPU, through `tensorrt` (8.6, 10, 11) or `tensorrt_rtx`: only what all of them have.

Nothing of TensorRT is imported before the driver has answered and the plan is known to fit: without a driver TensorRT
ends the process, and a plan for another version or GPU is at best an empty handle.

Each lane has one execution context per batch size, because a CUDA graph freezes the context that it was captured from.
The contexts of a lane share their scratch memory; only one of them runs at a time.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .bayer import RawFormat
from .colour import checked_matrix
from .cuda.device import Buffer, Device, Stream
from .cuda.driver import gpu, gpu_or_none
from .cuda.engine import PipelineEngine
from .cuda.pipeline import LANES, Pipeline
from .engine import EngineInfo, Mode, SlotArray, WhiteBalance
from .errors import UserError
from .flat_field import FlatField, checked_mesh
from .inputs import takes_matrix
from .plan import PlanInfo, read_plan_info, rebuild, why_not
from .trt_builder import make_logger, started
from .white_balance import CoreInputs

_RAW, _PARAMS, _SRGB = "raw", "params", "srgb"


class TensorrtError(Exception):
    """TensorRT refused a call. It has said why in the log."""


class TrtEngine(PipelineEngine):
    """Develops with a plan that isp-build made. See `Engine`.

    Attributes:
        info: See `EngineInfo`.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: Mode = "throughput",
        white_balance: WhiteBalance = "auto",
        colour_matrix: npt.ArrayLike | None = None,
        tone: str = "srgb",
        defects: Sequence[tuple[int, int]] = (),
        flat_field: FlatField | None = None,
    ) -> None:
        """Read the sidecar and see whether the plan runs here. See `open_engine` for the options.

        Raises:
            UserError: The plan is damaged or does not run here, or an option is not for plans.
        """
        self._path, self._mode = path, mode
        self._plan = read_plan_info(path)
        told = takes_matrix(self._plan.core.get("inputs", ()))
        _refuse_options(path, self._plan, None if told else colour_matrix, tone, (defects, flat_field))
        found = gpu_or_none()
        if (reason := why_not(self._plan, found, file=str(path))) is not None:
            raise UserError(reason)
        core = self._plan.core_info
        mesh = None if flat_field is None else checked_mesh(flat_field)
        super().__init__(CoreInputs(core.inputs, white_balance, colour_matrix, mesh))
        fmt, largest = self._plan.format, self._plan.batches[2]
        self.info = EngineInfo(
            name=self._plan.name,
            backend=self._plan.backend,
            precision=self._plan.precision,
            inputs=core.inputs,
            sizes=((fmt.width, fmt.height),),
            weights_sha256=core.sha256 or None,
            quality=None if self._plan.quality is None else dict(self._plan.quality),
            max_batch=1 if mode == "latency" and self._plan.batches[0] == 1 else largest,
            lanes=LANES,
        )
        self._loaded: LoadedPlan | None = None

    def prepare(self, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray) -> None:
        """See `Engine.prepare`."""
        if (reason := why_not(self._plan, gpu(), raw_format, file=str(self._path))) is not None:
            raise UserError(reason)
        fewest, _, most = self._plan.batches
        if not 1 <= batch <= self.info.max_batch:
            raise UserError(
                f"a batch of {batch} frames is out of range; {self._path} takes up to {self.info.max_batch}"
            )
        if fewest > 1:
            raise UserError(
                f"{self._path} takes batches of {fewest} to {most} frames only, and frames come one by one; "
                f"run: {rebuild(replace(self._plan, batches=(1, most, most)), raw_format)}"
            )
        self.close()
        from .cuda.pycuda_device import PycudaDevice

        device = self._device = PycudaDevice()
        try:
            self._load(device, raw_format, batch, raw_ring, srgb_ring)
        except TensorrtError as error:
            self._give_up(error)
            raise UserError(
                f"{self._plan.backend} {self._plan.version} loads {self._path} and does not run it ({error}); "
                f"run: {rebuild(self._plan, raw_format, gpu())}"
            ) from error
        except BaseException as error:
            self._give_up(error)
            raise

    def _unload(self) -> None:
        self._loaded = None

    def _give_up(self, error: BaseException) -> None:
        # The frames of the traceback hold contexts and the runtime, which have to go before the device does.
        traceback.clear_frames(error.__traceback__)
        self.close()

    def _load(
        self, device: Device, raw_format: RawFormat, batch: int, raw_ring: SlotArray, srgb_ring: SlotArray
    ) -> None:
        module = importlib.import_module(self._plan.backend)
        loaded = self._loaded = LoadedPlan(module, self._path, self._plan, device)
        self._pipeline = Pipeline(
            device,
            self._plan.name,
            raw_format,
            batch,
            (raw_ring, srgb_ring),
            self._inputs,
            len(self.info.inputs),
            lambda stream, raw, params, srgb: TrtProgram(loaded, device, stream, (raw, params, srgb), batch),
        )


class LoadedPlan:
    """A plan on the GPU.

    Attributes:
        engine: The ICudaEngine.
        module: `tensorrt` or `tensorrt_rtx`.
        scratch: Bytes of scratch memory that a context needs.
    """

    def __init__(self, module: Any, path: Path, info: PlanInfo, device: Device) -> None:
        """Load it.

        Raises:
            UserError: TensorRT does not take it, or the GPU has too little memory for its weights.
        """
        self.module = module
        self._logger = make_logger(module)
        self._runtime = started(module.Runtime, self._logger)
        self.engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes()) if self._runtime else None
        if self.engine is None:
            free, total = device.memory()
            reason = self._logger.last()
            raise UserError(
                f"{info.backend} {module.__version__} does not load {path} ({reason}; "
                f"{free >> 20} of {total >> 20} MiB of GPU memory are free); run: {rebuild(info, gpu=gpu())}"
            )
        names = {self.engine.get_tensor_name(k) for k in range(self.engine.num_io_tensors)}
        wanted = {_RAW, _SRGB, *([_PARAMS] if info.core_info.inputs else [])}
        if names != wanted:
            raise UserError(f"{path} is no plan of a grafted graph; run: {rebuild(info, gpu=gpu())}")
        size = getattr(self.engine, "device_memory_size_v2", None)
        self.scratch = int(self.engine.device_memory_size if size is None else size)

    def context(self) -> Any:
        """A new execution context without memory of its own. Raises TensorrtError."""
        engine, module = self.engine, self.module
        context: Any
        if hasattr(engine, "create_runtime_config"):  # 11, TensorRT-RTX
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
            if hasattr(module, "DynamicShapesKernelSpecializationStrategy"):
                # RTX otherwise compiles the kernels for a batch size beside the first frames, too late for the graphs.
                strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
                config.dynamic_shapes_kernel_specialization_strategy = strategy
            context = engine.create_execution_context(config)
        elif hasattr(module, "ExecutionContextAllocationStrategy"):  # 10
            context = engine.create_execution_context(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:  # 8.6
            context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise self.error("it makes no execution context")
        return context

    def error(self, what: str) -> TensorrtError:
        """An exception that says what failed and what TensorRT logged of it."""
        return TensorrtError(f"{what}: {self._logger.last()}")


class TrtProgram:
    """What a lane runs: one context for each batch size, all with the lane's buffers."""

    def __init__(
        self,
        plan: LoadedPlan,
        device: Device,
        stream: Stream,
        buffers: tuple[Buffer, Buffer | None, Buffer],
        batch: int,
    ) -> None:
        """Make the contexts.

        Args:
            plan: What they run.
            device: Where.
            stream: Of the lane.
            buffers: Raw, params and sRGB.
            batch: Most frames at once.

        Raises:
            OutOfDeviceMemory: There is no room for the scratch memory.
            TensorrtError: TensorRT refused something.
        """
        self._plan, self._handle = plan, stream.handle
        self._scratch = device.buffer(plan.scratch) if plan.scratch else None
        self._contexts: list[Any] = []
        try:
            for count in range(1, batch + 1):
                self._contexts.append(self._context(count, buffers))
        except BaseException:
            self.close()
            raise

    def run(self, count: int) -> None:
        """See `Program.run`."""
        if not self._contexts[count - 1].execute_async_v3(self._handle):
            raise self._plan.error("execute_async_v3 failed")

    def close(self) -> None:
        """See `Program.close`."""
        self._contexts = []
        if self._scratch is not None:
            self._scratch.free()
            self._scratch = None

    def _context(self, count: int, buffers: tuple[Buffer, Buffer | None, Buffer]) -> Any:
        engine, context = self._plan.engine, self._plan.context()
        if self._scratch is not None:
            if hasattr(context, "set_device_memory"):
                context.set_device_memory(self._scratch.address, self._plan.scratch)
            else:  # 8.6
                context.device_memory = self._scratch.address
        self._choose_profile(context)
        for name, buffer in zip((_RAW, _PARAMS, _SRGB), buffers, strict=True):
            if buffer is None:
                continue
            shape = tuple(engine.get_tensor_shape(name))
            fine = context.set_tensor_address(name, buffer.address)
            if name != _SRGB and shape[0] == -1:
                fine = context.set_input_shape(name, (count, *shape[1:])) and fine
            if not fine:
                raise self._plan.error(f"it refuses a batch of {count} at {name}")
        return context

    def _choose_profile(self, context: Any) -> None:
        """Give a context the plan's one profile, which 8.6 gives by itself only to the first that is made."""
        if self._plan.engine.get_tensor_shape(_RAW)[0] != -1 or context.active_optimization_profile >= 0:
            return
        try:
            context.set_optimization_profile_async(0, self._handle)
        except RuntimeError as error:
            raise self._plan.error("it does not share its profile") from error


def _refuse_options(
    path: Path,
    plan: PlanInfo,
    colour_matrix: npt.ArrayLike | None,
    tone: str,
    corrected: tuple[Sequence[tuple[int, int]], FlatField | None],
) -> None:
    """Raises UserError for what a plan does not take; corrected: defects and flat field."""
    has = {"defect pixels": plan.defects, "flat field": plan.flat_field}
    unlike = plan.unlike(*corrected)
    if others := [name for name in unlike if has[name]]:
        raise UserError(
            f"{path} was built with other {' and another '.join(others)} than the settings have; give those that it "
            f"was built with, or run: {rebuild(plan)}"
        )
    has_it = colour_matrix is not None and plan.has_matrix(colour_matrix)
    if colour_matrix is not None and plan.colour_matrix and not has_it:
        raise UserError(
            f"{path} was built with another colour matrix than the settings have; give the one that it was built with, "
            f"leave it out, or run: {rebuild(replace(plan, colour_matrix=checked_matrix(colour_matrix).tolist()))}"
        )
    given = {"colour matrix": colour_matrix is not None and not has_it, "tone": tone != "srgb"}
    names = [name for name, is_given in given.items() if is_given]
    if names + unlike:
        build_in = ", or build it with isp-build --calibration FILE" if unlike and not names else ""
        raise UserError(
            f"{path} is fixed when it is built and takes no {' and '.join(names + unlike)}; leave that out, or use "
            f"classic{build_in}"
        )
