"""The quality gate of isp-build: how far a core in few bits falls behind the same core in float32, on held-out frames.

PSNR against a reference picture may drop by at most a limit. The reference is what the user gives, else the classic
engine's picture of the same frames with the same gains.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat, pack, unpack
from .colour import invertible_matrix
from .engine import Engine
from .errors import UserError
from .flat_field import FlatField
from .inputs import CAMERA, CCM, takes_matrix
from .raw_files import load_raw
from .slots import Slots
from .white_balance import CLIPPED, COLUMNS, GreyWorld, checked_gains

if TYPE_CHECKING:
    import onnx

    from .core import Core

Picture = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]

MAX_DROP_DB = {"fp32": 0.1, "fp16": 0.1, "int8": 0.3, "fp8": 0.3}
"""How far PSNR against the reference may drop unless the user says otherwise, by precision."""

HELD_OUT = 8
"""Most frames that the gate measures on: they tell the same as more would."""

IDENTICAL_DB = 99.0
"""What stands for the PSNR of pictures that are the same, which is infinite."""

FAR_DB = 20.0
"""A reference that float32 itself misses by more says little about the precision."""


@dataclass(frozen=True, eq=False)
class Material:
    """Raw frames with all that a core and a judge of it need.

    Attributes:
        raw_format: Of the frames.
        frames: Payloads, uint8 [payload_size] each.
        gains: float32 [N, 3], white-balance gains of each frame, green 1.
        camera: float32 [N, 5], what is known of the camera for each frame, columns of `inputs.CAMERA`; NaN where it is
            not known.
        references: uint8 [H, W, 3], the picture that each should give.
        reference: What the references are, in words.
        defects: (x, y) of pixels to replace in the frames.
        flat_field: Gains against the frames' shading, see `flat_field.checked_mesh`.
    """

    raw_format: RawFormat
    frames: Sequence[npt.NDArray[np.uint8]]
    gains: npt.NDArray[np.float32]
    camera: npt.NDArray[np.float32]
    references: Sequence[Picture]
    reference: str
    defects: Sequence[tuple[int, int]] = ()
    flat_field: FlatField | None = None

    @property
    def corrections(self) -> dict[str, Any]:
        """Defects and flat field, as `graft`, `make_head` and `open_engine` take them."""
        return {"defects": self.defects, "flat_field": self.flat_field}

    def only(self, indices: Sequence[int]) -> Material:
        """Some of the frames."""
        pick = [self.frames[k] for k in indices], [self.references[k] for k in indices]
        told = {"gains": self.gains[list(indices)], "camera": self.camera[list(indices)]}
        return replace(self, frames=pick[0], references=pick[1], **told)

    def untold(self, inputs: Sequence[str]) -> tuple[str, ...]:
        """Those of a core's inputs that are not known of some frame."""
        unknown = np.isnan(self.camera)
        return tuple(name for k, name in enumerate(CAMERA) if name in inputs and unknown[:, k].any())

    def halves(self) -> tuple[Material, Material]:
        """Frames to calibrate with, and frames held out to measure on: every other one.

        Raises:
            UserError: There is only one frame.
        """
        count = len(self.frames)
        if count < 2:
            raise UserError("there is one frame only; give two or more, some to calibrate with and some to measure on")
        return self.only(range(0, count, 2)), self.only(range(1, count, 2)[:HELD_OUT])


@dataclass(frozen=True)
class Score:
    """What the gate measured, in dB.

    Attributes:
        fp32_db: PSNR of the float32 core against the reference.
        psnr_db: PSNR of the candidate against the reference.
        to_fp32_db: PSNR of the candidate against the float32 core.
        frames: How many frames it was measured on.
    """

    fp32_db: float
    psnr_db: float
    to_fp32_db: float
    frames: int

    @property
    def drop_db(self) -> float:
        """How much was lost against the reference; negative where the candidate is nearer to it by chance."""
        return self.fp32_db - self.psnr_db

    def to_json(self, max_drop_db: float) -> dict[str, float]:
        """Figures for the sidecar."""
        names = ("fp32_db", "psnr_db", "drop_db", "to_fp32_db")
        return {name: round(getattr(self, name), 3) + 0.0 for name in names} | {
            "max_drop_db": max_drop_db,
            "frames": self.frames,
        }


class Judge:
    """Measures networks against the float32 core that they were made from, with ONNX Runtime on the processor."""

    def __init__(self, core: Core, material: Material, colour_matrix: Matrix | None = None) -> None:
        self._core, self._matrix = core, colour_matrix
        self.material = material
        self.fp32 = self.develop(core.model)

    def develop(self, network: onnx.ModelProto) -> list[Picture]:
        """The pictures that a network in place of the core's makes of the frames."""
        from .graph import graft

        core, fmt = replace(self._core, model=network), self.material.raw_format
        run = session(graft(core, fmt, batch=1, colour_matrix=self._matrix, **self.material.corrections))
        return [run.run(None, feed)[0][0] for feed in feeds(self._core, self.material, run, self._matrix)]

    def score(self, network: onnx.ModelProto) -> Score:
        """How a network in place of the core's does."""
        return self.score_pictures(self.develop(network))

    def score_pictures(self, pictures: Sequence[Picture]) -> Score:
        """How pictures of the frames, made in some other way, do."""
        reference = self.material.references
        against = psnr(self.fp32, reference), psnr(pictures, reference), psnr(pictures, self.fp32)
        return Score(*against, frames=len(pictures))


