"""The checkpoints of a run, and the best of them by what its validations measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from .begin import network_options
from .checkpoint import Checkpoint
from .config import TrainConfig
from .models import Module
from .runs import code_version

MEASURES = {"psnr": "psnr_db", "likeness": "likeness"}
"""What can be chosen by, and which of the values of `judging.Judge` it is; larger is better."""


def checkpoint_of(
    config: TrainConfig,
    about: str,
    network: nn.Module,
    step: int,
    told: str = "",
    training: dict[str, Any] | None = None,
) -> Checkpoint:
    """A checkpoint of a run.

    Args:
        config: The recipe.
        about: The data, for the model card.
        network: With its weights.
        step: Whose weights they are.
        told: What else is to be said of them.
        training: What it takes to go on.
    """
    whence = f"{config.run.name}: {step} of {config.schedule.steps} steps, seed {config.seed}"
    return Checkpoint(
        network=network,
        model=config.model.name,
        options=network_options(config.model),
        output=config.model.output,
        run=f"{', '.join(filter(None, (whence, told)))}; ispeed {code_version()}",
        data=about,
        licence=config.data.licence,
        training=training,
    )


class Best:
    """The best weights so far; of equal ones the earlier.

    They are kept here, and with `state` in last.pt, too: best.pt may have been written behind last.pt when a run is
    killed, and a run that goes on, perhaps on another device, must not be left with weights that it never had.

    Args:
        choose: Of `MEASURES`.
        module: Whose weights are measured; it is copied.
        write: Called with a network, its step and a sentence on its score, to write best.pt.
    """

    def __init__(self, choose: str, module: Module, write: Callable[[nn.Module, int, str], None]) -> None:
        self._choose, self._write = choose, write
        self._module = copy.deepcopy(module).cpu()
        self._step, self._score = -1, -math.inf

    def __str__(self) -> str:
        return f"step {self._step}, {self._told()}"

    @property
    def chosen(self) -> bool:
        """Whether there is one: scores that are no numbers are never the best."""
        return self._step >= 0

    def consider(self, step: int, values: dict[str, float], weights: Mapping[str, Tensor]) -> None:
        """Take what was measured of weights; steps only ever rise. Raises UserError: best.pt cannot be written."""
        score = values[MEASURES[self._choose]]
        if score > self._score:
            self._step, self._score = step, score
            self._module.load_state_dict(weights)
            self._save()

    def state(self) -> dict[str, Any] | None:
        """What `restore` takes; None where nothing is chosen yet."""
        if not self.chosen:
            return None
        return {"step": self._step, "score": self._score, "weights": self._module.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where another stood, and write its best.pt. Raises UserError: it cannot be written."""
        self._step, self._score = state["step"], state["score"]
        self._module.load_state_dict(state["weights"])
        self._save()

    def _save(self) -> None:
        self._write(self._module.network, self._step, f"chosen by {self._told()}")

    def _told(self) -> str:
        return f"{self._score:.2f} dB" if self._choose == "psnr" else f"likeness {self._score:.4f}"
