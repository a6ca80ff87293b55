"""isp-build: a core into what an engine runs, in the precision asked for, if the picture bears it.

The order of work: frames (from files or the camera), precision, quality gate, graft, plan. Where the plan can run on
the GPU that is here, the plan itself goes through the gate; otherwise ONNX Runtime computes what the plan will
compute, rounding included, before anything is built.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from .bayer import RawFormat
from .camera_frames import snap
from .colour import invertible_matrix
from .core import Core, read_core, write_core
from .cpu_onnxruntime import import_onnxruntime
from .cuda.driver import gpu_or_none
from .errors import UserError
from .files import write_whole
from .flat_field import FlatField, checked_mesh, to_json
from .gate import Gate, Verdict
from .graph import graft
from .half import float_nodes
from .inputs import CAMERA, takes_matrix
from .measured import Measured
from .plan import PlanInfo, cache_key, cached_plan, read_plan_info, sidecar, store_plan, write_plan_info
from .precision import PRECISIONS, Converted, convert
from .quality import MAX_DROP_DB, Material, load_material
from .raw_files import load_raw
from .trt_builder import Builder, Plan, PlanSpec, Progress, chosen_capabilities, load_builder

SNAPPED = 16
"""Frames taken from the camera where no file is given: half to calibrate with, half to measure on."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        model: Name in the zoo, or path of a core.
        backend: "tensorrt", "tensorrt_rtx", or "openvino" for a core in int8 that the CPU engine runs.
        precision: One of `PRECISIONS`.
        output: File to write.
        pixel_format, size, black_level, white_level: The format of the frames that a plan will see; None takes it from
            the frames.
        camera: Index or serial number, as isp-stream takes it; asked for frames where `frames` is empty.
        frames: Files of raw frames (see `raw_files`).
        reference: Pictures that the frames should give; None has the classic engine make them.
        white_balance: Gains for the frames; None is the grey world of each.
        exposure_us, gain_db, iso, f_number, focal_length_mm: With which exposure in microseconds, gain in dB, ISO,
            f-number and focal length in millimetres the frames were taken, for cores that are told; None is what their
            files or the camera say.
        colour_matrix: float32 [3, 3] for the classic engine's reference and for cores that give linear light or are
            told it.
        defects, flat_field: What the camera was calibrated to: a plan has them built in; ranges and quality of all
            builds are found with them.
        measured: On which frames the camera was calibrated; those of a plan must be like them.
        batches: Fewest, usual and most frames per run.
        compute_capabilities: GPUs to build for; empty leaves the choice.
        max_drop_db: Of the quality gate; None is `MAX_DROP_DB`.
        gate: Measure, and refuse what is below.
        cache: Use and fill the cache of plans.
        command: The command line, for the sidecar.
    """

    model: str
    backend: str
    precision: str
    output: Path
    pixel_format: str | None = None
    size: tuple[int, int] | None = None
    black_level: float | None = None
    white_level: float | None = None
    camera: str = "0"
    frames: tuple[str, ...] = ()
    reference: Path | None = None
    white_balance: tuple[float, float, float] | None = None
    exposure_us: float | None = None
    gain_db: float | None = None
    iso: float | None = None
    f_number: float | None = None
    focal_length_mm: float | None = None
    colour_matrix: npt.NDArray[np.float32] | None = None
    defects: tuple[tuple[int, int], ...] = ()
    flat_field: FlatField | None = None
    measured: Measured | None = None
    batches: tuple[int, int, int] = (1, 1, 1)
    compute_capabilities: tuple[str, ...] = ()
    max_drop_db: float | None = None
    gate: bool = True
    cache: bool = True
    command: str = ""

    @property
    def limit_db(self) -> float:
        """The drop that the gate allows."""
        return MAX_DROP_DB[self.precision] if self.max_drop_db is None else self.max_drop_db

    @property
    def calibrates(self) -> bool:
        """Whether frames are needed to find the ranges of 8-bit numbers."""
        return self.precision in ("int8", "fp8")

    @property
    def camera_settings(self) -> dict[str, object]:
        """Flags of isp-stream that make the camera send what was asked for."""
        width, height = self.size or (None, None)
        asked = {"pixel-format": self.pixel_format, "width": width, "height": height}
        asked |= {"black-level": self.black_level, "white-level": self.white_level}
        return {name: value for name, value in asked.items() if value is not None}

    def format_after(self, own: RawFormat | None) -> RawFormat:
        """The format that the plan will see: what was asked for, the rest as the frames have it.

        Args:
            own: Format of the frames at hand; None where there are none, and all was asked for.

        Raises:
            UserError: No such format.
        """
        pixel_format = self.pixel_format or (own.pixel_format if own else "")
        width, height = self.size or ((own.width, own.height) if own else (0, 0))
        probe = RawFormat(width, height, pixel_format)
        black, white = self.black_level, self.white_level
        if own is not None and own.depth == probe.depth:  # levels are in DN of the depth
            black = own.black_level if black is None else black
            white = own.white_level if white is None else white
        return RawFormat(width, height, pixel_format, black or 0.0, white)


@dataclass(frozen=True)
class Built:
    """What came out.

    Attributes:
        path: The file.
        info: The plan's sidecar; None for a core.
        verdict: What the gate measured.
        from_cache: The plan was built before.
        in_float: Convolutions that were left in float.
    """

    path: Path
    info: PlanInfo | None
    verdict: Verdict
    from_cache: bool = False
    in_float: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reporter:
    """Where a build tells how it goes: `tell` takes a phrase, `progress` the builder's phases."""

    tell: Callable[[str], None] = lambda text: None
    progress: Progress = lambda phase, done, steps: None


