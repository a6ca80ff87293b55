"""Checkpoints: what a training run leaves behind, and what `isp-export` reads.

A file of `torch.save` with one dict: `model` (a name of `models.NETWORKS`), `options` (keyword arguments of
`models.make_network`), `output` (of `models.OUTPUTS`), `weights` (the state dict, float32) and three sentences for the
card: `run`, `data`, `licence`.
One that `isp-train` wrote has `training` besides: all that it takes to go on.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..engines.core import read_core
from ..engines.errors import UserError
from .files import write_whole
from .models import INPUTS, OUTPUTS, VARIANTS, Output, level_of, make_network

_IN_CORE = "network."
"""What the names of weights begin with in a core."""

_OF_NOISE = "noise."
"""What those of the constants of the noise level begin with."""

_WITH_SUP = [name for name, variant in VARIANTS.items() if not variant.half_resolution]

_NOT_WHOLE = ("paramisp", "hdrisp")
"""Networks of whose weights a core does not hold all under their names."""

_TEXTS = ("model", "output", "run", "data", "licence")


@dataclass(eq=False)
class Checkpoint:
    """A network with its origin.

    Attributes:
        network: With its weights, float32.
        model: Its name in `models.NETWORKS`.
        options: What else it was made with.
        run: Which training run made it.
        data: What it was trained on.
        licence: Of the weights.
        training: Where training stood, as `fit` notes it: numbers, texts and tensors in dicts and lists; None where
            nothing is to be continued.
        output: What it gives as a module of `models.make_module`, of `models.OUTPUTS`.
        title: What the core is called that it was read from; "" for the network's name. Not kept in checkpoints.
    """

    network: nn.Module
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    data: str = ""
    licence: str = ""
    training: dict[str, Any] | None = None
    output: Output = "srgb"
    title: str = ""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, atomically.

    Raises:
        UserError: The file cannot be written.
    """
    values: dict[str, Any] = {name: getattr(checkpoint, name) for name in (*_TEXTS, "options")}
    state = checkpoint.network.state_dict()
    values["weights"] = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if checkpoint.training is not None:
        values["training"] = checkpoint.training
    written = io.BytesIO()  # what torch raises on a full disk does not say so
    torch.save(values, written)
    write_whole(path, written.getvalue(), "the checkpoint")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint, or a model core (.onnx), to train on from what ships; the network is in evaluation
    mode.

    Raises:
        UserError: The file is missing, cut off or none of ours, the model is unknown, or its weights do not fit it.
    """
    if path.suffix.lower() == ".onnx":
        return _from_core(path)
    values = _read(path)
    texts = {name: values[name] for name in _TEXTS}
    options, weights = values["options"], values["weights"]
    if texts["output"] not in OUTPUTS:
        raise UserError(f"the checkpoint {path} is of a model that gives {texts['output']!r}, unknown to this version")
    network = _network(path, values["model"], options, weights)
    training = values.get("training")
    return Checkpoint(network, options=options, training=training if isinstance(training, dict) else None, **texts)


def _network(path: Path, model: str, options: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    try:
        network = make_network(model, **options)
    except (ValueError, TypeError) as error:
        raise UserError(f"the checkpoint {path} is of a model that this version cannot make: {error}") from error
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"the weights in the checkpoint {path} do not fit {model}; it is damaged, or of another version"
        ) from error
    return network.eval()


def _from_core(path: Path) -> Checkpoint:
    core = read_core(path)
    info, graph = core.info, core.model.graph
    if info.precision != "fp32":
        raise UserError(f"{path} is a core in {info.precision}, which cannot be trained on from; give one in fp32")
    weights, constants = (
        {
            tensor.name.removeprefix(prefix): torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            for tensor in graph.initializer
            if tensor.name.startswith(prefix)
        }
        for prefix in (_IN_CORE, _OF_NOISE)
    )
    # a core does not say so, but the second branch runs the upsampling blocks once more
    blocks = sum(name.split(".")[0].startswith("u") and name.endswith(".0.1.weight") for name in weights)
    shuffles = sum(node.op_type == "DepthToSpace" for node in graph.node)
    options: dict[str, Any] = {"sup": True} if info.model in _WITH_SUP and shuffles > blocks else {}
    if info.model in _NOT_WHOLE:
        raise UserError(f"{path} is a core of {info.model}, which is trained on from its checkpoint; give that")
    if info.inputs != INPUTS:
        options["noise"] = level_of(constants)
    network = _network(path, info.model, options, weights)
    told = info.run, info.data, info.licence
    return Checkpoint(network, info.model, options, *told, output=info.output, title=info.title)


def _read(path: Path) -> dict[str, Any]:
    """The dict in the file, with every key there and of the right kind."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    try:
        with file:
            values = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is no checkpoint of ispeed, and is not opened because it may hold code") from error
    except Exception as error:  # torch reports a damaged file by whatever its reader stumbles over
        raise UserError(f"the checkpoint {path} is cut off or damaged; copy it again") from error
    kinds = dict.fromkeys(_TEXTS, str) | {"options": dict, "weights": dict}
    if not isinstance(values, dict) or not all(isinstance(values.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path} is no checkpoint of ispeed; give a file that its training wrote")
    return values
