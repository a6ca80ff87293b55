"""What a TensorRT plan is for: the sidecar beside it, the cache of plans, and why a plan does not run here.

A plan is tied to the module and version that built it, to GPUs by compute capability, and to one raw format. None of
that can be read from the plan itself without the GPU, so `lwisp.plan` has a `lwisp.plan.json` beside it. A plan is
code that runs on the GPU and the host: open only your own.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from .bayer import RawFormat
from .cache import cache_folder
from .colour import checked_matrix
from .errors import UserError
from .files import write_whole
from .flat_field import FlatField, checked_mesh, to_json

if TYPE_CHECKING:
    from .core import CoreInfo
    from .cuda.driver import Gpu

Backend = Literal["tensorrt", "tensorrt_rtx"]
BACKENDS: tuple[Backend, ...] = ("tensorrt", "tensorrt_rtx")

_VERSION = 1
PACKAGES = {"tensorrt": "ispeed[tensorrt]", "tensorrt_rtx": "ispeed[rtx]"}
"""What to install for a backend."""
_CHUNK = 1 << 20
_NOT_RTX = ("9.0", "10.0", "10.3")
"""GPUs of data centres, which `tensorrt_rtx` does not build for."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan: its name, "input" or "output", element type such as "uint8", shape (-1: batch)."""

    name: str
    mode: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PlanInfo:
    """What the sidecar of a plan says.

    Attributes:
        name: Of the model: what `--engine auto` and messages call it.
        core: `CoreInfo.to_json` of the core inside, in the precision of the plan.
        backend: Module that built it and runs it.
        version: That module's version.
        precision: "fp32", "fp16", "int8" or "fp8".
        raw_format: `RawFormat.to_json` of the frames that it develops.
        batches: Fewest, usual and most frames per run.
        compute_capabilities: GPUs that it was built for, such as "8.6".
        flags: Builder settings that a run depends on.
        tensors: Its inputs and outputs.
        plan_sha256, plan_bytes: Of the plan file.
        onnx_sha256: Of the grafted graph that it was built from.
        quality: Figures of the quality gate in dB (see `quality.Score.to_json`), None where it was not measured.
        measured: How `quality` was measured, one phrase; empty where it was not.
        command: The command line that made it.
        defects: (x, y) of the pixels that it replaces.
        flat_field: Gains against shading that it applies, as `flat_field.to_json` writes them; None without.
        colour_matrix: 3x3, camera RGB to linear sRGB, that it applies to the light of its core; None without.
    """

    name: str
    core: Mapping[str, Any]
    backend: Backend
    version: str
    precision: str
    raw_format: Mapping[str, Any]
    batches: tuple[int, int, int]
    compute_capabilities: tuple[str, ...]
    flags: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    quality: Mapping[str, float] | None = None
    measured: str = ""
    command: str = ""
    defects: tuple[tuple[int, int], ...] = ()
    flat_field: Mapping[str, list[list[float]]] | None = None
    colour_matrix: list[list[float]] | None = None

    @property
    def format(self) -> RawFormat:
        """The frames that it develops."""
        return RawFormat.from_json(self.raw_format)

    @property
    def core_info(self) -> CoreInfo:
        """Metadata of the core inside. Imports `onnx`. Raises UserError where the sidecar does not hold them."""
        from .core import CoreInfo

        try:
            return CoreInfo.from_json(dict(self.core))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the sidecar of {self.name} does not say what core is inside ({_brief(error)}); build it again with "
                "isp-build"
            ) from error

    def unlike(self, defects: Sequence[tuple[int, int]], flat_field: FlatField | None) -> list[str]:
        """Which of the two, "defect pixels" and "flat field", are other ones than are built in.

        Raises:
            UserError: The flat field is none.
        """
        mesh = None if flat_field is None else to_json(checked_mesh(flat_field))
        given = {"defect pixels": set(defects) == set(self.defects), "flat field": mesh == self.flat_field}
        return [name for name, is_like in given.items() if not is_like]

    def has_matrix(self, colour_matrix: npt.ArrayLike) -> bool:
        """Whether this colour matrix is built in, to what float32 holds."""
        own = self.colour_matrix
        return own is not None and np.allclose(checked_matrix(own), checked_matrix(colour_matrix), rtol=0, atol=1e-6)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values."""
        return {"ispeed.plan": _VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PlanInfo:
        """What `to_json` made. Raises ValueError, KeyError, TypeError or UserError where it is something else."""
        if values["ispeed.plan"] != _VERSION:
            raise ValueError(f"version {values['ispeed.plan']} is none that this release knows")
        # which earlier releases did not write
        values = {"defects": (), "flat_field": None, "colour_matrix": None, **values}
        kept = {field.name: values[field.name] for field in fields(cls)}
        try:
            info = _adapter().validate_python(kept)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise ValueError(
                f"its values are none that isp-build writes: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error
        fewest, usual, most = info.batches
        if not (1 <= fewest <= usual <= most and info.compute_capabilities):
            raise ValueError("its values are none that isp-build writes")
        if info.flat_field is not None:
            checked_mesh(info.flat_field)
        if info.colour_matrix is not None:
            checked_matrix(info.colour_matrix)
        RawFormat.from_json(info.raw_format)
        return info


@functools.cache
def _adapter() -> TypeAdapter[PlanInfo]:
    return TypeAdapter(PlanInfo)


def sidecar(path: Path) -> Path:
    """The file that says what the plan `path` is for."""
    return path.with_name(path.name + ".json")


def read_plan_info(path: Path, *, check: bool = True) -> PlanInfo:
    """What the plan `path` is for.

    Args:
        path: The plan; its sidecar lies beside it.
        check: Also read the plan through and compare its checksum, which takes some milliseconds.

    Raises:
        UserError: Either file is missing, damaged or cut off, or one does not belong to the other.
    """
    again = "build it again with isp-build"
    if not path.is_file():
        raise UserError(f"plan {path} does not exist; give the path of a plan that isp-build wrote")
    try:
        info = PlanInfo.from_json(json.loads(sidecar(path).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(
            f"{sidecar(path)}, which says what {path.name} is for, is missing; copy both, or {again}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError) as error:
        raise UserError(f"{sidecar(path)} is damaged ({_brief(error)}); {again}") from error
    size = path.stat().st_size
    if size != info.plan_bytes:
        what = "is cut off" if size < info.plan_bytes else "is not the plan of its sidecar"
        raise UserError(f"plan {path} {what}: it has {size} bytes instead of {info.plan_bytes}; {again}")
    if check and file_sha256(path) != info.plan_sha256:
        raise UserError(f"plan {path} is damaged: its checksum is not that of its sidecar; {again}")
    return info


def write_plan_info(path: Path, info: PlanInfo) -> None:
    """Write the sidecar of the plan `path`, atomically. Raises UserError where it cannot be written."""
    text = json.dumps(info.to_json(), indent=2) + "\n"
    write_whole(sidecar(path), text.encode())


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _brief(error: Exception) -> str:
    return (
        f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
    )


# ---- does it run here? ---------------------------------------------------------------------------------------


def module_version(backend: str) -> str | None:
    """Version of `tensorrt` or `tensorrt_rtx` in this environment, None where it is not installed."""
    try:
        return str(importlib.import_module(backend).__version__)
    except (ImportError, AttributeError, OSError):  # a broken installation counts as none
        return None


def why_not(
    info: PlanInfo,
    gpu: Gpu | None,
    fmt: RawFormat | None = None,
    version: Callable[[str], str | None] = module_version,
    *,
    file: str = "the plan",
) -> str | None:
    """Why a plan does not run here, None if it does.

    Args:
        info: Of the plan.
        gpu: The GPU here, None without one.
        fmt: Format of the frames to develop; None leaves that open.
        version: Tells the version of a module that is installed here.
        file: What to call the plan.

    Returns:
        One sentence: what the plan needs, what is here, and what to do about it.
    """
    if fmt is not None and fmt != info.format:
        command = rebuild(info, fmt, gpu)
        return (
            f"{file} develops {_words(info.format, fmt)}, and the frames are {_words(fmt, info.format)}; run: {command}"
        )
    *others, last = info.compute_capabilities
    needs = f"{', '.join(others)} or {last}" if others else last
    if gpu is None:
        return (
            f"{file} needs an NVIDIA GPU of compute capability {needs}, and this machine has none that works; "
            f"use --engine {_core(info)}, which runs on the processor, or classic"
        )
    if gpu.compute_capability not in info.compute_capabilities:
        return (
            f"{file} was built for GPUs of compute capability {needs}, and the {gpu.name} here has "
            f"{gpu.compute_capability}; run: {rebuild(info, fmt, gpu)}"
        )
    here = version(info.backend)
    if here is None:
        package = PACKAGES[info.backend]
        return f"{file} needs {info.backend} {info.version}, which is not installed; run: pip install '{package}'"
    if here != info.version:
        command = rebuild(info, fmt, gpu)
        return f"{file} was built by {info.backend} {info.version}, and {here} is installed here; run: {command}"
    return None


def rebuild(info: PlanInfo, fmt: RawFormat | None = None, gpu: Gpu | None = None) -> str:
    """The isp-build line that makes such a plan for this format and GPU."""
    fmt = info.format if fmt is None else fmt
    backend = info.backend
    if gpu is not None and gpu.compute_capability in _NOT_RTX:
        backend = "tensorrt"
    words = ["isp-build", _core(info), "--backend", backend, "--precision", info.precision]
    words += ["--pixel-format", fmt.pixel_format, "--size", f"{fmt.width}x{fmt.height}"]
    full_scale = (1 << fmt.depth) - 1
    words += ["--black-level", f"{fmt.black_level:g}"] if fmt.black_level else []
    words += ["--white-level", f"{fmt.white_level:g}"] if fmt.white_level != full_scale else []
    words += ["--batch", ",".join(map(str, info.batches))] if info.batches != (1, 1, 1) else []
    words += ["--calibration", "FILE"] if info.defects or info.flat_field else []
    if info.colour_matrix:
        words += ["--colour-matrix", *(f"{value:g}" for row in info.colour_matrix for value in row)]
    if backend == "tensorrt_rtx" and gpu is not None:
        words += ["--compute-capability", gpu.compute_capability]
    return " ".join([*words, "-o", f"{info.name}.plan"])


def _core(info: PlanInfo) -> str:
    """What to call the core on a command line: the name of a model that ships, or of a file."""
    from .zoo.catalogue import names

    return info.name if info.name in names() else f"{info.name}.onnx"


def _words(fmt: RawFormat, other: RawFormat) -> str:
    """A format in words; the levels only where they are all that differs from the other."""
    words = f"{fmt.width}x{fmt.height} {fmt.pixel_format}"
    if (fmt.width, fmt.height, fmt.pixel_format) == (other.width, other.height, other.pixel_format):
        words += f" with black level {fmt.black_level:g} and white level {fmt.white_level:g}"
    return words


# ---- the cache -----------------------------------------------------------------------------------------------


def cache_key(
    onnx_sha256: str,
    backend: str,
    version: str,
    compute_capabilities: tuple[str, ...],
    flags: tuple[str, ...],
    batches: tuple[int, int, int],
) -> str:
    """The name of a plan in the cache: a hex digest of all that decides what the builder makes."""
    parts = [onnx_sha256, backend, version, list(compute_capabilities), list(flags), list(batches)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached_plan(key: str) -> Path | None:
    """The plan of that key, if the cache has it whole."""
    path = cache_folder("plans") / f"{key}.plan"
    try:
        read_plan_info(path)
    except UserError:
        return None
    return path


def store_plan(key: str, plan: bytes, info: PlanInfo) -> None:
    """Keep a plan in the cache. A cache that cannot be written is none; nothing is said."""
    path = cache_folder("plans") / f"{key}.plan"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, plan)
        write_plan_info(path, info)
    except (OSError, UserError):
        with suppress(OSError):
            path.unlink()


def find_plan(
    name: str | None,
    fmt: RawFormat,
    gpu: Gpu,
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> Path | None:
    """A plan from the cache that runs on this GPU and develops this format; the newest if there are several, of those
    that correct what is to be corrected where there is one.

    Args:
        name: Of the model; None takes any.
        fmt: Format of the frames.
        gpu: The GPU here.
        defects, flat_field: What is to be corrected.

    Only plans that the quality gate has passed are found.
    """
    versions: dict[str, str | None] = {}

    def version(backend: str) -> str | None:
        if backend not in versions:
            versions[backend] = module_version(backend)
        return versions[backend]

    second: Path | None = None
    for path in sorted(cache_folder("plans").glob("*.plan"), key=_modified, reverse=True):
        try:
            info = read_plan_info(path, check=False)
        except UserError:
            continue
        if name in (None, info.name) and info.measured and why_not(info, gpu, fmt, version) is None:
            if not info.unlike(defects, flat_field):
                return path
            second = second or path
    return second


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