def build(request: BuildRequest, report: Reporter | None = None) -> Built:
    """Build what `request` asks for. Nothing is written unless all of it is well.

    Raises:
        UserError: Something asked for is wrong, missing, or cannot be built here.
        BelowGate: The picture suffers more than allowed.
    """
    return _Build(request, report or Reporter()).run()


def open_core(model: str) -> Core:
    """A core by its name in the zoo or its path. Raises UserError."""
    from .zoo.catalogue import names, zoo_path

    if model in names():
        return read_core(zoo_path(model))
    if not Path(model).suffix:
        raise UserError(f"there is no model {model!r}; use one of {', '.join(names())}, or the path of a core (.onnx)")
    return read_core(Path(model))


def _checked(request: BuildRequest) -> Core:
    """The core of a request that makes sense."""
    precision, backend, output = request.precision, request.backend, request.output
    if precision == "bf16" or (backend == "openvino" and precision in ("fp32", "fp16")):
        raise UserError(
            f"the CPU engine runs a core in bf16 or fp32 as it is: isp-stream --engine {request.model}; "
            "build int8 for it, or fp16, int8 or fp8 for a GPU"
        )
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    if backend == "openvino" and precision == "fp8":
        raise UserError("OpenVINO has no fp8 on processors; use --precision int8")
    suffixes = (".onnx",) if backend == "openvino" else (".plan", ".engine")
    if output.suffix.lower() not in suffixes:
        raise UserError(f"{output} must end in {suffixes[0]}, so that isp-stream --engine knows what it is")
    if not output.absolute().parent.is_dir():
        raise UserError(f"cannot write {output}: there is no folder {output.absolute().parent}")
    fewest, usual, most = request.batches
    if not 1 <= fewest <= usual <= most:
        raise UserError(f"batches {fewest},{usual},{most} are not in order; give fewest, usual and most, such as 1,4,8")
    return open_core(request.model)


class _Build:
    """One build, step by step."""

    def __init__(self, request: BuildRequest, report: Reporter) -> None:
        self._request, self._report = request, report
        self._core = _checked(request)
        info = self._core.info
        # a core that gives sRGB has learned its colours, and the matrix is for the reference only, unless it is told it
        self._matrix = request.colour_matrix if info.output == "linear" else None
        if takes_matrix(info.inputs):
            self._matrix = invertible_matrix(request.colour_matrix)

    def run(self) -> Built:
        request = self._request
        if request.backend == "openvino":
            converted, gate, _ = self._convert()
            return self._write_core(converted, gate)
        builder = load_builder("tensorrt" if request.backend == "tensorrt" else "tensorrt_rtx")
        here = gpu_or_none()
        capability = here.compute_capability if here else None
        asked = request.compute_capabilities
        capabilities = chosen_capabilities(builder, asked, request.precision, capability)
        builder.check(request.precision, capabilities)
        converted, gate, fmt = self._convert()
        network = converted.typed if builder.strongly_typed else converted.core.model
        in_float = frozenset() if builder.strongly_typed else frozenset(float_nodes(network))
        spec = PlanSpec(request.precision, request.batches, capabilities, in_float)
        matrix = None if takes_matrix(self._core.info.inputs) else self._matrix  # what is told is not built in
        maker = _PlanMaker(builder, spec, request, matrix, self._report)
        graph = self._graft(replace(converted.core, model=network), fmt)
        if gate and not (capability in capabilities and gate.fits(fmt)):
            return maker.write(graph, converted, fmt, gate.by_runtime(converted.as_typed, request.precision), None)
        return maker.write(graph, converted, fmt, Verdict(), gate)

    def _convert(self) -> tuple[Converted, Gate | None, RawFormat]:
        """The core in the precision asked for, the gate, and the format of the frames that a plan will see."""
        request, tell = self._request, self._report.tell
        if request.gate or request.calibrates:
            import_onnxruntime("isp-build")  # before a camera is asked
        material, fmt = self._frames()
        if request.measured is not None:
            request.measured.require_like(fmt)
        calibration = None
        if request.calibrates and material is not None:
            calibration, material = material.halves()
        tell(f"converting {self._core.info.name} to {request.precision}")
        converted = convert(self._core, request.precision, calibration, request.limit_db, self._matrix, tell)
        gate = None
        if request.gate and material is not None:
            gate = Gate(self._core, material, request.limit_db, self._matrix, tell)
        return converted, gate, fmt

    def _frames(self) -> tuple[Material | None, RawFormat]:
        """Frames where some are needed, and the format of those that a plan will see."""
        request = self._request
        needed = request.gate or request.calibrates
        if request.frames:
            if not needed:
                return None, request.format_after(load_raw(request.frames[0]).raw_format)
            material = self._load(request.frames)
            return material, request.format_after(material.raw_format)
        if not needed and request.pixel_format and request.size:
            return None, request.format_after(None)
        with tempfile.TemporaryDirectory(prefix="isp-build-") as folder:
            self._report.tell(f"taking {SNAPPED} frames from camera {request.camera}")
            file = Path(folder) / "frames.npy"
            own = snap(file, SNAPPED, request.camera, request.camera_settings, "give frames with --frames FILE")
            return self._load((str(file),)) if needed else None, request.format_after(own)

    def _load(self, files: tuple[str, ...]) -> Material:
        request = self._request
        camera = [getattr(request, name) for name in CAMERA]
        given = request.reference, request.white_balance, request.colour_matrix, camera
        material = load_material(files, *given, defects=request.defects, flat_field=request.flat_field)
        if untold := material.untold(self._core.info.inputs):
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in untold)
            self._report.tell(
                f"note: {self._core.info.name} is told the {' and '.join(untold)} of frames, which nothing says of "
                f"these, and 0 is taken; give {flags}"
            )
        return material

    def _graft(self, core: Core, fmt: RawFormat) -> bytes:
        fewest, _, most = self._request.batches
        batch = most if fewest == most else None
        defects, flat_field = self._request.defects, self._request.flat_field
        graph = graft(core, fmt, batch=batch, colour_matrix=self._matrix, defects=defects, flat_field=flat_field)
        return onnx.ModelProto.SerializeToString(graph, deterministic=True)

    def _write_core(self, converted: Converted, gate: Gate | None) -> Built:
        output = self._request.output
        with _candidate(output) as path:
            write_core(path, converted.core.model, converted.core.info)
            verdict = gate.by_engine(path, None, self._request.precision) if gate else Verdict()
            _put(path, output)
        return Built(output, None, verdict, in_float=converted.in_float)


