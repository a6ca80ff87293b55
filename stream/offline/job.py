"""The job: all that a worker must know, in JSON values, settled once by the process that the user started.

Everything that could come out differently in another process (white balance, precision, the engine that "auto" is) is
settled here, so that every worker, on whatever machine, makes the same bytes of a frame.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.defects import neighbours
from ...engines.engine import Engine, EngineInfo
from ...engines.errors import UserError
from ...engines.flat_field import checked_mesh, require_bayer
from ...engines.inputs import iso_of
from ...engines.opening import open_engine
from ...engines.slots import Slots
from ...engines.white_balance import COLUMNS, world_gains
from ..footage import Footage, FootageOptions, open_footage
from .settle import digest_of, own_flat_field, settle

if TYPE_CHECKING:  # workers do without pydantic
    from .config import DevelopConfig, Format

CHUNK = 32
"""Most frames that a worker is given at once, unless the user says otherwise."""

_LOOKED_AT = 32  # frames that the white balance is found in
_GPU_SUFFIXES = (".plan", ".engine", ".pt2")
_TOLD = ("exposure_us", "gain_db", "iso", "f_number", "focal_length_mm")


class RunFailed(Exception):
    """The run cannot go on. The message is one sentence."""


@dataclass(frozen=True)
class Job:
    """What is developed, how, and what of it is made.

    Attributes:
        version: Of ispeed.
        footage: Absolute path, with its query where it has one.
        cfa, black_level, white_level: See `FootageOptions`.
        size, modified_ns: Of the file, by which it is known again.
        first, step, count: Frames first, first + step, ..., `count` of them. Position 0 is the first of them.
        raw_format: `RawFormat.to_json`.
        engine: Name, or absolute path.
        engine_id, precision: Of the engine, to see that all have the same. precision is None where there is no choice.
        white_balance: Gains, None where the engine takes none.
        colour_matrix, defects, flat_field, base_iso, f_number, focal_length_mm: As in the config.
        output: Absolute path of the folder.
        format: What is made.
        mp4_fps, mp4_crf: As in the config.
        segment: Frames of a closed group in an mp4.
        threads: Of each worker; None for engines on a GPU.
        backend: Of the engine: others round otherwise.
        engine_file: Hex digest of the engine's file, None where it has a name: a plan that was built anew is another.
        told: Hex digest of what the engine is told with each frame, which the file may not hold itself.
    """

    version: str
    footage: str
    cfa: str | None
    black_level: float | None
    white_level: float | None
    size: int
    modified_ns: int
    first: int
    step: int
    count: int
    raw_format: dict[str, Any]
    engine: str
    engine_id: int
    precision: str | None
    white_balance: list[float] | None
    colour_matrix: list[list[float]] | None
    defects: list[list[int]]
    base_iso: float | None
    f_number: float | None
    focal_length_mm: float | None
    output: str
    format: Format
    mp4_fps: float
    mp4_crf: int
    segment: int
    threads: int | None
    flat_field: dict[str, list[list[float]]] | None = None
    backend: str = ""
    engine_file: str | None = None
    told: str = ""

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values, from which `from_json` makes an equal job."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """What `to_json` made."""
        return cls(**values)

    @classmethod
    def for_worker(cls, values: dict[str, Any]) -> Job:
        """The same, in a worker. Raises UserError: another ispeed made it."""
        here, there = ispeed_version(), values.get("version")
        if here != there:
            raise UserError(f"a worker has ispeed {here or 'unknown'}, not {there}: install the same everywhere")
        return cls.from_json(values)

    @property
    def folder(self) -> Path:
        """Where what is made lies."""
        return Path(self.output)

    @property
    def stem(self) -> str:
        """Name of the footage without its ending."""
        return self._source.stem

    @property
    def _source(self) -> Path:
        return source_of(self.footage)

    def index(self, position: int) -> int:
        """Number in the footage of the frame at a position."""
        return self.first + position * self.step

    def facts(self) -> dict[str, Any]:
        """What decides on the bytes that are made, in JSON values: not where they come from and go to, nor how many
        threads there are."""
        facts = self.to_json() | {"footage": self._source.name}
        for name in ("output", "threads"):
            del facts[name]
        if self.format != "mp4":
            for name in ("mp4_fps", "mp4_crf", "segment"):
                del facts[name]
        return facts

    @property
    def digest(self) -> str:
        """Hex digest of `facts`."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()

    def open_footage(self) -> Footage:
        """The footage as every process sees it. Raises UserError: it is another one here."""
        footage = open_footage(self.footage, FootageOptions(self.cfa, self.black_level, self.white_level))  # type: ignore[arg-type]
        there = os.stat(footage.path)
        if (there.st_size, footage.raw_format.to_json()) != (self.size, self.raw_format):
            footage.close()
            raise UserError(f"{footage.path} is not the same file everywhere: give a path that all nodes share")
        return footage

    def open_engine(self) -> Engine:
        """The engine as every process has it. Raises UserError: it is another one here."""
        engine = _open(self, self.threads)
        info = engine.info
        if (info.engine_id, digest_of(self.engine)) != (self.engine_id, self.engine_file):
            engine.close()
            raise UserError(
                f"the engine {self.engine} is not the same everywhere: install the same ispeed on all nodes, and give "
                "a path that all of them share"
            )
        if info.backend != self.backend:
            engine.close()
            raise UserError(
                f"the engine {self.engine} runs in {info.backend} here and in {self.backend} where the run began, "
                "which rounds otherwise: install the same on all nodes"
            )
        return engine