def feeds(core: Core, material: Material, run: Any, colour_matrix: Matrix | None = None) -> Iterator[dict[str, Any]]:
    """Inputs of a grafted graph for each frame, in the shape that the session `run` takes.

    `colour_matrix` is for a core that is told it.
    """
    shape = [int(size) for size in run.get_inputs()[0].shape[1:]]
    for frame, gains, camera in zip(material.frames, material.gains, material.camera, strict=True):
        feed: dict[str, Any] = {"raw": frame.reshape(1, *shape)}
        if core.info.inputs:
            feed["params"] = params(core.info.inputs, gains, camera, colour_matrix)
        yield feed


def params(
    inputs: Sequence[str],
    gains: npt.NDArray[np.float32],
    camera: npt.NDArray[np.float32],
    colour_matrix: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float32]:
    """What a core is told of a frame, as engines tell it.

    Args:
        inputs: Of the core, by name.
        gains: float32 [3], white balance of R, G, B.
        camera: float32 [5] in the order of `CAMERA`, or its first [2], exposure in microseconds and gain in dB; NaN
            where it is not known, which becomes 0.
        colour_matrix: 3x3, camera RGB to linear sRGB; None is the identity.

    Returns:
        float32 [1, K], in the order of the inputs.

    Raises:
        UserError: The core is told a colour matrix that cannot be inverted.
    """
    values: dict[str, float] = dict.fromkeys((*COLUMNS, *CAMERA), 0.0)
    values |= dict(zip(COLUMNS, gains.tolist(), strict=True))
    values |= dict(zip(CAMERA, np.where(np.isnan(camera), 0, camera).tolist(), strict=False))
    if takes_matrix(inputs):
        values |= dict(zip(CCM, invertible_matrix(colour_matrix).ravel().tolist(), strict=True))
    return np.array([[values[name] for name in inputs]], np.float32)


def psnr(pictures: Sequence[Picture], references: Sequence[Picture]) -> float:
    """PSNR over all pictures together, in dB of the largest code, 255; at most `IDENTICAL_DB`."""
    squares = [np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(pictures, references, strict=True)]
    error = float(np.mean(squares))
    return min(IDENTICAL_DB, 10 * math.log10(255**2 / error)) if error else IDENTICAL_DB


