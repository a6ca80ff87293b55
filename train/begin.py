"""The module that a recipe trains, with the weights that it begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engines.errors import UserError
from .checkpoint import load_checkpoint
from .config import ModelSettings, TrainConfig
from .models import BothISPs, Module, form_of, make_module, make_network


def begin_module(config: TrainConfig) -> Module:
    """On the processor, for training. Raises UserError: no such network, or other weights than its."""
    model = config.model
    torch.manual_seed(config.seed)
    try:
        module = make_module(make_network(model.name, **network_options(model)), model.output)
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    except TypeError as error:
        raise UserError(f"model.options: {model.name} does not take all of {', '.join(model.options)}") from error
    if model.weights:
        module.network.load_state_dict(_begun(model, model.weights, "weights", {}).state_dict())
    if isinstance(both := module.network, BothISPs):
        for part, network in (("forward", both.forth), ("inverse", both.back)):
            if part in model.parts:
                begun = _begun(model, model.parts[part], f"parts.{part}", {"form": form_of(network)})
                network.load_state_dict(begun.state_dict())
    return module.train()


def _begun(model: ModelSettings, path: Path, setting: str, own: dict[str, Any]) -> nn.Module:
    """The network in a checkpoint, which is like the one in the settings but for some options."""
    begun, wanted = load_checkpoint(path), _shape(_without_raw(network_options(model) | own))
    if (begun.model, _shape(begun.options)) != (model.name, wanted):
        raise UserError(
            f"model.{setting} is a checkpoint of {begun.model} {begun.options}, not of {model.name} {wanted}"
        )
    if begun.output != model.output:
        raise UserError(f"model.{setting} is of a network that gives {begun.output}; set model.output to that")
    return begun.network


def network_options(model: ModelSettings) -> dict[str, Any]:
    """What `make_network` takes besides the name, without defaults."""
    noise = model.noise and model.noise.model_dump(mode="json", exclude_none=True)
    given = {"sup": model.sup, "form": model.form, "residual": model.residual, "noise": noise}
    return _without_raw({name: value for name, value in given.items() if value}) | model.options


def _without_raw(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if (name, value) != ("form", "raw")}


def _shape(options: dict[str, Any]) -> dict[str, Any]:
    """Options that weights must have in common: another camera has other gains, for which they may be trained on, what
    is dropped in training is no weight, and networks of several levels have those of all."""
    shape = {name: value for name, value in options.items() if name not in ("dropped", "all_dropped", "level")}
    return shape | ({"noise": True} if "noise" in options else {})
