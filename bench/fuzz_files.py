"""Targets: files that others may have made."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..engines.bayer import RawFormat
from ..engines.errors import UserError
from ..engines.inspect_plan import describe
from ..engines.plan import PlanInfo, Tensor, file_sha256, read_plan_info, rebuild, why_not
from ..stream.camera.scenes import load_scene
from ..stream.key_files import read_pair, read_public, write_pair
from .fuzz_target import Target

Prepared = tuple[Callable[[bytes], object], list[bytes]]


def _keys(folder: Path, stack: ExitStack) -> Prepared:
    secret, public = folder / "a.key_secret", folder / "a.key"
    write_pair(secret, public, "control")
    seeds = [secret.read_bytes(), public.read_bytes()]

    def read(data: bytes) -> None:
        secret.write_bytes(data)
        read_public(secret)
        read_pair(secret)

    return read, seeds


def _sidecar(folder: Path, stack: ExitStack) -> Prepared:
    plan = folder / "a.plan"
    plan.write_bytes(b"plan")
    core = {"model": "lwisp", "width": 8, "output": "srgb", "multiple": 2, "inputs": ["wb_r", "wb_g", "wb_b"]}
    info = PlanInfo(
        name="lwisp",
        core=core,
        backend="tensorrt",
        version="10.0",
        precision="fp16",
        raw_format=RawFormat(64, 48, "BayerRG12p", 10, 4000).to_json(),
        batches=(1, 2, 4),
        compute_capabilities=("8.6", "8.9"),
        flags=("x",),
        tensors=(Tensor("raw", "input", "uint8", (-1, 48, 96)),),
        plan_sha256=file_sha256(plan),
        plan_bytes=4,
        onnx_sha256="0" * 64,
        quality={"psnr": 50.0},
    )
    beside = folder / "a.plan.json"

    def read(data: bytes) -> None:
        beside.write_bytes(data)
        found = read_plan_info(plan)
        _ = found.format, found.core_info, asdict(found), why_not(found, None), rebuild(found), describe(found)

    return read, [json.dumps(info.to_json()).encode(), json.dumps(info.to_json(), indent=2).encode()]


def _core(folder: Path, stack: ExitStack) -> Prepared:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from ..engines.core import CoreInfo, read_core, write_core

    path = folder / "a.onnx"
    node = helper.make_node("Conv", ["raw", "mix"], ["rgb"])
    sizes = ("B", "H", "W")
    raw, rgb = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [sizes[0], channels, *sizes[1:]])
        for name, channels in (("raw", 4), ("rgb", 3))
    )
    mix = numpy_helper.from_array(np.ones((3, 4, 1, 1), np.float32), "mix")
    model = helper.make_model(
        helper.make_graph([node], "a", [raw], [rgb], [mix]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    write_core(path, model, CoreInfo("a", 4, "srgb", 2))
    seeds = [path.read_bytes()]
    outside = onnx.load_model_from_string(seeds[0])  # a model that wants its weights read from another file
    weights = outside.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="a.onnx")
    seeds.append(outside.SerializeToString())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_core(path)

    return read, seeds


def _of_kind(suffix: str, seeds: list[bytes], sidecar: str) -> Callable[[Path, ExitStack], Prepared]:
    """Files of raw frames whose content is the input."""

    def prepare(folder: Path, stack: ExitStack) -> Prepared:
        path = folder / f"a{suffix}"
        (folder / f"a{suffix}.yaml").write_text(sidecar)

        def read(data: bytes) -> None:
            path.write_bytes(data)
            load_scene(str(path))

        return read, seeds

    return prepare


def _described(folder: Path, stack: ExitStack) -> Prepared:
    """Descriptions of a raw file: what stands beside it is the input."""
    path = folder / "a.raw"
    path.write_bytes(bytes(16 * 4 * 2 * 2))
    beside = folder / "a.raw.yaml"

    def read(data: bytes) -> None:
        beside.write_bytes(data)
        load_scene(str(path))

    seeds = [
        b"{width: 16, height: 4, format: BayerRG12, black: 16, white: 4095, exposure_us: [100, 200], gain_db: 1}\n",
        b"width: 16\nheight: 4\nformat: BayerRG16\niso: 100\nf_number: 2.8\nfocal_length_mm: [50, 60]\n",
    ]
    return read, seeds


def _spec(folder: Path, stack: ExitStack) -> Prepared:
    """What a user gives to --scene."""
    path = folder / "b.raw"
    path.write_bytes(bytes(16 * 4))
    start = os.fsencode(path)

    def read(data: bytes) -> None:
        load_scene(os.fsdecode(data))

    return read, [start + b"?width=16&height=4&format=BayerRG8&black=0&white=255", b"target", start, b"b.raw?iso=5"]


def _png() -> list[bytes]:
    import PIL.Image

    made = []
    for depth, height in (("u1", 2), ("u2", 4)):
        file = io.BytesIO()
        samples = np.frombuffer(random.Random(1).randbytes(16 * height * np.dtype(depth).itemsize), depth)
        PIL.Image.fromarray((samples >> 4 * (depth == "u2")).astype(depth).reshape(height, 16)).save(file, "png")
        made.append(file.getvalue())
    return made


def _npy() -> list[bytes]:
    made = []
    for shape, dtype in (((4, 16), "u1"), ((2, 4, 16), "<u2")):
        file = io.BytesIO()
        np.save(file, np.zeros(shape, dtype))
        made.append(file.getvalue())
    return made


_FORMAT = "format: BayerRG12\n"

FILES = (
    Target("keys", "key files of CURVE", (UserError,), _keys, (b"public-key = ", b"secret-key", b"metadata", b"#")),
    Target("sidecar", "sidecars of TensorRT plans", (UserError,), _sidecar, (b'"core":', b'"batches":', b"BayerRG8")),
    Target("core", "model cores: metadata, weights, graph", (UserError,), _core, (b"ispeed.info", b"mix"), share=0.5),
    Target("png", "mosaics in PNG files", (UserError,), _of_kind(".png", _png(), _FORMAT), (b"IDAT", b"IHDR", b"tRNS")),
    Target(
        "npy", "raw frames in .npy files", (UserError,), _of_kind(".npy", _npy(), _FORMAT), (b"'descr': ", b"'<u2'")
    ),
    Target(
        "raw",
        "descriptions of raw files",
        (UserError,),
        _described,
        (b"width: ", b"format: ", b"exposure_us: "),
        share=0.2,
    ),
    Target("scene", "what is given to --scene", (UserError,), _spec, (b"&width=", b"&format=", b"?", b"%00", b"&iso=")),
)
