"""From a checkpoint to what engines open: an ONNX model core, or a torch program for the torch engine on a GPU.

Both are float32, of any batch and size, and hold a `CoreInfo`: the core in its ONNX metadata, the program as
``ispeed.json`` among its extra files. Which precision it runs in is the engine's to choose, or isp-build's.

A network of the form "rgb" becomes a file of the same two kinds, for any runtime but no engine: `picture` float32
[B, 3, H, W] to `rgb` of the same shape, both sRGB in [0, 1]; H and W are multiples of `CoreInfo.multiple`, and at least
two of them. Its metadata has `ispeed.picture` for `ispeed.core`, its program ``ispeed.picture.json``.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnx.reference import ReferenceEvaluator

from ..engines.core import PICTURES, CoreInfo, write_core
from ..engines.errors import UserError
from ..engines.files import write_whole
from ..engines.torch_gpu import PROGRAM_INFO
from .checkpoint import Checkpoint
from .filter import picture_multiple
from .models import NETWORKS, BothISPs, CoreModule, Form, ForwardModule, PictureModule, form_of, make_module
from .models.hdrisp import HdrISP

OPSET = 17
PICTURE_INFO = f"{PICTURES}.json"
"""The extra file of a torch program that takes pictures, in place of `PROGRAM_INFO`."""

_TAKEN = ("classic", "auto")
"""What `isp-stream --engine` means something else by."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")

Exported = CoreModule | ForwardModule | PictureModule

_EXPORTED: tuple[Form, ...] = ("raw", "rgb")
"""Forms that there is a file for."""


def export_checkpoint(checkpoint: Checkpoint, path: Path, name: str = "") -> CoreInfo:
    """Write a core (.onnx) or a torch program (.pt2), as the suffix of `path` says. Returns what it says of itself.

    Args:
        checkpoint: Of the network.
        path: Where.
        name: What engines call it; "" is what the core is called that it comes from, else the name of the network.

    Raises:
        UserError: A name that is none, another suffix, a network that only teaches others or that stands at a coarse
            level, or the file cannot be written.
    """
    if name and not _NAME.fullmatch(name):
        raise UserError(
            f"the name {name!r} is none: it has up to 32 letters, digits, dots, dashes and underscores, "
            "and begins with a letter or digit"
        )
    if name in _TAKEN:
        raise UserError(f"the name {name!r} is taken: isp-stream --engine {name} is something else; choose another")
    network = checkpoint.network.forth if isinstance(checkpoint.network, BothISPs) else checkpoint.network
    if (form := form_of(network)) == "inverse":
        raise UserError("a network of the form inverse makes frames of pictures: give it to isp-invert as it is")
    if form not in _EXPORTED:
        raise UserError(f"a network of the form {form} only helps to train others; export one of these")
    if isinstance(network, HdrISP) and network.level:
        raise UserError(
            f"a network at level {network.level} gives pictures of 1/{network.scale} of the size, for training alone; "
            "train on to level 0 and export that"
        )
    known = NETWORKS[checkpoint.model]
    module = cast(Exported, make_module(network, checkpoint.output).eval())
    info = CoreInfo(
        model=checkpoint.model,
        width=checkpoint.options.get("width", known.width),
        output=checkpoint.output,
        multiple=known.multiple if form == "raw" else picture_multiple(checkpoint.model),
        inputs=() if isinstance(module, PictureModule) else module.inputs,
        run=checkpoint.run,
        data=checkpoint.data,
        licence=checkpoint.licence,
        title="" if name == checkpoint.model else name or checkpoint.title,
    )
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".pt2"):
        raise UserError(f"{path} has no suffix that says what to write; use .onnx (a model core) or .pt2 (for torch)")
    return _export_onnx(module, path, info) if suffix == ".onnx" else _export_program(module, path, info)


def _example(module: Exported, multiple: int) -> tuple[torch.Tensor, ...]:
    """What to trace with. No size is 1 anywhere in the network, for torch would take it for a constant."""
    if isinstance(module, PictureModule):
        return (torch.rand(2, 3, 2 * multiple, 3 * multiple),)
    # no size that is 1 after the halvings of any network
    step = max(multiple, 64)
    return torch.rand(2, 4, 2 * step, 3 * step), torch.ones(2, len(module.inputs))


def _export_onnx(module: Exported, path: Path, info: CoreInfo) -> CoreInfo:
    exported, pictures = io.BytesIO(), isinstance(module, PictureModule)
    axes = {"picture": {0: "B", 2: "H", 3: "W"}} if pictures else {"raw": {0: "B", 2: "h", 3: "w"}, "params": {0: "B"}}
    with warnings.catch_warnings():
        # the exporter by tracing is deprecated, but gives the plain graph of opset 17 that every runtime reads; and it
        # warns of constants that it does not fold, which `_fold` does
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        # instance norm has no mean of training to take: it is meant to take that of what it sees
        warnings.filterwarnings("ignore", "ONNX export mode .* operator 'instance_norm'", UserWarning)
        # its check of shapes, and its constants, are the same for all sizes
        traced = torch.jit.TracerWarning  # pyright: ignore[reportPrivateImportUsage]
        warnings.filterwarnings("ignore", category=traced, module=r".*\.demosaic")
        torch.onnx.export(
            module,
            _example(module, info.multiple),
            exported,  # pyright: ignore[reportArgumentType]: the tracing exporter writes to any file
            dynamo=False,
            opset_version=OPSET,
            input_names=list(axes),
            output_names=["rgb"],
            dynamic_axes={**axes, "rgb": {0: "B", 2: "H", 3: "W"}},
        )
    model = onnx.load_model_from_string(exported.getvalue())
    _fold(model.graph)
    return write_core(path, model, info, PICTURES) if pictures else write_core(path, model, info)


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


def _export_program(module: Exported, path: Path, info: CoreInfo) -> CoreInfo:
    pictures = isinstance(module, PictureModule)
    batch = torch.export.Dim("B", min=1)
    # in units of the network's own steps, because torch derives every size inside from these
    step = info.multiple if pictures else info.multiple // 2
    rows, columns = (step * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    sizes = {0: batch, 2: rows, 3: columns}
    program = torch.export.export(
        module, _example(module, info.multiple), dynamic_shapes=(sizes,) if pictures else (sizes, {0: batch})
    )
    info = replace(info, sha256=_digest(module))
    written = io.BytesIO()
    name = PICTURE_INFO if pictures else PROGRAM_INFO
    torch.export.save(program, written, extra_files={name: json.dumps(info.to_json())})
    write_whole(path, written.getvalue())
    return info


def _digest(module: Exported) -> str:
    """Hex digest of the weights: names, shapes and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