class _PlanMaker:
    """Builds a plan, or takes it from the cache, and writes it with its sidecar."""

    def __init__(
        self,
        builder: Builder,
        spec: PlanSpec,
        request: BuildRequest,
        matrix: npt.NDArray[np.float32] | None,
        report: Reporter,
    ) -> None:
        self._builder, self._spec, self._request, self._matrix, self._report = builder, spec, request, matrix, report

    def write(self, graph: bytes, converted: Converted, fmt: RawFormat, verdict: Verdict, gate: Gate | None) -> Built:
        """Build from a grafted graph.

        Args:
            graph: The graph.
            converted: The core in it.
            fmt: Format of the frames.
            verdict: Of a gate that it went through already.
            gate: Through which the plan itself shall go; None where it need not.
        """
        request, builder, spec = self._request, self._builder, self._spec
        digest, flags = hashlib.sha256(graph).hexdigest(), builder.flags(spec.precision)
        identity = (digest, builder.backend, builder.version, spec.compute_capabilities, flags, spec.batches)
        key = cache_key(*identity)
        plan, from_cache = self._make(key, graph)
        info = PlanInfo(
            name=converted.core.info.name,
            core=converted.core.info.to_json(),
            backend=builder.backend,
            version=builder.version,
            precision=spec.precision,
            raw_format=fmt.to_json(),
            batches=spec.batches,
            compute_capabilities=spec.compute_capabilities,
            flags=flags,
            tensors=plan.tensors,
            plan_sha256=hashlib.sha256(plan.content).hexdigest(),
            plan_bytes=len(plan.content),
            onnx_sha256=digest,
            command=request.command,
            defects=request.defects,
            flat_field=None if request.flat_field is None else to_json(checked_mesh(request.flat_field)),
            colour_matrix=None if self._matrix is None else self._matrix.tolist(),
        )
        with _candidate(request.output) as path:
            write_whole(path, plan.content)
            write_plan_info(path, info)
            if gate:
                verdict = gate.by_engine(path, fmt, spec.precision)
            if verdict.score:
                figures = verdict.score.to_json(request.limit_db)
                info = replace(info, quality=figures, measured=verdict.how)
                write_plan_info(path, info)
            _put(sidecar(path), sidecar(request.output))
            _put(path, request.output)
        if request.cache and (verdict.score or not from_cache):
            store_plan(key, plan.content, info)
        return Built(request.output, info, verdict, from_cache, converted.in_float)

    def _make(self, key: str, graph: bytes) -> tuple[Plan, bool]:
        if self._request.cache and (path := cached_plan(key)) is not None:
            return Plan(path.read_bytes(), read_plan_info(path, check=False).tensors), True
        targets = ", ".join(self._spec.compute_capabilities)
        self._report.tell(f"building with {self._builder.backend} {self._builder.version} for {targets}")
        return self._builder.build(graph, self._spec, self._report.progress), False


@contextmanager
def _candidate(output: Path) -> Iterator[Path]:
    """A path beside the output, with its ending, for what is not yet approved; whatever stays there is removed."""
    path = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        sidecar(path).unlink(missing_ok=True)


def _put(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
