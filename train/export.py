"""From a checkpoint to what engines open: an ONNX model core, or a torch program for the torch engine on a GPU.

Both are float32, of any batch and size, and hold a `CoreInfo`: the core in its ONNX metadata, the program as
``ispeed.json`` among its extra files. Which precision it runs in is the engine's to choose, or isp-build's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.reference import ReferenceEvaluator

from ..engines.core import CoreInfo, write_core
from ..engines.errors import UserError
from .checkpoint import Checkpoint
from .models import INPUTS, VARIANTS, CoreModule

OPSET = 17
PROGRAM_INFO = "ispeed.json"
"""The extra file of a torch program that holds its `CoreInfo` as JSON."""


def export_checkpoint(checkpoint: Checkpoint, path: Path) -> CoreInfo:
    """Write a core (.onnx) or a torch program (.pt2), as the suffix of `path` says. Returns what it says of itself.

    Raises:
        UserError: Another suffix, or the file cannot be written.
    """
    variant = VARIANTS[checkpoint.model]
    info = CoreInfo(
        model=checkpoint.model,
        width=variant.width,
        output="srgb",
        multiple=variant.multiple,
        inputs=INPUTS,
        run=checkpoint.run,
        data=checkpoint.data,
        licence=checkpoint.licence,
    )
    core = CoreModule(checkpoint.network).eval()
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".pt2"):
        raise UserError(f"{path} has no suffix that says what to write; use .onnx (a model core) or .pt2 (for torch)")
    return _export_onnx(core, path, info) if suffix == ".onnx" else _export_program(core, path, info)


def _example(multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Planes and gains to trace with. No size is 1 anywhere in the network, for torch would take it for a constant."""
    return torch.rand(2, 4, 2 * multiple, 3 * multiple), torch.ones(2, len(INPUTS))


def _export_onnx(core: CoreModule, path: Path, info: CoreInfo) -> CoreInfo:
    exported = io.BytesIO()
    with warnings.catch_warnings():
        # the exporter by tracing is deprecated, but gives the plain graph of opset 17 that every runtime reads; and it
        # warns of constants that it does not fold, which `_fold` does
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            core,
            _example(info.multiple),
            exported,  # pyright: ignore[reportArgumentType]: the tracing exporter writes to any file
            dynamo=False,
            opset_version=OPSET,
            input_names=["raw", "params"],
            output_names=["rgb"],
            dynamic_axes={"raw": {0: "B", 2: "h", 3: "w"}, "params": {0: "B"}, "rgb": {0: "B", 2: "H", 3: "W"}},
        )
    model = onnx.load_model_from_string(exported.getvalue())
    _fold(model.graph)
    return write_core(path, model, info)


def _fold(graph: onnx.GraphProto) -> None:
    """Replace nodes that compute constants, half a dozen for each pad, by the constants that are used."""
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if all(name in known for name in node.input):
            feeds = {name: known[name] for name in node.input}
            computed: Any = ReferenceEvaluator(node).run(None, feeds)
            known.update(zip(node.output, computed, strict=True))
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(onnx.numpy_helper.from_array(known[name], name) for name in known if name in used)


def _export_program(core: CoreModule, path: Path, info: CoreInfo) -> CoreInfo:
    batch = torch.export.Dim("B", min=1)
    # in units of the network's own steps, because torch derives every size inside from these
    rows, columns = (info.multiple // 2 * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    program = torch.export.export(
        core, _example(info.multiple), dynamic_shapes=({0: batch, 2: rows, 3: columns}, {0: batch})
    )
    info = replace(info, sha256=_digest(core))
    written = io.BytesIO()
    torch.export.save(program, written, extra_files={PROGRAM_INFO: json.dumps(info.to_json())})
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(written.getvalue())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:  # also after Ctrl-C
        with contextlib.suppress(OSError):
            partial.unlink()
    return info


def _digest(core: CoreModule) -> str:
    """Hex digest of the weights: names, shapes and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(core.state_dict().items()):
        digest.update(f"{name}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