def make_job(config: DevelopConfig, footage: Footage, threads: int) -> tuple[Job, EngineInfo]:
    """Settles everything.

    Args:
        config: What the user says.
        footage: What is developed, opened with the user's options.
        threads: Of each worker, where the engine has threads.

    Raises:
        UserError: The frames are not there, the calibration is of other frames, or the engine is not for this.
    """
    fmt = footage.raw_format
    if config.measured is not None:
        config.measured.require_like(fmt, footage.about.serial or None, footage.about.offset)
    settled = settle(config, footage)
    spec, info = settled.engine, settled.info
    on_gpu = spec.lower().endswith(_GPU_SUFFIXES)
    there = os.stat(footage.path)
    job = Job(
        version=ispeed_version(),
        footage=_absolute(config.footage),
        **{name: getattr(config, name) for name in ("cfa", "black_level", "white_level", "step", "first")},
        **{name: getattr(config, name) for name in ("base_iso", "f_number", "focal_length_mm", "format")},
        **{name: getattr(config, name) for name in ("mp4_fps", "mp4_crf")},
        segment=config.chunk or CHUNK,
        size=there.st_size,
        modified_ns=there.st_mtime_ns,
        count=len(range(config.first, _stop(config, footage), config.step)),
        raw_format=fmt.to_json(),
        engine=spec,
        engine_id=info.engine_id,
        precision=info.precision if info.backend in ("openvino", "onnxruntime") and info.precision != "int8" else None,
        white_balance=_gains(config, footage) if set(COLUMNS) <= set(info.inputs) else None,
        colour_matrix=settled.colour_matrix,
        defects=[list(place) for place in settled.defects],
        flat_field=settled.flat_field,
        output=os.path.abspath(config.output),
        threads=None if on_gpu else threads,
        backend=info.backend,
        engine_file=digest_of(spec),
    )
    job = replace(job, told=hashlib.sha256(told_of(job, footage.frames, info.inputs).tobytes()).hexdigest())
    # refuse here, once, what no worker could do
    neighbours([(x, y) for x, y in job.defects], fmt)
    if job.flat_field is not None:
        require_bayer(fmt)
    _open(job, job.threads).close()
    return job, info


def told_of(job: Job, frames: npt.NDArray[np.void], inputs: Sequence[str]) -> npt.NDArray[np.float32]:
    """What the engine is told with each frame: float32 [frames, inputs]; NaN where nobody knows."""
    told = np.full((len(frames), len(inputs)), np.nan, np.float32)
    given = {"f_number": job.f_number, "focal_length_mm": job.focal_length_mm}
    for column, name in enumerate(inputs):
        if name == "iso" and job.base_iso is not None:
            told[:, column] = [iso_of(gain, job.base_iso) for gain in frames["gain_db"].tolist()]
        elif given.get(name) is not None:
            told[:, column] = given[name]
        elif name in _TOLD:
            told[:, column] = frames[name]
    return told


def source_of(spec: str) -> Path:
    """The file that a path with or without a query names."""
    return Path(spec if os.path.exists(spec) else spec.partition("?")[0])


def _open(job: Job, threads: int | None) -> Engine:
    precision: Any = job.precision
    gains: Any = "auto" if job.white_balance is None else tuple(job.white_balance)
    return open_engine(
        job.engine,
        precision=precision,
        threads=threads,
        white_balance=gains,
        colour_matrix=job.colour_matrix,
        defects=[(x, y) for x, y in job.defects],
        flat_field=job.flat_field,
        raw_format=RawFormat.from_json(job.raw_format),
    )


def _absolute(spec: str) -> str:
    source = str(source_of(spec))
    return os.path.abspath(source) + spec[len(source) :]


def _stop(config: DevelopConfig, footage: Footage) -> int:
    """Number behind the last frame that is developed. Raises UserError."""
    count, cut_off = footage.count, footage.about.cut_off
    if config.last is None and cut_off:
        raise UserError(
            f"{footage.path} is cut off: of {count + cut_off} frames the first {count} are whole; copy it again, or "
            f"develop those with --last {count - 1}"
        )
    last = count - 1 if config.last is None else config.last
    for name, number in (("last", last), ("first", config.first)):
        if number >= count:
            raise UserError(
                f"there is no frame {number} in {footage.path}: the last one is {count - 1}; change --{name}"
            )
    return last + 1


def _gains(config: DevelopConfig, footage: Footage) -> list[float]:
    """Gains for all frames: those that the user gave, else those of the file, else found in frames of all of it."""
    given = footage.calibration.white_balance if config.white_balance is None else config.white_balance
    if given is not None:
        return [float(gain) for gain in given]
    slot = Slots(1, footage.raw_format.payload_size).slot(0)

    def frames() -> Any:
        indices = np.unique(np.linspace(0, footage.count - 1, _LOOKED_AT).round().astype(int)).tolist()
        unreadable: list[UserError] = []
        for index in indices:
            try:
                footage.read(index, slot)
            except UserError as error:  # of a frame that the user leaves out
                unreadable.append(error)
                continue
            yield slot
        if len(unreadable) == len(indices):
            raise unreadable[0]

    flat = own_flat_field(config, footage)
    mesh = None if flat is None else checked_mesh(flat)
    return [float(gain) for gain in world_gains(frames(), footage.raw_format, mesh)]


def ispeed_version() -> str:
    """Of this installation; empty where it is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ispeed")
    except PackageNotFoundError:
        return ""
