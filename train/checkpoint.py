"""Checkpoints: what a training run leaves behind, and what `isp-export` reads.

A file of `torch.save` with one dict: `model` (a name of `models.VARIANTS`), `options` (keyword arguments of
`models.make_lwisp`), `output` (of `models.OUTPUTS`), `weights` (the state dict, float32) and three sentences for the
card: `run`, `data`, `licence`.
One that `isp-train` wrote has `training` besides: all that it takes to go on.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engines.errors import UserError
from .files import write_whole
from .models import OUTPUTS, Output, make_lwisp

_TEXTS = ("model", "output", "run", "data", "licence")


@dataclass(eq=False)
class Checkpoint:
    """A network with its origin.

    Attributes:
        network: With its weights, float32.
        model: Its name in `models.VARIANTS`.
        options: What else it was made with.
        run: Which training run made it.
        data: What it was trained on.
        licence: Of the weights.
        training: Where training stood, as `fit` notes it: numbers, texts and tensors in dicts and lists; None where
            nothing is to be continued.
        output: What it gives as a module of `models.MODULES`, of `models.OUTPUTS`.
    """

    network: nn.Module
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    data: str = ""
    licence: str = ""
    training: dict[str, Any] | None = None
    output: Output = "srgb"


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
    """Read and check a checkpoint; the network is in evaluation mode.

    Raises:
        UserError: The file is missing, cut off or none of ours, the model is unknown, or its weights do not fit it.
    """
    values = _read(path)
    texts = {name: values[name] for name in _TEXTS}
    options, weights = values["options"], values["weights"]
    if texts["output"] not in OUTPUTS:
        raise UserError(f"the checkpoint {path} is of a model that gives {texts['output']!r}, unknown to this version")
    try:
        network = make_lwisp(values["model"], **options)
    except (ValueError, TypeError) as error:
        raise UserError(f"the checkpoint {path} is of a model that this version cannot make: {error}") from error
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"the weights in the checkpoint {path} do not fit {values['model']}; it is damaged, or of another version"
        ) from error
    training = values.get("training")
    return Checkpoint(
        network.eval(), options=options, training=training if isinstance(training, dict) else None, **texts
    )


def _read(path: Path) -> dict[str, Any]:
    """The dict in the file, with every key there and of the right kind."""
    try:
        with path.open("rb") as file:
            values = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is no checkpoint of ispeed, and is not opened because it may hold code") from error
    except Exception as error:  # torch reports a damaged file by whatever its reader stumbles over
        raise UserError(f"the checkpoint {path} is cut off or damaged; copy it again") from error
    kinds = dict.fromkeys(_TEXTS, str) | {"options": dict, "weights": dict}
    if not isinstance(values, dict) or not all(isinstance(values.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path} is no checkpoint of ispeed; give a file that its training wrote")
    return values