def session(model: onnx.ModelProto) -> Any:
    """An ONNX Runtime session on the processor.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    from .cpu_onnxruntime import import_onnxruntime

    onnxruntime = import_onnxruntime("isp-build")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # quantise and dequantise as written: the integer kernels of some processors saturate, and GPUs do not
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ClipQuantRewrite", "ReluQuantRewrite"],  # they fail on float8
    )


# ---- frames, gains and references ----------------------------------------------------------------------------


def load_material(
    files: Sequence[str],
    reference: Path | None = None,
    white_balance: tuple[float, float, float] | None = None,
    colour_matrix: Matrix | None = None,
    camera: Sequence[float | None] = (),
    *,
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> Material:
    """Frames from files (see `raw_files`), all of one format.

    Args:
        files: One or more files of raw frames.
        reference: A folder of PNG files in the order of the frames, or a .npy file uint8 [N, H, W, 3]; None has the
            classic engine make the pictures.
        white_balance: Gains of every frame; None is the grey world of each.
        colour_matrix: For the classic engine.
        camera: What holds for every frame, in the order of `inputs.CAMERA`; None, or what is left out at the end, is
            what the files tell of each.
        defects, flat_field: See `Material`. The grey world is that of the frames as they are.

    Raises:
        UserError: Files that do not go together, or that are none.
    """
    loaded = [load_raw(name) for name in files]
    fmt = loaded[0].raw_format
    for other in loaded[1:]:
        if other.raw_format != fmt:
            raise UserError(
                f"{other.path} has another size, format or level than {loaded[0].path}; give frames of one kind"
            )
    if fmt.cfa == "MONO":
        raise UserError(f"{loaded[0].path} holds {fmt.pixel_format}, which has no colours; give Bayer frames")
    samples = list(itertools.chain.from_iterable(file.samples for file in loaded))
    frames = [pack(np.ascontiguousarray(frame), fmt) for frame in samples]
    if white_balance is None:
        gains = np.stack([grey_world(frame, fmt) for frame in samples])
    else:
        gains = np.repeat(checked_gains(white_balance)[None], len(frames), axis=0)
    told = np.concatenate([np.concatenate([file.camera, file.optics], axis=1) for file in loaded])
    for column, value in enumerate(camera):
        if value is not None:
            told[:, column] = value
    if reference is not None:
        pictures = read_pictures(reference, fmt, len(frames))
        return Material(fmt, frames, gains, told, pictures, str(reference), defects, flat_field)
    with_matrix = "" if colour_matrix is None else " with the colour matrix given"
    words = f"the classic engine's picture of the same frames with the same gains{with_matrix}"
    pictures = classic_pictures(frames, fmt, gains, colour_matrix, defects, flat_field)
    return Material(fmt, frames, gains, told, pictures, words, defects, flat_field)


def grey_world(samples: npt.NDArray[Any], fmt: RawFormat) -> npt.NDArray[np.float32]:
    """Gains [3] under which a frame, [height, width] in DN, is grey on average; clipped places do not count."""
    rows, columns = fmt.height // 2 * 2, fmt.width // 2 * 2
    sites = [samples[k // 2 : rows : 2, k % 2 : columns : 2].astype(np.float64) for k in range(4)]
    limit = fmt.black_level + CLIPPED * (fmt.white_level - fmt.black_level)
    usable = np.max(sites, axis=0) < limit
    sums = dict.fromkeys("RGB", 0.0)
    for colour, site in zip(fmt.cfa, sites, strict=True):
        sums[colour] += float(site[usable].sum())
    estimate = GreyWorld()
    estimate.update(np.array([*sums.values(), usable.sum()]), fmt.black_level, 1)
    return estimate.gains


def read_pictures(path: Path, fmt: RawFormat, count: int) -> list[Picture]:
    """sRGB pictures of `count` frames: PNG files of a folder by name, or a .npy file uint8 [N, H, W, 3].

    Raises:
        UserError: They cannot be read, or are not as many or as large as the frames.
    """
    try:
        if path.is_dir():
            import PIL.Image

            names = sorted(path.glob("*.png"))
            pictures = [np.asarray(PIL.Image.open(name).convert("RGB")) for name in names]
        else:
            pictures = list(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the reference {path} cannot be read: {' '.join(str(error).split())}") from error
    shape = (fmt.height, fmt.width, 3)
    if len(pictures) != count or any(p.shape != shape or p.dtype != np.uint8 for p in pictures):
        raise UserError(
            f"the reference {path} must hold {count} pictures of {fmt.width}x{fmt.height}, uint8 RGB, one per frame"
        )
    return pictures


def classic_pictures(
    frames: Sequence[npt.NDArray[np.uint8]],
    fmt: RawFormat,
    gains: npt.NDArray[np.float32],
    colour_matrix: Matrix | None,
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> list[Picture]:
    """What the classic engine makes of frames with these gains, float32 [N, 3]."""
    from .classic import ClassicEngine

    engine = ClassicEngine(colour_matrix=colour_matrix, defects=defects, flat_field=flat_field)
    return develop_all(lambda: engine, frames, fmt, gains)


# ---- any engine on such frames ---------------------------------------------------------------------------------


def develop_all(
    open_it: Callable[[], Engine],
    frames: Sequence[npt.NDArray[np.uint8]],
    fmt: RawFormat,
    gains: npt.NDArray[np.float32],
    camera: npt.NDArray[np.float32] | None = None,
) -> list[Picture]:
    """The pictures that an engine makes of frames, one at a time, with these gains; it is closed afterwards.

    Args:
        open_it: Gives the engine.
        frames: Payloads, uint8 [payload_size] each.
        fmt: Of the frames.
        gains: float32 [N, 3], white balance of each.
        camera: float32 [N, 5] or [N, 2], what is known of the camera for each, see `params`; None where nothing is.

    Raises what the engine raises.
    """
    told = np.full((len(frames), len(CAMERA)), np.nan, np.float32) if camera is None else camera
    raw, srgb = Slots(1, fmt.payload_size), Slots(1, fmt.width * fmt.height * 3)
    engine = open_it()
    try:
        engine.prepare(fmt, 1, raw, srgb)
        pictures = []
        for frame, gain, its_camera in zip(frames, gains, told, strict=True):
            raw.slot(0)[:] = frame
            engine.develop([0], [0], params(engine.info.inputs, gain, its_camera)).wait()
            pictures.append(srgb.slot(0).reshape(fmt.height, fmt.width, 3).copy())
        return pictures
    finally:
        engine.close()


def repacked(material: Material, fmt: RawFormat) -> Material | None:
    """The same frames as bytes of another format; None where size, colours or depth differ."""
    own = material.raw_format
    if (own.width, own.height, own.cfa, own.depth) != (fmt.width, fmt.height, fmt.cfa, fmt.depth):
        return None
    if (own.black_level, own.white_level) != (fmt.black_level, fmt.white_level):
        return None
    frames = [pack(unpack(frame, own), fmt) for frame in material.frames]
    return replace(material, frames=frames, raw_format=fmt)
