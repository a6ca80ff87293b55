"""Builds TensorRT plans with whichever TensorRT is there: `tensorrt` 8.6, 10 or 11, or `tensorrt_rtx`.

What a version can do is found out by looking for the feature, not by its number. `tensorrt` builds for the GPU that is
here and ends the process where there is no driver, so the driver is asked first; `tensorrt_rtx` builds without a GPU,
for several kinds of GPU at once.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import UserError
from .plan import PACKAGES, Backend, Tensor

_OURS = ("head/", "tail/")
"""How the names of the nodes begin that `graft` puts around a core."""

_UNTYPED = ("CAST", "CONSTANT", "IDENTITY", "SHAPE")
"""Layers that have no arithmetic of which to set the precision."""

_FP8_SINCE = (8, 9)
_SINCE = {"fp8": _FP8_SINCE, "fp32": (8, 0)}
"""Oldest GPUs to build for unasked, by precision: TensorRT-RTX has no float32 matrix product for Turing (7.5)."""

_WORKSPACE = 4 << 30
_TACTICS = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
"""Where 8.6 takes its kernels from: these need neither cuBLAS nor cuDNN."""

Progress = Callable[[str, int, int], None]
"""Called with a phase, steps done, and steps in all."""


@dataclass(frozen=True)
class PlanSpec:
    """What to build.

    Attributes:
        precision: "fp32", "fp16", "int8" or "fp8".
        batches: Fewest, usual and most frames per run.
        compute_capabilities: GPUs to build for, such as "8.6".
        in_float: Names of nodes that stay in float32 where the builder chooses types itself, besides head and tail.
    """

    precision: str
    batches: tuple[int, int, int]
    compute_capabilities: tuple[str, ...]
    in_float: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Plan:
    """What was built: the bytes, and the inputs and outputs of the network."""

    content: bytes
    tensors: tuple[Tensor, ...]


@dataclass(eq=False)
class Builder:
    """One TensorRT module, imported and known to work here.

    Attributes:
        backend: Its name.
        trt: The module.
    """

    backend: Backend
    trt: Any
    _members: dict[str, set[str]] = field(default_factory=dict, init=False, repr=False)

    @property
    def version(self) -> str:
        """The module's version."""
        return str(self.trt.__version__)

    @property
    def strongly_typed(self) -> bool:
        """Whether types come from the graph; otherwise the builder chooses among those that flags allow."""
        return self._has("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that it can build for without such a GPU, lowest first; empty: the GPU here only."""
        found = (re.fullmatch(r"SM(\d+)(\d)", name) for name in self._names("ComputeCapability"))
        pairs = sorted((int(m[1]), int(m[2])) for m in found if m)
        return tuple(f"{major}.{minor}" for major, minor in pairs)

    def flags(self, precision: str) -> tuple[str, ...]:
        """Names of the builder flags that it will set for a precision."""
        wanted = ["REQUIRE_USER_ALLOCATION"]  # stream capture in TensorRT-RTX needs it
        if not self.strongly_typed and precision != "fp32":
            wanted += ["FP16", "PREFER_PRECISION_CONSTRAINTS", *(["INT8"] if precision == "int8" else [])]
        return tuple(name for name in wanted if self._has("BuilderFlag", name))

    def check(self, precision: str, compute_capabilities: Sequence[str]) -> None:
        """Raises UserError where it, or a GPU to build for, has no such precision."""
        if precision != "fp8":
            return
        if not self.strongly_typed:
            raise UserError(f"{self.backend} {self.version} builds no fp8; use --precision int8, or a newer TensorRT")
        old = [name for name in compute_capabilities if _pair(name) < _FP8_SINCE]
        if old:
            raise UserError(
                f"GPUs of compute capability {', '.join(old)} have no fp8, which begins with 8.9; "
                "leave them out of --compute-capability, or use --precision int8"
            )

    def build(self, graph: bytes, spec: PlanSpec, progress: Progress) -> Plan:
        """Build a plan from a grafted graph.

        Raises:
            UserError: The builder refuses, in its own words.
        """
        trt = self.trt
        log = make_logger(trt)
        builder = started(trt.Builder, log)
        if builder is None:
            raise UserError(f"{self.backend} {self.version} does not start: {log.last()}")
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, log)
        if not parser.parse(graph):
            errors = [str(parser.get_error(k)) for k in range(parser.num_errors)]
            raise UserError(f"{self.backend} {self.version} cannot read the graph: {_one_line(errors or [log.last()])}")
        config = self._configure(builder, network, spec)
        monitor = _make_monitor(trt, progress) if hasattr(config, "progress_monitor") else None
        if monitor is not None:
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise UserError(f"{self.backend} {self.version} cannot build this plan: {log.last()}")
        return Plan(bytes(plan), _tensors(network))

    def _network_flags(self) -> int:
        wanted = "STRONGLY_TYPED" if self.strongly_typed else "EXPLICIT_BATCH"
        kinds = self.trt.NetworkDefinitionCreationFlag
        return 1 << int(getattr(kinds, wanted)) if self._has("NetworkDefinitionCreationFlag", wanted) else 0

    def _configure(self, builder: Any, network: Any, spec: PlanSpec) -> Any:
        trt = self.trt
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
        for name in self.flags(spec.precision):
            config.set_flag(getattr(trt.BuilderFlag, name))
        if spec.precision == "fp32" and self._has("BuilderFlag", "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)  # its 10 bits of mantissa are not what fp32 promises
        if not self.strongly_typed:
            if spec.precision != "fp32":
                _pin(trt, network, spec)
            sources = [getattr(trt.TacticSource, name) for name in _TACTICS if self._has("TacticSource", name)]
            config.set_tactic_sources(sum(1 << int(source) for source in sources))
            if self._has("PreviewFeature", "PROFILE_SHARING_0806"):  # every lane's context runs the one profile
                config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        if self.capabilities:
            config.num_compute_capabilities = len(spec.compute_capabilities)
            for index, name in enumerate(spec.compute_capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}"), index)
        self._add_profile(builder, network, config, spec.batches)
        return config

    def _add_profile(self, builder: Any, network: Any, config: Any, batches: tuple[int, int, int]) -> None:
        inputs = [network.get_input(k) for k in range(network.num_inputs)]
        if not any(-1 in tuple(tensor.shape) for tensor in inputs):
            return
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            rest = tuple(tensor.shape)[1:]
            profile.set_shape(tensor.name, *((batch, *rest) for batch in batches))
        config.add_optimization_profile(profile)

    def _has(self, kind: str, name: str) -> bool:
        return name in self._names(kind)

    def _names(self, kind: str) -> set[str]:
        if kind not in self._members:
            self._members[kind] = set(getattr(getattr(self.trt, kind, None), "__members__", {}))
        return self._members[kind]


def load_builder(backend: Backend) -> Builder:
    """The builder of a backend, after asking the driver where that is needed.

    Raises:
        UserError: The package is missing, or `tensorrt` has no GPU to build on.
    """
    if backend == "tensorrt":
        from .cuda.driver import NoGpu, gpu

        try:
            gpu()
        except NoGpu as error:
            raise UserError(
                "tensorrt builds on the GPU that the plan is for, and this machine has no NVIDIA GPU with a driver; "
                "build there, or use --backend tensorrt_rtx, which builds for RTX GPUs anywhere"
            ) from error
    try:
        module = importlib.import_module(backend)
    except (ImportError, OSError) as error:
        reason = (
            "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not load ({_one_line([error])})"
        )
        raise UserError(f"{backend} {reason}; run: pip install '{PACKAGES[backend]}'") from error
    return Builder(backend, module)


def chosen_capabilities(builder: Builder, asked: Sequence[str], precision: str, here: str | None) -> tuple[str, ...]:
    """The compute capabilities to build for.

    Args:
        builder: From `load_builder`.
        asked: By the user; empty leaves the choice.
        precision: Of the plan.
        here: That of the GPU in this machine, None without one.

    Returns:
        `asked`; else that of the GPU here if the builder has it; else all that the builder and the precision have.

    Raises:
        UserError: The builder cannot build for one of `asked`.
    """
    known = builder.capabilities or ((here,) if here else ())
    for name in asked:
        if name not in known:
            able = f"builds for {', '.join(known)}" if builder.capabilities else f"builds for the GPU here, {here}"
            raise UserError(f"{builder.backend} {builder.version} {able}, not for {name}; correct --compute-capability")
    if asked:
        return tuple(asked)
    if here in known:
        return (here,) if here else ()
    return tuple(name for name in known if _pair(name) >= _SINCE.get(precision, (0, 0)))


def _pair(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)


def _pin(trt: Any, network: Any, spec: PlanSpec) -> None:
    """Ask for float32 where a graph of mixed types has it; an 8.6 that may use float16 would use it everywhere."""
    untyped = [getattr(trt.LayerType, name) for name in _UNTYPED if hasattr(trt.LayerType, name)]
    for layer in (network.get_layer(k) for k in range(network.num_layers)):
        outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
        if not (layer.name.startswith(_OURS) or layer.name in spec.in_float) or layer.type in untyped:
            continue
        if outputs and all(output.dtype == trt.float32 for output in outputs):
            layer.precision = trt.float32
            for k in range(layer.num_outputs):
                layer.set_output_type(k, trt.float32)


def _tensors(network: Any) -> tuple[Tensor, ...]:
    inputs = [("input", network.get_input(k)) for k in range(network.num_inputs)]
    outputs = [("output", network.get_output(k)) for k in range(network.num_outputs)]
    return tuple(Tensor(t.name, mode, type_name(t.dtype), tuple(t.shape)) for mode, t in inputs + outputs)


def type_name(dtype: Any) -> str:
    """ "uint8" or "float32" for TensorRT's element types, in the names of NumPy."""
    name = str(dtype).rsplit(".", 1)[-1].lower()
    return {"float": "float32", "half": "float16"}.get(name, name)


def make_logger(trt: Any) -> Any:
    """A logger that keeps errors for messages (`last`) instead of printing them; its base class is in `trt`."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self._errors.append(message)

        def last(self) -> str:
            return _one_line(self._errors or ["it gives no reason"])

    return Log()


def started(kind: Any, log: Any) -> Any:
    """A Builder or a Runtime; None where CUDA does not let it begin, which the bindings tell by a TypeError."""
    try:
        return kind(log)
    except TypeError:
        return None


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

    return Monitor() if hasattr(trt, "IProgressMonitor") else None


def _one_line(messages: Sequence[object]) -> str:
    return " ".join(str(messages[-1]).split())[:400]
