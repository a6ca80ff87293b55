"""Model cores: what training exports, the zoo holds, and engines graft a head and a tail onto.

A core is a float32 ONNX file of opset 17 for any size and batch. It is not tied to a camera's pixel format:

    raw     float32 [B, 4, H/2, W/2]   R, Gr, Gb, B planes of an RGGB mosaic, black at 0, white at 1
    params  float32 [B, K]             run-time inputs, columns named in the metadata; absent where K is 0
    rgb     float32 [B, 3, H, W]       sRGB or linear light in [0, 1]

Noise may take samples a little below 0, as it did in training. H and W are multiples of `CoreInfo.multiple`,
and at least two of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import onnx
from google.protobuf.message import DecodeError

from .errors import UserError
from .files import write_whole
from .inputs import CAMERA, CCM
from .white_balance import COLUMNS

VERSION = "1"
"""Of the contract above, in the metadata under `ispeed.core`."""

PICTURES = "ispeed.picture"
"""What the key is in files of networks that take pictures, which isp-export writes too: they are no cores."""

INPUTS = (*COLUMNS, *CAMERA, *CCM)
"""Run-time inputs that a core may name: white-balance gains (green 1), what is known of the camera (see
`inputs.CAMERA`), and the nine numbers of the colour matrix (see `inputs.CCM`), all of them or none."""


@dataclass(frozen=True)
class CoreInfo:
    """What a core says of itself in its metadata.

    Attributes:
        model: Name of the network, such as "lwisp-xs".
        width: Channels at its highest resolution.
        output: "srgb" (display values) or "linear" (light; the tail applies colour matrix and curve).
        multiple: Width and height, in mosaic pixels, must be divisible by this.
        inputs: Names of the columns of `params`, of `INPUTS`.
        precision: "fp32" as exported; "fp16", "int8", "fp8" after isp-build has converted it.
        run: Which training run made it.
        data: What it was trained on.
        licence: Of the weights.
        sha256: Hex digest of the weights (see `weights_sha256`).
        title: What it is called, where that says more than the network does: "lwisp-hdr" is the network lwisp.
    """

    model: str
    width: int
    output: Literal["srgb", "linear"]
    multiple: int
    inputs: tuple[str, ...] = ()
    precision: str = "fp32"
    run: str = ""
    data: str = ""
    licence: str = ""
    sha256: str = ""
    title: str = ""

    @property
    def name(self) -> str:
        """What engines call it."""
        return self.title or self.model

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values."""
        return asdict(self) | {"inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> CoreInfo:
        """What `to_json` made. Raises ValueError, KeyError or TypeError where it is something else."""
        if not isinstance(values, dict):
            raise TypeError("it is no object")
        known = {field.name for field in fields(cls)}
        info = cls(**{key: value for key, value in values.items() if key in known})
        info = replace(info, inputs=tuple(info.inputs), multiple=int(info.multiple), width=int(info.width))
        if info.output not in ("srgb", "linear") or info.multiple < 2 or info.multiple % 2:
            raise ValueError("output must be srgb or linear, multiple an even number")
        unknown = set(info.inputs) - set(INPUTS)
        if unknown:
            raise ValueError(f"run-time input {', '.join(sorted(unknown))} is none that this version knows")
        missing = [name for name in CCM if name not in info.inputs]
        if missing and len(missing) < len(CCM):
            raise ValueError(f"of the colour matrix it names some numbers but not {', '.join(missing)}")
        return info


@dataclass(frozen=True, eq=False)
class Core:
    """A core in memory.

    Attributes:
        info: Its metadata.
        model: The network.
        path: The file it came from, for messages.
    """

    info: CoreInfo
    model: onnx.ModelProto
    path: Path


def weights_sha256(model: onnx.ModelProto) -> str:
    """Hex digest of the initialisers: names, types, shapes and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        digest.update(f"{tensor.name}\0{tensor.data_type}\0{list(tensor.dims)}\0".encode())
        digest.update(onnx.numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()


def write_core(path: Path, model: onnx.ModelProto, info: CoreInfo, key: str = "ispeed.core") -> CoreInfo:
    """Write a core with its metadata, atomically. Returns `info` with the checksum filled in.

    Args:
        path: Where.
        model: The network.
        info: Its metadata.
        key: Of the version in the metadata; `PICTURES` for what is no core.

    Raises:
        UserError: The file cannot be written.
    """
    info = replace(info, sha256=weights_sha256(model))
    stamped = onnx.ModelProto()
    stamped.CopyFrom(model)
    del stamped.metadata_props[:]
    onnx.helper.set_model_props(stamped, {key: VERSION, "ispeed.info": json.dumps(info.to_json())})
    write_whole(path, stamped.SerializeToString())
    return info


def read_core(path: Path) -> Core:
    """Read and check a core.

    Raises:
        UserError: The file is missing, cut off, damaged, or an ONNX file that is no core.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read the model {path}: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"{path} is no ONNX file, or is cut off; copy or export it again") from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    version = properties.get("ispeed.core")
    if version != VERSION:
        what = "has no metadata of a model core" if version is None else f"is a model core of version {version}"
        if "ispeed.graft" in properties:
            what = "has a head and a tail for one raw format already"
        elif PICTURES in properties:
            what = "filters pictures and develops no raw frames"
        raise UserError(f"{path} {what}; this version opens cores that isp-export wrote (version {VERSION})")
    try:
        info = CoreInfo.from_json(json.loads(properties["ispeed.info"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"the metadata of {path} is damaged ({error}); export it again with isp-export") from error
    _check(path, model, info)
    return Core(info, model, path)


def _check(path: Path, model: onnx.ModelProto, info: CoreInfo) -> None:
    wanted = ["raw", *(["params"] if info.inputs else [])], ["rgb"]
    found = [v.name for v in model.graph.input], [v.name for v in model.graph.output]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise UserError(f"{path} has its weights in another file; export it again with isp-export")
    try:
        whole = found == wanted and weights_sha256(model) == info.sha256
        onnx.checker.check_model(model)
    except (ValueError, TypeError, KeyError, cast(Any, onnx.checker).ValidationError):  # KeyError: of an unknown type
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged: its network does not match its metadata; export it again with isp-export")
