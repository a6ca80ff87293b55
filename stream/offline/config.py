"""DevelopConfig: everything that `isp-develop` can be told. The docstring under each field is its `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from ...engines.errors import UserError
from ...engines.settings import Settings, make_settings, read_yaml
from ..config import Measured, StreamConfig, checked_flat_field
from ..footage.base import Cfa

Format = Literal["png", "tiff", "mp4", "h5"]

FROM_STREAM = (
    *("cfa", "engine", "engine_precision", "threads", "black_level", "white_level", "white_balance", "colour_matrix"),
    *("defects", "flat_field", "measured", "base_iso", "f_number", "focal_length_mm", "json", "quiet"),
)
"""What means the same to isp-stream and isp-develop."""


def _none_or_checked(flat_field: Any) -> Any:
    return {} if flat_field == {} else checked_flat_field(flat_field)


OwnFlatField = Annotated[dict[str, list[list[float]]] | None, BeforeValidator(_none_or_checked)]
"""A flat field as in isp-stream, or {}, which turns off that of the file."""


class DevelopConfig(Settings):
    """Settings of `isp-develop`."""

    footage: Annotated[str, Field(min_length=1)]
    """raw frames: a recording of isp-stream (.h5), Phantom's .cine, Photron's .mraw beside its .cihx or .cih, or a file
    of raw frames (.raw, .bin, .npy, .png), FILE?width=512&height=512&format=BayerRG12 where no FILE.yaml says what it
    is"""
    output: Path
    """folder for what is made; it is made where it is missing"""
    format: Format = "png"
    """what is made: png or tiff (a file for each frame), mp4 (a film, in H.264), h5 (a recording of sRGB frames)"""
    engine: str = "lwisp"
    """what develops the frames, as in isp-stream: classic (no network); a learned model by its name; the path of a
    model core (.onnx), a TensorRT plan (.plan) or an exported torch model (.pt2); or auto (a built plan that fits this
    machine's GPU and the frames, else classic)"""
    engine_precision: Literal["auto", "fp32", "bf16"] = "auto"
    """what a learned model computes in on the processor: auto (bf16 where this processor has it, else fp32), fp32 or
    bf16; every worker computes in the same"""
    first: Annotated[int, Field(ge=0)] = 0
    """number of the first frame that is developed; frames count from 0"""
    last: Annotated[int, Field(ge=0)] | None = None
    """number of the last frame; null is the last one of the footage"""
    step: Annotated[int, Field(ge=1)] = 1
    """distance of the frames that are developed: 2 is every second one"""
    cfa: Cfa | None = None
    """order of the colour filters: RG, GR, GB or BG; null is as the file says"""
    black_level: Annotated[float, Field(ge=0)] | None = None
    """black level in digital numbers of the pixel format; null is as the file says, else 0"""
    white_level: Annotated[float, Field(gt=0)] | None = None
    """white level in digital numbers; null is as the file says, else the format's highest value"""
    white_balance: tuple[float, float, float] | None = None
    """gains of red, green and blue for all frames; null takes those of the file, else finds them once for all frames
    (grey world over 32 of them)"""
    colour_matrix: list[list[float]] | None = None
    """3x3 matrix, camera RGB to linear sRGB; null takes that of the file, else the identity"""
    base_iso: Annotated[float, Field(ge=1, le=1e6)] | None = None
    """ISO sensitivity of the camera at a gain of 0 dB, for models that are told the ISO; null takes that of each frame,
    as far as the file tells it"""
    f_number: Annotated[float, Field(ge=0.5, le=128)] | None = None
    """f-number of the lens, for models that are told it; null is as the file says"""
    focal_length_mm: Annotated[float, Field(ge=0.5, le=5000)] | None = None
    """focal length of the lens in millimetres, likewise"""
    defects: list[tuple[int, int]] | None = None
    """defect pixels as (x, y), replaced by their neighbours of the same colour; null takes those of the file"""
    flat_field: OwnFlatField = None
    """gains that make up for the shading of the lens, as in isp-stream; null takes those of the file, {} takes none"""
    measured: Measured | None = None
    """what isp-calibrate measured of the camera, and on which frames; those of the footage must be like them"""
    mp4_fps: Annotated[float, Field(ge=0.01, le=1000)] = 30
    """frames a second that an mp4 plays at, however many were taken"""
    mp4_crf: Annotated[int, Field(ge=0, le=51)] = 18
    """quality of an mp4: 0 loses nothing, 18 looks the same, 51 is the worst and smallest"""
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    """processes that develop; null is one for each core (with --ray: of the cluster) that their threads leave"""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """threads of each; null shares the cores of this machine among the workers"""
    chunk: Annotated[int, Field(ge=1, le=1024)] | None = None
    """frames that a worker is given at once; null is up to 32, fewer of a short run. In an mp4, whose groups of frames
    are as long, null is 32"""
    ray: Annotated[str, Field(min_length=1)] | None = None
    """develop on a Ray cluster: auto (the one that runs on this machine), its address, or local (one that is started on
    this machine for this run); footage and output must be at the same paths on every node"""
    force: bool = False
    """begin anew in a folder that holds what isp-develop made with other settings, or files of those names; they are
    removed"""
    json_lines: Annotated[bool, Field(alias="json")] = False
    """print one JSON object a line instead of the progress bar"""
    quiet: bool = False
    """print nothing but errors"""

    model_config = ConfigDict(populate_by_name=True)


def make_config(values: dict[str, Any]) -> DevelopConfig:
    """Validates `values`. Raises UserError that lists every problem in one line."""
    config = make_settings(DevelopConfig, values, "isp-develop --help")
    if config.last is not None and config.last < config.first:
        raise UserError(f"the last frame, {config.last}, comes before the first, {config.first}")
    return config


def read_config(path: Path) -> dict[str, Any]:
    """What a config says that is for isp-develop: calibration files of isp-calibrate, and configs of either command.

    What is for isp-stream alone, as its camera and ring, is left out.

    Raises:
        UserError: It cannot be read, or holds what neither of them knows.
    """
    values = read_yaml(path)
    ours = {field.alias or name for name, field in DevelopConfig.model_fields.items()} - {"footage"}
    theirs = {field.alias or name for name, field in StreamConfig.model_fields.items()}
    for name in values:
        if name not in ours | theirs:
            raise UserError(f"{path}: unknown setting {name!r}: isp-develop --help lists those that exist")
    return {
        name: value for name, value in values.items() if name in ours and (name not in theirs or name in FROM_STREAM)
    }
